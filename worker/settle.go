package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// settle makes a run outcome durable and reports whether the job may be acked. The result or the scheduled job is stored before
// the ack: if the worker dies in between, the server redelivers the job.
func (w *Worker) settle(ctx context.Context, t *task, outcome *jobs.RunOutcome) bool {
	switch outcome.Kind {
	case jobs.RunFinished:
		return w.finish(ctx, t, &outcome.Result)
	case jobs.RunScheduled:
		ok, refusal := w.keepWaiting(ctx, t, outcome)
		if refusal != nil {
			return w.finish(ctx, t, unschedulableResult(&t.job, &outcome.Progress, refusal))
		}
		return ok
	case jobs.RunStopped:
		// The announced attempts must not be lost with this run, so the job is stored with them instead of
		// being handed back.
		if len(outcome.Progress.Attempts) > len(t.progress.Attempts) {
			ok, refusal := w.schedule(ctx, t, &outcome.Progress, laterOf(outcome.At, time.Now()))
			if refusal == nil {
				return ok
			}
		}
		w.handBack(ctx, t)
		return false
	case jobs.RunLeaseLost:
		w.leaseLost(t)
		return false
	}
	// A kind of zero is a run that forgot its outcome, which must not end as a finished job.
	w.cfg.Log.Error("a run ended without an outcome, the job goes back", "queue", t.job.Queue, "job", t.job.ID, "kind", outcome.Kind.String())
	w.handBack(ctx, t)
	return false
}

// laterOf returns the later of two times.
func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// leaseLost counts a job that this worker must not settle any more.
func (w *Worker) leaseLost(t *task) {
	w.stats.leasesLost.Add(1)
	w.cfg.Log.Warn("lease lost, the job runs elsewhere", "queue", t.queue, "job", t.id)
}

// finish stores the job's result. If another run has stored one first, that one stays, and the job is finished as well.
func (w *Worker) finish(ctx context.Context, t *task, result *jobs.Result) bool {
	result.Queue, result.ID, result.JobSeq, result.Worker, result.Trace = t.queue, t.id, t.progress.JobSeq, w.cfg.Name, t.progress.Trace
	pending := w.client.Pending(result)
	var stored bus.Stored
	ok, _ := w.retryUntilSettled(ctx, t, step{kind: "result", action: "store result", timeout: pending.TimeLimit(), isBounded: !pending.IsLarge()}, func(ctx context.Context) (err error) {
		stored, err = pending.Store(ctx)
		w.noteRoom(err)
		return err
	})
	if !ok {
		w.resultsFull.Store(nil) // the next result finds out whether there is room by now
		return false
	}
	if len(stored.Omitted) > 0 {
		w.cfg.Log.Error("a part of the result could not be stored", "queue", t.queue, "job", t.id, "omitted", stored.Omitted, "error", stored.Refusal)
	}
	if !stored.Won {
		return w.settleDuplicate(ctx, t, result.Outcome, stored.Previous)
	}
	w.cfg.Observer.Ended(&t.job, result)
	return w.deadLetter(ctx, t, result)
}

// noteRoom notes what the storing of a result says about the room for results. Only success and a full stream, account or disk do.
func (w *Worker) noteRoom(err error) {
	if err == nil {
		w.resultsFull.Store(nil)
		return
	}
	// The special ones come first, because each of them is an ErrResultsFull.
	for _, full := range []error{bus.ErrTooManyResults, bus.ErrNoStorage, bus.ErrResultsFull} {
		if errors.Is(err, full) {
			w.resultsFull.Store(&full)
			return
		}
	}
}

// settleDuplicate settles a job whose result is stored already. A rerun of the same job after a crash completes what the first
// run may not have done. For another job of the same name it publishes a duplicate event. outcome is the one of this run; empty
// if it had none yet.
func (w *Worker) settleDuplicate(ctx context.Context, t *task, outcome string, stored *jobs.Result) bool {
	// The same sequence: this is the same job, whose first run died between the result and the ack.
	if stored.JobSeq == t.progress.JobSeq {
		return w.deadLetter(ctx, t, stored)
	}
	w.stats.duplicates.Add(1)
	// A cancelled job has its result from the one who cancelled it, which is no duplicate.
	if outcome == jobs.Cancelled || stored.Outcome == jobs.Cancelled && stored.JobSeq == 0 {
		return true
	}
	// The event only informs: a stream that refuses it delays no job.
	refused := func(err error) bool { return bus.IsPermanent(err) || bus.IsFull(err) }
	return w.settleOrReport(ctx, t, step{kind: "event", action: "publish duplicate event", hopeless: refused}, func(ctx context.Context) error {
		return w.client.PublishDuplicate(ctx, jobs.DuplicateEvent{
			JobID: t.id, Queue: t.queue, JobSeq: t.progress.JobSeq, StoredSeq: stored.JobSeq, Worker: w.cfg.Name, At: time.Now().UTC(),
		})
	})
}

