package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/fetch"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/release"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/stream"
	"github.com/gofer-mq/gofer/worker/totals"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// Run runs a worker until ctx ends, and then drains: jobs end or are handed back, the events of the last seconds are stored, and
// the connection is closed, all within DrainTimeout. While no server answers, or while it refuses to set up the streams for a
// reason that may pass, the worker waits. Run closes the Listener.
//
// Run returns nil if ctx ended it, also while it still waited: to be stopped is no failure of a worker. Whether it has ever begun
// to work, Config.Started says. Errors: one that names each field of c which is wrong; one that wraps bus.ErrConfig if the owner of the server has to change
// something; one that wraps bus.ErrUnreachable if the server ended the connection for good, so that a new run has to connect.
func Run(ctx context.Context, c Config) error {
	if c.Listener != nil {
		defer func() { _ = c.Listener.Close() }()
	}
	// The listener is closed even if the configuration is wrong: the caller has handed it over.
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

// daemon holds the parts of a worker. What needs no server is built at once, so that /readyz can say what is missing. The rest
// follows when the server answers: it is in connected, which is nil until then and never nil again.
type daemon struct {
	// Parts that are built by newDaemon and not replaced later.
	cfg      Config // with its defaults; nobody changes it
	names    jobs.Names
	log      *slog.Logger
	pool     *rotation.Pool
	sites    *sites.Table
	book     *rollup.Book // this worker's hours; totals has the fleet's
	answers  *rollup.Answers
	metrics  *metrics.Registry
	fetcher  *fetch.Fetcher
	settings *fleet.Settings
	fleet    *fleet.Breakers // nil when findings are not shared
	// fleetSites is nil when findings are not shared. releaser releases the jobs that wait for sites while this worker leads the
	// fleet.
	fleetSites *fleet.Sites
	releaser   *release.Releaser
	// The two are leaderships of their own: a worker that keeps its findings never releases jobs that wait for sites.
	waitingLeader, sitesLeader *fleet.Leader
	totals                     *totals.Totals
	// dead is used by one goroutine at a time.
	dead deadIndex // of the HTTP port, which asks one question at a time
	// listing holds one element while jobs are listed for the HTTP API: a list may read many messages, so one is made at a time.
	listing chan struct{}
	// outbox holds events until they are published, 1,024 at most. It is never closed: the HTTP port, which ends last, may cause
	// another event.
	outbox  chan func(context.Context) error
	started time.Time
	overdue atomic.Int64 // scheduled jobs that this worker released because the server had not
	// siteReleases counts the jobs that this worker released for a site.
	siteReleases atomic.Int64
	counts       counts
	journal      *journal
	rtt          atomic.Int64            // of the latest ping of the server, in nanoseconds
	drain        context.CancelCauseFunc // drains as the end of Run's context does; set by run before anything calls it

	// State that the HTTP port and the gauges read at any time.
	connected atomic.Pointer[connection] // nil until the server has answered
	obstacle  atomic.Pointer[string]     // why the worker has not started yet, explained; nil if no reason is known
	listError atomic.Pointer[listError]  // nil if the list of proxies was readable when it was read last
	listRead  atomic.Bool                // the whole list of proxies was readable once
	listTold  chan struct{}              // closed when takeProxies was called first
	toldOnce  sync.Once
}

// connection is the NATS connection and what needs it.
type connection struct {
	nc     *nats.Conn
	client *bus.Client
	stream *stream.Client
	worker *worker.Worker
}

// newDaemon builds what needs no server. c has its defaults and was checked. The caller closes the fetcher. The order counts: the
// gauges and the fetcher refer to what is built before them.
func newDaemon(c Config) (*daemon, error) {
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	d := &daemon{cfg: c, names: names, log: c.Log, book: rollup.NewBook(), answers: rollup.NewAnswers(), started: time.Now(), journal: newJournal(c.Log), outbox: make(chan func(context.Context) error, 1024), listTold: make(chan struct{}), listing: make(chan struct{}, 1)}
	// Without a list to wait for, an empty pool is what the owner wants.
	d.listRead.Store(!c.AwaitProxies)
	d.pool = rotation.New(rotation.Config{Strategy: c.Strategy, Breaker: c.Breaker, Exits: exits.Config{Prefix: c.Prefix, Share: !c.KeepFindings}})
	d.sites = sites.New(sites.Config{Slots: c.Concurrency})
	d.waitingLeader = fleet.NewLeader(fleet.LeaderConfig{Task: "overdue", Worker: c.Name, Log: c.Log})
	d.sitesLeader = fleet.NewLeader(fleet.LeaderConfig{Task: "sites", Worker: c.Name, Log: c.Log, Needed: func() bool { return d.releaser.Sites() > 0 }})
	// The settings of Config apply until those of the fleet are read.
	d.settings = fleet.New(fleet.Config{Names: names, Pool: d.pool, Policy: *c.Policy, Strategy: c.Strategy, Log: c.Log, Others: d.followed()})
	d.settings.SetListed(c.Proxies)
	d.fleet = d.newFleetBreakers()
	d.releaser = d.newReleaser()
	d.fleetSites = d.newFleetSites()
	d.metrics = metrics.New(d.gauges())
	d.totals = totals.New(totals.Config{Book: d.book, Flushed: d.recordFlush, Log: c.Log})
	d.fetcher = fetch.New(d.fetchConfig())
	return d, nil
}

// followed are the keys of the bucket of the settings that are none. This worker watches the bucket anyway, so they cost the
// server no request.
func (d *daemon) followed() map[string]func(fleet.Change) {
	return map[string]func(fleet.Change){
		waiting.Key: d.counts.followed, d.waitingLeader.Key(): d.waitingLeader.Note, d.sitesLeader.Key(): d.sitesLeader.Note,
	}
}

// open waits for the server and creates what is missing there. It returns nil and no error when ctx ends first: a worker that is
// stopped while it waits has done nothing wrong.
func (d *daemon) open(ctx context.Context) (*connection, error) {
	dial := d.cfg.NATS
	// The operator of the server sees the name in its list of connections.
	dial.Name = "gofer worker " + d.cfg.Name
	dial.Patient, dial.Reconnected, dial.Failed = true, d.metrics.CountReconnect, d.metrics.CountAsyncError
	// nats.go never reconnects after that. A supervisor starts a new process, which connects again.
	dial.Closed = func(reason error) { d.drain(reason) }
	dial.Waiting = d.noteObstacle
	nc, err := bus.Connect(ctx, dial, d.log)
	// The connection may have been made in the moment in which ctx ended.
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
	// connected is stored last, so the gauges never see a connection that is about to be closed.
	if err != nil || ctx.Err() != nil {
		nc.Close()
		return nil, err
	}
	d.connected.Store(conn)
	return conn, nil
}

// build creates what needs a connection. Nothing runs yet. Of the drain timeout the loop gets what is not reserved for the events
// and rollups that its last jobs cause.
func (d *daemon) build(nc *nats.Conn) (*connection, error) {
	client, err := bus.NewWithDomain(nc, d.names, d.cfg.Domain)
	if err != nil {
		return nil, err
	}
	w, err := worker.New(worker.Config{
		Client: client, Queues: d.cfg.Queues, Concurrency: d.cfg.Concurrency, Do: d.fetcher.Do,
		DrainTimeout: d.cfg.DrainTimeout - d.reserve(), Log: d.log, Name: d.cfg.Name,
		Observer: d.observer(), WaitForSite: d.waitForSite,
		Restore: func(ctx context.Context) error { return client.Ensure(ctx, d.cfg.Streams) },
		Inspect: func(ctx context.Context) (bus.Streams, error) { return client.InspectStreams(ctx, d.cfg.Streams) },
	})
	return &connection{nc: nc, client: client, stream: stream.New(client), worker: w}, err
}

// noteObstacle stores for /readyz what a worker waits for while it starts.
func (d *daemon) noteObstacle(reason error) {
	// Explain adds the remedy in the words of the program that embeds the worker.
	text := d.cfg.Explain(reason)
	d.obstacle.Store(&text)
}

// prepare creates streams and consumers as soon as the server allows it. It retries once a second, and gives up only if the owner
// of the server has to change something (bus.ErrConfig). A reason is logged once, not each second. Its only error
// wraps bus.ErrConfig.
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
		d.noteObstacle(err)
		if text := d.cfg.Explain(err); text != logged {
			d.log.Warn("the streams cannot be set up yet, trying again", "error", text)
			logged = text
		}
	}
	return nil
}

