package worker

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// deadLetter keeps a failed job as a dead letter. It may be stored twice: the stream keeps the last one of an id. Without room for
// it the job goes back: its result is stored, so it needs no slot, and its next delivery tries again.
func (w *Worker) deadLetter(ctx context.Context, t *task, result *jobs.Result) bool {
	if result.Outcome != jobs.Failed {
		return true
	}
	var full error
	hopeless := func(err error) bool {
		if errors.Is(err, bus.ErrDeadLettersFull) {
			full = err
		}
		return full != nil || bus.IsUnstorable(err)
	}
	settled, refusal := w.retryUntilSettled(ctx, t, step{kind: "dead", action: "store dead letter", hopeless: hopeless}, func(ctx context.Context) error {
		return w.client.DeadLetter(ctx, t.queue, t.id, t.msg.Data(), result)
	})
	if full != nil {
		w.noteDeadFull(full)
		w.handBackUntil(ctx, t, time.Now().Add(deadFullPause))
		return false
	}
	if settled = w.orReport(settled, refusal, "store dead letter", t); settled {
		w.stats.deadLetters.Add(1)
		w.cfg.Observer.DeadLettered(result.Error)
	}
	return settled
}

// deadFullPause is how long a failed job waits in its queue for room for its dead letter, until it is tried again.
const deadFullPause = 30 * time.Second

// deadFull is why the latest dead letter found no room, and when.
type deadFull struct {
	err error
	at  time.Time
}

// noteDeadFull notes that dead letters find no room, and logs that if it is new.
func (w *Worker) noteDeadFull(err error) {
	if w.deadFullError() == nil {
		w.cfg.Log.Error("failed jobs stay in their queues, because there is no room for dead letters", "error", err)
	}
	w.deadFull.Store(&deadFull{err, time.Now()})
}

// deadFullError returns why dead letters find no room; nil if none was refused lately. The jobs that found none come again within
// the pause, to this worker or to another one.
func (w *Worker) deadFullError() error {
	if full := w.deadFull.Load(); full != nil && time.Since(full.at) < 2*deadFullPause {
		return full.err
	}
	return nil
}
