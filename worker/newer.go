package worker

import (
	"context"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// A job that says that it was written for a newer contract, and that this worker cannot read, goes back to the queue: during an
// update a newer worker takes it. Each delivery doubles the delay. After longestNewerWait nobody will come, and the job is
// invalid.
const (
	firstNewerDelay  = time.Second
	maxNewerDelay    = 30 * time.Second
	longestNewerWait = 24 * time.Hour
)

// isForNewer reports whether the job is to be left to a newer worker.
func (t *task) isForNewer() bool {
	// The time is that of the message, so all workers give up at about the same time.
	return t.invalid != nil && jobs.IsNewerContract(t.progress.Contract) && time.Since(t.meta.Timestamp) < longestNewerWait
}

// leaveToNewer hands the job back. It says so once for each job.
func (w *Worker) leaveToNewer(ctx context.Context, t *task) {
	if t.meta.NumDelivered <= 1 {
		w.cfg.Log.Warn("job of a newer contract handed back, a newer worker has to take it", "queue", t.queue, "job", t.id,
			"contract", t.progress.Contract, "known", jobs.ContractVersion, "error", t.invalid)
	}
	// The shift is bounded, because the number of deliveries is not.
	delay := firstNewerDelay << min(t.meta.NumDelivered, 5)
	w.stats.handedBack.Add(1)
	w.handBackUntil(ctx, t, time.Now().Add(min(delay, maxNewerDelay)))
}
