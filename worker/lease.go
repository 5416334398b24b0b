package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// lease is this worker's right to a job. An ack does not prove it, because the server accepts an ack from anybody. So the
// worker itself computes until when the server keeps the job for it: the ack wait, counted from a time before the
// delivery of the job, or from before the last heartbeat that the server confirmed. A worker that was frozen meanwhile sees
// that its lease is over. Times are measured by the monotonic clock, which a change of the wall clock does not move.
type lease struct {
	ackWait time.Duration // of the consumer
	until   atomic.Int64  // nanoseconds after start
	start   time.Time
	givenUp atomic.Bool
}

// newLease makes a lease that runs from a time, for wait. That time must be before the server delivered the
// job, so the lease can only be shorter than what the server counts.
func newLease(from time.Time, wait time.Duration) *lease {
	l := &lease{ackWait: wait, start: from}
	l.until.Store(int64(wait))
	return l
}

// valid reports whether the lease still runs.
func (l *lease) valid() bool { return l.left() > 0 }

// end ends the lease early: the job was handed back.
func (l *lease) end() { l.givenUp.Store(true) }

// left returns how long the lease still runs; zero or less once it is over.
func (l *lease) left() time.Duration {
	if l.givenUp.Load() {
		return 0
	}
	return time.Duration(l.until.Load()) - time.Since(l.start)
}

// callAtEnd calls end once, when the lease or ctx is over or when stop is called. Stop waits for end to return.
func (l *lease) callAtEnd(ctx context.Context, end func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		// A loop, because the end may have moved while it slept.
		for l.valid() && ctx.Err() == nil { // heartbeats may renew the lease meanwhile
			sleep(ctx, l.left())
		}
		end()
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// keepAlive renews the lease by a heartbeat every third of the ack wait until stop is called. It cancels the job when the lease
// is over. Stop waits for a heartbeat that is being sent. Most jobs end before their first heartbeat and cost only a timer.
func (l *lease) keepAlive(heartbeat func(context.Context) error, cancel context.CancelCauseFunc) (stop func()) {
	h := &heartbeats{lease: l, send: heartbeat, cancel: cancel}
	// The first heartbeat is counted from the delivery and not from now, since the job may have waited for a
	// runner.
	h.first = time.AfterFunc(l.ackWait/3-time.Since(l.start), h.run)
	return h.stop
}

// heartbeats are those of one run of a job.
type heartbeats struct {
	lease  *lease
	send   func(context.Context) error
	cancel context.CancelCauseFunc
	first  *time.Timer

	mu      sync.Mutex // guards the fields below
	stopped bool
	end     context.CancelFunc // ends run; nil before it has begun
	ended   chan struct{}      // closed when run has ended
}

// run sends heartbeats until stop is called, unless that has happened already.
func (h *heartbeats) run() {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	h.end, h.ended = end, make(chan struct{})
	defer close(h.ended)
	h.mu.Unlock()
	h.lease.sendHeartbeats(ctx, h.send, h.cancel)
}

// stop ends run, and waits for it if it has begun.
func (h *heartbeats) stop() {
	if h.first.Stop() {
		return
	}
	h.mu.Lock()
	h.stopped = true
	end, ended := h.end, h.ended
	h.mu.Unlock()
	if end != nil {
		end()
		<-ended
	}
}

// sendHeartbeats renews the lease at once and then every third of the ack wait, and sooner after a failed heartbeat. It never
// renews a lease that is over: the server would confirm that heartbeat too, and withhold the job from the worker that has it now.
func (l *lease) sendHeartbeats(ctx context.Context, heartbeat func(context.Context) error, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil && l.valid() {
		next := l.ackWait / 3
		if !l.renew(ctx, heartbeat) {
			// After a failure the next try follows soon, so that several fit into what is left of the lease.
			next /= 8
		}
		sleep(ctx, min(next, l.left()))
	}
	// The run learns of it by its cause, and stores nothing any more.
	if !l.valid() {
		cancel(jobs.ErrLeaseLost)
	}
}

// renew sends one heartbeat. The new lease runs from before the heartbeat was sent: the server cannot count from earlier.
func (l *lease) renew(ctx context.Context, heartbeat func(context.Context) error) bool {
	sent := time.Since(l.start)
	// A heartbeat that takes longer than a quarter of the ack wait is given up, so that there is time for
	// another one.
	ctx, stop := context.WithTimeout(ctx, min(l.ackWait/4, max(l.left(), time.Millisecond)))
	defer stop()
	if err := heartbeat(ctx); err != nil {
		return false
	}
	// Counted from before the heartbeat was sent. The server counts from when it came, which is later.
	l.until.Store(int64(sent + l.ackWait))
	return true
}
