package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// QueueState is the state of a queue.
type QueueState struct {
	Queue string `json:"queue"`
	// Queued and Due count jobs that no worker holds: Queued jobs have never waited, Due jobs have.
	Queued uint64 `json:"queued"`
	Due    uint64 `json:"due"`
	// Running counts the jobs that workers hold.
	Running int `json:"running"`
	// Waiting jobs wait for their time, or for a site.
	Waiting uint64 `json:"waiting"`
	// Overdue counts the waiting jobs that the server has not released at their time; CountOverdue sets it.
	Overdue uint64 `json:"overdue"`
	// Pulls is the number of open requests of workers for jobs.
	Pulls int `json:"pulls"`
	// PausedUntil is when the pause ends; zero means that the queue is not paused.
	PausedUntil time.Time `json:"paused_until,omitzero"`
	// Served says that the queue has its consumers. Without them its jobs wait until a worker serves the queue.
	Served bool `json:"served"`
}

// Bounds of a search for queues that have jobs and no consumers. A million jobs take longer than searchBudget, and jobs
// beyond a bound are not seen.
const (
	searchedJobs = 50_000
	searchBudget = time.Second
	// maxFound is how many such queues are counted one by one: each costs a request, and misspelt names are unbounded.
	maxFound = 32
)

// Queues lists the queues that have consumers or jobs, by name. To find a queue that has jobs and no consumers, it reads the
// oldest queued and the oldest waiting jobs, of each for about a second: such a queue is missing if its first job comes later. Of
// the queues without consumers 32 are counted; for others the numbers are those of the jobs that were read.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Queues(ctx context.Context) ([]QueueState, error) {
	return c.queues(ctx, func(states map[string]*QueueState) error { return c.addWaiting(ctx, states) })
}

// ConsumedQueues is Queues without the waiting jobs: its cost does not depend on how many wait, and a queue that has only such
// jobs and no consumers is missing.
func (c *Client) ConsumedQueues(ctx context.Context) ([]QueueState, error) {
	return c.queues(ctx, func(map[string]*QueueState) error { return nil })
}

