package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// QueueState is how a queue stands.
type QueueState struct {
	Queue string `json:"queue"`
	// Queued jobs are fresh ones that no worker holds; Due ones have waited, and no worker holds them either.
	Queued uint64 `json:"queued"`
	Due    uint64 `json:"due"`
	// Running jobs are in the hands of workers.
	Running int `json:"running"`
	// Waiting jobs wait for their time, or for a site.
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
	return c.queues(ctx, func(at func(string) *QueueState) error {
		waiting, err := c.bus.CountBySubject(ctx, c.bus.Names().Stream("RETRIES"), c.bus.Names().AllScheduledJobs())
		for subject, count := range waiting {
			if _, queue, _, ok := jobs.SplitWaiting(subject); ok {
				at(queue).Waiting += count
			}
		}
		return err
	})
}

// ConsumedQueues is Queues without the waiting jobs: its cost does not depend on how many wait, and a queue that has only such jobs and no
// consumers is missing.
func (c *Client) ConsumedQueues(ctx context.Context) ([]QueueState, error) {
	return c.queues(ctx, func(func(string) *QueueState) error { return nil })
}

// queues lists what the consumers know, and what add adds.
func (c *Client) queues(ctx context.Context, add func(at func(string) *QueueState) error) ([]QueueState, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	states := map[string]*QueueState{}
	at := func(queue string) *QueueState {
		if states[queue] == nil {
			states[queue] = &QueueState{Queue: queue}
		}
		return states[queue]
	}
	known, err := c.addConsumers(ctx, at)
	if err == nil {
		err = c.addUnserved(ctx, known, at)
	}
	if err == nil {
		err = add(at)
	}
	if err != nil {
		return nil, c.bus.Explain("list queues", err)
	}
	out := make([]QueueState, 0, len(states))
	for _, queue := range slices.Sorted(maps.Keys(states)) {
		out = append(out, *states[queue])
	}
	return out, nil
}

// addConsumers adds what the consumers of all queues hold. known counts the jobs of the job stream among it, so that the
// rest are jobs in queues that no worker serves.
func (c *Client) addConsumers(ctx context.Context, at func(string) *QueueState) (known uint64, err error) {
	for _, due := range []bool{false, true} {
		kind, prefix := "JOBS", c.bus.Names().WorkerConsumer("")
		if due {
			kind, prefix = "RETRIES", c.bus.Names().DueConsumer("")
		}
		err := c.bus.Consumers(ctx, c.bus.Names().Stream(kind), func(info *jetstream.ConsumerInfo) {
			queue, ours := strings.CutPrefix(info.Name, prefix)
			if !ours {
				return
			}
			addConsumer(at(queue), info, due)
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

// addConsumer adds what one consumer holds to the state of its queue.
func addConsumer(s *QueueState, info *jetstream.ConsumerInfo, due bool) {
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

// addUnserved adds the jobs that no consumer holds, if there are any. Only then it reads the subjects of the stream,
// which costs the most.
func (c *Client) addUnserved(ctx context.Context, known uint64, at func(string) *QueueState) error {
	info, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if err != nil {
		return err
	}
	if info.State.Msgs <= known {
		return nil
	}
	queued, err := c.bus.CountBySubject(ctx, c.bus.Names().Stream("JOBS"), c.bus.Names().AllJobs())
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

// overdueBudget bounds how long CountOverdue reads waiting jobs.
const overdueBudget = 5 * time.Second

// CountOverdue counts the jobs of each queue that are overdue by more than 5 s. It looks for 5 s: of a million waiting
// jobs it sees only the older ones.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) CountOverdue(ctx context.Context, queues []QueueState) error {
	if err := c.ready(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, overdueBudget)
	defer cancel()
	counts := map[string]uint64{}
	err := c.bus.Overdue(limited, bus.OverdueAfter, func(job bus.WaitingJob) { counts[job.Queue]++ })
	for i := range queues {
		queues[i].Overdue = counts[queues[i].Queue]
	}
	if limited.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrPermission) {
		return nil
	}
	return err
}

// forever is longer than anybody pauses a queue.
const forever = 100 * 365 * 24 * time.Hour

// Pause stops the queue's workers from getting jobs until a time, or until Resume if it is zero. Running jobs end as
// usual. A time that has passed is an error. Other errors: ErrNotFound for a queue without consumers.
func (c *Client) Pause(ctx context.Context, queue string, until time.Time) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	case !until.IsZero() && !until.After(time.Now()):
		return fmt.Errorf("pause queue %s until %s: that time has passed", bus.Clip(queue), until.UTC().Format(time.RFC3339))
	case until.IsZero():
		until = time.Now().Add(forever)
	}
	return c.pause(ctx, "pause queue "+bus.Clip(queue), queue, until)
}

// Resume ends a pause. Errors: ErrNotFound for a queue without consumers.
func (c *Client) Resume(ctx context.Context, queue string) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.pause(ctx, "resume queue "+bus.Clip(queue), queue, time.Time{})
}

// pause sets the pause of both consumers of a queue; a zero time ends it. The server keeps it, so it holds for workers
// that start later.
func (c *Client) pause(ctx context.Context, doing, queue string, until time.Time) error {
	if !jobs.ValidQueue(queue) {
		return bus.BadKey(Key{Queue: queue})
	}
	ctx, cancel := bus.Bounded(ctx)
	defer cancel()
	for stream, durable := range map[string]string{
		c.bus.Names().Stream("JOBS"): c.bus.Names().WorkerConsumer(queue), c.bus.Names().Stream("RETRIES"): c.bus.Names().DueConsumer(queue),
	} {
		err := c.bus.PauseConsumer(ctx, stream, durable, until)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			err = ErrNotFound
		}
		if err != nil {
			return c.bus.Explain(doing, err)
		}
	}
	return nil
}
