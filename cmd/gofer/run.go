package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/admin"
)

// lastRequests is how long requests to the HTTP port may go on when everything else has ended.
const lastRequests = time.Second

// run serves and works until ctx ends or the connection is closed for good, then drains. The drain timeout bounds the whole
// end: first jobs end or go back, then the events and sums of the last seconds are stored, then the connection is closed. The
// HTTP port goes last, so that /readyz can say what happens. What does not end in time is left behind.
func (r *rig) run(ctx context.Context, listener net.Listener) error {
	ctx, r.drain = context.WithCancelCause(ctx)
	defer r.drain(nil)
	r.force(ctx)
	over, stop := outlive(ctx, r.config.DrainTimeout.Std())
	defer stop()
	shutDown := r.serve(listener)
	r.log.Info("worker starting", "worker", r.config.WorkerName, "version", buildVersion(), "http", listener.Addr().String(), "proxies", r.pool.Len())
	worked := make(chan error, 1)
	go func() { worked <- r.connectAndWork(ctx) }()
	var err error
	select {
	case err = <-worked:
	case <-over.Done(): // nats.go may wait for a server that takes no bytes, whatever a context says
		r.log.Error("the drain timeout is over, what still runs is given up", "timeout", r.config.DrainTimeout.String())
	}
	shutDown(over)
	if gone := context.Cause(ctx); err == nil && errors.Is(gone, bus.ErrUnreachable) {
		err = gone
	}
	return err
}

// tail is the part of the drain timeout that is kept for what comes after the jobs.
func (r *rig) tail() time.Duration { return min(2*time.Second, r.config.DrainTimeout.Std()/4) }

// outlive is a context that ends d after ctx.
func outlive(ctx context.Context, d time.Duration) (out context.Context, cancel context.CancelFunc) {
	out, cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return out, cancel
}

// isDone waits for parts and reports whether they ended before ctx did.
func isDone(ctx context.Context, parts *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		parts.Wait()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve serves the HTTP port until shutDown is called, which ends live streams at once and other requests in time.
func (r *rig) serve(listener net.Listener) (shutDown func(context.Context)) {
	server := admin.NewServer(r.handler(listener.Addr().String()), r.log)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(admin.Limit(listener, connectionLimit())); !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("HTTP stopped", "error", err)
		}
	})
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, lastRequests)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		serving.Wait()
	}
}

// connectAndWork works on a connection of its own, once there is one.
func (r *rig) connectAndWork(ctx context.Context) error {
	l, err := r.open(ctx)
	if l == nil {
		return err
	}
	defer l.nc.Close()
	return r.work(ctx, l)
}

// work runs the worker and what stands beside it. The others end after it: its last jobs still need them.
func (r *rig) work(ctx context.Context, l *line) error {
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	end, cancelEnd := outlive(ctx, r.config.DrainTimeout.Std()-r.tail()/4)
	defer cancelEnd()
	// What stands beside the worker ends a little earlier, so that it can still say what is lost.
	last, cancelLast := outlive(ctx, r.config.DrainTimeout.Std()-r.tail()/2)
	defer cancelLast()
	var parts sync.WaitGroup
	parts.Go(func() { r.settings.Run(beside, l.client.JetStream(), l.worker.Restore) })
	if r.fleet != nil {
		parts.Go(func() { r.fleet.Run(beside, l.client.JetStream(), r.names) })
	}
	parts.Go(func() { r.config.WatchProxies(beside, r.takeProxies) })
	parts.Go(func() { r.checkHealth(beside) })
	parts.Go(func() { r.post(beside, last) })
	parts.Go(func() { r.measure(beside, l.nc) })
	parts.Go(func() { r.rollups.Run(beside, last, l.client) })
	parts.Go(func() { r.findOverdue(beside, l.client) })
	parts.Go(func() { r.findStranded(beside, l.client) })
	silence := r.answer(l)
	r.log.Info("worker started", "worker", r.config.WorkerName, "queues", len(r.config.Queues), "concurrency", r.config.Concurrency)
	err := l.worker.Run(ctx)
	silence()
	stop()
	if !isDone(end, &parts) {
		r.log.Warn("not everything beside the jobs has ended in time")
	}
	flush, cancel := context.WithTimeout(end, 2*time.Second)
	defer cancel()
	if flushErr := l.nc.FlushWithContext(flush); flushErr != nil && !l.nc.IsClosed() {
		r.log.Warn("connection not flushed", "error", flushErr)
	}
	r.log.Info("worker stopped", "worker", r.config.WorkerName)
	return err
}

// post publishes what the outbox brings until ctx ends, and then what is in it, until last ends. The outbox is never closed:
// a request to reset a breaker may still come in.
func (r *rig) post(ctx, last context.Context) {
	for ctx.Err() == nil {
		select {
		case publish := <-r.outbox:
			r.publish(last, publish)
		case <-ctx.Done():
		}
	}
	for len(r.outbox) > 0 && last.Err() == nil {
		r.publish(last, <-r.outbox)
	}
	if lost := len(r.outbox); lost > 0 {
		r.log.Error("events of the last seconds are lost", "events", lost)
	}
}

func (r *rig) publish(ctx context.Context, message func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := time.Now()
	err := message(ctx)
	r.metrics.Published("event", err == nil, time.Since(began))
	if err != nil {
		r.log.Warn("event not published", "error", err)
	}
}
