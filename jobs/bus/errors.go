package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// ErrConfig is wrapped by every error that the owner of the server or of the environment has to repair.
var ErrConfig = errors.New("NATS has to be set up differently")

// The errors on which a caller may decide. They come wrapped: compare with errors.Is.
var (
	// ErrUnreachable: no NATS server answers, the connection is broken now, or it is closed for good.
	ErrUnreachable = errors.New("NATS cannot be reached")
	// ErrCredentials: the server refuses the user, the password, the token or the key. It is an ErrConfig.
	ErrCredentials = &remedy{"NATS refuses these credentials"}
	// ErrNoJetStream: the server runs without JetStream, or this account has none. It is an ErrConfig.
	ErrNoJetStream = &remedy{`JetStream is switched off: start nats-server with -js, or add "jetstream {}" to its configuration; ` +
		"if JetStream runs elsewhere, such as on the hub of this leaf node, name its domain"}
	// ErrServerTooOld: the server cannot schedule messages. It is an ErrConfig.
	ErrServerTooOld = &remedy{"nats-server 2.12 or newer is needed"}
	// ErrPermission: this NATS user may not do that. It is an ErrConfig.
	ErrPermission = &remedy{"this NATS user is not allowed to"}
	// ErrNotSetUp: the streams are not there.
	ErrNotSetUp = errors.New("the streams are missing: start a worker, or run gofer setup")
	// ErrNoLeader: too few servers of a cluster run for a stream, or for JetStream as a whole, to have a leader.
	ErrNoLeader = errors.New("the stream has no leader, because it needs more than half of its replicas: start the servers of the NATS cluster that are down (nats server list names those that run)")

	// ErrNoSubject: no message can be published under the name.
	ErrNoSubject = errors.New("no message can be published under this name")

	// ErrQueueFull: the job stream is full and takes no jobs now.
	ErrQueueFull = errors.New("the queue is full")
	// ErrNotFound: nothing of that name is there.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge: the message is larger than the server takes.
	ErrTooLarge = errors.New("too large for the server: its max_payload has to be 1 MiB or more")
	// ErrResultsFull: there is no room for another result.
	ErrResultsFull = errors.New("there is no room for results")
	// ErrTooManyResults: the room for results ends at a number of messages, which gofer never sets. It is an ErrResultsFull.
	ErrTooManyResults = fmt.Errorf("%w: their number has reached the limit max_msgs of the stream", ErrResultsFull)
	// ErrNoStorage: the room for results ends at what the account, the server or its disk may hold. It is an ErrResultsFull.
	ErrNoStorage = fmt.Errorf("%w: the storage of the account or of the server is used up", ErrResultsFull)
	// ErrDeadLettersFull: there is no room for another dead letter.
	ErrDeadLettersFull = errors.New("there is no room for dead letters, so failed jobs stay in their queues")
	// ErrBucketFull: there is no room in a bucket, for example for another proxy.
	ErrBucketFull = errors.New("there is no room in the bucket")
)

// remedy is an error that the owner of the server has to repair. Each value is an ErrConfig, and can be compared by itself.
type remedy struct{ text string }

func (e *remedy) Error() string { return e.text }

// Unwrap makes a remedy an ErrConfig.
func (*remedy) Unwrap() error { return ErrConfig }

// FieldError is an error in a field of Dial, or in two fields whose names a comma separates. Err holds no secret.
type FieldError struct {
	Field string
	Err   error
}

// Error is the field and the reason.
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap is the reason.
func (e *FieldError) Unwrap() error { return e.Err }

// wrongField returns a *FieldError that is also an ErrConfig.
func wrongField(field string, err error) error {
	return fmt.Errorf("%w: %w", ErrConfig, &FieldError{field, err})
}

// noDomain is the error of a JetStream that does not answer under its domain's name: the domain does not exist, or its
// server is away. It is an ErrUnreachable.
type noDomain struct{ domain string }

func (e *noDomain) Error() string {
	return fmt.Sprintf("no JetStream answers in the domain %q: is that its name, and is its server connected?", e.domain)
}

func (*noDomain) Unwrap() error { return ErrUnreachable }

// notConnected replaces nats.go's error for a message that cannot be sent now, which reports a full buffer: connections of
// Connect have no buffer. It is an ErrUnreachable.
type notConnected struct{ cause error }

func (*notConnected) Error() string { return "NATS is not connected" }

