package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// lease is this worker's right to a job. An ack is no proof of it (the server takes one from anybody), so the time
// until which the server keeps the job for us is counted here: from before the pull that brought the job, or before
// the last heartbeat that the server confirmed. A worker that was frozen meanwhile sees that its time is over.
type lease struct {
	wait  time.Duration // the consumer's ack wait
	until atomic.Int64  // nanoseconds after base
	base  time.Time
	ended atomic.Bool
}

func newLease(from time.Time, wait time.Duration) *lease {
	l := &lease{wait: wait, base: from}
	l.until.Store(int64(wait))
	return l
}

// valid reports whether the job is still ours.
func (l *lease) valid() bool { return l.left() > 0 }

// end makes the lease be over: the job was given back.
func (l *lease) end() { l.ended.Store(true) }

func (l *lease) left() time.Duration {
	if l.ended.Load() {
		return 0
	}
	return time.Duration(l.until.Load()) - time.Since(l.base)
}

// bound calls end when the lease or ctx is over, or when the returned function is called, which waits for it.
func (l *lease) bound(ctx context.Context, end func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for l.valid() && ctx.Err() == nil { // heartbeats renew it
			pause(ctx, l.left())
		}
		end()
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// keep confirms the lease every wait/3 by beat until the returned function is called, which waits for a beat under way,
// and cancels the job when the lease could not be kept. Most jobs end before the first beat and cost only a timer.
func (l *lease) keep(beat func(context.Context) error, cancel context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	first := time.AfterFunc(l.wait/3-time.Since(l.base), func() {
		defer close(done)
		l.beats(ctx, beat, cancel)
	})
	return func() {
		end()
		if !first.Stop() {
			<-done
		}
	}
}

// beats confirms the lease, at once and then every wait/3; sooner after a beat that failed. A lease that is over stays over:
// the server would confirm a heartbeat all the same, and keep the job from whoever has it now.
func (l *lease) beats(ctx context.Context, beat func(context.Context) error, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil && l.valid() {
		next := l.wait / 3
		if !l.renew(ctx, beat) {
			next /= 8
		}
		pause(ctx, min(next, l.left()))
	}
	if !l.valid() {
		cancel(jobs.ErrLeaseLost)
	}
}

// renew sends one heartbeat. The new lease runs from before it was sent: the server cannot have counted from earlier.
func (l *lease) renew(ctx context.Context, beat func(context.Context) error) bool {
	sent := time.Since(l.base)
	ctx, stop := context.WithTimeout(ctx, min(l.wait/4, max(l.left(), time.Millisecond)))
	defer stop()
	if err := beat(ctx); err != nil {
		return false
	}
	l.until.Store(int64(sent + l.wait))
	return true
}
