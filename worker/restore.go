package worker

import (
	"context"
	"sync"
	"time"
)

// restoring keeps the lanes and jobs that miss a stream from all making it anew at once.
type restoring struct {
	mu sync.Mutex
	at time.Time // of the latest
}

// restoreEvery is how often a worker looks for streams that are missing.
const restoreEvery = 2 * time.Second

// Restore creates the streams that are missing, unless somebody here has done it just now.
func (w *Worker) Restore(ctx context.Context) {
	r := &w.restoring
	if w.cfg.Restore == nil || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if time.Since(r.at) < restoreEvery {
		return
	}
	r.at = time.Now()
	w.cfg.Log.Warn("a stream is missing, making what is missing anew")
	if err := w.cfg.Restore(ctx); err != nil {
		w.cfg.Log.Warn("the streams cannot be made anew, trying again", "error", err)
	}
}
