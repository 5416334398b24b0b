package worker

import (
	"context"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// restoring keeps the lanes and jobs that miss a stream from all creating it at once.
type restoring struct {
	mu     sync.Mutex
	next   time.Time // before which nobody tries again
	reason string    // of the latest failure
}

// A worker looks for streams that are missing every restoreEvery, and every restoreRefused after a refusal that lasts until
// somebody changes the server or the account.
const (
	restoreEvery   = 2 * time.Second
	restoreRefused = 30 * time.Second
)

// Restore creates the streams that are missing, unless somebody here has done it just now.
func (w *Worker) Restore(ctx context.Context) {
	r := &w.restoring
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
		r.next, r.reason = time.Now().Add(restoreEvery), ""
		w.cfg.Log.Warn("a stream was missing, what was missing is created again")
		return
	case bus.IsPermanent(err):
		r.next = time.Now().Add(restoreRefused)
	default:
		r.next = time.Now().Add(restoreEvery)
	}
	if reason := err.Error(); reason != r.reason {
		r.reason = reason
		w.cfg.Log.Error("a stream is missing and cannot be created, trying again", "permanent", bus.IsPermanent(err), "error", err)
	}
}
