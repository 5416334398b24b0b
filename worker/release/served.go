package release

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// untakenAfter is how long a released job may lie until its queue counts as unserved. It is well above the
	// time that a free worker needs to fetch a due job, so a busy fleet is not taken for a missing one.
	untakenAfter = 5 * time.Second
	// queuesEvery is the time between two looks at the queues.
	queuesEvery = 2 * time.Second
	// unservedPause is the pause between two looks at a line whose jobs are all of unserved queues. A queue that is served again
	// ends it.
	unservedPause = time.Minute
)

// queues is what is known of the queues of the fleet. A queue is unserved if it is paused, has no consumer, or
// if nobody took a job of it that was released. No more of its jobs are released then, and those that lie there
// hold no place of a job of another queue.
//
// What is not known yet counts as served. Its methods may be called from any goroutine. All fields are guarded by
// mu. One site's jobs may be of many queues, so a paused queue would otherwise fill the window and starve the
// others.
type queues struct {
	mu        sync.Mutex
	consumers map[string]bus.DueConsumer // nil until the server has listed them
	untaken   map[string]uint64          // the oldest released job that nobody took, as the sequence of its due job
}

// reset forgets all but what the server says. The consumers stay: they are the server's state, not that of a
// leadership.
func (q *queues) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.untaken = nil
}

// serves reports whether somebody takes the jobs of a queue. It takes the lock for one question; servesLocked is for callers that
// hold it.
func (q *queues) serves(queue string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.servesLocked(queue)
}

func (q *queues) servesLocked(queue string) bool {
	// Releasing into an unserved queue does little harm, and holding back all jobs because the server has not
	// answered yet would do much.
	if q.consumers == nil {
		return true
	}
	consumer, known := q.consumers[queue]
	return known && !consumer.Paused && q.untaken[queue] == 0
}

// served are the names of the queues that are. They are sorted, so that heads asks in the same order each time.
func (q *queues) served() (names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, queue := range slices.Sorted(maps.Keys(q.consumers)) {
		if q.servesLocked(queue) {
			names = append(names, queue)
		}
	}
	return names
}

// update takes what the server says of all queues, and reports whether a queue became served. more is also true for a consumer
// that was just created: its queue was known as unserved, or not known at all.
func (q *queues) update(consumers []bus.DueConsumer) (more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := map[string]bool{}
	for _, consumer := range consumers {
		was[consumer.Queue] = q.servesLocked(consumer.Queue)
	}
	q.consumers = make(map[string]bus.DueConsumer, len(consumers))
	for _, consumer := range consumers {
		q.consumers[consumer.Queue] = consumer
		// Somebody took the job, or it is gone, so the queue counts as served again and gets the next one.
		if !isUntaken(consumer, q.untaken[consumer.Queue]) {
			delete(q.untaken, consumer.Queue)
		}
	}
	// A consumer that is gone takes its mark along, or a queue of the same name created later would begin as
	// unserved.
	maps.DeleteFunc(q.untaken, func(queue string, _ uint64) bool { _, known := q.consumers[queue]; return !known })
	for queue, served := range was {
		more = more || !served && q.servesLocked(queue)
	}
	return more
}

// isUntaken reports whether a due job was never given out. If the consumer has no pending jobs, the job was given out or is gone.
// Delivered is the highest sequence that the consumer has given out. It never decreases, so a lower one proves that the job still
// lies there.
func isUntaken(consumer bus.DueConsumer, seq uint64) bool {
	return consumer.Pending > 0 && consumer.Delivered < seq
}

// isStuck reports whether a released job that is still due is in a queue that nobody serves. It notes a queue of which nobody has
// taken the job for too long.
func (q *queues) isStuck(s sentJob) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	consumer, known := q.consumers[s.job.Queue]
	switch {
	// The order of the cases matters: without a list nothing is known, a queue without a consumer is served by
	// nobody, and a paused one gives up its places at once rather than after untakenAfter.
	case q.consumers == nil:
		return false
	case !known:
		return true
	case !isUntaken(consumer, s.seq):
		return false
	case time.Since(s.at) < untakenAfter:
		return consumer.Paused
	}
	if q.untaken == nil {
		q.untaken = map[string]uint64{}
	}
	// The first such job remains the mark: as soon as it is taken, the queue is served, whatever lies behind
	// it.
	if q.untaken[s.job.Queue] == 0 {
		q.untaken[s.job.Queue] = s.seq
	}
	return true
}

