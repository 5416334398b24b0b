package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Run fetches and runs jobs until ctx ends, then drains: it fetches no more jobs, lets the running ones finish, and hands back
// those that do not finish in time. If the cause of ctx's end is bus.ErrUnreachable, nothing can be stored or handed back any
// more: Run cancels the running jobs at once, and the server redelivers them. Run returns when no job runs any more, and at the
// latest when the drain timeout is over, whatever a job or the connection does.
func (w *Worker) Run(ctx context.Context) error {
	// Jobs and their settling outlive ctx by the drain: cut ends the jobs, end ends the settling.
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	settling, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	// A cancel over NATS reaches every worker; only the one that runs the job has an entry for it.
	stop, err := w.client.OnCancel(func(queue, id string) { w.jobs.cancel(queue, id, jobs.ErrJobCancelled) })
	if err != nil {
		return err
	}
	defer stop()
	if w.acks, err = w.client.OpenAcks(w.acked); err != nil {
		return err
	}
	if w.pulls, err = w.client.OpenPulls(); err != nil {
		w.acks.Close(settling)
		return err
	}
	defer w.pulls.Close()
	var pulls, runs sync.WaitGroup
	// One runner for each slot: a job that was handed over always finds one soon.
	for range w.cfg.Concurrency {
		runs.Go(func() { w.runner(work, settling) })
	}
	w.pull(ctx, &pulls)
	<-ctx.Done()
	limit := w.beginDrain(ctx)
	pulls.Go(func() { w.stopPulls(settling, min(limit, w.drainReserve())) })
	defer time.AfterFunc(limit-w.drainReserve(), func() { cut(jobs.ErrStopping) }).Stop()
	defer time.AfterFunc(limit-w.drainReserve()/4, func() {
		end(jobs.ErrStopping)
		w.handBackRunning(settling)
	}).Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		pulls.Wait()
		// Only after every puller has ended: a puller sends to tasks.
		close(w.tasks)
		runs.Wait()
		w.acks.Close(settling)
	}()
	select {
	case <-ended:
	// A job that ignores its context, or a call of nats.go that takes none, must not hold the process.
	case <-time.After(max(limit, w.drainReserve())):
		w.cfg.Log.Error("the drain is over and something still runs, it is given up", "jobs", w.jobs.count())
	}
	return nil
}

// pull fetches jobs, and watches where they come from, in goroutines that end with ctx.
func (w *Worker) pull(ctx context.Context, pulls *sync.WaitGroup) {
	pulls.Go(func() { w.watchStreams(ctx) })
	pulls.Go(func() { w.listConsumers(ctx) })
	for _, p := range w.pullers {
		pulls.Go(func() { p.run(ctx) })
		pulls.Go(func() { p.watchConsumer(ctx) })
	}
}

// stopPulls ends the pulls that wait, so that the drain does not wait for them.
func (w *Worker) stopPulls(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w.pulls.Stop(ctx)
}

// beginDrain begins the drain and returns how long it may take.
func (w *Worker) beginDrain(ctx context.Context) time.Duration {
	limit := w.cfg.DrainTimeout
	// Nothing can be stored or handed back without a connection, so waiting for jobs has no use.
	if errors.Is(context.Cause(ctx), bus.ErrUnreachable) {
		limit = 0
	}
	// The rest is for closing the connection and the HTTP port.
	limit -= w.drainReserve() / 16 // for what the process does after Run
	over := time.Now().Add(limit)
	w.drainEnds.Store(&over)
	w.draining.Store(true)
	return limit
}

// drainReserve is the last part of the drain timeout. Jobs that still run when it begins are cancelled, and settled or handed
// back within it.
func (w *Worker) drainReserve() time.Duration { return min(2*time.Second, w.cfg.DrainTimeout/4) }

// handBackRunning hands back the jobs that still run when nothing can be settled any more, also those whose run does not end.
// Without a connection it does nothing: the server redelivers the jobs after their ack wait.
func (w *Worker) handBackRunning(ctx context.Context) {
	if time.Until(*w.drainEnds.Load()) <= 0 {
		return
	}
	var all sync.WaitGroup
	for _, t := range w.jobs.all() {
		all.Go(func() { w.handBack(ctx, t) })
	}
	all.Wait()
}

// handBackLimit bounds the wait for the server's confirmation of a hand-back; a drain may leave less.
const handBackLimit = 2 * time.Second

// handBack naks a job, so that the server redelivers it at once to any worker. Only the first call for a task does so.
func (w *Worker) handBack(ctx context.Context, t *task) {
	// A run and the end of the drain may both want to hand the job back.
	if !t.handedBack.CompareAndSwap(false, true) || !t.isHeld() {
		return
	}
	w.stats.handedBack.Add(1)
	limit := handBackLimit
	if over := w.drainEnds.Load(); over != nil {
		// A hand-back must not outlast the drain.
		limit = min(limit, max(0, time.Until(*over)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit) // the end of a drain may have ended ctx
	defer cancel()
	err := w.client.HandBack(ctx, t.msg)
	t.lease.end() // a run that goes on must not renew the lease of a job that somebody else has
	w.cfg.Observer.Acked("hand_back", err == nil)
	if err != nil {
		w.cfg.Log.Warn("job not handed back, it returns after its ack wait", "queue", t.queue, "job", t.id, "error", err)
	}
}
