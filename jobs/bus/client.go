package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"

	"github.com/gofer-mq/gofer/jobs"
)

// Client sends the requests of clients and workers to one gofer installation. Make one with New. Any number of goroutines
// may use it. Only its connection needs closing.
type Client struct {
	nc       *nats.Conn
	js       watched
	names    jobs.Names
	domain   string // of JetStream; empty for that of the server
	refusals *refusals
	confirms *confirmations
	outbox   *outbox
	// whyNoAnswer lets publishes that fail together share one question about their stream.
	whyNoAnswer singleflight.Group
	// ownDomain is the domain that JetStream names as its own; nil before it was asked. Ensure may store it while another
	// goroutine calls Domain.
	ownDomain atomic.Pointer[string]

	copies copies // of the work queues

	mu     sync.Mutex            // guards bodies
	bodies jetstream.ObjectStore // bound at first use
}

// New makes a client on a connection, which should come from Connect. It sends nothing.
func New(nc *nats.Conn, names jobs.Names) (*Client, error) { return NewWithDomain(nc, names, "") }

// NewWithDomain is New for a JetStream that is known by a domain, such as that of the hub when the connection is to a leaf node.
// Without a domain it is New.
func NewWithDomain(nc *nats.Conn, names jobs.Names, domain string) (*Client, error) {
	js, err := jetstream.New(nc)
	if domain != "" {
		js, err = jetstream.NewWithDomain(nc, domain)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare JetStream: %w", err)
	}
	// One subscription for all answers is made at the first publish, not here.
	outbox := &outbox{nc: nc}
	confirms := &confirmations{nc: nc, outbox: outbox}
	refusals := watchRefusals(nc, confirms.refuse)
	return &Client{nc: nc, js: watched{js, refusals}, names: names, domain: domain, refusals: refusals, confirms: confirms, outbox: outbox}, nil
}

// Domain is the domain that JetStream names as its own; empty if it has none, or before Ensure or Plan has asked.
func (c *Client) Domain() string {
	if domain := c.ownDomain.Load(); domain != nil {
		return *domain
	}
	return ""
}

// inDomain returns the subject of a request to the JetStream API in the client's domain.
func (c *Client) inDomain(subject string) string {
	// nats.go does the same for its own requests; this is for the requests that nats.go lacks.
	if rest, ok := strings.CutPrefix(subject, api); ok && c.domain != "" {
		return "$JS." + c.domain + ".API." + rest
	}
	return subject
}

// JetStream returns nats.go's own interface, for requests for which Client has no method.
func (c *Client) JetStream() jetstream.JetStream { return c.js.JetStream }

// ConnectionName returns the name that the connection has at the server; empty if it has none.
func (c *Client) ConnectionName() string { return c.nc.Opts.Name }

// Names returns the names of the installation.
func (c *Client) Names() jobs.Names { return c.names }

// Key names a job by its queue and its id.
type Key struct {
	Queue string `json:"queue"`
	ID    string `json:"id"`
}

// String is queue/id.
func (k Key) String() string { return k.Queue + "/" + k.ID }

// publishTimeout bounds one publish. It is shorter than requestTimeout, so that there is time left to ask why the publish
// failed.
const publishTimeout = 3 * time.Second

// Publish stores a message, within publishTimeout. The error is one of nats.go; ExplainPublish explains it.
func (c *Client) Publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	// Even after an error the message may be stored, because the answer may come later.
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return c.js.PublishMsg(ctx, msg)
}

// PublishOnce stores a message if its subject has none, within 3 s. IsTaken recognises the error of a subject that has
// one. The message must carry no Nats-Msg-Id: the server would confirm a duplicate as if it had stored it, and the caller
// would not know which of the two messages is kept.
func (c *Client) PublishOnce(ctx context.Context, msg *nats.Msg) error {
	// The leader of the stream checks the guard when it stores the message, so only one of any number of publishers wins.
	// The header is set once, because the outbox may still read it for an earlier attempt.
	if msg.Header.Get(jetstream.ExpectedLastSubjSeqHeader) != "0" {
		msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	}
	return Plain(c.confirms.publish(ctx, msg, publishTimeout))
}

// LastMessage reads the newest message of a subject, or ErrNotFound. It uses a direct get (NATS ADR-31), which needs no
// consumer. Any replica answers, and it may be a moment behind its leader.
func (c *Client) LastMessage(ctx context.Context, stream, subject string) (*nats.Msg, error) {
	return c.direct(ctx, stream+"."+subject, nil)
}

// NextMessage reads the first message of a filter at or after seq, or ErrNotFound. It skips messages whose publisher
// wrote headers that hide the server's own.
func (c *Client) NextMessage(ctx context.Context, stream, filter string, seq uint64) (*nats.Msg, error) {
	msg, err := c.direct(ctx, stream, map[string]any{"seq": max(1, seq), "next_by_subj": filter})
	// The walk reads pages, so that a publisher who wrote many such messages costs few requests.
	if errors.Is(err, errHeaders) {
		return c.nextReadable(ctx, Page{Stream: stream, Subject: filter, After: max(1, seq) - 1, Limit: searchPage})
	}
	return msg, err
}

