package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// Filter selects the results or events to follow. The zero value selects all that are stored from now on.
type Filter struct {
	// Queue selects one queue; empty means all. Breaker events have no queue.
	Queue string
	// ID selects the events of one job; it needs Queue.
	ID string
	// All begins with the oldest message that is kept, Since with the first one stored at or after a time.
	All   bool
	Since time.Time
	// UntilNow ends with the newest message that is stored already, instead of waiting for more.
	UntilNow bool
	// HeadersOnly leaves out the payloads: a result has no body, detail and attempts.
	HeadersOnly bool
	// Durable reads with an existing consumer, such as Reader, instead of an own one: a message that this call has used
	// is delivered to no other reader, and not again. The consumer has its own beginning and filter, so Queue, All,
	// Since and HeadersOnly must not be set. Users who may not create consumers need it.
	Durable string
}

// FollowStream calls use for each message of a stream under one of the subjects, in the order of storing. It returns
// the first error of use, or the cause of ctx. It continues after a restart of the server, and calls use once for each
// message unless it reads with a durable.
func (c *Client) FollowStream(ctx context.Context, stream string, subjects []string, f Filter, use func(jetstream.Msg) error) error {
	action := "follow stream " + stream
	if f.Queue != "" && !jobs.ValidQueue(f.Queue) {
		return fmt.Errorf("%s: %q is not a queue", action, Clip(f.Queue))
	}
	if key := (Key{f.Queue, f.ID}); f.ID != "" && !key.Valid() {
		return BadKey(key)
	}
	// An error of the consumer is explained before anything is read.
	consumer, err := c.follower(ctx, stream, subjects, f)
	if err != nil {
		return c.Explain(action, err)
	}
	ahead := 100
	if f.Durable != "" {
		ahead = 1 // what is fetched ahead and not used would be kept from the other readers for the ack wait
	}
	r, err := c.read(ctx, consumer, ahead)
	if err != nil {
		return c.Explain(action, err)
	}
	defer r.close()
	next := r.next
	// The reader below is the same; newUntilNow only counts.
	if f.UntilNow {
		next = c.newUntilNow(r, consumer).next
	}
	return c.useEach(ctx, action, next, func(msg jetstream.Msg) error { return c.useMessage(ctx, msg, f, use) })
}

// useEach calls use for each message that next returns. It ends without an error when either of them returns errNoMore.
func (c *Client) useEach(ctx context.Context, action string, next func(context.Context) (jetstream.Msg, error), use func(jetstream.Msg) error) error {
	for {
		msg, err := next(ctx)
		switch {
		// ctx is asked before the error, since next returns its cause.
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errNoMore):
			return nil
		case err != nil:
			return c.Explain(action, err)
		}
		if err := use(msg); errors.Is(err, errNoMore) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// ReadHeaders calls use for the messages of a stream under subject that follow the sequence after, up to and including
// upTo, without their payloads, in the order of storing. Its time depends only on the number of these messages.
//
// Errors: ErrNotSetUp, ErrPermission, ctx's cause; any other one may pass.
func (c *Client) ReadHeaders(ctx context.Context, stream, subject string, after, upTo uint64, use func(jetstream.Msg)) error {
	action := "read stream " + stream
	asking, cancel := Bounded(ctx)
	defer cancel()
	consumer, err := c.js.OrderedConsumer(asking, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject}, HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		InactiveThreshold: headersThreshold,
	})
	if err != nil {
		return c.Explain(action, err)
	}
	r, err := c.read(ctx, consumer, headersAhead)
	if err != nil {
		return c.Explain(action, err)
	}
	defer r.close()
	return c.useEach(ctx, action, c.newUntilNow(r, consumer).next, func(msg jetstream.Msg) error {
		meta, err := msg.Metadata()
		if err != nil {
			return c.Explain(action, err)
		}
		if meta.Sequence.Stream > upTo {
			return errNoMore
		}
		use(msg)
		return nil
	})
}

const (
	// headersThreshold is after how long without a reader the server removes the consumer of ReadHeaders.
	headersThreshold = 5 * time.Second
	// headersAhead is how many messages ReadHeaders asks for in advance. They have no payloads.
	headersAhead = 500
)

// useMessage uses one message. A message of a durable is acked afterwards, or handed back if it could not be used, so that
// another reader gets it.
func (c *Client) useMessage(ctx context.Context, msg jetstream.Msg, f Filter, use func(jetstream.Msg) error) error {
	err := use(msg)
	switch {
	case f.Durable == "":
	case err != nil:
		// If this fails, or were not done because ctx has ended, no other reader gets the message before its ack
		// wait is over.
		_ = c.HandBack(context.WithoutCancel(ctx), msg)
	default:
		// The server confirms a double ack, so the message is not delivered again if this reader ends now.
		if err := msg.DoubleAck(ctx); err != nil {
			return fmt.Errorf("ack %s: %w", msg.Subject(), err)
		}
	}
	return err
}

// follower returns the consumer that a filter asks for: a durable that exists, or an ordered consumer of this call, which
// the server removes a minute after the call has ended.
func (c *Client) follower(ctx context.Context, stream string, subjects []string, f Filter) (jetstream.Consumer, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	if f.Durable != "" {
		if f.Queue != "" || f.All || f.HeadersOnly || !f.Since.IsZero() {
			return nil, errors.New("a durable consumer begins and filters by its own settings")
		}
		consumer, err := c.js.Consumer(ctx, stream, f.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("durable consumer %s: %w", f.Durable, ErrNotFound)
		}
		return consumer, err
	}
	config := jetstream.OrderedConsumerConfig{
		FilterSubjects: subjects, HeadersOnly: f.HeadersOnly, DeliverPolicy: jetstream.DeliverNewPolicy,
		// A reader may pause for this time; then the server removes the consumer.
		InactiveThreshold: time.Minute,
	}
	switch {
	case f.All, f.UntilNow && f.Since.IsZero(): // UntilNow without a beginning reads all
		config.DeliverPolicy = jetstream.DeliverAllPolicy
	case !f.Since.IsZero():
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
	}
	return c.js.OrderedConsumer(ctx, stream, config)
}
