package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Run takes and runs jobs until ctx ends, then drains: it takes no more, lets the running ones finish, and hands back
// those that are not done in time. If bus.ErrUnreachable is the cause of ctx's end, nothing can be stored or handed back any
// more: it breaks the running ones off at once, and the server gives them to others. It returns when no job is left in its
// hands, or at the end of the drain timeout, whatever a job or the connection does.
func (w *Worker) Run(ctx context.Context) error {
	// Jobs outlive ctx by the drain; cut ends them, and end what is done to settle them.
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	settling, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop, err := w.cfg.Client.OnCancel(func(queue, id string) { w.jobs.cancel(queue, id, jobs.ErrJobCancelled) })
	if err != nil {
		return err
	}
	defer stop()
	var pulls, runs sync.WaitGroup
	for range w.cfg.Concurrency {
		runs.Go(func() { w.runner(work, settling) })
	}
	pulls.Go(func() { w.watchStreams(ctx) })
	for _, l := range w.lanes {
		pulls.Go(func() { l.pull(ctx) })
		pulls.Go(func() { l.watch(ctx) })
	}
	<-ctx.Done()
	limit := w.beginDrain(ctx)
	defer time.AfterFunc(limit-w.spare(), func() { cut(jobs.ErrStopping) }).Stop()
	defer time.AfterFunc(limit-w.spare()/4, func() {
		end(jobs.ErrStopping)
		w.handBackRunning(settling)
	}).Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		pulls.Wait()
		close(w.tasks)
		runs.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(max(limit, w.spare())):
		w.cfg.Log.Error("the drain is over and something still runs, it is given up", "jobs", w.jobs.count())
	}
	return nil
}

// beginDrain returns how long the drain may take.
func (w *Worker) beginDrain(ctx context.Context) time.Duration {
	limit := w.cfg.DrainTimeout
	if errors.Is(context.Cause(ctx), bus.ErrUnreachable) {
		limit = 0
	}
	limit -= w.spare() / 16 // for what comes after the last step
	over := time.Now().Add(limit)
	w.over.Store(&over)
	w.draining.Store(true)
	return limit
}

// spare is the end of the drain time: jobs that still run then are cut, and settled or handed back.
func (w *Worker) spare() time.Duration { return min(2*time.Second, w.cfg.DrainTimeout/4) }

// handBackRunning hands back what still runs when nothing can be settled any longer, also jobs whose run does not end. Those
// that a connection which is closed for good brought go to others by themselves.
func (w *Worker) handBackRunning(ctx context.Context) {
	if time.Until(*w.over.Load()) <= 0 {
		return
	}
	var all sync.WaitGroup
	for _, t := range w.jobs.all() {
		all.Go(func() { w.handBack(ctx, t) })
	}
	all.Wait()
}

// handBackWait is how long a server may take to confirm that it has a job back, if a drain leaves as much.
const handBackWait = 2 * time.Second

// handBack returns a job to the server, at once and for anybody. It does so once.
func (w *Worker) handBack(ctx context.Context, t *task) {
	if !t.handedBack.CompareAndSwap(false, true) || !t.ours() {
		return
	}
	w.stats.handedBack.Add(1)
	patience := handBackWait
	if over := w.over.Load(); over != nil {
		patience = min(patience, max(0, time.Until(*over)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // a drain may have ended it
	defer cancel()
	err := w.cfg.Client.HandBack(ctx, t.msg)
	t.lease.end() // a run that goes on must not keep the job from whoever has it next
	w.cfg.Counted.Acked("hand_back", err == nil)
	if err != nil {
		w.cfg.Log.Warn("job not handed back, it returns after its ack wait", "queue", t.queue, "job", t.id, "error", err)
	}
}
