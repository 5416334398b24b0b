package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// requestTimeout bounds one request, or a few that belong together.
const requestTimeout = 5 * time.Second

// levelOfSchedules is the JetStream API level of nats-server 2.12, the first with scheduled messages and counters.
const levelOfSchedules = 2

// minPayload is the smallest max_payload that gofer needs, and the server's default. A body of jobs.MaxInlineBody with its
// headers fits, and a job of jobs.MaxJobBytes with the headers of a waiting job.
const minPayload = 1 << 20

// Ensure creates the streams, buckets and consumers that are missing. It never changes existing ones: two versions of a worker
// would change them again and again. Any number of workers may call it at once.
func (c *Client) Ensure(ctx context.Context, s Settings) error {
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	s = s.withDefaults()
	for _, want := range s.streams(c.names) {
		err := c.ensureStream(ctx, want)
		// A user with the rights of an older version may not create the streams of hours and sites. A worker works
		// without them, and Inspect reports that they are missing.
		addedLater := want.Name == c.names.Stream("ROLLUPS") || want.Name == "KV_"+c.names.Bucket("sites")
		if err != nil && (!addedLater || !errors.Is(err, ErrPermission)) {
			return err
		}
	}
	for _, want := range s.durables(c.names) {
		// A push consumer has the name: Inspect reports it.
		if _, err := c.ensureDurable(ctx, want); err != nil && !errors.Is(err, jetstream.ErrNotPullConsumer) {
			return err
		}
	}
	return nil
}

// EnsureQueue creates the consumers of one queue that are missing.
func (c *Client) EnsureQueue(ctx context.Context, queue string, s Settings) error {
	s = s.withDefaults()
	// The consumer of fresh jobs comes first: a queue that has only that one already works.
	for _, due := range []bool{false, true} {
		if _, err := c.ensureDurable(ctx, s.jobConsumer(c.names, queue, due)); err != nil {
			return err
		}
	}
	return nil
}

// EnsureJobConsumer returns the consumer of a queue's fresh jobs or, if due, of its due jobs. A missing consumer is
// created with the default ack wait; an existing one keeps its own.
func (c *Client) EnsureJobConsumer(ctx context.Context, queue string, due bool) (jetstream.Consumer, error) {
	return c.ensureDurable(ctx, Settings{}.withDefaults().jobConsumer(c.names, queue, due))
}

// JobStreamCreated returns when the stream of fresh jobs or, if due, of due jobs was created: see Streams.CreatedAt.
func (c *Client) JobStreamCreated(ctx context.Context, due bool) (time.Time, error) {
	info, err := c.infoOf(ctx, c.JobStream(due))
	if err != nil {
		return time.Time{}, err
	}
	return info.Created, nil
}

// JobStream returns the name of the stream of fresh jobs or, if due, of due jobs.
func (c *Client) JobStream(due bool) string { return Settings{}.jobConsumer(c.names, "", due).stream }

// checkServer refuses a server that gofer can never use: one without JetStream, without scheduled messages, or with a
// max_payload that is too small. It also stores JetStream's domain. Errors: ErrNoJetStream, ErrServerTooOld, ErrConfig,
// ErrUnreachable.
func (c *Client) checkServer(ctx context.Context) error {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := c.js.AccountInfo(ctx)
	if err != nil {
		return c.Explain("ask NATS for JetStream", err)
	}
	c.ownDomain.Store(&info.Domain)
	if info.API.Level < levelOfSchedules {
		return fmt.Errorf("%w, this one is %s", ErrServerTooOld, c.nc.ConnectedServerVersion())
	}
	if limit := c.nc.MaxPayload(); limit < minPayload {
		return fmt.Errorf("%w: jobs and results need max_payload: 1MB or more, this server allows %d bytes", ErrConfig, limit)
	}
	return nil
}

// ensureStream creates a stream if it is missing, and leaves one that is there as it is.
func (c *Client) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	action := "look for stream " + want.Name
	err := c.retryTransient(ctx, func(ctx context.Context) error {
		_, err := c.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			action = "create stream " + want.Name
			_, err = c.js.CreateStream(ctx, withFirstSequence(want))
		}
		// Another worker was faster; its settings stay.
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil
		}
		return err
	})
	return c.setupError(action, err, func() string {
		// Only an overlap of subjects has another stream as its cause.
		if code, _ := apiError(err); code != codeSubjectsOverlap {
			return ""
		}
		return c.otherStream(ctx, want)
	})
}

// withFirstSequence makes the sequences of a work queue begin at the time of its creation, in microseconds. The server
// assigns acks by the names of stream and consumer and by the sequence. So if a stream is deleted and created again
// while a worker runs one of its jobs, that worker's ack must not ack a job of the new stream. The ranges of two
// streams could overlap only if the older one took more than a message a microsecond.
func withFirstSequence(c jetstream.StreamConfig) jetstream.StreamConfig {
	if c.Retention == jetstream.WorkQueuePolicy {
		c.FirstSeq = uint64(time.Now().UnixMicro())
	}
	return c
}

// ensureDurable returns a consumer, and creates it if it is missing.
func (c *Client) ensureDurable(ctx context.Context, want durable) (consumer jetstream.Consumer, err error) {
	action := "look for " + want.String()
	err = c.retryTransient(ctx, func(ctx context.Context) (err error) {
		consumer, err = c.js.Consumer(ctx, want.stream, want.config.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			action = "create " + want.String()
			consumer, err = c.createDurable(ctx, want)
		}
		// Another worker was faster, or a consumer of that name has other settings: it is used as it is.
		if code, _ := apiError(err); errors.Is(err, jetstream.ErrConsumerExists) || code == codeConsumerNameInUse {
			consumer, err = c.js.Consumer(ctx, want.stream, want.config.Durable)
		}
		return err
	})
	if err == nil {
		return consumer, nil
	}
	return nil, c.setupError(action, err, func() string {
		if code, _ := apiError(err); code != codeWQNotUnique && code != codeWQUnfiltered {
			return ""
		}
		return c.otherConsumers(ctx, want)
	})
}

// createDurable creates a consumer. If the server or the account allows fewer unacked jobs than gofer asks for, the
// consumer gets their limit.
func (c *Client) createDurable(ctx context.Context, want durable) (jetstream.Consumer, error) {
	consumer, err := c.js.CreateConsumer(ctx, want.stream, want.config)
	// Zero lets the server take its own limit.
	if code, _ := apiError(err); code == codeAckPendingExceeded {
		want.config.MaxAckPending = 0
		consumer, err = c.js.CreateConsumer(ctx, want.stream, want.config)
	}
	return consumer, err
}

// retryTransient makes a call up to five times, until its error is not transient. A cluster gives no answer while it elects a
// leader for what was just created.
func (c *Client) retryTransient(ctx context.Context, try func(context.Context) error) (err error) {
	for range 5 {
		// Each attempt gets half of the time of a request, so that a leader that is elected meanwhile is found.
		limited, cancel := context.WithTimeout(ctx, requestTimeout/2)
		err = try(limited)
		cancel()
		if ctx.Err() != nil || !IsTransient(err) {
			return err
		}
	}
	return err
}
