package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// requestTimeout bounds one request, or a few that go together.
const requestTimeout = 5 * time.Second

// levelOfSchedules is the JetStream API level of nats-server 2.12, the first with scheduled messages and counters.
const levelOfSchedules = 2

// leastPayload is the largest message that a server has to take, its own default: a body of jobs.MaxInlineBody with its headers,
// or a job of jobs.MaxJobBytes with what it takes along while it waits.
const leastPayload = 1 << 20

// Ensure creates the streams, buckets and consumers that are missing, and leaves alone what is there, whatever its
// settings: two versions of a worker must not change them to and fro. Any number of workers may call it at once.
func (c *Client) Ensure(ctx context.Context, s Settings) error {
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	s = s.withDefaults()
	for _, want := range s.streams(c.names) {
		if err := c.ensureStream(ctx, want); err != nil {
			return err
		}
	}
	for _, want := range s.durables(c.names) {
		if _, err := c.ensureDurable(ctx, want); err != nil {
			return err
		}
	}
	return nil
}

// EnsureQueue creates the consumers of one queue that are missing.
func (c *Client) EnsureQueue(ctx context.Context, queue string, s Settings) error {
	s = s.withDefaults()
	for _, due := range []bool{false, true} {
		if _, err := c.ensureDurable(ctx, s.lane(c.names, queue, due)); err != nil {
			return err
		}
	}
	return nil
}

// Lane is the consumer of a queue's fresh jobs or, if due, of its jobs whose time has come. It is created if it is
// missing, with the default ack wait; one that is there keeps its own.
func (c *Client) Lane(ctx context.Context, queue string, due bool) (jetstream.Consumer, error) {
	return c.ensureDurable(ctx, Settings{}.withDefaults().lane(c.names, queue, due))
}

// LaneMade is when the stream of fresh jobs or, if due, of those whose time has come was made. Another one under its name
// counts from 1 again, and takes an ack meant for the one before.
func (c *Client) LaneMade(ctx context.Context, due bool) (time.Time, error) {
	return c.made(ctx, Settings{}.lane(c.names, "", due).stream)
}

func (c *Client) made(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return time.Time{}, c.explain("look for stream "+name, err)
	}
	return stream.CachedInfo().Created, nil
}

// Backlog is what a queue's consumers hold.
type Backlog struct {
	Pending int64 // jobs that nobody has taken
	Held    int64 // jobs that workers hold
	// Redelivered are those of the held ones that were given out more than once.
	Redelivered int64
	Pulls       int64 // open requests for jobs
	Paused      bool
}

// Plus is both together.
func (b Backlog) Plus(o Backlog) Backlog {
	return Backlog{
		Pending: b.Pending + o.Pending, Held: b.Held + o.Held, Redelivered: b.Redelivered + o.Redelivered, Pulls: b.Pulls + o.Pulls,
		Paused: b.Paused || o.Paused,
	}
}

// Backlog is that of one of a queue's lanes. It is one question to the server.
func (c *Client) Backlog(ctx context.Context, queue string, due bool) (Backlog, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	lane := Settings{}.withDefaults().lane(c.names, queue, due)
	consumer, err := c.js.Consumer(ctx, lane.stream, lane.config.Durable)
	if err != nil {
		return Backlog{}, c.explain("ask for the backlog of queue "+queue, err)
	}
	info := consumer.CachedInfo()
	return Backlog{
		Pending: int64(info.NumPending), Held: int64(info.NumAckPending), Redelivered: int64(info.NumRedelivered),
		Pulls: int64(info.NumWaiting), Paused: info.Paused,
	}, nil
}

// checkServer tells what no waiting cures: no JetStream, or a server that cannot schedule messages.
func (c *Client) checkServer(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	info, err := c.js.AccountInfo(ctx)
	if err != nil {
		return c.explain("ask NATS for JetStream", err)
	}
	if info.API.Level < levelOfSchedules {
		return fmt.Errorf("%w, this one is %s", ErrServerTooOld, c.nc.ConnectedServerVersion())
	}
	if most := c.nc.MaxPayload(); most < leastPayload {
		return fmt.Errorf("%w: jobs and results need max_payload: 1MB or more, this server allows %d bytes", ErrConfig, most)
	}
	return nil
}

func (c *Client) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	doing := "look for stream " + want.Name
	err := c.again(ctx, func(ctx context.Context) error {
		_, err := c.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			doing = "create stream " + want.Name
			_, err = c.js.CreateStream(ctx, want)
		}
		// Another worker was faster; its settings stand.
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil
		}
		return err
	})
	return c.explain(doing, err)
}

func (c *Client) ensureDurable(ctx context.Context, want durable) (consumer jetstream.Consumer, err error) {
	doing := "look for consumer " + want.config.Durable + " of stream " + want.stream
	err = c.again(ctx, func(ctx context.Context) (err error) {
		consumer, err = c.js.Consumer(ctx, want.stream, want.config.Durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			doing = "create consumer " + want.config.Durable + " of stream " + want.stream
			consumer, err = c.js.CreateConsumer(ctx, want.stream, want.config)
		}
		if code, _ := apiError(err); errors.Is(err, jetstream.ErrConsumerExists) || code == codeConsumerNameInUse {
			consumer, err = c.js.Consumer(ctx, want.stream, want.config.Durable)
		}
		return err
	})
	if err != nil {
		return nil, c.explain(doing, err)
	}
	return consumer, nil
}

// again repeats what got no answer: a cluster gives none while it chooses who leads what was just created.
func (c *Client) again(ctx context.Context, try func(context.Context) error) (err error) {
	for range 5 {
		limited, cancel := context.WithTimeout(ctx, requestTimeout/2)
		err = try(limited)
		cancel()
		if ctx.Err() != nil || !isTransient(err) {
			return err
		}
	}
	return err
}
