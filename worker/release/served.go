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
	// untakenAfter is how long a released job may stay in its stream until the queue counts as unserved. A free worker takes a
	// due job much sooner.
	untakenAfter = 5 * time.Second
	// queuesEvery is the time between two readings of the queues.
	queuesEvery = 2 * time.Second
	// unservedPause is the pause between two visits to a backlog whose jobs are all of unserved queues. It ends when a queue is
	// served again.
	unservedPause = time.Minute
)

// queues says which queues of the fleet are served. A queue is unserved if it is paused, if it has no consumer, or if nobody took
// a released job of it. Then no more jobs of the queue are released, and its released jobs take no place of the window, because
// they would hold up the jobs of other queues for the same site. Until the queues are read, each queue counts as served. The
// methods may be called from any goroutine.
type queues struct {
	mu        sync.Mutex                 // guards the fields below
	consumers map[string]bus.DueConsumer // nil until the server has listed them
	untaken   map[string]uint64          // by queue: the sequence of the due job that nobody took and that was found first
}

// reset forgets which jobs nobody took. The consumers stay, because they are the server's state.
func (q *queues) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.untaken = nil
}

// serves reports whether somebody takes the jobs of a queue. servesLocked does the same for callers that hold the lock.
func (q *queues) serves(queue string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.servesLocked(queue)
}

func (q *queues) servesLocked(queue string) bool {
	// The server has not listed the consumers. Releasing no job would do more harm than a job released into an unserved queue.
	if q.consumers == nil {
		return true
	}
	consumer, known := q.consumers[queue]
	return known && !consumer.Paused && q.untaken[queue] == 0
}

// served returns the names of the served queues, sorted, so that heads reads them in the same order each time.
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

// update replaces the consumers, and reports whether a queue is served that was not served before.
func (q *queues) update(consumers []bus.DueConsumer) (servedNow bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := map[string]bool{}
	for _, consumer := range consumers {
		was[consumer.Queue] = q.servesLocked(consumer.Queue)
	}
	q.consumers = make(map[string]bus.DueConsumer, len(consumers))
	for _, consumer := range consumers {
		q.consumers[consumer.Queue] = consumer
		// A worker took the job, or the job is gone: the queue counts as served again.
		if !isUntaken(consumer, q.untaken[consumer.Queue]) {
			delete(q.untaken, consumer.Queue)
		}
	}
	// If the consumers of a queue are created again, the queue begins as served.
	maps.DeleteFunc(q.untaken, func(queue string, _ uint64) bool { _, known := q.consumers[queue]; return !known })
	for queue, served := range was {
		servedNow = servedNow || !served && q.servesLocked(queue)
	}
	return servedNow
}

// isUntaken reports whether a due job was never delivered. Delivered is the highest sequence that the consumer has delivered;
// it never decreases. A consumer without pending jobs has delivered the job, or the job is gone.
func isUntaken(consumer bus.DueConsumer, seq uint64) bool {
	return consumer.Pending > 0 && consumer.Delivered < seq
}

// isStuck reports whether a released job that is still due is in an unserved queue. If nobody took the job for untakenAfter,
// isStuck marks its queue as unserved.
func (q *queues) isStuck(s sentJob) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	consumer, known := q.consumers[s.job.Queue]
	switch {
	case q.consumers == nil:
		return false
	case !known:
		return true
	case !isUntaken(consumer, s.seq):
		return false
	case time.Since(s.at) < untakenAfter:
		return consumer.Paused // the jobs of a paused queue lose their places at once
	}
	if q.untaken == nil {
		q.untaken = map[string]uint64{}
	}
	// Only the first such job is kept. As soon as a worker takes it, the queue is served.
	if q.untaken[s.job.Queue] == 0 {
		q.untaken[s.job.Queue] = s.seq
	}
	return true
}

// watchQueues reads the queues every queuesEvery while jobs wait for sites, until ctx ends.
func (r *Releaser) watchQueues(ctx context.Context, jobs siteJobs) {
	for failed := false; ctx.Err() == nil; {
		pause := queuesEvery
		if r.Sites() > 0 {
			err := r.readQueues(ctx, jobs)
			if err != nil && !failed && ctx.Err() == nil {
				r.cfg.Log.Warn("cannot read which queues are served; jobs that wait for a site may be delayed by a paused queue", "error", err)
			}
			// Each refusal is an error in the server's log, so a refused request is repeated rarely.
			if failed = err != nil; errors.Is(err, bus.ErrPermission) {
				pause = refusedPause
			}
		}
		sleep(ctx, pause)
	}
}

// readQueues reads the queues once. If a queue is served again, it schedules a visit to every backlog, because the jobs of the
// queue must not wait for the end of unservedPause.
func (r *Releaser) readQueues(ctx context.Context, jobs siteJobs) error {
	consumers, err := jobs.DueConsumers(ctx)
	if err != nil {
		return err
	}
	if r.queues.update(consumers) {
		r.visitAllSoon()
	}
	return nil
}

// sleep waits for d. It returns early when ctx ends; the caller asks ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// rereadEvery is how often a backlog is read from its start, whatever was found before. A replica that lags hides jobs among those
// that are released together. At a site for which ever more jobs wait, the end of the list would not come, and such a job would
// wait until the server releases it, for up to an hour.
const rereadEvery = time.Minute