// settleOrReport is retryUntilSettled for a step that a job can end without, once its result is stored.
func (w *Worker) settleOrReport(ctx context.Context, t *task, s step, act func(context.Context) error) bool {
	ok, refusal := w.retryUntilSettled(ctx, t, s, act)
	return w.orReport(ok, refusal, s.action, t)
}

// orReport returns ok, or reports a refusal of a step that a job ends without, which settles the job as well.
func (w *Worker) orReport(ok bool, refusal error, action string, t *task) bool {
	if refusal != nil {
		w.cfg.Log.Error("the job ends without this", "step", action, "queue", t.queue, "job", t.id, "error", refusal)
	}
	return ok || refusal != nil
}

// keepWaiting stores the job until its time. A job that waits for its site is released earlier if the fleet learns of it; its
// time is then for the case that nobody releases it, and for what ends the job before.
func (w *Worker) keepWaiting(ctx context.Context, t *task, outcome *jobs.RunOutcome) (ok bool, refusal error) {
	wait := outcome.Wait
	if wait == nil || w.cfg.WaitForSite == nil || !w.cfg.WaitForSite(wait.Site) {
		return w.schedule(ctx, t, &outcome.Progress, outcome.At)
	}
	// The time is far away: normally the leader of the fleet releases the job.
	until := time.Now().Add(longestSiteWait)
	if !wait.End.IsZero() {
		until = earlierOf(until, wait.End)
	}
	due := uint64(0)
	// A due job is replaced in its stream; the server has to know which message that is.
	if t.puller.dueJobs {
		due = t.meta.Sequence.Stream
	}
	ok, refusal = w.storeWaiting(ctx, t, &outcome.Progress, outcome.At, func(ctx context.Context, c *stream.Client, p *jobs.Progress) error {
		_, err := c.WaitForSite(ctx, wait.Site, t.queue, t.id, due, t.msg.Data(), p, until)
		return err
	})
	w.cfg.WaitForSite(wait.Site) // again: if it took long to store the job, nobody looks at the site any more
	return ok, refusal
}

// longestSiteWait is how long a job waits for its site if nobody releases it.
const longestSiteWait = time.Hour

// schedule stores the job as a scheduled job. One that is stored there already, by another run, is as good.
func (w *Worker) schedule(ctx context.Context, t *task, progress *jobs.Progress, at time.Time) (ok bool, refusal error) {
	return w.storeWaiting(ctx, t, progress, at, func(ctx context.Context, c *stream.Client, p *jobs.Progress) error {
		_, err := c.Schedule(ctx, t.queue, t.id, t.msg.Data(), p, at)
		return err
	})
}

// storeWaiting stores a job that has to wait, with the progress as store gets it. Without room for it the job goes back until at.
// A refusal means that the job can never be stored there.
func (w *Worker) storeWaiting(ctx context.Context, t *task, progress *jobs.Progress, at time.Time, store func(context.Context, *stream.Client, *jobs.Progress) error) (ok bool, refusal error) {
	progress.JobSeq, progress.Trace, progress.Contract = t.progress.JobSeq, t.progress.Trace, t.progress.Contract
	w.stats.scheduled.Add(1)
	s := step{kind: "retry", action: "store waiting job", hopeless: func(err error) bool {
		return errors.Is(err, errNoRoomToWait) || bus.IsUnstorable(err) && !w.becameUnusable(ctx, "retry")
	}}
	// First with the whole history, then with a short one: what the server refuses for its size may fit without
	// the details.
	for _, p := range []*jobs.Progress{progress, progress.Brief()} {
		ok, refusal = w.retryUntilSettled(ctx, t, s, func(ctx context.Context) error {
			return w.storeInRoom(ctx, len(t.msg.Data()), t.puller.dueJobs, p, func(ctx context.Context, c *stream.Client) error { return store(ctx, c, p) })
		})
		if errors.Is(refusal, errNoRoomToWait) {
			w.handBackUntil(ctx, t, at)
			return false, nil
		}
		if refusal == nil {
			break
		}
	}
	return ok, refusal
}

// handBackUntil naks the job with a delay instead of scheduling it. It needs no more room where it is, and no slot: due jobs need
// the slots. The announced attempts count when the job is redelivered: see restoreAttempts.
func (w *Worker) handBackUntil(ctx context.Context, t *task, at time.Time) {
	// handBack must not do it a second time.
	t.handedBack.Store(true)
	if err := w.client.HandBackUntil(ctx, t.msg, at); err != nil {
		w.cfg.Log.Warn("job not handed back, it returns after its ack wait", "queue", t.queue, "job", t.id, "error", err)
	}
}

