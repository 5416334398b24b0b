package daemon

import (
	"context"
	"errors"
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
func (d *daemon) run(ctx context.Context) error {
	ctx, d.drain = context.WithCancelCause(ctx)
	defer d.drain(nil)
	context.AfterFunc(ctx, d.cfg.Draining)
	over, stop := outlive(ctx, d.cfg.DrainTimeout)
	defer stop()
	shutDown, addr := d.serve()
	d.log.Info("worker starting", "worker", d.cfg.Name, "version", d.cfg.Version, "http", addr, "proxies", d.pool.Len())
	worked := make(chan error, 1)
	go func() { worked <- d.connectAndWork(ctx) }()
	var err error
	select {
	case err = <-worked:
	case <-over.Done(): // nats.go may wait for a server that takes no bytes, whatever a context says
		d.log.Error("the drain timeout is over, what still runs is given up", "timeout", d.cfg.DrainTimeout.String())
	}
	shutDown(over)
	if gone := context.Cause(ctx); err == nil && errors.Is(gone, bus.ErrUnreachable) {
		err = gone
	}
	return err
}

// tail is the part of the drain timeout that is kept for what comes after the jobs.
func (d *daemon) tail() time.Duration { return min(2*time.Second, d.cfg.DrainTimeout/4) }

// outlive is a context that ends so much later than ctx.
func outlive(ctx context.Context, later time.Duration) (out context.Context, cancel context.CancelFunc) {
	out, cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(later, cancel) })
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

// serve serves the HTTP port at addr until shutDown is called, which ends live streams at once and other requests in time.
func (d *daemon) serve() (shutDown func(context.Context), addr string) {
	if d.cfg.Listener == nil {
		return func(context.Context) {}, ""
	}
	addr = d.cfg.Listener.Addr().String()
	server := admin.NewServer(d.handler(addr), d.log)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(admin.Limit(d.cfg.Listener, ConnectionLimit())); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("HTTP stopped", "error", err)
		}
	})
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, lastRequests)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		serving.Wait()
	}, addr
}

func (d *daemon) handler(addr string) http.Handler {
	return admin.New(admin.Config{
		Addr: addr, Token: d.cfg.AdminToken, Worker: d.cfg.Name, Version: d.cfg.Version, Log: d.log,
		MaxStreams: min(64, ConnectionLimit()/2), Ready: d.ready, Pool: d.pool, Book: d.book, Cluster: d.clusterBook, Metrics: d.metrics, Policy: d.settings.Policy,
		SetPolicy: d.setPolicy, ResetPolicy: d.resetPolicy, ResetBreaker: d.resetBreaker,
	})
}

// connectAndWork works on a connection of its own, once there is one.
func (d *daemon) connectAndWork(ctx context.Context) error {
	conn, err := d.open(ctx)
	if conn == nil {
		return err
	}
	defer conn.nc.Close()
	return d.work(ctx, conn)
}

// work runs the worker and what stands beside it. The others end after it: its last jobs still need them.
func (d *daemon) work(ctx context.Context, conn *connection) error {
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	end, cancelEnd := outlive(ctx, d.cfg.DrainTimeout-d.tail()/4)
	defer cancelEnd()
	// What stands beside the worker ends a little earlier, so that it can still say what is lost.
	last, cancelLast := outlive(ctx, d.cfg.DrainTimeout-d.tail()/2)
	defer cancelLast()
	var parts sync.WaitGroup
	parts.Go(func() { d.settings.Run(beside, conn.client.JetStream(), conn.worker.Restore) })
	if d.fleet != nil {
		parts.Go(func() { d.fleet.Run(beside, conn.client.JetStream(), d.names) })
	}
	parts.Go(func() { d.cfg.WatchProxies(beside, d.takeProxies) })
	parts.Go(func() { d.checkHealth(beside) })
	parts.Go(func() { d.post(beside, last) })
	parts.Go(func() { d.measure(beside, conn.nc) })
	parts.Go(func() { d.totals.Run(beside, last, conn.client) })
	parts.Go(func() { d.findOverdue(beside, conn.stream) })
	parts.Go(func() { d.findStranded(beside, conn.stream) })
	silence := d.answer(conn)
	d.log.Info("worker started", "worker", d.cfg.Name, "queues", len(d.cfg.Queues), "concurrency", d.cfg.Concurrency)
	go d.cfg.Started()
	err := conn.worker.Run(ctx)
	silence()
	stop()
	if !isDone(end, &parts) {
		d.log.Warn("not everything beside the jobs has ended in time")
	}
	flush, cancel := context.WithTimeout(end, 2*time.Second)
	defer cancel()
	if flushErr := conn.nc.FlushWithContext(flush); flushErr != nil && !conn.nc.IsClosed() {
		d.log.Warn("connection not flushed", "error", flushErr)
	}
	d.log.Info("worker stopped", "worker", d.cfg.Name)
	return err
}

// sleep waits for so long, or until ctx ends.
func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
