package waiting

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// countConsumers counts the jobs that workers hold, and those that no worker has taken.
func (c *Counter) countConsumers(ctx context.Context) (map[string]*Queue, error) {
	queues := map[string]*Queue{}
	known := uint64(0)
	before, err := c.jobsBefore(ctx)
	if err != nil {
		return nil, err
	}
	err = eachConsumer(ctx, c.bus, func(name string, due bool, info *jetstream.ConsumerInfo) error {
		// Only the stream of jobs is compared with its total below. Due jobs lie in the other stream.
		if !due {
			known += info.NumPending + uint64(max(0, info.NumAckPending))
		}
		return c.addConsumer(ctx, queueOf(queues, name), info, due)
	})
	if err != nil {
		return nil, err
	}
	return queues, c.addUnserved(ctx, queues, known, before)
}

// eachConsumer calls use for the consumers of all queues. Each queue has two: of new jobs and, if due, of jobs whose time has
// come, which JetStream delivers again. Both count as queued and running.
func eachConsumer(ctx context.Context, client *bus.Client, use func(queue string, due bool, info *jetstream.ConsumerInfo) error) error {
	for _, due := range []bool{false, true} {
		kind, prefix := "JOBS", client.Names().WorkerConsumer("")
		if due {
			kind, prefix = "RETRIES", client.Names().DueConsumer("")
		}
		var found []*jetstream.ConsumerInfo
		err := client.Consumers(ctx, client.Names().Stream(kind), func(info *jetstream.ConsumerInfo) {
			if strings.HasPrefix(info.Name, prefix) {
				found = append(found, info)
			}
		})
		if err != nil {
			return err
		}
		for _, info := range found {
			if err := use(strings.TrimPrefix(info.Name, prefix), due, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// The map owns its values, so a caller may keep the pointer during one count.
func queueOf(queues map[string]*Queue, name string) *Queue {
	if queues[name] == nil {
		queues[name] = &Queue{Queue: name, Since: map[string]time.Time{}}
	}
	return queues[name]
}

// addConsumer adds the counts of a consumer, and the age of its oldest jobs.
func (c *Counter) addConsumer(ctx context.Context, q *Queue, info *jetstream.ConsumerInfo, due bool) error {
	q.add(info, due)
	// The sequence after the last delivered one is the oldest that no worker has taken.
	if info.NumPending > 0 {
		if err := c.addOldest(ctx, q, jobs.StateQueued, info, info.Delivered.Stream+1); err != nil {
			return err
		}
	}
	// Jobs below the ack floor are settled, so the first one above it is the oldest that a worker holds.
	if info.NumAckPending > 0 {
		return c.addOldest(ctx, q, jobs.StateRunning, info, info.AckFloor.Stream+1)
	}
	return nil
}

// add adds the state of a consumer: that it exists, its pause, its open pulls, and the jobs that are held or not taken.
// A queue with only a consumer of due jobs counts as unserved, because its new jobs are not taken.
func (q *Queue) add(info *jetstream.ConsumerInfo, due bool) {
	q.Served = q.Served || !due
	q.Queued += info.NumPending
	q.Running += uint64(max(0, info.NumAckPending))
	q.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		q.PausedUntil = *info.Config.PauseUntil
	}
}

// Refresh returns a copy of a snapshot with the current state of the consumers: pauses, and the jobs that run or are
// not taken. Waiting jobs and times stay as they were counted.
func Refresh(ctx context.Context, client *bus.Client, s Snapshot) (Snapshot, error) {
	current := map[string]*Queue{}
	err := eachConsumer(ctx, client, func(name string, due bool, info *jetstream.ConsumerInfo) error {
		queueOf(current, name).add(info, due)
		return nil
	})
	if err != nil {
		return Snapshot{}, err
	}
	s.Queues = slices.Clone(s.Queues)
	for i := range s.Queues {
		q := &s.Queues[i]
		now := current[q.Queue]
		if now == nil {
			continue // no worker serves it: only a count finds its jobs
		}
		delete(current, q.Queue)
		q.Served, q.PausedUntil, q.Pulls, q.Queued, q.Running = now.Served, now.PausedUntil, now.Pulls, now.Queued, now.Running
		q.Since = maps.Clone(q.Since)
		for _, state := range []string{jobs.StateQueued, jobs.StateRunning} {
			if q.Count(state) == 0 {
				delete(q.Since, state)
			}
		}
	}
	for _, q := range current {
		s.Queues = append(s.Queues, *q)
	}
	slices.SortFunc(s.Queues, func(a, b Queue) int { return strings.Compare(a.Queue, b.Queue) })
	return s, nil
}

// addOldest records when the first message of a consumer from a sequence on was stored. Errors: those of the server. A
// message that is gone is no error: the job ended between the two questions.
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
		// The server sets the header itself. A time that cannot be read leaves the age out, and the count goes
		// on.
		q.note(state, stored)
	}
	return nil
}

// note records since when a job is in a state.
func (q *Queue) note(state string, since time.Time) {
	// The oldest wins, over both consumers of the queue.
	if old, found := q.Since[state]; !found || since.Before(old) {
		q.Since[state] = since.UTC()
	}
}
