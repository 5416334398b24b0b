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

// run serves and works until ctx ends or the connection is closed for good, then drains. Everything after that has an end within
// the drain timeout T, with the reserve R = min(2 s, T/4) of it for what follows the jobs:
//
//	T - R      jobs end or are handed back
//	T - R/2    events and rollups of the last seconds are stored, or counted as lost
//	T - R/4    the tasks beside the loop have ended, and the connection is flushed
//	T          the connection is closed; then the HTTP port, so that /readyz shows the drain
//
// What has not ended by then is left behind.
func (d *daemon) run(ctx context.Context) error {
	ctx, d.drain = context.WithCancelCause(ctx)
	// Deferred, so that everything that watches ctx ends even if work returned by itself.
	defer d.drain(nil)
	// Called for every reason to end, a lost connection included.
	context.AfterFunc(ctx, d.cfg.Draining)
	over, cancel := delayedEnd(ctx, d.cfg.DrainTimeout)
	defer cancel()
	// The port is served before the server of NATS answers, so that /readyz can say what is missing.
	shutDown, addr := d.serve()
	d.log.Info("worker starting", "worker", d.cfg.Name, "version", d.cfg.Version, "http", addr, "proxies", d.pool.Len())
	// Room for one, so that the goroutine ends even if nobody waits for it any more.
	worked := make(chan error, 1)
	go func() { worked <- d.connectAndWork(ctx) }()
	var err error
	select {
	case err = <-worked:
	case <-over.Done(): // some calls of nats.go take no context and wait for a server that reads nothing
		d.log.Error("the drain timeout is over, what still runs is given up", "timeout", d.cfg.DrainTimeout.String())
	}
	shutDown(over)
	// A drain that Dial.Closed began is an error; one that a signal or a request began is not. err comes first:
	// it tells more than the cause.
	if cause := context.Cause(ctx); err == nil && errors.Is(cause, bus.ErrUnreachable) {
		err = cause
	}
	return err
}

// reserve is the part of the drain timeout that jobs do not get.
func (d *daemon) reserve() time.Duration { return min(2*time.Second, d.cfg.DrainTimeout/4) }

// delayedEnd returns a context with the values of ctx that ends when ctx has ended and then so much time has passed. What has to
// be written after the end runs under it. The caller calls cancel in any case.
func delayedEnd(ctx context.Context, later time.Duration) (out context.Context, cancel context.CancelFunc) {
	out, cancel = context.WithCancel(context.WithoutCancel(ctx))
	// AfterFunc runs in its own goroutine, so the delay blocks nothing.
	context.AfterFunc(ctx, func() { time.AfterFunc(later, cancel) })
	return out, cancel
}

// endBefore waits for tasks and reports whether they ended before ctx did. If not, the goroutine that waits stays behind with
// them: the process is about to exit. Tasks that wait for the network may take no context.
func endBefore(ctx context.Context, tasks *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tasks.Wait()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve serves the HTTP port at addr until shutDown is called. That ends live streams at once, and gives other requests a second.
func (d *daemon) serve() (shutDown func(context.Context), addr string) {
	// A program that embeds a worker may serve no port.
	if d.cfg.Listener == nil {
		return func(context.Context) {}, ""
	}
	addr = d.cfg.Listener.Addr().String()
	server := admin.NewServer(d.handler(addr), d.log)
	var serving sync.WaitGroup
	serving.Go(func() {
		// Shutdown makes Serve return at once with ErrServerClosed.
		if err := server.Serve(admin.Limit(d.cfg.Listener, ConnectionLimit())); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("HTTP stopped", "error", err)
		}
	})
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, lastRequests)
		defer cancel()
		// A request that goes on for longer is cut: the process is about to end.
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		serving.Wait()
	}, addr
}

