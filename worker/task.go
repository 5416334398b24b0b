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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
)

// task is one delivery of a job: the message, our right to it, and what is known of the job.
type task struct {
	lane  *lane
	msg   jetstream.Msg
	meta  jetstream.MsgMetadata
	lease *lease
	made  int64 // of the lane, when it was pulled

	queue, id string // as in the subject; id is made safe to publish to
	job       jobs.Job
	progress  jobs.Progress
	invalid   error // why the job cannot run
	again     bool  // somebody may have worked on it before

	// As one of the running.
	cancel     context.CancelCauseFunc
	next       *task // another run under this name
	handedBack atomic.Bool
}

// runner runs one task after the other, each in a slot that its lane has taken; the slot is given back here and nowhere
// else. A goroutine of its own for each job would grow its stack anew each time.
func (w *Worker) runner(work, settling context.Context) {
	for t := range w.tasks {
		w.handle(work, settling, t)
		w.slots.release(t.lane.share)
	}
}

// handle is one job's journey: read it, run it, settle it, ack it. A drain ends work before settling. When the ack is sent the
// job is no longer in hand: should that be lost, its next delivery has to find out what became of it.
func (w *Worker) handle(work, settling context.Context, t *task) {
	t.read()
	if w.run(work, settling, t) {
		w.ack(settling, t)
	}
}

// run keeps the lease while the job runs and its outcome is stored, and reports whether it may be acked.
func (w *Worker) run(work, settling context.Context, t *task) (settled bool) {
	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	added := w.jobs.add(t, cancel)
	w.took(t, !added || t.meta.NumDelivered > 1)
	if !added {
		w.cfg.Log.Info("job delivered again while it runs here, its run goes on", "queue", t.queue, "job", t.id)
		return false
	}
	defer w.jobs.remove(t)
	switch {
	case !t.ours():
		w.lost(t)
		return false
	case w.draining.Load():
		w.handBack(settling, t)
		return false
	case !w.isWhole(settling, t):
		w.handBack(settling, t)
		return false
	}
	stop := t.lease.keep(func(ctx context.Context) error { return w.beat(ctx, t) }, cancel)
	settled = w.complete(ctx, settling, t)
	stop()
	if !settled && settling.Err() != nil {
		w.handBack(settling, t) // the drain was over before it could be settled
	}
	return settled
}

// isWhole reports whether the message is the job as it was published. A consumer that somebody told to leave out the payloads
// delivers what looks like an invalid job; then the worker looks at the consumer at once, and pulls from it no longer.
func (w *Worker) isWhole(ctx context.Context, t *task) bool {
	whole, err := w.cfg.Client.IsWhole(ctx, t.msg, t.lane.queue, t.lane.due)
	if whole && err == nil {
		return true
	}
	if err == nil {
		err = t.lane.look(ctx)
	}
	w.cfg.Log.Error("job arrived without its payload, handing it back", "queue", t.queue, "job", t.id, "error", err)
	return false
}

// ours reports whether anything may still be said about this delivery: its lease is not over, and its stream is the one that
// it came from.
func (t *task) ours() bool { return t.lease.valid() && t.lane.made.Load() == t.made }

// took counts a job. The clock of the server, which stored it, may be ahead.
func (w *Worker) took(t *task, again bool) {
	w.stats.taken.Add(1)
	if again {
		w.stats.redelivered.Add(1)
	}
	w.cfg.Counted.Taken(t.queue, max(0, time.Since(t.meta.Timestamp)), again)
}

// errStreamGone: the job stream was made anew, and the job was of the one before.
var errStreamGone = errors.New("the stream that the job came from is gone")

// beat renews the lease. One that the job's end cuts short says nothing about the server.
func (w *Worker) beat(ctx context.Context, t *task) error {
	if !t.ours() {
		return errStreamGone
	}
	err := w.cfg.Client.Heartbeat(ctx, t.msg)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		w.cfg.Counted.Acked("heartbeat", err == nil)
	}
	return err
}

