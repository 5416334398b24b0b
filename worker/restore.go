package worker

import (
	"context"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// restoring keeps the pullers and runners that miss a stream from all creating it at once.
type restoring struct {
	mu     sync.Mutex // guards the fields below; held during a creation
	next   time.Time  // of the next try at the earliest
	reason string     // of the latest failure
}

// A worker tries to recreate missing streams at most every recreateEvery, and at most every recreateRefusedEvery after a refusal
// that lasts until somebody changes the server or the account.
const (
	recreateEvery        = 2 * time.Second
	recreateRefusedEvery = 30 * time.Second
)

// Restore recreates missing streams, unless this worker has tried a moment ago.
func (w *Worker) Restore(ctx context.Context) {
	r := &w.restoring
	// Whoever finds the lock taken waits for nothing: another one creates the streams.
	if w.cfg.Restore == nil || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if time.Now().Before(r.next) {
		return
	}
	err := w.cfg.Restore(ctx)
	switch {
	case err == nil:
		r.next, r.reason = time.Now().Add(recreateEvery), ""
		w.cfg.Log.Warn("a stream was missing, what was missing is created again")
		return
	case bus.IsPermanent(err):
		r.next = time.Now().Add(recreateRefusedEvery)
	default:
		r.next = time.Now().Add(recreateEvery)
	}
	// The same reason is logged once, though it is tried every few seconds.
	if reason := err.Error(); reason != r.reason {
		r.reason = reason
		w.cfg.Log.Error("a stream is missing and cannot be created, trying again", "permanent", bus.IsPermanent(err), "error", err)
	}
}
