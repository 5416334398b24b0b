package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker/stream"
)

// task is one delivery of a job: its message, its lease, and what is known of the job.
type task struct {
	puller        *puller
	msg           *stream.Delivery
	meta          nats.MsgMetadata
	lease         *lease
	streamCreated int64 // of the puller when it sent the pull request

	queue, id  string // of the subject; id is safe to publish to
	job        jobs.Job
	progress   jobs.Progress
	invalid    error // why the job cannot run; nil if it can
	mayHaveRun bool  // an earlier run may have announced attempts or stored a result

	// Fields that running and handBack use.
	cancel     context.CancelCauseFunc
	next       *task // another task of this name
	handedBack atomic.Bool
}

// runner runs one task after the other, each in a slot that its puller acquired. Only runner releases the slot. A new goroutine
// for each job would have to grow its stack each time.
func (w *Worker) runner(work, settling context.Context) {
	// The slot is given back in every case, also for a job that was not settled.
	for t := range w.tasks {
		w.handle(work, settling, t)
		w.slots.release(t.puller.slots)
	}
}

// handle reads, runs, settles and acks one job. A drain ends work before settling. The task leaves running before its ack is
// sent: if the ack is lost, the next delivery must find out the outcome.
func (w *Worker) handle(work, settling context.Context, t *task) {
	t.read()
	if w.run(work, settling, t) {
		w.ack(t)
	}
}

// run keeps the lease alive while the job runs and is settled, and reports whether it may be acked.
func (w *Worker) run(work, settling context.Context, t *task) (settled bool) {
	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	added := w.jobs.add(t, cancel)
	// Counted even if it is not run, since the server delivered it.
	w.countTaken(t, !added || t.meta.NumDelivered > 1)
	if !added {
		w.cfg.Log.Info("job delivered again while it runs here, its run goes on", "queue", t.queue, "job", t.id)
		return false
	}
	defer w.jobs.remove(t)
	switch {
	case !t.isHeld():
		w.leaseLost(t)
		return false
	case w.draining.Load():
		// The job was fetched before the drain began, and no run has begun.
		w.handBack(settling, t)
		return false
	case !w.isWhole(settling, t):
		w.handBack(settling, t)
		return false
	}
	stop := t.lease.keepAlive(func(ctx context.Context) error { return w.heartbeat(ctx, t) }, cancel)
	settled = w.complete(ctx, settling, t)
	stop()
	// settle may already have handed it back, which handBack notices.
	if !settled && settling.Err() != nil {
		w.handBack(settling, t) // the drain ended before the job was settled
	}
	return settled
}

// isWhole reports whether the message is the job as it was published. A consumer that somebody set to headers_only delivers what
// looks like an invalid job. Then the worker inspects the consumer at once, and fetches no more from it.
func (w *Worker) isWhole(ctx context.Context, t *task) bool {
	whole, err := w.client.IsWhole(ctx, t.msg, t.puller.queue, t.puller.dueJobs)
	if whole && err == nil {
		return true
	}
	if err == nil {
		err = t.puller.inspect(ctx)
	}
	w.cfg.Log.Error("job arrived without its payload, handing it back", "queue", t.queue, "job", t.id, "error", err)
	return false
}

// isHeld reports whether the worker may still settle, ack or hand back this delivery: its lease is not over, and its stream is
// still the one that it came from. A stream that was recreated since its last inspection is noticed with the next one. Until then
// an ack would count for a job of the new stream that has the same sequence: the server knows an ack by the sequence alone. A
// stream that gofer creates has other sequences than the one before.
func (t *task) isHeld() bool {
	return t.lease.valid() && t.puller.streamCreated.Load() == t.streamCreated
}

// countTaken counts a delivery. The wait is at least zero, because the server's clock may be ahead.
func (w *Worker) countTaken(t *task, again bool) {
	w.stats.taken.Add(1)
	if again {
		w.stats.redelivered.Add(1)
	}
	w.cfg.Observer.Taken(t.queue, max(0, time.Since(t.meta.Timestamp)), again)
}

// errStreamGone means that the job stream was recreated, and that the job came from the one before.
var errStreamGone = errors.New("the stream that the job came from is gone")

// heartbeat renews the lease. A heartbeat that the end of the run cancels is not counted as a failure of the server.
func (w *Worker) heartbeat(ctx context.Context, t *task) error {
	if !t.isHeld() {
		return errStreamGone
	}
	err := w.client.Heartbeat(ctx, t.msg)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		w.cfg.Observer.Acked("heartbeat", err == nil)
	}
	return err
}

// complete runs and settles the job and reports whether it may be acked.
func (w *Worker) complete(ctx, settling context.Context, t *task) bool {
	if t.isForNewer() {
		w.leaveToNewer(settling, t)
		return false
	}
	if t.invalid != nil {
		return w.finish(settling, t, t.invalidResult())
	}
	var next time.Time
	if t.mayHaveRun {
		// This look-up only saves a fetch: the guard of the result decides in any case.
		if kept := w.storedResult(ctx, t); kept != nil {
			return w.settleDuplicate(settling, t, "", kept)
		}
		next = w.restoreAttempts(ctx, t)
	}
	var outcome *jobs.RunOutcome
	if time.Until(next) > 0 {
		// The announced delay of a dead worker's retry still holds.
		outcome = &jobs.RunOutcome{Kind: jobs.RunScheduled, At: next, Progress: t.progress}
	} else {
		outcome = w.cfg.Do(ctx, &t.job, &t.progress)
		w.proxyShortage.add(outcome.NoProxy)
	}
	// The body's memory is needed until the result is stored.
	defer outcome.Release()
	if !w.settle(settling, t, outcome) {
		return false
	}
	if outcome.Kind == jobs.RunScheduled && errors.Is(context.Cause(ctx), jobs.ErrJobCancelled) {
		// The canceller stored the result, but searched for the scheduled job before it was stored.
		w.unschedule(settling, t)
	}
	return true
}