func (e *notConnected) Unwrap() []error { return []error{ErrUnreachable, e.cause} }

// notAnswered is the error of a request whose time ran out. It keeps the rest of the cause's text, which says what was asked.
type notAnswered struct{ cause error }

func (e *notAnswered) Error() string {
	text := e.cause.Error()
	for _, cause := range []error{context.DeadlineExceeded, nats.ErrTimeout} {
		text = strings.Replace(text, cause.Error(), "the NATS server did not answer in time", 1)
	}
	return text
}

func (e *notAnswered) Unwrap() error { return e.cause }

// Is makes the error an ErrNotAnswered.
func (e *notAnswered) Is(target error) bool { return target == ErrNotAnswered }

// ErrNotAnswered is the error that Plain returns for a request that was not answered in time.
var ErrNotAnswered = errors.New("the NATS server did not answer in time")

// Plain returns err with a clearer text if the text of nats.go is misleading. The result wraps err, so errors.Is still works.
func Plain(err error) error {
	for _, cause := range []error{nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrConnectionReconnecting} {
		if errors.Is(err, cause) {
			return &notConnected{err}
		}
	}
	if isTimeout(err) {
		return &notAnswered{err}
	}
	return err
}

// Error codes of the server for which nats.go has no name.
const (
	codeStoreFailed         jetstream.ErrorCode = 10077 // a limit of the stream; the text says which
	codeNotAvailable        jetstream.ErrorCode = 10008 // JetStream as a whole, or the stream, has no leader
	codeNotLeader           jetstream.ErrorCode = 10009
	codeStreamOffline       jetstream.ErrorCode = 10118
	codeInProcess           jetstream.ErrorCode = 10158 // the first attempt of this publish is not decided yet
	codeResources           jetstream.ErrorCode = 10023
	codeAccountResources    jetstream.ErrorCode = 10002
	codeStorage             jetstream.ErrorCode = 10047
	codeConsumerNameInUse   jetstream.ErrorCode = 10013
	textPerSubject                              = "per subject"
	textNoMoreRoom                              = "exceeded"
	textTooMany                                 = "maximum messages exceeded"
	textInsufficientStorage                     = "insufficient"
	textTooLarge                                = "too large"
)

// apiError returns the code and the text of an error from the server, and zero for any other error.
func apiError(err error) (code jetstream.ErrorCode, text string) {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode, api.Description
	}
	return 0, ""
}

// IsTaken reports a refusal because the subject already has its message: by the guard, or by the stream's own limit.
func IsTaken(err error) bool {
	code, text := apiError(err)
	// Two causes mean the same here: the guard, and the stream's limit of one message for each subject.
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == codeStoreFailed && strings.Contains(text, textPerSubject)
}

// RefusedFor returns the sequence that a refusal by a guard names: that of the subject's message, or the last one of the stream.
// A refusal by the stream's own limit has no sequence.
func RefusedFor(err error) (seq uint64, ok bool) {
	code, text := apiError(err)
	number, found := strings.CutPrefix(text, "wrong last sequence: ")
	if code != jetstream.JSErrCodeStreamWrongLastSequence || !found {
		return 0, false
	}
	seq, err = strconv.ParseUint(number, 10, 64)
	return seq, err == nil
}