// direct sends a direct get and returns its message, or ErrNotFound. A nil request means that the subject is the whole
// request.
func (c *Client) direct(ctx context.Context, target string, request map[string]any) (*nats.Msg, error) {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return nil, err
		}
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: directGet + target, Data: body})
	// A stored message may have the status by which nats.go recognises that nobody answers.
	if errors.Is(err, nats.ErrNoResponders) {
		msg, err = c.requestRaw(ctx, directGet+target, body)
	}
	if err != nil {
		return nil, err
	}
	// The first token is the stream; a subject may follow it.
	stream, _, _ := strings.Cut(target, ".")
	found, err := c.isMessage(stream, msg)
	if err == nil && !found {
		err = ErrNotFound
	}
	return msg, err
}

// directGet is the beginning of the subject of a request that any replica of a stream answers, if its settings allow that
// (allow_direct).
const directGet = api + "DIRECT.GET."

const (
	// MaxSubjects bounds the subjects of one request of LastMessages.
	MaxSubjects = 512
	answerBytes = 8 << 20 // bytes after which the server ends an answer
)

// LastMessages reads the newest message of each subject that has one, at most MaxSubjects of them. The server may cut the
// answer short at answerBytes; the caller asks again for what is missing. An error of use ends it and is returned.
func (c *Client) LastMessages(ctx context.Context, stream string, subjects []string, use func(*nats.Msg) error) error {
	_, err := c.readBatch(ctx, stream, map[string]any{"multi_last": subjects, "max_bytes": answerBytes}, len(subjects), use)
	return err
}

// readBatch sends a request for several messages, at most limit, and calls use for each message of the answer, except those
// whose headers cannot be read.
func (c *Client) readBatch(ctx context.Context, stream string, request map[string]any, limit int, use func(*nats.Msg) error) (end batchEnd, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return end, err
	}
	// A batch arrives as several messages at one inbox, and a request of nats.go receives only the first one.
	answers, err := c.openInbox(c.nc.NewInbox(), limit)
	if err != nil {
		return end, err
	}
	defer answers.close()
	subject := directGet + stream
	err = c.refusals.watch(ctx, func(ctx context.Context) error {
		err := c.Send(subject, answers.sub.Subject, body)
		if err == nil {
			end, err = c.readAnswers(ctx, stream, answers, use)
		}
		return err
	}, subject)
	return end, err
}

// readAnswers calls use for each message of an answer, and returns its end.
func (c *Client) readAnswers(ctx context.Context, stream string, answers inbox, use func(*nats.Msg) error) (batchEnd, error) {
	for {
		msg, err := answers.next(ctx)
		if err != nil {
			return batchEnd{}, err
		}
		switch found, err := c.isMessage(stream, msg); {
		case errors.Is(err, errHeaders):
			continue // its sequence cannot be trusted
		case err != nil:
			return batchEnd{}, err
		case !found:
			return endOf(msg)
		}
		if err := use(msg); err != nil {
			return batchEnd{}, err
		}
	}
}

// request sends a message and waits for its answer. It returns at once if the server refuses the message to this user.
func (c *Client) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	subject := msg.Subject
	// A refusal names the subject as the server maps it, so the subject without the domain is watched: see isAbout.
	msg.Subject = c.inDomain(subject)
	return call(ctx, c.refusals, func(ctx context.Context) (*nats.Msg, error) { return c.nc.RequestMsgWithContext(ctx, msg) }, subject)
}

// requestRaw is request for answers that may be stored messages. From a message with status 503 and no payload, request
// would conclude that nobody answers.
func (c *Client) requestRaw(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	answers, err := c.openInbox(c.nc.NewInbox(), 1)
	if err != nil {
		return nil, err
	}
	defer answers.close()
	return call(ctx, c.refusals, func(ctx context.Context) (*nats.Msg, error) {
		if err := c.Send(subject, answers.sub.Subject, body); err != nil {
			return nil, err
		}
		return answers.next(ctx)
	}, subject)
}

// CountBySubject counts the messages of every subject that matches filter. Its cost grows with the number of subjects.
func (c *Client) CountBySubject(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	// Each call asks for the stream again, since a cached handle would hide that it was deleted.
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := call(ctx, c.refusals, func(ctx context.Context) (*jetstream.StreamInfo, error) {
		return s.Info(ctx, jetstream.WithSubjectFilter(filter))
	}, api+"STREAM.INFO."+stream)
	if err != nil {
		return nil, err
	}
	return info.State.Subjects, nil
}

// Bounded returns a context for one request, bounded by requestTimeout. If the server dies, the answer never comes,
// however long the caller would wait.
func Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, requestTimeout)
}

// longestSubject bounds a subject, in bytes. A server closes a connection that sends a control line of more than 4 KiB,
// which may also hold the subject of the answer and the prefix of the API.
const longestSubject = 1024

// Publishable reports whether a message can be published to subject. The id of an invalid job may contain any bytes.
func Publishable(subject string) bool {
	if len(subject) > longestSubject {
		return false
	}
	// A wildcard in any token would name other subjects.
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || token == "*" || token == ">" || strings.ContainsAny(token, " \t\r\n\f\x00") {
			return false
		}
	}
	return true
}

// isNotFound reports whether an error of this package or of nats.go says that a message does not exist.
func isNotFound(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, jetstream.ErrMsgNotFound)
}