// complete brings the job as far as it can be brought now and reports whether it may be acked.
func (w *Worker) complete(ctx, settling context.Context, t *task) bool {
	if t.invalid != nil {
		return w.finish(settling, t, t.refusal())
	}
	var next time.Time
	if t.again {
		// Only to save the fetch: the guard on the result decides in any case.
		if kept, err := w.cfg.Client.Result(ctx, t.queue, t.id); err == nil {
			return w.second(settling, t, jobs.Result{JobSeq: t.progress.JobSeq}, kept)
		}
		next = w.recall(ctx, t)
	}
	outcome := jobs.RunOutcome{Kind: jobs.RunScheduled, At: next, Progress: t.progress}
	if time.Until(next) <= 0 {
		outcome = w.cfg.Do(ctx, t.job, t.progress)
		w.drought.note(outcome.NoProxy)
	}
	if !w.settle(settling, t, outcome) {
		return false
	}
	if outcome.Kind == jobs.RunScheduled && errors.Is(context.Cause(ctx), jobs.ErrJobCancelled) {
		// Whoever cancelled it looked for it among the waiting before it was there; its result is stored.
		w.unpark(settling, t)
	}
	return true
}

// recall counts the attempts of a worker that died with the job, as far as it announced what came after them. A job that
// kills its workers thus comes to an end. It returns the announced time of the next attempt, which stands: that worker could
// not store the waiting job any more.
func (w *Worker) recall(ctx context.Context, t *task) (next time.Time) {
	last, stored, err := w.cfg.Client.LastRetry(ctx, t.queue, t.id)
	// An older event is that of another job of this name, or of before the job's last wait. One of more attempts than a job can
	// have is nobody's.
	if err != nil || last.Attempt > jobs.MaxMaxAttempts || !stored.After(t.meta.Timestamp) || last.Attempt <= len(t.progress.Attempts) {
		return time.Time{}
	}
	for n := len(t.progress.Attempts) + 1; n < last.Attempt; n++ {
		t.progress.Attempts = append(t.progress.Attempts, jobs.Attempt{Attempt: n, Fault: jobs.FaultUnclear, Error: "made by a worker that died"})
	}
	t.progress.Attempts = append(t.progress.Attempts, jobs.Attempt{
		Attempt: last.Attempt, Proxy: last.Proxy, Status: last.Status, Fault: last.Fault, Error: last.Error, StartedAt: last.At,
	})
	return earliest(last.NextAttemptAt, time.Now().Add(longestAnnounced))
}

// longestAnnounced bounds the wait that an event may demand: whoever may publish events could have a job wait for years. No wait
// is longer than that of a Retry-After.
const longestAnnounced = 15 * time.Minute

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// read decodes the message. What cannot be read makes the job invalid, never lost.
func (t *task) read() {
	queue, id, _ := jobs.SplitSubject(t.msg.Subject())
	t.queue, t.id = queue, safeID(id)
	t.again = t.meta.NumDelivered > 1 || t.lane.due
	t.progress.JobSeq = t.meta.Sequence.Stream
	if t.lane.due {
		progress, err := jobs.ParseProgress(t.msg.Headers().Get(jobs.HeaderProgress))
		if err != nil {
			t.invalid = &jobs.InvalidError{Reasons: []string{err.Error()}}
		}
		t.progress = progress
	}
	job, err := jobs.Decode(queue, id, t.msg.Data())
	job.ID = t.id
	if !t.meta.Timestamp.Before(job.NotBefore) {
		job.NotBefore = time.Time{} // its time has come by the server's clock, which counts for all workers
	}
	t.job = job
	if err != nil {
		t.invalid = err
	} else if size := messageSize(t.msg); !t.lane.due && size > jobs.MaxJobBytes {
		t.invalid = &jobs.InvalidError{Reasons: []string{"the job and its headers are larger than 768 KiB"}}
	}
}

// refusal is the result of a job that cannot run.
func (t *task) refusal() jobs.Result {
	result := t.progress.Result(t.job, time.Now())
	result.Outcome, result.Error, result.Detail = jobs.Failed, jobs.ErrInvalidJob, t.invalid.Error()
	if invalid, ok := errors.AsType[*jobs.InvalidError](t.invalid); ok {
		result.Reasons = invalid.Reasons
	}
	result.URL = "" // it may be anything, with a password in it
	if slices.ContainsFunc(result.Reasons, func(r string) bool { return strings.HasPrefix(r, "meta") }) {
		result.Meta = nil // it may hold what no header can
	}
	return result
}

func messageSize(msg jetstream.Msg) int {
	size := len(msg.Data())
	for name, values := range msg.Headers() {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	return size
}

// longestID is of an id that a result is published under, bad as it may be: a server closes the connection of whoever
// publishes to a subject beyond 4 KiB.
const longestID = 512

// safeID is id if a message can be published under it, and if whoever reads the message can show it: an invalid job may carry
// anything, wildcards and escape sequences included, and gets its result all the same.
func safeID(id string) string {
	if len(id) > longestID || text.Printable(id) != id {
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
