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

// unserved is what a Counter knows of queues without consumers. It fills one value over many counts: only a
// listing of all subjects finds such queues, and that is expensive.
type unserved struct {
	jobs   map[string]uint64 // their jobs when they were listed
	listed time.Time
	excess [3]uint64 // by how much the numbers of jobs differed at the latest counts
}

// maxUnserved is how many queues without consumers are counted by themselves. Misspelt names are unbounded, and
// each one costs a question in every count.
const maxUnserved = 32

// countConsumers counts the jobs that workers hold or that nobody has taken.
func (c *Counter) countConsumers(ctx context.Context) (map[string]*Queue, error) {
	queues := map[string]*Queue{}
	known := uint64(0)
	err := eachConsumer(ctx, c.bus, func(name string, due bool, info *jetstream.ConsumerInfo) error {
		// Only the stream of jobs is compared with its total below. Due jobs lie in the other stream.
		if !due {
			known += info.NumPending + uint64(max(0, info.NumAckPending))
		}
		return c.addConsumer(ctx, queueOf(queues, name), info, due)
	})
	if err != nil {
		return nil, err
	}
	return queues, c.addUnserved(ctx, queues, known)
}

// eachConsumer calls use for the consumers of all queues. Each queue has two: of new jobs and, if due, of jobs whose time has come, which
// JetStream delivers again. Both count as queued and running.
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

// addConsumer adds what a consumer knows, and the age of its oldest jobs.
func (c *Counter) addConsumer(ctx context.Context, q *Queue, info *jetstream.ConsumerInfo, due bool) error {
	q.add(info, due)
	// The sequence behind the last one delivered is the oldest that nobody has taken.
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

// add adds what a consumer knows: whether it is there, its pause, its pulls, and the jobs that it holds or that nobody has taken.
// A queue with a consumer of due jobs only is half set up. It counts as unserved, since new jobs are not taken.
func (q *Queue) add(info *jetstream.ConsumerInfo, due bool) {
	q.Served = q.Served || !due
	q.Queued += info.NumPending
	q.Running += uint64(max(0, info.NumAckPending))
	q.Pulls += info.NumWaiting
	if info.Paused && info.Config.PauseUntil != nil {
		q.PausedUntil = *info.Config.PauseUntil
	}
}

// Refresh is a snapshot with what the consumers know at this moment: pauses, and the jobs that run or that nobody has taken. The jobs
// that wait, and since when the jobs of a state are in it, stay as they were counted. s is not changed.
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
			continue // nobody serves it: only a count finds its jobs
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

// addOldest notes when the first message of a consumer from a sequence on was stored. It may be gone by now.
// Errors: those of the server. A message that is gone is none: the job ended between the two questions.
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

// note notes since when a job is in a state.
func (q *Queue) note(state string, since time.Time) {
	// The oldest wins, over both consumers of the queue.
	if old, found := q.Since[state]; !found || since.Before(old) {
		q.Since[state] = since.UTC()
	}
}

// addUnserved counts the jobs that no consumer knows: those of queues that nobody serves, such as misspelt
// ones. known is the number of jobs of which a consumer has told.
func (c *Counter) addUnserved(ctx context.Context, queues map[string]*Queue, known uint64) error {
	info, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if err != nil {
		return err
	}
	for name, n := range c.unserved.jobs {
		// It got its consumers meanwhile, and they have counted its jobs.
		if q := queues[name]; q != nil && q.Served {
			delete(c.unserved.jobs, name)
			continue
		}
		// A name with a wildcard or a blank would count the jobs of other queues, or be refused. Its number
		// stays that of the listing.
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
	// Jobs beyond the known ones are of queues that are not listed yet.
	if !c.mustList(distance(info.State.Msgs, known), info.State.Msgs) {
		return nil
	}
	return c.listUnserved(ctx, queues)
}

// listMany is how many jobs make a listing of their subjects dear. Below it, a listing every five seconds is
// cheap; above it, five minutes pass between two.
const listMany = 50_000

// mustList reports whether the jobs of the queues that are known are not all jobs. Jobs that come or end during a count make a
// difference for a moment.
func (c *Counter) mustList(excess, all uint64) bool {
	l := &c.unserved
	// The first count has no history, so it lists at once if anything is missing.
	first := l.listed.IsZero()
	l.excess[c.counts%len(l.excess)] = excess
	rest := 5 * time.Second
	if all > listMany {
		rest = 5 * time.Minute
	}
	// The smallest of the last three differences must be positive: a job that came during a count makes one of
	// them so, but hardly all three.
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
	// What the former listing gave would be counted twice.
	for _, q := range queues {
		if !q.Served {
			q.Queued = 0 // it is counted again
		}
	}
	for subject, n := range counts {
		name, _, ok := jobs.SplitSubject(subject)
		// A subject that is none of a job, or a queue whose consumer has counted it already.
		if q := queues[name]; !ok || q != nil && q.Served {
			continue
		}
		// Beyond the bound the jobs are still counted, under one common name.
		if _, known := c.unserved.jobs[name]; !known && len(c.unserved.jobs) >= maxUnserved {
			name = otherQueues
		}
		queueOf(queues, name).Queued += n
		c.unserved.jobs[name] += n
	}
	return nil
}