// recordFlush counts a flush of the rollups: as a flush, and as a published message like any other. It may be
// called by any goroutine.
func (d *daemon) recordFlush(ok bool) {
	d.metrics.CountFlush(ok)
	d.metrics.CountPublish("rollup", ok, 0)
}

// fetchConfig is the fetcher's part of Config. The retry budget grows by one retry a second for each slot.
// Functions in it ask the daemon, so that a new policy or deny list needs no new fetcher.
func (d *daemon) fetchConfig() fetch.Config {
	return fetch.Config{
		Pool: d.pool, Policy: d.policy, Observer: fetch.Observer{RetryPlanned: d.recordRetry, BreakersChanged: d.recordBreakers, AttemptEnded: d.recordAttempt, Answered: d.answers.Add, Picked: d.recordPick, SitesChanged: d.recordSites, SiteAwaited: d.recordSiteWait},
		Denied: d.settings.IsDenied, AttemptTimeout: d.cfg.AttemptTimeout, FirstByteTimeout: d.cfg.FirstByteTimeout, StallTimeout: d.cfg.StallTimeout, UserAgent: d.cfg.UserAgent,
		MaxBodyBytes: d.cfg.MaxBodyBytes, HostRate: d.cfg.HostRate, HostConcurrency: d.cfg.HostConcurrency,
		RetryBudget: d.cfg.RetryBudget, RetryFloor: float64(d.cfg.Concurrency), Concurrency: d.cfg.Concurrency,
		PoolIncomplete: func() bool { return !d.listRead.Load() },
		MaxWait:        d.cfg.MaxWait, SiteMaxWait: d.cfg.SiteMaxWait, Sites: d.sites, AllowDirect: d.cfg.AllowDirect,
		AllowPrivateTargets: d.cfg.AllowPrivateTargets, Worker: d.cfg.Name, Log: d.log,
	}
}
