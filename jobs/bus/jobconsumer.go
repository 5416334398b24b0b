package bus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Backlog counts the jobs of a queue's consumers.
type Backlog struct {
	Pending int64 // jobs that no worker has taken
	Held    int64 // jobs that workers hold
	// Redelivered counts the held jobs that were delivered more than once.
	Redelivered int64
	Pulls       int64 // open requests for jobs
	Paused      bool
}

// Plus returns the sum of both.
func (b Backlog) Plus(o Backlog) Backlog {
	return Backlog{
		Pending: b.Pending + o.Pending, Held: b.Held + o.Held, Redelivered: b.Redelivered + o.Redelivered, Pulls: b.Pulls + o.Pulls,
		Paused: b.Paused || o.Paused,
	}
}

// JobConsumerInfo is the state of one of a queue's consumers.
type JobConsumerInfo struct {
	Backlog
	// AckWait is the shortest time that the server waits for an ack.
	AckWait time.Duration
	// MaxBatch and MaxExpires bound a pull; zero means no bound.
	MaxBatch   int
	MaxExpires time.Duration
	// Differences lists the settings that differ from those of a new consumer, except those on which nothing depends.
	Differences []Difference
}

// Unusable returns an *UnusableError if no job of the consumer may be taken.
func (i JobConsumerInfo) Unusable() error { return unusable(i.Differences) }

// UnusableError names what makes a stream or consumer unusable. It is an ErrConfig.
type UnusableError struct{ Differences []Difference }

// unusable returns an *UnusableError that names the differences with which workers take no jobs; nil if there is none.
func unusable(differences []Difference) error {
	// DeleteFunc changes its argument, and the caller still needs the list.
	bad := slices.DeleteFunc(slices.Clone(differences), func(d Difference) bool { return d.Use != Unusable })
	if len(bad) == 0 {
		return nil
	}
	return &UnusableError{bad}
}

// Error names the stream or consumer and the differences.
func (e *UnusableError) Error() string {
	texts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		texts[i] = d.String()
	}
	return strings.Join(texts, "; ")
}

// Unwrap is ErrConfig.
func (*UnusableError) Unwrap() error { return ErrConfig }

// JobConsumerInfo asks for the state of one of a queue's consumers, in one request. Errors: ErrNotFound if there is no
// such consumer.
func (c *Client) JobConsumerInfo(ctx context.Context, queue string, due bool) (JobConsumerInfo, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	// Only its stream, name and settings are needed, so the queue need not be one of the owner's.
	consumer := Settings{}.withDefaults().jobConsumer(c.names, queue, due)
	info, err := c.ConsumerInfo(ctx, consumer.stream, consumer.config.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return JobConsumerInfo{}, ErrNotFound
	}
	if err != nil {
		return JobConsumerInfo{}, c.Explain("look for "+consumer.String(), err)
	}
	return consumer.info(info), nil
}

// EachJobConsumer calls use for the consumer of fresh jobs or, if due, of due jobs of each queue, with one request for up to 256
// consumers. It leaves out a consumer that has no leader now.
func (c *Client) EachJobConsumer(ctx context.Context, due bool, use func(queue string, info *jetstream.ConsumerInfo)) error {
	prefix := c.names.WorkerConsumer("")
	if due {
		prefix = c.names.DueConsumer("")
	}
	return c.Consumers(ctx, c.JobStream(due), func(info *jetstream.ConsumerInfo) {
		if queue, ours := strings.CutPrefix(info.Name, prefix); ours {
			use(queue, info)
		}
	})
}

// JobConsumers asks for the state of all consumers of fresh jobs or, if due, of due jobs, by queue: see EachJobConsumer.
func (c *Client) JobConsumers(ctx context.Context, due bool) (map[string]JobConsumerInfo, error) {
	out := map[string]JobConsumerInfo{}
	err := c.EachJobConsumer(ctx, due, func(queue string, info *jetstream.ConsumerInfo) {
		out[queue] = Settings{}.withDefaults().jobConsumer(c.names, queue, due).info(info)
	})
	return out, c.Explain("list the consumers of jobs", err)
}

// info is the server's answer about a consumer of jobs.
func (d durable) info(info *jetstream.ConsumerInfo) JobConsumerInfo {
	return JobConsumerInfo{
		Backlog: Backlog{
			Pending: int64(info.NumPending), Held: int64(info.NumAckPending), Redelivered: int64(info.NumRedelivered),
			Pulls: int64(info.NumWaiting), Paused: info.Paused,
		},
		AckWait: ackWait(&info.Config), MaxBatch: info.Config.MaxRequestBatch, MaxExpires: info.Config.MaxRequestExpires,
		Differences: d.differences(info.Config),
	}
}

// DueConsumer is the state of the consumer of a queue's due jobs.
type DueConsumer struct {
	Queue   string
	Paused  bool
	Pending int64 // due jobs that no worker has taken
	// Delivered is the sequence of the latest due job that was delivered for the first time.
	Delivered uint64
}

// DueConsumers lists the queues that have a consumer of due jobs. Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) DueConsumers(ctx context.Context) (list []DueConsumer, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	err = c.EachJobConsumer(ctx, true, func(queue string, info *jetstream.ConsumerInfo) {
		list = append(list, DueConsumer{Queue: queue, Paused: info.Paused, Pending: int64(info.NumPending), Delivered: info.Delivered.Stream})
	})
	return list, c.Explain("list the consumers of due jobs", err)
}

// Waiting asks how full the stream of waiting jobs is.
func (c *Client) Waiting(ctx context.Context) (Fill, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := c.StreamInfo(ctx, c.JobStream(true))
	if err != nil {
		return Fill{}, c.Explain("look for the waiting jobs", err)
	}
	return fillOf(info), nil
}

// Fill is how much of a stream's limits is used. A limit of zero means no limit.
type Fill struct {
	Bytes, MaxBytes, Msgs, MaxMsgs int64
	LastSeq                        uint64 // the stream's last sequence at that time
}

// fillOf reads the fill from a stream's state. The server writes -1 for no limit.
func fillOf(info *jetstream.StreamInfo) Fill {
	return Fill{
		Bytes: int64(info.State.Bytes), MaxBytes: max(0, info.Config.MaxBytes),
		Msgs: int64(info.State.Msgs), MaxMsgs: max(0, info.Config.MaxMsgs),
		LastSeq: info.State.LastSeq,
	}
}

// Above reports whether more than a part, between 0 and 1, of one of the limits is used.
func (f Fill) Above(part float64) bool {
	return f.MaxBytes > 0 && float64(f.Bytes) > part*float64(f.MaxBytes) || f.MaxMsgs > 0 && float64(f.Msgs) > part*float64(f.MaxMsgs)
}

// HasFree reports whether at least so many bytes and messages may still be stored.
func (f Fill) HasFree(bytes, msgs int64) bool {
	return (f.MaxBytes == 0 || f.MaxBytes-f.Bytes >= bytes) && (f.MaxMsgs == 0 || f.MaxMsgs-f.Msgs >= msgs)
}