// storedResult returns the result that an earlier run stored; nil if there is none or it cannot be read.
func (w *Worker) storedResult(ctx context.Context, t *task) *jobs.Result {
	kept, err := w.client.Result(ctx, t.queue, t.id)
	if err != nil {
		return nil
	}
	return &kept
}

// restoreAttempts adds the attempts of a worker that died during the job, as far as retry events announce them. So a job that
// kills its workers comes to an end. It returns the announced time of the next attempt, which holds even though that worker did
// not store the scheduled job any more.
func (w *Worker) restoreAttempts(ctx context.Context, t *task) (next time.Time) {
	last, stored, err := w.client.LastRetry(ctx, t.queue, t.id)
	// An event older than the message belongs to another job of this name, or to the time before the job was scheduled. An
	// event with more attempts than any job can have is forged.
	if err != nil || last.Attempt > jobs.MaxMaxAttempts || !stored.After(t.meta.Timestamp) || last.Attempt <= len(t.progress.Attempts) {
		return time.Time{}
	}
	for n := len(t.progress.Attempts) + 1; n < last.Attempt; n++ {
		t.progress.Attempts = append(t.progress.Attempts, jobs.Attempt{Attempt: n, Fault: jobs.FaultUnclear, Error: "made by a worker that died"})
	}
	t.progress.Attempts = append(t.progress.Attempts, jobs.Attempt{
		Attempt: last.Attempt, Proxy: last.Proxy, Status: last.Status, Fault: last.Fault, Error: last.Error, StartedAt: last.At,
	})
	return earlierOf(last.NextAttemptAt, time.Now().Add(maxAnnouncedDelay))
}

// maxAnnouncedDelay bounds the delay that an event may announce: otherwise a forged event could delay a job for years.
// Retry-After has the longest delay, with the same bound.
const maxAnnouncedDelay = 15 * time.Minute

func earlierOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// read decodes the message. A job that cannot be decoded is invalid; it is never dropped.
func (t *task) read() {
	queue, id, _ := jobs.SplitSubject(t.msg.Subject())
	t.queue, t.id = queue, safeID(id)
	// A fresh job that is delivered for the first time cannot have a result of its own, which saves a question
	// for nearly every job.
	t.mayHaveRun = t.meta.NumDelivered > 1 || t.puller.dueJobs
	t.progress.JobSeq = t.meta.Sequence.Stream
	if t.puller.dueJobs {
		progress, err := jobs.ParseProgress(t.msg.Headers().Get(jobs.HeaderProgress))
		if err != nil {
			t.invalid = &jobs.InvalidError{Reasons: []string{err.Error()}}
		}
		t.progress = progress
	}
	t.progress.Trace, t.progress.Contract = jobs.ParseTrace(t.msg.Headers()), t.msg.Headers().Get(jobs.HeaderContract)
	job, err := jobs.Decode(queue, id, t.msg.Data())
	job.ID = t.id
	if !t.meta.Timestamp.Before(job.NotBefore) {
		job.NotBefore = time.Time{} // it is due by the server's clock, which decides for all workers
	}
	t.job = job
	if err != nil {
		t.invalid = err
	} else if size := messageSize(t.msg); !t.puller.dueJobs && size > jobs.MaxJobBytes {
		t.invalid = &jobs.InvalidError{Reasons: []string{"the job and its headers are larger than 768 KiB"}}
	}
}

// invalidResult returns the result of a job that cannot run.
func (t *task) invalidResult() *jobs.Result {
	result := t.progress.Result(&t.job, time.Now())
	result.Outcome, result.Error, result.Detail = jobs.Failed, jobs.ErrInvalidJob, t.invalid.Error()
	if invalid, ok := errors.AsType[*jobs.InvalidError](t.invalid); ok {
		result.Reasons = invalid.Reasons
	}
	result.URL = "" // an invalid URL may hold anything, a password included
	if slices.ContainsFunc(result.Reasons, func(r string) bool { return strings.HasPrefix(r, "meta") }) {
		result.Meta = nil // it may hold what no NATS header can carry
	}
	return &result
}

func messageSize(msg *stream.Delivery) int {
	size := len(msg.Data())
	for name, values := range msg.Headers() {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	return size
}

// maxIDBytes bounds the id of an invalid job that a result is published under: a server closes the connection of a client that
// publishes to a subject longer than 4 KiB.
const maxIDBytes = 512

// safeID returns id if a message can be published under it and a reader can print it. Otherwise it returns a hash: an invalid job
// may carry any id, wildcards and escape sequences included, and still gets its result.
func safeID(id string) string {
	if len(id) > maxIDBytes || text.Printable(id) != id {
		return hashedID(id)
	}
	for token := range strings.SplitSeq(id, ".") {
		if token == "" || token == "*" || token == ">" || strings.ContainsAny(token, " \t\r\n\f\x00") {
			return hashedID(id)
		}
	}
	return id
}

func hashedID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "invalid-" + hex.EncodeToString(sum[:6])
}
