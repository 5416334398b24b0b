package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// settle makes an outcome durable and reports whether the job may be acked. The order is what keeps the promise: the
// result, or the waiting job, is stored before the ack, so that a death in between brings the job back.
func (w *Worker) settle(ctx context.Context, t *task, outcome jobs.RunOutcome) bool {
	switch outcome.Kind {
	case jobs.RunFinished:
		return w.finish(ctx, t, outcome.Result)
	case jobs.RunScheduled:
		ok, refusal := w.park(ctx, t, outcome.Progress, outcome.At)
		if refusal != nil {
			return w.finish(ctx, t, unparkable(t.job, outcome.Progress, refusal))
		}
		return ok
	case jobs.RunStopped:
		if len(outcome.Progress.Attempts) > len(t.progress.Attempts) {
			ok, refusal := w.park(ctx, t, outcome.Progress, latest(outcome.At, time.Now()))
			if refusal == nil {
				return ok
			}
		}
		w.handBack(ctx, t)
		return false
	case jobs.RunLeaseLost:
		w.lost(t)
		return false
	}
	w.cfg.Log.Error("a run ended without an outcome, the job goes back", "queue", t.job.Queue, "job", t.job.ID, "kind", outcome.Kind.String())
	w.handBack(ctx, t)
	return false
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *Worker) lost(t *task) {
	w.stats.lost.Add(1)
	w.cfg.Log.Warn("lease lost, the job runs elsewhere", "queue", t.queue, "job", t.id)
}

// finish stores the job's one result. Whoever stored first has won; then this job is done as well.
func (w *Worker) finish(ctx context.Context, t *task, result jobs.Result) bool {
	result.Queue, result.ID, result.JobSeq, result.Worker = t.queue, t.id, t.progress.JobSeq, w.cfg.Name
	pending := w.cfg.Client.Pending(result)
	var stored bus.Stored
	ok, _ := w.retryUntilSettled(ctx, t, step{kind: "result", doing: "store result", limit: pending.TimeLimit()}, func(ctx context.Context) (err error) {
		stored, err = pending.Store(ctx)
		if full := errors.Is(err, bus.ErrResultsFull); full || err == nil {
			w.full.Store(full)
		}
		return err
	})
	if !ok {
		w.full.Store(false) // whether there is room by now, the next result finds out
		return false
	}
	if len(stored.Omitted) > 0 {
		w.cfg.Log.Error("a part of the result could not be stored", "queue", t.queue, "job", t.id, "omitted", stored.Omitted, "error", stored.Refusal)
	}
	if !stored.Won {
		return w.second(ctx, t, result, stored.Previous)
	}
	if w.cfg.Ended != nil {
		w.cfg.Ended(t.job, result)
	}
	return w.bury(ctx, t, result)
}

// second settles a job whose result was there already: a rerun after a crash, of the same job, finishes what the first
// run may have left undone; a second job of that name is told about.
func (w *Worker) second(ctx context.Context, t *task, ours, kept jobs.Result) bool {
	if kept.JobSeq == ours.JobSeq {
		return w.bury(ctx, t, kept)
	}
	w.stats.duplicates.Add(1)
	if ours.Outcome == jobs.Cancelled || kept.Outcome == jobs.Cancelled && kept.JobSeq == 0 {
		return true
	}
	// The event only informs: a stream that takes none holds up no job.
	return w.settleOrReport(ctx, t, step{kind: "event", doing: "publish duplicate event", hopeless: bus.IsPermanent}, func(ctx context.Context) error {
		return w.cfg.Client.PublishDuplicate(ctx, jobs.DuplicateEvent{
			JobID: t.id, Queue: t.queue, JobSeq: ours.JobSeq, StoredSeq: kept.JobSeq, Worker: w.cfg.Name, At: time.Now().UTC(),
		})
	})
}

// bury keeps a failed job as a dead letter. A letter written twice is one letter: the stream keeps the last of an id.
func (w *Worker) bury(ctx context.Context, t *task, result jobs.Result) bool {
	if result.Outcome != jobs.Failed {
		return true
	}
	w.stats.dead.Add(1)
	w.cfg.Counted.Buried(result.Error)
	return w.settleOrReport(ctx, t, step{kind: "dead", doing: "store dead letter", hopeless: bus.IsUnstorable}, func(ctx context.Context) error {
		return w.cfg.Client.DeadLetter(ctx, t.queue, t.id, t.msg.Data(), &result)
	})
}

// settleOrReport is retryUntilSettled for what a job can end without, once its result is stored.
func (w *Worker) settleOrReport(ctx context.Context, t *task, s step, act func(context.Context) error) bool {
	ok, refusal := w.retryUntilSettled(ctx, t, s, act)
	if refusal != nil {
		w.cfg.Log.Error("the job ends without this", "step", s.doing, "queue", t.queue, "job", t.id, "error", refusal)
	}
	return ok || refusal != nil
}