// unschedulableResult returns the result of a job that has to wait and cannot be stored for that time. It would otherwise wait in
// a slot.
func unschedulableResult(job *jobs.Job, progress *jobs.Progress, refusal error) *jobs.Result {
	result := progress.Result(job, time.Now())
	result.Outcome, result.Error = jobs.Failed, jobs.ErrPermanent
	result.Detail = "the job cannot be stored while it waits: " + refusal.Error()
	return &result
}

// unschedule removes a cancelled job from the scheduled ones. If that fails, the job is found to be finished when it is due, as
// long as its result is kept.
func (w *Worker) unschedule(ctx context.Context, t *task) {
	if err := w.client.RemoveScheduled(ctx, t.queue, t.id); err != nil {
		w.cfg.Log.Warn("cancelled job still waits", "queue", t.queue, "job", t.id, "error", err)
	}
}

// step is one message that has to be stored before a job may be acked.
type step struct {
	kind   string // of the message, as Observer.Published has it
	action string
	// hopeless reports errors after which the step is not tried again. Nil means that the job cannot end without the step.
	hopeless func(error) bool
	timeout  time.Duration // of one try; zero means 5 s
	// isBounded means that one try ends in time by itself, which costs a job less than a context does.
	isBounded bool
}

// permanentDelay is the delay after a refusal that lasts until somebody changes the server, the account or a stream.
const permanentDelay = 5 * time.Second

// retryUntilSettled calls act, which publishes a message, until act succeeds, its error is hopeless, the lease is over or a drain
// ends ctx. So the server may be down for a while. Refusal is the hopeless error.
func (w *Worker) retryUntilSettled(ctx context.Context, t *task, s step, act func(context.Context) error) (ok bool, refusal error) {
	defer w.unsettled.remove(t)
	// The loop ends with the lease, because another worker may have the job then.
	for delay := 100 * time.Millisecond; t.lease.valid() && ctx.Err() == nil; delay = min(2*delay, time.Second) {
		err := w.trySettle(ctx, t, s, act)
		switch {
		case err == nil:
			return true, nil
		case s.hopeless != nil && s.hopeless(err):
			return false, err
		}
		permanent := bus.IsPermanent(err)
		// Reported once for each step and reason, not for each try.
		if w.unsettled.add(t, s.action, err, permanent) {
			w.cfg.Log.Warn("cannot settle the job, trying again", "step", s.action, "queue", t.queue, "job", t.id, "permanent", permanent, "error", err)
		}
		if errors.Is(err, bus.ErrNotSetUp) {
			w.Restore(ctx)
		}
		if permanent {
			delay = permanentDelay
		}
		sleep(ctx, min(delay, max(0, t.lease.left())))
	}
	// A lease that is still valid means that the drain ended it.
	drained := t.lease.valid()
	if !drained {
		w.stats.leasesLost.Add(1)
	}
	w.cfg.Log.Warn("the job was not settled in time, it will run again", "step", s.action, "queue", t.queue, "job", t.id, "drained", drained)
	return false, nil
}

// trySettle calls act once, with a timeout.
func (w *Worker) trySettle(ctx context.Context, t *task, s step, act func(context.Context) error) error {
	if !s.isBounded {
		limit := min(5*time.Second, t.lease.left())
		limited, cancel := context.WithTimeout(ctx, max(limit, s.timeout))
		defer cancel()
		if s.timeout > limit {
			// A long try, such as of a large body, may outlast the lease; then it has to end with it.
			defer t.lease.callAtEnd(limited, cancel)()
		}
		ctx = limited
	}
	began := time.Now()
	err := act(ctx)
	w.cfg.Observer.Published(s.kind, err == nil, time.Since(began))
	return err
}

// ack acks the job, and does not wait for the confirmation: the slot is free for another job. Without a confirmation the job is
// redelivered, and its stored result or scheduled job ends that run.
func (w *Worker) ack(t *task) {
	if t.isHeld() { // otherwise another worker may have it, and finds the stored result or scheduled job
		w.acks.Ack(t.msg, t.queue, t.id)
	}
}

// acked reports what became of an ack.
func (w *Worker) acked(queue, id string, err error) {
	w.cfg.Observer.Acked("ack", err == nil)
	if err != nil {
		w.cfg.Log.Warn("ack not confirmed, the job will be looked at again", "queue", queue, "job", id, "error", bus.Plain(err))
	}
}
