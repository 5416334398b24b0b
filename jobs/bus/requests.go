package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The requests that clients and workers make alike. Each is bounded in time, ends at once when the server refuses it to this
// user, and goes to JetStream's domain.

// Conn is the connection.
func (c *Client) Conn() *nats.Conn { return c.nc }

// Publish stores a message, within 3 s.
func (c *Client) Publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	return c.publish(ctx, msg)
}

// PublishOnce stores a message if its subject has none; IsTaken tells the error of one that has.
func (c *Client) PublishOnce(ctx context.Context, msg *nats.Msg) error { return c.guarded(ctx, msg) }

// LastMessage reads the newest message of a subject, or ErrNotFound. Any replica answers, which may be a moment behind its leader.
func (c *Client) LastMessage(ctx context.Context, stream, subject string) (*nats.Msg, error) {
	return c.last(ctx, stream, subject)
}

// LastMessages calls use for the newest message of each subject that has one, of at most MaxSubjects. The server may cut the
// answer short: what is missing then is asked for again by the caller.
func (c *Client) LastMessages(ctx context.Context, stream string, subjects []string, use func(*nats.Msg) error) error {
	return c.lastOf(ctx, stream, subjects, use)
}

// NextMessage reads the first message of a filter at or after a sequence, or ErrNotFound.
func (c *Client) NextMessage(ctx context.Context, stream, filter string, seq uint64) (*nats.Msg, error) {
	return c.next(ctx, stream, filter, seq)
}

// MessageAt reads the message of a sequence, or ErrNotFound.
func (c *Client) MessageAt(ctx context.Context, stream string, seq uint64) (*nats.Msg, error) {
	return c.direct(ctx, stream, map[string]any{"seq": seq})
}

// DeleteMessage removes one message, and reports whether it was there.
func (c *Client) DeleteMessage(ctx context.Context, stream string, seq uint64) (deleted bool, err error) {
	return c.deleteMessage(ctx, stream, seq)
}

// CountBySubject counts the messages of every subject that matches filter.
func (c *Client) CountBySubject(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	return c.subjects(ctx, stream, filter)
}

// PurgeStream removes all messages of a stream.
func (c *Client) PurgeStream(ctx context.Context, name string) error {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error { return stream.Purge(ctx) }, api+"STREAM.PURGE."+name)
}

// StreamInfo asks how a stream stands.
func (c *Client) StreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// Consumers calls use for each consumer of a stream.
func (c *Client) Consumers(ctx context.Context, name string, use func(*jetstream.ConsumerInfo)) error {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error {
		lister := stream.ListConsumers(ctx)
		for info := range lister.Info() {
			use(info)
		}
		return lister.Err()
	}, api+"CONSUMER.LIST."+name)
}

// ConsumerInfo asks how a consumer stands. Errors: jetstream.ErrConsumerNotFound, jetstream.ErrStreamNotFound.
func (c *Client) ConsumerInfo(ctx context.Context, stream, name string) (*jetstream.ConsumerInfo, error) {
	return c.consumerInfo(ctx, stream, name)
}

// PauseConsumer keeps a consumer from giving out messages until a time; zero ends that.
func (c *Client) PauseConsumer(ctx context.Context, stream, name string, until time.Time) error {
	_, err := c.js.PauseConsumer(ctx, stream, name, until)
	return err
}

// Request sends a message and waits for its answer.
func (c *Client) Request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	return c.request(ctx, msg)
}

// Explain says what was being done and, where the cause can be told, what is the matter. The server's own words stay in the
// error. It returns nil for nil.
func (c *Client) Explain(doing string, err error) error { return c.explain(doing, err) }

// ExplainPublish is Explain for a message that was meant for a stream. If it got no answer, the server is asked for the stream.
func (c *Client) ExplainPublish(ctx context.Context, doing, stream string, err error) error {
	return c.explainPublish(ctx, doing, stream, err)
}

// WhyNoAnswer says why a stream took no message, if the server can be asked; a stream that is missing is told from one without
// a leader. Otherwise it returns err itself.
func (c *Client) WhyNoAnswer(ctx context.Context, stream string, err error) error {
	return c.whyNobody(ctx, stream, err)
}

// Bounded is a context for one request: its answer is lost for good if the server dies, however long its caller would wait.
func Bounded(ctx context.Context) (context.Context, context.CancelFunc) { return bounded(ctx) }

// MaxSubjects is how many subjects LastMessages takes.
const MaxSubjects = maxSubjects

// IsTaken tells a refusal because the subject already has its message.
func IsTaken(err error) bool { return isTaken(err) }

// IsFull tells that a stream, an account or a disk has no room.
func IsFull(err error) bool { return isFull(err) }

// IsTransient tells an error after which the same publish may well succeed: no answer, a leader on its way, a connection that
// is being made again.
func IsTransient(err error) bool { return isTransient(err) }

// IsUndecided tells the answer to a publish whose first try the stream has not decided yet.
func IsUndecided(err error) bool { return isUndecided(err) }

// ErrorCode is the server's code in err; zero if there is none.
func ErrorCode(err error) jetstream.ErrorCode {
	code, _ := apiError(err)
	return code
}

// BadKey is the error of a key that no job can have.
func BadKey(k Key) error { return badKey(k) }

// Valid reports whether a job may have the key.
func (k Key) Valid() bool { return k.valid() }

// Publishable reports whether a message can be published to subject: an id of an invalid job may hold anything.
func Publishable(subject string) bool { return publishable(subject) }