// watchQueues asks for the queues while jobs wait for sites, until ctx ends. It asks nothing while no site has
// waiting jobs, so an idle fleet costs the server nothing.
func (r *Releaser) watchQueues(ctx context.Context, jobs siteJobs) {
	for failed := false; ctx.Err() == nil; {
		pause := queuesEvery
		if r.Sites() > 0 {
			err := r.readQueues(ctx, jobs)
			if err != nil && !failed && ctx.Err() == nil {
				r.cfg.Log.Warn("cannot read which queues are served; jobs that wait for a site may be delayed by a paused queue", "error", err)
			}
			// Each refusal is an error in the server's log, so it is repeated rarely. failed keeps the warning to one for each
			// series.
			if failed = err != nil; errors.Is(err, bus.ErrPermission) {
				pause = refusedPause
			}
		}
		sleep(ctx, pause)
	}
}

// readQueues asks for the queues once, and looks at all lines at once if one of them is served again. A queue
// that is served again must not wait for the end of unservedPause.
func (r *Releaser) readQueues(ctx context.Context, jobs siteJobs) error {
	consumers, err := jobs.DueConsumers(ctx)
	if err != nil {
		return err
	}
	if r.queues.update(consumers) {
		r.lookSoonAtAll()
	}
	return nil
}

// sleep waits for d. It returns early when ctx ends; the caller asks ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// heads finds the jobs of a line that may go next, within one look. It asks for the oldest job of each queue only while the
// oldest of all is of an unserved queue: any number of jobs of that queue may follow it. It lives for one look only, so its heads
// cannot be older than that.
type heads struct {
	line    *line
	stream  siteJobs
	queues  *queues
	byQueue map[string]bus.WaitingJob // nil as long as the oldest job of all may go
	reread  bool                      // the jobs were read from the start of the subject
}

func newHeads(l *line, stream siteJobs, q *queues) *heads {
	return &heads{line: l, stream: stream, queues: q, reread: l.after == 0}
}

// first is the oldest job of a served queue. waits tells that jobs wait, even if all of them are of unserved queues.
func (h *heads) first(ctx context.Context) (job bus.WaitingJob, found, waits bool, err error) {
	// The usual case costs one question: the oldest job of all is of a served queue.
	if h.byQueue == nil {
		job, found, err = h.oldest(ctx)
		if err != nil || !found || h.queues.serves(job.Queue) {
			return job, found, found, err
		}
		// From here on the heads of all served queues are kept, one job each, and each release reads one more.
		h.byQueue = map[string]bus.WaitingJob{}
		for _, queue := range h.queues.served() {
			if err := h.read(ctx, queue); err != nil {
				return job, false, true, err
			}
		}
		job, found = bus.WaitingJob{}, false
	}
	// The job with the lowest sequence has waited longest, so jobs of different queues go in the order in which they began to
	// wait.
	for _, head := range h.byQueue {
		if !found || head.Seq < job.Seq {
			job, found = head, true
		}
	}
	return job, found, true, nil
}

// oldest is the oldest job that waits, in whichever queue. Sequences only grow, so a job that comes back is behind all others.
func (h *heads) oldest(ctx context.Context) (job bus.WaitingJob, found bool, err error) {
	l := h.line
	for {
		job, found, err = h.stream.NextSiteWait(ctx, l.key, l.after)
		switch {
		case err != nil || found && !l.refused[job.Seq]:
			return job, found, err
		case found:
			l.after = job.Seq
		case h.reread:
			return job, false, nil
		// Nothing behind the mark: either no job waits, or the sequences started again. One more read from zero
		// decides, once in a look: a replica behind its leader shows released jobs, and would show them without
		// end.
		default:
			h.reread, l.after = true, 0 // the stream may have been recreated
		}
	}
}

// read asks for the oldest job of a queue.
func (h *heads) read(ctx context.Context, queue string) error {
	l := h.line
	job, found, err := h.stream.NextSiteWaitOfQueue(ctx, l.key, queue, max(l.after, l.passed[queue]))
	for err == nil && found && l.refused[job.Seq] {
		job, found, err = h.stream.NextSiteWaitOfQueue(ctx, l.key, queue, job.Seq)
	}
	if err != nil {
		return err
	}
	if found {
		h.byQueue[queue] = job
		return nil
	}
	delete(h.byQueue, queue)
	// A mark that finds nothing is dropped; the next look reads the queue from its start.
	delete(l.passed, queue) // the stream was recreated, or no job of the queue waits
	return nil
}

// passed notes that a job is gone: released, or cancelled meanwhile.
func (h *heads) passed(ctx context.Context, job bus.WaitingJob) error {
	l := h.line
	// A job of a served queue was the oldest, so everything up to it is done.
	if h.byQueue == nil {
		l.after = job.Seq
		return nil
	}
	// l.after must not move: unserved jobs that still wait lie before this one.
	if l.passed == nil {
		l.passed = map[string]uint64{}
	}
	l.passed[job.Queue] = job.Seq
	return h.read(ctx, job.Queue)
}
