package waiting

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// unserved is what a Counter knows of queues without consumers.
type unserved struct {
	jobs   map[string]uint64 // their jobs when they were listed
	listed time.Time
	excess [3]uint64 // by how much the numbers of jobs differed at the latest counts
}

// maxUnserved is how many queues without consumers are counted by themselves.
const maxUnserved = 32

// countConsumers counts the jobs that workers hold or that nobody has taken.
func (c *Counter) countConsumers(ctx context.Context) (map[string]*Queue, error) {
	queues := map[string]*Queue{}
	known := uint64(0)
	for _, due := range []bool{false, true} {
		kind, prefix := "JOBS", c.bus.Names().WorkerConsumer("")
		if due {
			kind, prefix = "RETRIES", c.bus.Names().DueConsumer("")
		}
		var found []*jetstream.ConsumerInfo
		err := c.bus.Consumers(ctx, c.bus.Names().Stream(kind), func(info *jetstream.ConsumerInfo) {
			if strings.HasPrefix(info.Name, prefix) {
				found = append(found, info)
			}
		})
		if err != nil {
			return nil, err
		}
		for _, info := range found {
			q := queueOf(queues, strings.TrimPrefix(info.Name, prefix))
			if err := c.addConsumer(ctx, q, info, due); err != nil {
				return nil, err
			}
			if !due {
				known += info.NumPending + uint64(max(0, info.NumAckPending))
			}
		}
	}
	return queues, c.addUnserved(ctx, queues, known)
}

func queueOf(queues map[string]*Queue, name string) *Queue {
	if queues[name] == nil {
		queues[name] = &Queue{Queue: name, Since: map[string]time.Time{}}
	}
	return queues[name]
}

// addConsumer adds what a consumer knows, and the age of its oldest jobs.
func (c *Counter) addConsumer(ctx context.Context, q *Queue, info *jetstream.ConsumerInfo, due bool) error {
	q.Served = q.Served || !due
	q.Queued += info.NumPending
	q.Running += uint64(max(0, info.NumAckPending))
	q.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		q.PausedUntil = *info.Config.PauseUntil
	}
	if info.NumPending > 0 {
		if err := c.addOldest(ctx, q, jobs.StateQueued, info, info.Delivered.Stream+1); err != nil {
			return err
		}
	}
	if info.NumAckPending > 0 {
		return c.addOldest(ctx, q, jobs.StateRunning, info, info.AckFloor.Stream+1)
	}
	return nil
}

// addOldest notes when the first message of a consumer from a sequence on was stored. It may be gone by now.
func (c *Counter) addOldest(ctx context.Context, q *Queue, state string, info *jetstream.ConsumerInfo, seq uint64) error {
	msg, err := c.bus.NextMessage(ctx, info.Stream, info.Config.FilterSubject, seq)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return c.bus.Explain("look for the oldest job of queue "+bus.Clip(q.Queue), err)
	}
	stored, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	if err == nil {
		q.note(state, stored)
	}
	return nil
}

// note notes since when a job is in a state.
func (q *Queue) note(state string, since time.Time) {
	if old, found := q.Since[state]; !found || since.Before(old) {
		q.Since[state] = since.UTC()
	}
}

// addUnserved counts the jobs that no consumer knows: those of queues that nobody serves, such as misspelt ones.
func (c *Counter) addUnserved(ctx context.Context, queues map[string]*Queue, known uint64) error {
	info, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if err != nil {
		return err
	}
	for name, n := range c.unserved.jobs {
		if q := queues[name]; q != nil && q.Served {
			delete(c.unserved.jobs, name)
			continue
		}
		if jobs.ValidQueue(name) { // what else a publisher wrote is no filter
			if n, err = c.bus.CountFrom(ctx, "JOBS", c.bus.Names().Jobs(name), 1); err != nil {
				return err
			}
		}
		if n > 0 {
			queueOf(queues, name).Queued = n
			known += n
		}
	}
	if !c.mustList(distance(info.State.Msgs, known), info.State.Msgs) {
		return nil
	}
	return c.listUnserved(ctx, queues)
}

// listMany is how many jobs make a listing of their subjects dear.
const listMany = 50_000

// mustList reports whether the jobs of the queues that are known are not all jobs. Jobs that come or end during a count make a
// difference for a moment.
func (c *Counter) mustList(excess, all uint64) bool {
	l := &c.unserved
	first := l.listed.IsZero()
	l.excess[c.counts%len(l.excess)] = excess
	rest := 5 * time.Second
	if all > listMany {
		rest = 5 * time.Minute
	}
	persistent := first || min(l.excess[0], l.excess[1], l.excess[2]) > 0
	return excess > 0 && persistent && time.Since(l.listed) >= rest
}

// listUnserved finds the queues without consumers by the subjects of all queued jobs.
func (c *Counter) listUnserved(ctx context.Context, queues map[string]*Queue) error {
	counts, err := c.bus.CountBySubject(ctx, c.bus.Names().Stream("JOBS"), c.bus.Names().AllJobs())
	if err != nil {
		return err
	}
	c.unserved.listed, c.unserved.jobs = time.Now(), map[string]uint64{}
	for _, q := range queues {
		if !q.Served {
			q.Queued = 0 // it is counted again
		}
	}
	for subject, n := range counts {
		name, _, ok := jobs.SplitSubject(subject)
		if q := queues[name]; !ok || q != nil && q.Served {
			continue
		}
		if _, known := c.unserved.jobs[name]; !known && len(c.unserved.jobs) >= maxUnserved {
			name = otherQueues
		}
		queueOf(queues, name).Queued += n
		c.unserved.jobs[name] += n
	}
	return nil
}