// queues lists the queues that have consumers, and those that add adds.
func (c *Client) queues(ctx context.Context, add func(states map[string]*QueueState) error) ([]QueueState, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	states := map[string]*QueueState{}
	known, err := c.addConsumers(ctx, func(queue string) *QueueState { return stateOf(states, queue) })
	if err == nil {
		err = c.addUnserved(ctx, known, states)
	}
	if err == nil {
		err = add(states)
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

// stateOf returns the state of a queue, which it adds if it is missing.
func stateOf(states map[string]*QueueState, queue string) *QueueState {
	if states[queue] == nil {
		states[queue] = &QueueState{Queue: queue}
	}
	return states[queue]
}

// addConsumers adds the jobs that the consumers of all queues know. known counts those in the job stream; all other
// jobs there are of queues that no worker serves.
func (c *Client) addConsumers(ctx context.Context, at func(string) *QueueState) (known uint64, err error) {
	for _, due := range []bool{false, true} {
		err := c.bus.EachJobConsumer(ctx, due, func(queue string, info *jetstream.ConsumerInfo) {
			addConsumer(at(queue), info, due)
			if !due {
				// Pending and unacked jobs of the consumers are all that workers know of.
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
		// Set and not added: a queue has one such consumer.
		s.Queued, s.Served = info.NumPending, true
	}
	s.Running += info.NumAckPending
	s.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		s.PausedUntil = *info.Config.PauseUntil
	}
}

// addUnserved adds the jobs that no consumer holds, if there are any: only then the oldest jobs are read.
func (c *Client) addUnserved(ctx context.Context, known uint64, states map[string]*QueueState) error {
	names := c.bus.Names()
	info, err := c.bus.StreamInfo(ctx, names.Stream("JOBS"))
	if err != nil || info.State.Msgs <= known {
		return err
	}
	found := map[string]uint64{}
	_, more, err := c.bus.ReadQueued(ctx, 0, searchedJobs, searchBudget, func(queue string) {
		if s := states[queue]; s == nil || !s.Served {
			found[queue]++
		}
	})
	if err != nil {
		return err
	}
	for i, queue := range slices.Sorted(maps.Keys(found)) {
		n := found[queue]
		if more && i < maxFound && bus.Publishable(names.Job(queue, "x")) {
			if n, err = c.bus.CountFrom(ctx, "JOBS", names.Jobs(queue), 1); err != nil {
				return err
			}
		}
		stateOf(states, queue).Queued += n
	}
	return nil
}

// addWaiting adds the waiting jobs of each known queue. If there are more, it reads the oldest waiting jobs to find
// further queues.
func (c *Client) addWaiting(ctx context.Context, states map[string]*QueueState) error {
	all, err := c.bus.CountFrom(ctx, "RETRIES", c.bus.Names().AllScheduledJobs(), 1)
	if err != nil {
		return err
	}
	known := uint64(0)
	for _, queue := range slices.Sorted(maps.Keys(states)) {
		n, err := c.countWaiting(ctx, queue)
		if err != nil {
			return err
		}
		states[queue].Waiting = n
		known += n
	}
	if all <= known {
		return nil
	}
	found := map[string]uint64{}
	end := time.Now().Add(searchBudget)
	for after, more := uint64(0), true; more && time.Now().Before(end); {
		after, more, err = c.bus.WaitingPage(ctx, after, bus.WaitingPageSize, func(job bus.WaitingJob) {
			if states[job.Queue] == nil {
				found[job.Queue]++
			}
		})
		if err != nil {
			return err
		}
	}
	for i, queue := range slices.Sorted(maps.Keys(found)) {
		n := found[queue]
		if i < maxFound {
			if n, err = c.countWaiting(ctx, queue); err != nil {
				return err
			}
		}
		stateOf(states, queue).Waiting = n
	}
	return nil
}

// countWaiting counts the waiting jobs of a queue: those that wait for their time, and those that wait for a site.
func (c *Client) countWaiting(ctx context.Context, queue string) (n uint64, err error) {
	names := c.bus.Names()
	if !bus.Publishable(names.Job(queue, "x")) {
		return 0, nil // an invalid name could be a wildcard, and workers write only jobs of valid queues
	}
	for _, filter := range []string{names.ScheduledJob(queue, ">"), names.SiteWait("*", queue, ">")} {
		some, err := c.bus.CountFrom(ctx, "RETRIES", filter, 1)
		if err != nil {
			return 0, err
		}
		n += some
	}
	return n, nil
}

// overdueBudget bounds how long CountOverdue reads waiting jobs.
const overdueBudget = 5 * time.Second

// CountOverdue counts the jobs of each queue that are overdue by more than 5 s. It reads for at most 5 s: of a million
// waiting jobs it sees only the older ones.
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
	// Its own time limit is no error: the oldest jobs have been counted.
	if limited.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrPermission) {
		return nil
	}
	return err
}

// forever is the length of a pause without an end.
const forever = 100 * 365 * 24 * time.Hour

// Pause stops the queue's workers from getting jobs until a time, or until Resume if it is zero. Running jobs end as
// usual. A time that has passed is an error. Other errors: ErrNotFound for a queue without consumers.
func (c *Client) Pause(ctx context.Context, queue string, until time.Time) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	// The server would not pause the queue.
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
func (c *Client) pause(ctx context.Context, action, queue string, until time.Time) error {
	if !jobs.ValidQueue(queue) {
		return bus.BadKey(Key{Queue: queue})
	}
	ctx, cancel := bus.Bounded(ctx)
	defer cancel()
	// Both consumers are paused. If the second call fails, the first pause stays, and the caller may repeat the
	// call.
	for stream, durable := range map[string]string{
		c.bus.Names().Stream("JOBS"): c.bus.Names().WorkerConsumer(queue), c.bus.Names().Stream("RETRIES"): c.bus.Names().DueConsumer(queue),
	} {
		err := c.bus.PauseConsumer(ctx, stream, durable, until)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			err = ErrNotFound
		}
		if err != nil {
			return c.bus.Explain(action, err)
		}
	}
	return nil
}