// park stores the job until its time. A twin of it that waits there already is as good. refusal tells that the job cannot be
// stored while it waits.
func (w *Worker) park(ctx context.Context, t *task, progress jobs.Progress, at time.Time) (ok bool, refusal error) {
	progress.JobSeq = t.progress.JobSeq
	w.stats.parked.Add(1)
	s := step{kind: "retry", doing: "store waiting job", hopeless: func(err error) bool {
		return errors.Is(err, errWaitingFull) || bus.IsUnstorable(err) && !w.becameUnusable(ctx, "retry")
	}}
	for _, p := range []jobs.Progress{progress, progress.Brief()} {
		ok, refusal = w.retryUntilSettled(ctx, t, s, func(ctx context.Context) error {
			if err := w.roomToWait(ctx, t); err != nil {
				return err
			}
			_, err := w.cfg.Client.Park(ctx, t.queue, t.id, t.msg.Data(), p, at)
			return err
		})
		if errors.Is(refusal, errWaitingFull) {
			w.postpone(ctx, t, at)
			return false, nil
		}
		if refusal == nil {
			break
		}
	}
	return ok, refusal
}

// postpone leaves a job that has to wait where it is. It needs no more room there, and no slot, which the jobs whose time has
// come need. The attempts that were announced count when it comes again: see recall.
func (w *Worker) postpone(ctx context.Context, t *task, at time.Time) {
	t.handedBack.Store(true)
	if err := w.cfg.Client.HandBackUntil(ctx, t.msg, at); err != nil {
		w.cfg.Log.Warn("job not handed back, it returns after its ack wait", "queue", t.queue, "job", t.id, "error", err)
	}
}

// unparkable is the result of a job that has to wait and cannot be stored meanwhile: it would wait in a slot.
func unparkable(job jobs.Job, progress jobs.Progress, refusal error) jobs.Result {
	result := progress.Result(job, time.Now())
	result.Outcome, result.Error = jobs.Failed, jobs.ErrPermanent
	result.Detail = "the job cannot be stored while it waits: " + refusal.Error()
	return result
}

// unpark takes a cancelled job out of those that wait. When that fails it is found out at its time, as long as its result is
// kept.
func (w *Worker) unpark(ctx context.Context, t *task) {
	if err := w.cfg.Client.Unpark(ctx, t.queue, t.id); err != nil {
		w.cfg.Log.Warn("cancelled job still waits", "queue", t.queue, "job", t.id, "error", err)
	}
}

// step is one thing that has to be stored before a job may be acked.
type step struct {
	kind  string // of the message, as Counted.Published has it
	doing string
	// hopeless tells errors after which the step is not tried again. Nil means that the job cannot end without the step.
	hopeless func(error) bool
	limit    time.Duration // of one try; zero means 5 s
}

// permanentWait is how long a step rests that is refused until somebody changes the server, the account or a stream.
const permanentWait = 5 * time.Second

// retryUntilSettled does act, which publishes a message, until act succeeds, fails for good, the lease is over or a drain
// ends ctx. The server may be away for a while. refusal is the error of a step that is hopeless.
func (w *Worker) retryUntilSettled(ctx context.Context, t *task, s step, act func(context.Context) error) (ok bool, refusal error) {
	defer w.unsettled.remove(t)
	for wait := 100 * time.Millisecond; t.lease.valid() && ctx.Err() == nil; wait = min(2*wait, time.Second) {
		err := w.trySettle(ctx, t, s, act)
		switch {
		case err == nil:
			return true, nil
		case s.hopeless != nil && s.hopeless(err):
			return false, err
		}
		permanent := bus.IsPermanent(err)
		if w.unsettled.add(t, s.doing, err, permanent) {
			w.cfg.Log.Warn("cannot settle the job, trying again", "step", s.doing, "queue", t.queue, "job", t.id, "permanent", permanent, "error", err)
		}
		if errors.Is(err, bus.ErrNotSetUp) {
			w.Restore(ctx)
		}
		if permanent {
			wait = permanentWait
		}
		pause(ctx, min(wait, max(0, t.lease.left())))
	}
	drained := t.lease.valid()
	if !drained {
		w.stats.lost.Add(1)
	}
	w.cfg.Log.Warn("the job was not settled in time, it will run again", "step", s.doing, "queue", t.queue, "job", t.id, "drained", drained)
	return false, nil
}

// trySettle does act once, in bounded time.
func (w *Worker) trySettle(ctx context.Context, t *task, s step, act func(context.Context) error) error {
	limit := min(5*time.Second, t.lease.left())
	ctx, cancel := context.WithTimeout(ctx, max(limit, s.limit))
	defer cancel()
	if s.limit > limit {
		defer t.lease.bound(ctx, cancel)()
	}
	began := time.Now()
	err := act(ctx)
	w.cfg.Counted.Published(s.kind, err == nil, time.Since(began))
	return err
}

// ack tells the server that the job is done, and waits for the answer. Without one the job comes back, and the guard on
// its result, or its waiting twin, ends it then.
func (w *Worker) ack(ctx context.Context, t *task) {
	if !t.ours() {
		return // somebody else's by now; it finds the result, or the waiting twin
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := bus.Plain(t.msg.DoubleAck(ctx))
	w.cfg.Counted.Acked("ack", err == nil)
	if err != nil {
		w.cfg.Log.Warn("ack not confirmed, the job will be looked at again", "queue", t.queue, "job", t.id, "error", err)
	}
}
