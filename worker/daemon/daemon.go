package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/fetch"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/stream"
	"github.com/gofer-mq/gofer/worker/totals"
)

// Run runs a worker until ctx ends, and then drains: jobs end or are handed back, the events of the last seconds are stored, and
// the connection is closed, all within DrainTimeout. While no server answers, or while it refuses to set up the streams for a
// reason that may pass, the worker waits. Run closes the Listener.
//
// Errors: one that names each field of c which is wrong; one that wraps bus.ErrConfig if the owner of the server has to change
// something; one that wraps bus.ErrUnreachable if the server ended the connection for good, so that a new run has to connect.
func Run(ctx context.Context, c Config) error {
	if c.Listener != nil {
		defer func() { _ = c.Listener.Close() }()
	}
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return err
	}
	d, err := newDaemon(c)
	if err != nil {
		return err
	}
	defer d.fetcher.Close()
	return d.run(ctx)
}

// daemon is every long-lived thing of a worker. What needs no server is built at once, so that /readyz can say what is
// missing; the rest follows when the server answers.
type daemon struct {
	cfg      Config
	names    jobs.Names
	log      *slog.Logger
	pool     *rotation.Pool
	book     *rollup.Book
	metrics  *metrics.Registry
	fetcher  *fetch.Fetcher
	settings *fleet.Settings
	fleet    *fleet.Breakers // nil when findings are not shared
	totals   *totals.Totals
	outbox   chan func(context.Context) error
	started  time.Time
	overdue  atomic.Int64            // waiting jobs that this worker released because the server had not
	rtt      atomic.Int64            // of the way to the server and back, in nanoseconds
	drain    context.CancelCauseFunc // does what the end of Run's context does

	connected atomic.Pointer[connection]  // nil until the server has answered
	obstacle  atomic.Pointer[string]      // what keeps a worker that starts from its streams
	trouble   atomic.Pointer[listTrouble] // nil while the list of proxies is the one that was read last
}

// connection is the NATS connection and what needs it.
type connection struct {
	nc     *nats.Conn
	client *bus.Client
	stream *stream.Client
	worker *worker.Worker
}

// newDaemon builds what needs no server. The Config has its defaults and was checked. The caller closes the fetcher.
func newDaemon(c Config) (*daemon, error) {
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	d := &daemon{cfg: c, names: names, log: c.Log, book: rollup.NewBook(), started: time.Now(), outbox: make(chan func(context.Context) error, 1024)}
	d.pool = rotation.New(rotation.Config{Strategy: c.Strategy, Breaker: c.Breaker})
	d.settings = fleet.New(fleet.Config{Names: names, Pool: d.pool, Policy: *c.Policy, Strategy: c.Strategy, Log: c.Log})
	d.settings.List(c.Proxies)
	d.fleet = d.fleetBreakers()
	d.metrics = metrics.New(d.gauges())
	d.totals = totals.New(totals.Config{Book: d.book, Flushed: d.flushed, Log: c.Log})
	d.fetcher = fetch.New(d.fetchConfig())
	return d, nil
}

// open waits for the server and creates what is missing there. It returns nothing when ctx ends first.
func (d *daemon) open(ctx context.Context) (*connection, error) {
	dial := d.cfg.NATS
	dial.Name = "gofer worker " + d.cfg.Name
	dial.Patient, dial.Reconnected, dial.Failed = true, d.metrics.Reconnected, d.metrics.AsyncError
	dial.Closed = func(reason error) { d.drain(reason) } // a new process connects anew
	dial.Waiting = d.obstructed
	nc, err := bus.Connect(ctx, dial, d.log)
	if ctx.Err() != nil {
		if nc != nil {
			nc.Close()
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	conn, err := d.build(nc)
	if err == nil {
		err = d.prepare(ctx, conn.client)
	}
	if err != nil || ctx.Err() != nil {
		nc.Close()
		return nil, err
	}
	d.connected.Store(conn)
	return conn, nil
}

// build makes what works on a connection. Nothing runs yet.
func (d *daemon) build(nc *nats.Conn) (*connection, error) {
	client, err := bus.NewWithDomain(nc, d.names, d.cfg.Domain)
	if err != nil {
		return nil, err
	}
	w, err := worker.New(worker.Config{
		Client: client, Queues: d.cfg.Queues, Concurrency: d.cfg.Concurrency, Do: d.fetcher.Do,
		DrainTimeout: d.cfg.DrainTimeout - d.tail(), Log: d.log, Name: d.cfg.Name,
		Observer: d.observer(),
		Restore:  func(ctx context.Context) error { return client.Ensure(ctx, d.cfg.Streams) },
		Inspect:  func(ctx context.Context) (bus.Streams, error) { return client.InspectStreams(ctx, d.cfg.Streams) },
	})
	return &connection{nc: nc, client: client, stream: stream.New(client), worker: w}, err
}

// obstructed keeps for /readyz what a worker that starts waits for.
func (d *daemon) obstructed(reason error) {
	text := d.cfg.Explain(reason)
	d.obstacle.Store(&text)
}

// prepare creates streams and consumers, as soon as the server lets it. What waiting cannot cure ends it.
func (d *daemon) prepare(ctx context.Context, client *bus.Client) error {
	logged := ""
	for ; ctx.Err() == nil; sleep(ctx, time.Second) {
		err := client.Ensure(ctx, d.cfg.Streams)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, bus.ErrConfig) {
			return err
		}
		d.obstructed(err)
		if text := d.cfg.Explain(err); text != logged {
			d.log.Warn("the streams cannot be set up yet, trying again", "error", text)
			logged = text
		}
	}
	return nil
}

// flushed counts a flush of the rollups, which is a message, too.
func (d *daemon) flushed(ok bool) {
	d.metrics.Flushed(ok)
	d.metrics.Published("rollup", ok, 0)
}

func (d *daemon) fetchConfig() fetch.Config {
	return fetch.Config{
		Pool: d.pool, Policy: d.policy, OnRetry: d.retried, OnBreaker: d.breakersChanged, OnAttempt: d.attempted, OnPick: d.picked,
		Denied: d.settings.Denied, AttemptTimeout: d.cfg.AttemptTimeout, StallTimeout: d.cfg.StallTimeout, UserAgent: d.cfg.UserAgent,
		MaxBodyBytes: d.cfg.MaxBodyBytes, HostRate: d.cfg.HostRate, HostConcurrency: d.cfg.HostConcurrency,
		RetryBudget: d.cfg.RetryBudget, RetryFloor: float64(d.cfg.Concurrency), Concurrency: d.cfg.Concurrency,
		MaxWait: d.cfg.MaxWait, AllowDirect: d.cfg.AllowDirect,
		AllowPrivateTargets: d.cfg.AllowPrivateTargets, Worker: d.cfg.Name, Log: d.log,
	}
}