// isRace reports that the guard was refused because another write to the same subject is in flight. It proves nothing:
// that write may fail.
func isRace(err error) bool {
	code, _ := apiError(err)
	return code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// IsFull reports that a stream, an account or a disk has no room.
func IsFull(err error) bool {
	code, text := apiError(err)
	switch code {
	case codeStoreFailed:
		// The same code stands for a full stream and for a subject that has its message. The text distinguishes them.
		return !strings.Contains(text, textPerSubject) && strings.Contains(text, textNoMoreRoom)
	case codeStorage, codeAccountResources:
		return true
	case codeResources:
		return strings.Contains(text, textInsufficientStorage)
	}
	return false
}

// IsTransient reports an error after which the same publish may succeed: no answer, an election of a leader, or a
// connection that is being restored.
func IsTransient(err error) bool {
	if classOf(err) == Temporary {
		return true
	}
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse, ErrNoLeader,
		nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrStaleConnection, nats.ErrConnectionReconnecting,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isNoResponders reports that no server, or no stream, receives the subject.
func isNoResponders(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

// IsUndecided reports the answer to a publish whose first attempt the stream has not decided yet.
func IsUndecided(err error) bool {
	code, _ := apiError(err)
	return code == codeInProcess
}

// isTimeout reports whether no answer came in time.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

// isLeaderless reports that a stream, or JetStream as a whole, has no leader.
func isLeaderless(err error) bool {
	switch code, _ := apiError(err); code {
	case codeNotAvailable, codeNotLeader, codeStreamOffline:
		return true
	}
	return false
}

// ExplainPublish is Explain for a message that was meant for a stream. If no answer came, it asks the server about the
// stream, which takes requestTimeout at most.
func (c *Client) ExplainPublish(ctx context.Context, action, stream string, err error) error {
	if (isNoResponders(err) || isTimeout(err)) && ctx.Err() == nil {
		err = c.WhyNoAnswer(ctx, stream, err)
	}
	return c.Explain(action, err)
}

// WhyNoAnswer returns why a stream took no message, if that can be found out: the stream is missing, or has no leader.
// Otherwise it returns err.
//
// Publishes that fail together share one question. A server that is too slow for thousands of messages would get as many
// questions on top.
func (c *Client) WhyNoAnswer(ctx context.Context, name string, err error) error {
	answer := c.whyNoAnswer.DoChan(name, func() (any, error) {
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout/2)
		defer cancel()
		info, err := c.StreamInfo(asking, name)
		if err == nil && info.Cluster != nil && info.Cluster.Leader == "" {
			err = ErrNoLeader
		}
		return nil, err
	})
	var infoErr error
	select {
	case <-ctx.Done():
		return err
	case a := <-answer:
		infoErr = a.Err
	}
	switch {
	case infoErr == nil:
		return err // the stream takes messages by now
	case isNoResponders(infoErr): // JetStream is off, or the account has none
		infoErr = fmt.Errorf("%w (%s)", ErrNotSetUp, infoErr.Error())
	case isTimeout(infoErr) && ctx.Err() == nil && c.nc.IsConnected(): // a single server would answer
		infoErr = ErrNoLeader
	case isLeaderless(infoErr):
		infoErr = fmt.Errorf("%w (%w)", ErrNoLeader, infoErr)
	case errors.Is(infoErr, ErrNoLeader), errors.Is(infoErr, jetstream.ErrStreamNotFound), errors.Is(infoErr, jetstream.ErrJetStreamNotEnabled),
		errors.Is(infoErr, jetstream.ErrJetStreamNotEnabledForAccount):
	default:
		return err
	}
	return infoErr
}

// Explain adds the action that failed to an error and, if the cause is known, its meaning. The server's text stays in the error.
// It returns nil for nil.
func (c *Client) Explain(action string, err error) error {
	var meaning error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoLeader), errors.Is(err, ErrNotSetUp), errors.Is(err, ErrConfig): // it is explained already
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		// With a domain, the likeliest reason is that the domain's server is away.
		if c.domain != "" {
			return fmt.Errorf("%s: %w", action, &noDomain{c.domain})
		}
		meaning = ErrNoJetStream
	case isLeaderless(err):
		meaning = ErrNoLeader
	case isNoResponders(err):
		return fmt.Errorf("%s: no stream answers (%w)", action, ErrNotSetUp)
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
		meaning = ErrNotSetUp
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrConnectionClosed):
		// closedBy adds why the server ended it.
		return fmt.Errorf("%s: %w: the connection is closed for good: %w", action, ErrUnreachable, closedBy(c.nc))
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%s: %w", action, ErrTooLarge)
	case errors.Is(err, nats.ErrPermissionViolation):
		return permissionError(action, err)
	}
	if meaning == nil {
		return fmt.Errorf("%s: %w", action, Plain(err))
	}
	return fmt.Errorf("%s: %w (%w)", action, meaning, err)
}

// BadKey returns the error of an invalid key. It wraps ErrNotFound.
func BadKey(k Key) error {
	return fmt.Errorf("job %q: %w: a queue is [a-z0-9_-]{1,32}, an id [A-Za-z0-9_-]{1,128}", Clip(k.String()), ErrNotFound)
}

// Valid reports whether a job may have the key.
func (k Key) Valid() bool { return jobs.ValidQueue(k.Queue) && jobs.ValidID(k.ID) }

// Clip cuts a text, which may hold anything, to 200 bytes for an error. It replaces bytes that are no UTF-8, such as those of a
// character that the cut splits.
func Clip(text string) string { return strings.ToValidUTF8(text[:min(len(text), 200)], "?") }
