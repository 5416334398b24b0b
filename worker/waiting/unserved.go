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
	// queues are the queues that were found and have jobs. The server counts these jobs in each count.
	queues map[string]bool
	// other counts the jobs of queues that no request can count: queues beyond maxUnserved, and names that would be a
	// wildcard. It is the result of the latest complete reading; read is that of the current one so far.
	other, read uint64
	// after is the sequence after which the next page begins.
	after uint64
	// began is when the current reading began; zero between two readings. whole says that it began at the first job.
	began time.Time
	whole bool
	// exact says that all jobs were known at the latest count.
	exact bool
	// ended is when the latest reading ended or all jobs were known. The next reading begins rest after it at the
	// earliest.
	ended time.Time
	rest  time.Duration
	// differed is for how many counts in a row there were other numbers of jobs than of known jobs. Jobs that came or ended
	// during a count make no difference. moved says that there were some in the latest count.
	differed int
	moved    bool
}

const (
	// maxUnserved is how many queues without consumers are counted by themselves. Misspelt names are unbounded, and
	// each one costs a question in every count.
	maxUnserved = 32
	// readJobs is how many queued jobs one count reads to find such queues, and readBudget about for how long. A million jobs are
	// read within 40 counts.
	readJobs   = 25_000
	readBudget = 500 * time.Millisecond
	// Between two readings passes the time that the first one took, and at least minRest. Failures double it up to maxRest.
	minRest = 5 * time.Second
	maxRest = 5 * time.Minute
	// While jobs come and end during each count, a few jobs of such a queue may stay unnoticed. Then all jobs are read
	// after a pause of busyRest times the usual one, and at least maxRest.
	busyRest = 20
)

// addUnserved counts the jobs that no consumer knows: those of queues without workers, such as misspelt ones. known is
// the number of jobs that consumers have reported, and before is the state of the stream before they were asked; it may
// be nil.
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
	l.moved = fewest != most
	if known < fewest || known > most {
		l.differed++
	} else {
		l.differed = 0
	}
	l.exact = known == fewest && known == most
	switch {
	case l.exact:
		// All jobs so far are known, so those of a queue that has not been found can only follow.
		l.after, l.began, l.ended, l.rest = after.State.LastSeq, time.Time{}, time.Now(), 0
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
	// The fewest are there if all that ended did so before the others came.
	ended := most - min(after.Msgs, most)
	return before.Msgs - min(ended, before.Msgs), most
}

// countUnserved adds the jobs of a queue that was found. It forgets a queue that has none, or whose consumers count them now.
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
	// No worker takes these jobs, so an alert about their age is the only sign of a misspelt queue.
	q.note(jobs.StateQueued, oldest)
	return n, nil
}

// mustRead reports whether jobs are read to find queues. A difference must last for three counts, because the consumers
// answer one after the other, and for six while jobs come, because the server tells its consumers of them a moment later. The
// first count has no history, and who counts only once must see such a queue, too. Without a difference, a few jobs of such a
// queue may hide among the jobs that come and end during each count: after a long pause all jobs are read.
func (c *Counter) mustRead() bool {
	l := &c.unserved
	lasting := 3
	switch {
	case c.counts == 1:
		lasting = 1
	case l.moved:
		lasting = 6
	}
	lasts := l.differed >= lasting
	pause := time.Since(l.ended)
	return !l.began.IsZero() || lasts && pause >= l.rest || pause >= max(maxRest, busyRest*l.rest)
}

// readUnserved reads some jobs and adds the queues without consumers among them. Without an answer of the server the queues stay
// as they were: nothing else of the count depends on them.
func (c *Counter) readUnserved(ctx context.Context, queues map[string]*Queue) {
	l := &c.unserved
	if l.began.IsZero() {
		l.began, l.whole, l.read = time.Now(), l.after == 0, 0
	}
	var found []string
	last, more, err := c.bus.ReadQueued(ctx, l.after, c.cfg.ReadJobs, readBudget, func(queue string) {
		if q := queues[queue]; (q == nil || !q.Served) && c.find(queue) {
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
		l.began, l.ended, l.rest = time.Time{}, time.Now(), min(max(2*l.rest, minRest), maxRest)
	case more:
		l.after = last
	default:
		l.finish(queues)
	}
}

// find records the queue of a job that was read, and reports whether it is new.
func (c *Counter) find(queue string) bool {
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

// finish ends a reading that has come to the last job. If there is still a difference later, the next one begins at the first
// job.
func (l *unserved) finish(queues map[string]*Queue) {
	if !l.whole {
		l.read += l.other
	}
	if l.other = l.read; l.other > 0 {
		queueOf(queues, OtherQueues).Queued = l.other
	}
	l.ended, l.rest = time.Now(), max(minRest, time.Since(l.began))
	l.after, l.began = 0, time.Time{}
}
