package waiting

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// unserved is what a Counter knows about queues without consumers. The server does not name these queues, so the jobs
// have to be read, a bounded number in each count.
type unserved struct {
	// queues are the queues that were found. Each count asks the server for the number of their jobs.
	queues map[string]bool
	// other is how many jobs of other queues the latest complete reading found: of queues beyond maxUnserved, and of
	// names that would be a wildcard in a request. read is how many the current reading has found.
	other, read uint64
	// after is the sequence after which the next page begins.
	after uint64
	// startedAt is when the current reading began; zero between two readings. fromStart says that it began at the first job.
	startedAt time.Time
	fromStart bool
	// exact says that all jobs were known at the latest count.
	exact bool
	// endedAt is when the latest reading ended or all jobs were known. The next one begins pause later at the earliest.
	endedAt time.Time
	pause   time.Duration
	// differing is in how many counts in a row, the latest one included, the stream had more or fewer jobs than were
	// known, beyond those that came or ended during the count. differingSince is when the first of these counts ended.
	// isMoving says that jobs came or ended during the latest count.
	differing      int
	differingSince time.Time
	isMoving       bool
}

const (
	// maxUnserved bounds the queues without consumers that are counted singly, because each costs a request in every count.
	maxUnserved = 32
	// readJobs and readBudget bound the queued jobs that one count reads to find such queues, and the time for it. A
	// million jobs are read in 40 counts.
	readJobs   = 25_000
	readBudget = 500 * time.Millisecond
	// The pause between two readings is as long as the first one took, but at least minPause. Failures double it up to
	// maxPause.
	minPause = 5 * time.Second
	maxPause = 5 * time.Minute
	// busyFactor: without a difference, all jobs are read after so many times the pause, but at least maxPause.
	busyFactor = 20
	// movingTime is for how long a difference must last while jobs come and end.
	movingTime = time.Second
)

// addUnserved counts the jobs that no consumer knows: those of queues without workers, such as misspelt ones. known is how
// many jobs the consumers have reported. before is the state of the stream before they were asked; nil for its state now.
func (c *Counter) addUnserved(ctx context.Context, queues map[string]*Queue, known uint64, before *jetstream.StreamInfo) error {
	after, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if err != nil {
		return err
	}
	l := &c.unserved
	for _, name := range slices.Sorted(maps.Keys(l.queues)) {
		n, err := c.countUnserved(ctx, queues, name)
		if err != nil {
			return err
		}
		known += n
	}
	if l.other > 0 {
		queueOf(queues, OtherQueues).Queued = l.other
	}
	// Jobs beyond the known ones are of queues that have not been found yet.
	if before == nil {
		before = after
	}
	fewest, most := jobsBetween(before.State, after.State)
	known += l.other
	l.isMoving = fewest != most
	if known >= fewest && known <= most {
		l.differing = 0
	} else if l.differing++; l.differing == 1 {
		l.differingSince = time.Now()
	}
	l.exact = known == fewest && known == most
	switch {
	case l.exact:
		// A job of a queue that was not found can only follow.
		l.after, l.startedAt, l.endedAt, l.pause = after.State.LastSeq, time.Time{}, time.Now(), 0
	case c.mustRead():
		c.readUnserved(ctx, queues)
	}
	return nil
}

// jobsBefore returns the state of the stream of jobs before its consumers are asked. While all jobs are known it saves
// this request, and returns nil.
func (c *Counter) jobsBefore(ctx context.Context) (*jetstream.StreamInfo, error) {
	if c.unserved.exact {
		return nil, nil
	}
	return c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
}

// jobsBetween returns the fewest and the most jobs that there can have been at any moment between two states of the stream.
func jobsBetween(before, after jetstream.StreamState) (fewest, most uint64) {
	came := after.LastSeq - min(before.LastSeq, after.LastSeq)
	most = before.Msgs + came
	// There were the fewest if all jobs that ended did so before the others came.
	ended := most - min(after.Msgs, most)
	return before.Msgs - min(ended, before.Msgs), most
}

// countUnserved adds the jobs of a queue that was found. It forgets a queue without jobs, and one that has consumers by now.
func (c *Counter) countUnserved(ctx context.Context, queues map[string]*Queue, name string) (n uint64, err error) {
	var oldest time.Time
	if q := queues[name]; q == nil || !q.Served {
		if n, oldest, err = c.bus.CountAndOldest(ctx, "JOBS", c.bus.Names().Jobs(name), 1); err != nil {
			return 0, err
		}
	}
	if n == 0 {
		delete(c.unserved.queues, name)
		return 0, nil
	}
	q := queueOf(queues, name)
	q.Queued += n
	q.noteOldest(jobs.StateQueued, oldest)
	return n, nil
}

// mustRead reports whether jobs are read to find queues: while a reading goes on, or if a difference lasts for three
// counts, because the consumers answer one after the other. While jobs come and end it has to last for six counts and for
// movingTime, because the server updates its consumers a moment later. In the first count any difference is enough, because
// some callers count only once.
//
// Without a difference, jobs of such a queue may hide among those that come and end: all jobs are read after a long pause.
func (c *Counter) mustRead() bool {
	l := &c.unserved
	lasting := 3
	switch {
	case c.counts == 1:
		lasting = 1
	case l.isMoving:
		lasting = 6
	}
	lasts := l.differing >= lasting && (lasting == 1 || !l.isMoving || time.Since(l.differingSince) >= movingTime)
	elapsed := time.Since(l.endedAt)
	return !l.startedAt.IsZero() || lasts && elapsed >= l.pause || elapsed >= max(maxPause, busyFactor*l.pause)
}

// readUnserved reads some jobs, and adds the queues without consumers that it finds. An error only postpones the reading:
// nothing else of the count depends on it.
func (c *Counter) readUnserved(ctx context.Context, queues map[string]*Queue) {
	l := &c.unserved
	if l.startedAt.IsZero() {
		l.startedAt, l.fromStart, l.read = time.Now(), l.after == 0, 0
	}
	var found []string
	last, more, err := c.bus.ReadQueued(ctx, l.after, c.cfg.ReadJobs, readBudget, func(queue string) {
		if q := queues[queue]; (q == nil || !q.Served) && c.addUnservedQueue(queue) {
			found = append(found, queue)
		}
	})
	for _, name := range found {
		if err == nil {
			_, err = c.countUnserved(ctx, queues, name)
		}
	}
	switch {
	case err != nil:
		l.startedAt, l.endedAt, l.pause = time.Time{}, time.Now(), min(max(2*l.pause, minPause), maxPause)
	case more:
		l.after = last
	default:
		l.finish(queues)
	}
}

// addUnservedQueue records the queue of a job that was read, and reports whether it is new.
func (c *Counter) addUnservedQueue(queue string) bool {
	l := &c.unserved
	switch {
	case l.queues[queue]:
		return false
	case len(l.queues) < maxUnserved && bus.Publishable(c.bus.Names().Job(queue, "x")):
		l.queues[queue] = true
		return true
	}
	l.read++
	return false
}

// finish ends a reading that has come to the last job. The next one begins at the first job.
func (l *unserved) finish(queues map[string]*Queue) {
	if !l.fromStart {
		l.read += l.other
	}
	if l.other = l.read; l.other > 0 {
		queueOf(queues, OtherQueues).Queued = l.other
	}
	l.endedAt, l.pause = time.Now(), max(minPause, time.Since(l.startedAt))
	l.after, l.startedAt = 0, time.Time{}
}
