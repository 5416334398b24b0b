package bus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// QueueState is how a queue stands.
type QueueState struct {
	Queue string `json:"queue"`
	// Queued jobs are fresh ones that no worker holds; Due ones have waited, and no worker holds them either.
	Queued uint64 `json:"queued"`
	Due    uint64 `json:"due"`
	// Running jobs are in the hands of workers.
	Running int `json:"running"`
	// Waiting jobs wait for their time.
	Waiting uint64 `json:"waiting"`
	// Overdue jobs are those of the waiting ones that the server has not released at their time; CountOverdue sets it.
	Overdue uint64 `json:"overdue"`
	// Pulls are the requests of workers for jobs that are open right now.
	Pulls int `json:"pulls"`
	// PausedUntil is when the queue goes on; zero means it is not paused.
	PausedUntil time.Time `json:"paused_until,omitzero"`
	// Served tells that the queue has its consumers. A job in one that has none waits until a worker serves it.
	Served bool `json:"served"`
}

// Queues lists the queues that have consumers or jobs, by name. It reads the name of every waiting job, and of every
// queued one if some queue is not served: fit for a person's question, not for a tight loop.
func (c *Client) Queues(ctx context.Context) ([]QueueState, error) {
	states := map[string]*QueueState{}
	at := func(queue string) *QueueState {
		if states[queue] == nil {
			states[queue] = &QueueState{Queue: queue}
		}
		return states[queue]
	}
	known, err := c.addLanes(ctx, at)
	if err != nil {
		return nil, c.explain("list queues", err)
	}
	if err := c.addUnserved(ctx, known, at); err != nil {
		return nil, c.explain("list queues", err)
	}
	waiting, err := c.subjects(ctx, c.names.Stream("RETRIES"), c.names.AllAt())
	if err != nil {
		return nil, c.explain("list queues", err)
	}
	for subject, count := range waiting {
		if queue, _, ok := jobs.SplitSubject(subject); ok {
			at(queue).Waiting += count
		}
	}
	out := make([]QueueState, 0, len(states))
	for _, queue := range slices.Sorted(maps.Keys(states)) {
		out = append(out, *states[queue])
	}
	return out, nil
}

// addLanes adds what the consumers know, and counts the jobs of the job stream among it.
func (c *Client) addLanes(ctx context.Context, at func(string) *QueueState) (known uint64, err error) {
	for _, due := range []bool{false, true} {
		kind, prefix := "JOBS", c.names.WorkerConsumer("")
		if due {
			kind, prefix = "RETRIES", c.names.DueConsumer("")
		}
		err := c.consumers(ctx, c.names.Stream(kind), func(info *jetstream.ConsumerInfo) {
			queue, ours := strings.CutPrefix(info.Name, prefix)
			if !ours {
				return
			}
			addLane(at(queue), info, due)
			if !due {
				known += info.NumPending + uint64(max(0, info.NumAckPending))
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return known, nil
}

// consumers calls use for each consumer of a stream.
func (c *Client) consumers(ctx context.Context, name string, use func(*jetstream.ConsumerInfo)) error {
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

func addLane(s *QueueState, info *jetstream.ConsumerInfo, due bool) {
	if due {
		s.Due += info.NumPending
	} else {
		s.Queued, s.Served = info.NumPending, true
	}
	s.Running += info.NumAckPending
	s.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		s.PausedUntil = *info.Config.PauseUntil
	}
}

// addUnserved adds the jobs that no consumer knows, if there are any.
func (c *Client) addUnserved(ctx context.Context, known uint64, at func(string) *QueueState) error {
	stream, err := c.js.Stream(ctx, c.names.Stream("JOBS"))
	if err != nil {
		return err
	}
	if stream.CachedInfo().State.Msgs <= known {
		return nil
	}
	queued, err := c.subjects(ctx, c.names.Stream("JOBS"), c.names.AllJobs())
	if err != nil {
		return err
	}
	for subject, count := range queued {
		if queue, _, ok := jobs.SplitSubject(subject); ok && !at(queue).Served {
			at(queue).Queued += count
		}
	}
	return nil
}

// forever is longer than anybody pauses a queue.
const forever = 100 * 365 * 24 * time.Hour

// Pause stops the queue's workers from getting jobs until a time, or until Resume if it is zero. Running jobs end as
// usual. Errors: ErrNotFound for a queue without consumers.
func (c *Client) Pause(ctx context.Context, queue string, until time.Time) error {
	if until.IsZero() {
		until = time.Now().Add(forever)
	}
	return c.pause(ctx, "pause queue "+clip(queue), queue, until)
}

// Resume ends a pause. Errors: ErrNotFound for a queue without consumers.
func (c *Client) Resume(ctx context.Context, queue string) error {
	return c.pause(ctx, "resume queue "+clip(queue), queue, time.Time{})
}

func (c *Client) pause(ctx context.Context, doing, queue string, until time.Time) error {
	if !jobs.ValidQueue(queue) {
		return badKey(Key{Queue: queue})
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	for stream, durable := range map[string]string{
		c.names.Stream("JOBS"): c.names.WorkerConsumer(queue), c.names.Stream("RETRIES"): c.names.DueConsumer(queue),
	} {
		_, err := c.js.PauseConsumer(ctx, stream, durable, until)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			err = ErrNotFound
		}
		if err != nil {
			return c.explain(doing, err)
		}
	}
	return nil
}
