package worker

import (
	"context"
	"sync"
	"time"
)

// unsettled counts the jobs whose outcome could not be stored at first, and keeps why.
type unsettled struct {
	mu   sync.Mutex
	jobs int
	last string
}

func (u *unsettled) enter() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.jobs++
}

func (u *unsettled) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.jobs--
}

func (u *unsettled) say(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = err.Error()
}

// why is the latest reason; ok when there is no such job.
func (u *unsettled) why() (why string, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.jobs == 0 {
		return "", true
	}
	return u.last, false
}

// restoring keeps the lanes and jobs that miss a stream from all making it anew at once.
type restoring struct {
	mu sync.Mutex
	at time.Time // of the latest
}

// restoreEvery is how often a worker looks for streams that are missing.
const restoreEvery = 2 * time.Second

// restore makes the missing streams anew, if nobody here has done it just now.
func (w *Worker) restore(ctx context.Context) {
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
