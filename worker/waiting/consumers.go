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

// countConsumers counts the queued and running jobs.
func (c *Counter) countConsumers(ctx context.Context) (map[string]*Queue, error) {
	queues := map[string]*Queue{}
	known := uint64(0)
	before, err := c.jobsBefore(ctx)
	if err != nil {
		return nil, err
	}
	err = eachConsumer(ctx, c.bus, func(name string, due bool, info *jetstream.ConsumerInfo) error {
		// Due jobs are in another stream, and not in the total that addUnserved compares with.
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

// eachConsumer calls use for the consumers of all queues: of fresh jobs and, if due, of due jobs.
func eachConsumer(ctx context.Context, client *bus.Client, use func(queue string, due bool, info *jetstream.ConsumerInfo) error) error {
	for _, due := range []bool{false, true} {
		type consumer struct {
			queue string
			info  *jetstream.ConsumerInfo
		}
		var found []consumer // used once all were read, because use may take long
		err := client.EachJobConsumer(ctx, due, func(queue string, info *jetstream.ConsumerInfo) {
			found = append(found, consumer{queue, info})
		})
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := use(f.queue, due, f.info); err != nil {
				return err
			}
		}
	}
	return nil
}

// queueOf returns the queue of a name, which may be new.
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

// add adds the state of a consumer: its existence, pause, open pulls, and its queued and running jobs. A queue with only a
// consumer of due jobs is not served, because no worker takes its fresh jobs.
func (q *Queue) add(info *jetstream.ConsumerInfo, due bool) {
	q.Served = q.Served || !due
	q.Queued += info.NumPending
	q.Running += uint64(max(0, info.NumAckPending))
	q.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		q.PausedUntil = *info.Config.PauseUntil
	}
}

// Refresh returns a copy of a snapshot with the current pauses, open pulls, and queued and running jobs. Waiting jobs and
// times stay as they were counted.
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

// addOldest records when the first message of a consumer from a sequence on was stored. If there is none any more, the job
// has ended meanwhile.
func (c *Counter) addOldest(ctx context.Context, q *Queue, state string, info *jetstream.ConsumerInfo, seq uint64) error {
	msg, err := c.bus.NextMessage(ctx, info.Stream, info.Config.FilterSubject, seq)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return c.bus.Explain("look for the oldest job of queue "+bus.Clip(q.Queue), err)
	}
	// The server sets the header. A time that cannot be read is left out.
	if stored, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)); err == nil {
		q.noteOldest(state, stored)
	}
	return nil
}

// noteOldest records since when a job is in a state, if no other job of the queue has been in it for longer.
func (q *Queue) noteOldest(state string, since time.Time) {
	if old, found := q.Since[state]; !found || since.Before(old) {
		q.Since[state] = since.UTC()
	}
}
