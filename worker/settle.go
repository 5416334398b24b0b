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
func (w *Worker) settle(ctx context.Context, t *task, outcome Outcome) bool {
	switch outcome.Kind {
	case Finished:
		return w.finish(ctx, t, outcome.Result)
	case Later:
		return w.park(ctx, t, outcome.Progress, outcome.At)
	case Stopped:
		if len(outcome.Progress.Attempts) == len(t.progress.Attempts) {
			w.handBack(ctx, t, handBackWait)
			return false
		}
		return w.park(ctx, t, outcome.Progress, latest(outcome.At, time.Now()))
	case Lost:
	}
	w.lost(t)
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
	var stored bus.Stored
	ok := w.insist(ctx, t, "result", "store result", func(ctx context.Context) (err error) {
		stored, err = w.cfg.Client.StoreResult(ctx, &result)
		if full := errors.Is(err, bus.ErrResultsFull); full || err == nil {
			w.full.Store(full)
		}
		return err
	})
	if !ok {
		w.full.Store(false) // whether there is room by now, the next result finds out
		return false
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
	return w.insist(ctx, t, "event", "publish duplicate event", func(ctx context.Context) error {
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
	return w.insist(ctx, t, "dead", "store dead letter", func(ctx context.Context) error {
		return w.cfg.Client.DeadLetter(ctx, t.queue, t.id, t.msg.Data(), &result)
	})
}

// park stores the job until its time. A refusal means that a twin of it waits there already: then there is nothing to
// do but to ack.
func (w *Worker) park(ctx context.Context, t *task, progress jobs.Progress, at time.Time) bool {
	progress.JobSeq = t.progress.JobSeq
	w.stats.parked.Add(1)
	return w.insist(ctx, t, "retry", "store waiting job", func(ctx context.Context) error {
		if err := w.roomToWait(ctx, t); err != nil {
			return err
		}
		_, err := w.cfg.Client.Park(ctx, t.queue, t.id, t.msg.Data(), progress, at)
		return err
	})
}

// unpark takes a cancelled job out of those that wait. When that fails it is found out at its time, as long as its result is
// kept.
func (w *Worker) unpark(ctx context.Context, t *task) {
	if err := w.cfg.Client.Unpark(ctx, t.queue, t.id); err != nil {
		w.cfg.Log.Warn("cancelled job still waits", "queue", t.queue, "job", t.id, "error", err)
	}
}

// insist does act, which publishes a message of some kind, until it succeeds or the lease is over or a drain ends ctx; the
// server may be away for a while.
func (w *Worker) insist(ctx context.Context, t *task, kind, what string, act func(context.Context) error) bool {
	tries := 0
	for wait := 100 * time.Millisecond; t.lease.valid() && ctx.Err() == nil; wait = min(2*wait, time.Second) {
		try, cancel := context.WithTimeout(ctx, min(5*time.Second, t.lease.left()))
		began := time.Now()
		err := act(try)
		cancel()
		w.cfg.Counted.Published(kind, err == nil, time.Since(began))
		if err == nil {
			return true
		}
		w.cfg.Log.Warn("cannot settle the job, trying again", "step", what, "queue", t.queue, "job", t.id, "error", err)
		if tries++; tries == 1 {
			defer w.unsettled.leave()
			w.unsettled.enter()
		}
		w.unsettled.say(err)
		if errors.Is(err, bus.ErrNotSetUp) {
			w.restore(ctx)
		}
		pause(ctx, min(wait, max(0, t.lease.left())))
	}
	if t.lease.valid() {
		w.cfg.Log.Warn("drained before the job was settled, it will run again", "step", what, "queue", t.queue, "job", t.id)
		return false
	}
	w.stats.lost.Add(1)
	w.cfg.Log.Warn("lease lost before the job was settled, it will run again", "step", what, "queue", t.queue, "job", t.id)
	return false
}

// ack tells the server that the job is done, and waits for the answer. Without one the job comes back, and the guard on
// its result, or its waiting twin, ends it then.
func (w *Worker) ack(ctx context.Context, t *task) {
	if !t.ours() {
		return // somebody else's by now; it finds the result, or the waiting twin
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := t.msg.DoubleAck(ctx)
	w.cfg.Counted.Acked("ack", err == nil)
	if err != nil {
		w.cfg.Log.Warn("ack not confirmed, the job will be looked at again", "queue", t.queue, "job", t.id, "error", err)
	}
}

// handBackWait is how long a server may take to confirm that it has a job back.
const handBackWait = 2 * time.Second

// handBack returns a job to the server, at once and for anybody.
func (w *Worker) handBack(ctx context.Context, t *task, patience time.Duration) {
	t.handedBack = true
	if !t.ours() {
		return
	}
	w.stats.handedBack.Add(1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // a drain may have ended it
	defer cancel()
	err := w.cfg.Client.HandBack(ctx, t.msg)
	w.cfg.Counted.Acked("hand_back", err == nil)
	if err != nil {
		w.cfg.Log.Warn("job not handed back, it returns after its ack wait", "queue", t.queue, "job", t.id, "error", err)
	}
}