// heads finds the next jobs of a backlog during one visit. It reads the oldest job of each served queue only if the oldest job of
// all is of an unserved queue, because any number of jobs of that queue may follow.
type heads struct {
	backlog *backlog
	stream  siteJobs
	queues  *queues
	byQueue map[string]bus.WaitingJob // the oldest job of each served queue; nil while the oldest job of all is of a served queue
	reread  bool                      // the jobs were read from the start of the subject
	maxJobs int                       // how many jobs nextJobs reads at most
}

// newHeads begins a visit.
func newHeads(b *backlog, stream siteJobs, q *queues) *heads {
	if now := time.Now(); now.Sub(b.fromStart) >= rereadEvery {
		b.fromStart, b.after, b.passed = now, 0, nil
	}
	return &heads{backlog: b, stream: stream, queues: q, reread: b.after == 0, maxJobs: 1}
}

// nextJobs returns the oldest job of a served queue. If no job of an unserved queue is older, it also returns jobs of the
// following sequences, up to the first one of an unserved queue; at most limit jobs in all. It reads these sequences in one
// request. The number of sequences doubles with each call, up to chunk. It is halved if fewer than half of the sequences are such
// jobs, or if the jobs are large. waits means that jobs wait, even if all of them are of unserved queues.
func (h *heads) nextJobs(ctx context.Context, limit int) (list []bus.WaitingJob, waits bool, err error) {
	job, found, waits, err := h.first(ctx)
	if err != nil || !found {
		return nil, waits, err
	}
	list = []bus.WaitingJob{job}
	limit = min(limit, h.maxJobs)
	h.maxJobs = min(2*h.maxJobs, chunk)
	if h.byQueue != nil || limit <= 1 {
		return list, true, nil
	}
	behind := make([]uint64, limit-1)
	for i := range behind {
		behind[i] = job.Seq + 1 + uint64(i)
	}
	isUnserved, size := false, len(job.Message().Data)
	// A replica that lags does not show the newest jobs. A job that is skipped here is found when the jobs are read from the
	// start: see rereadEvery.
	err = h.stream.StillWaiting(ctx, behind, func(job bus.WaitingJob) {
		if job.Site != h.backlog.key || h.backlog.refused[job.Seq] {
			return
		}
		// markGone marks all jobs up to the last one, so a job of an unserved queue ends the list.
		if isUnserved = isUnserved || !h.queues.serves(job.Queue); !isUnserved {
			list = append(list, job)
			size += len(job.Message().Data)
		}
	})
	if 2*len(list) < limit || size > maxListBytes {
		h.maxJobs = max(limit/2, 1)
	}
	return list, true, err
}

// first returns the oldest job of a served queue. waits means that jobs wait, even if all of them are of unserved queues.
func (h *heads) first(ctx context.Context) (job bus.WaitingJob, found, waits bool, err error) {
	// In the usual case, the oldest job of all is of a served queue. That costs one request.
	if h.byQueue == nil {
		job, found, err = h.oldest(ctx)
		if err != nil || !found || h.queues.serves(job.Queue) {
			return job, found, found, err
		}
		// From here on byQueue has the oldest job of each served queue, and markGone reads the next one.
		h.byQueue = map[string]bus.WaitingJob{}
		for _, queue := range h.queues.served() {
			if err := h.read(ctx, queue); err != nil {
				return job, false, true, err
			}
		}
		job, found = bus.WaitingJob{}, false
	}
	// The job with the lowest sequence has waited longest.
	for _, head := range h.byQueue {
		if !found || head.Seq < job.Seq {
			job, found = head, true
		}
	}
	return job, found, true, nil
}

// oldest returns the oldest waiting job of all queues. Sequences only grow, so a released job that waits again comes after all
// others.
func (h *heads) oldest(ctx context.Context) (job bus.WaitingJob, found bool, err error) {
	b := h.backlog
	for {
		job, found, err = h.stream.NextSiteWait(ctx, b.key, b.after)
		switch {
		case err != nil || found && !b.refused[job.Seq]:
			return job, found, err
		case found:
			b.after = job.Seq
		case h.reread:
			return job, false, nil
		// Either no job waits, or the stream was created again and its sequences began again: one read from zero decides. A
		// second read from zero in the same visit could find released jobs, because a replica that lags still shows them.
		default:
			h.reread, b.after = true, 0
		}
	}
}

// read reads the oldest job of a queue into byQueue.
func (h *heads) read(ctx context.Context, queue string) error {
	b := h.backlog
	job, found, err := h.stream.NextSiteWaitOfQueue(ctx, b.key, queue, max(b.after, b.passed[queue]))
	for err == nil && found && b.refused[job.Seq] {
		job, found, err = h.stream.NextSiteWaitOfQueue(ctx, b.key, queue, job.Seq)
	}
	if err != nil {
		return err
	}
	if found {
		h.byQueue[queue] = job
		return nil
	}
	delete(h.byQueue, queue)
	// Either no job of the queue waits, or the stream was created again: the next visit reads the queue from the start.
	delete(b.passed, queue)
	return nil
}

// markGone notes that a job of the latest nextJobs, and the jobs before it, are gone: released, or cancelled meanwhile.
func (h *heads) markGone(ctx context.Context, job bus.WaitingJob) error {
	b := h.backlog
	// No older job waits.
	if h.byQueue == nil {
		b.after = job.Seq
		return nil
	}
	// b.after stays, because older jobs of unserved queues still wait.
	if b.passed == nil {
		b.passed = map[string]uint64{}
	}
	b.passed[job.Queue] = job.Seq
	return h.read(ctx, job.Queue)
}