// handler is the HTTP API. Live streams get at most half of the port's connections, so that probes and scrapes are still
// answered.
func (d *daemon) handler(addr string) http.Handler {
	return admin.New(admin.Config{
		Addr: addr, Token: d.cfg.AdminToken, Worker: d.cfg.Name, Version: d.cfg.Version, Log: d.log,
		MaxStreams: min(64, ConnectionLimit()/2), Ready: d.ready, Pool: d.pool, Unusual: d.answers.Unusual, Book: d.book, Cluster: d.clusterBook, Fleet: d.fleetSample, Metrics: d.metrics, Policy: d.settings.Policy,
		SetPolicy: d.setPolicy, ResetPolicy: d.resetPolicy, ResetBreaker: d.resetBreaker, Operator: d.operator(),
		Sites: d.listSites, Site: d.findSite, ResetSite: d.resetSite, FleetSites: d.sitesOfWorkers,
	})
}

// connectAndWork opens the connection, works, and closes it. The error is that of the connection or of the loop.
func (d *daemon) connectAndWork(ctx context.Context) error {
	// A nil connection without an error means that ctx ended while the worker waited.
	conn, err := d.open(ctx)
	if conn == nil {
		return err
	}
	// Closed last: the tasks and the flush need it.
	defer conn.nc.Close()
	return d.work(ctx, conn)
}

// work runs the loop and the tasks beside it. The tasks end after the loop, because its last jobs still need them: proxies,
// policy, events, rollups. The returned error is that of the loop.
func (d *daemon) work(ctx context.Context, conn *connection) error {
	// WithoutCancel keeps the tasks from ending with ctx: the drain needs them.
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	end, cancelEnd := delayedEnd(ctx, d.cfg.DrainTimeout-d.reserve()/4)
	defer cancelEnd()
	last, cancelLast := delayedEnd(ctx, d.cfg.DrainTimeout-d.reserve()/2)
	defer cancelLast()
	var tasks sync.WaitGroup
	// The settings come first: until they are read, the worker uses those of Config.
	tasks.Go(func() { d.settings.Run(beside, conn.client.JetStream(), conn.worker.Restore) })
	// Without shared findings each worker judges alone.
	if d.fleet != nil {
		tasks.Go(func() { d.fleet.Run(beside, conn.client.JetStream(), d.names) })
	}
	// Site jobs are released by one worker for the fleet. Without shared findings nobody leads, and each job waits for
	// a time.
	if d.fleetSites != nil {
		tasks.Go(func() { d.fleetSites.Run(beside, conn.client.JetStream(), d.names) })
		tasks.Go(func() { d.releaseSites(beside, conn.stream) })
	}
	tasks.Go(func() { d.cfg.WatchProxies(beside, d.takeProxies) })
	tasks.Go(func() { d.probeProxies(beside) })
	tasks.Go(func() { d.publishOutbox(beside, last) })
	tasks.Go(func() { d.measureRTT(beside, conn.nc) })
	tasks.Go(func() {
		d.journal.run(beside, func() proxyState {
			// The sources first: what they bring meanwhile is in the check.
			known := d.settings.Err() == nil && d.listRead.Load()
			c := d.proxyCheck()
			return proxyState{c.OK, known, c.Detail}
		})
	})
	tasks.Go(func() { d.totals.Run(beside, last, conn.client) })
	tasks.Go(func() { d.lookAfterWaiting(beside, conn.stream) })
	tasks.Go(func() { d.findStranded(beside, conn.stream) })
	stopControl := d.startControl(conn)
	d.awaitProxies(ctx)
	d.log.Info("worker started", "worker", d.cfg.Name, "queues", len(d.cfg.Queues), "concurrency", d.cfg.Concurrency)
	// In a goroutine of its own, as Config promises: it must not delay the loop.
	go d.cfg.Started()
	// It returns when the drain is over. Everything after it has to fit into what is left of the drain timeout.
	err := conn.worker.Run(ctx)
	stopControl() // before the tasks end: an answer would show a worker that is half gone
	stop()
	if !endBefore(end, &tasks) {
		d.log.Warn("not everything beside the jobs has ended in time")
	}
	// The connection buffers what was published last, such as the acks of jobs. Bounded by end as well, so that
	// a server that reads nothing cannot hold the process.
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
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}
