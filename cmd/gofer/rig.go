package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/fetch"
	"github.com/gofer-mq/gofer/worker/fleet"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

// rig is every long-lived thing of a worker. What needs no server is built at once, so that /readyz can say what is
// missing; the rest follows when the server answers.
type rig struct {
	config   config.Config
	names    jobs.Names
	log      *slog.Logger
	pool     *rotation.Pool
	book     *rollup.Book
	metrics  *metrics.Registry
	fetcher  *fetch.Fetcher
	settings *fleet.Settings
	fleet    *fleet.Breakers // nil when breakers are not shared
	rollups  *totals.Rollups
	outbox   chan func(context.Context) error
	started  time.Time
	overdue  atomic.Int64            // waiting jobs that this worker released because the server had not
	rtt      atomic.Int64            // of the way to the server and back, in nanoseconds
	drain    context.CancelCauseFunc // does what SIGTERM does
	force    func(context.Context)   // ends the process some time after a context, if nothing else does

	line     atomic.Pointer[line]
	obstacle atomic.Pointer[string]      // what keeps a worker that starts from its streams
	trouble  atomic.Pointer[listTrouble] // nil while the proxies file is taken over
}

// line is what there is once the server has answered.
type line struct {
	nc     *nats.Conn
	client *bus.Client
	worker *worker.Worker
}

func newRig(c config.Config, proxies []proxylist.Proxy, log *slog.Logger, force func(context.Context)) (*rig, error) {
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	strategy, err := rotation.ParseStrategy(c.Strategy)
	if err != nil {
		return nil, err
	}
	r := &rig{config: c, names: names, log: log, force: force, book: rollup.NewBook(), started: time.Now(), outbox: make(chan func(context.Context) error, 1024)}
	r.pool = rotation.New(rotation.Config{Strategy: strategy, Breaker: c.BreakerConfig()})
	r.settings = fleet.New(fleet.Config{Names: names, Pool: r.pool, Policy: c.Policy(), Strategy: strategy, Log: log})
	r.settings.List(proxies)
	r.fleet = r.fleetBreakers()
	r.metrics = metrics.New(r.gauges())
	r.rollups = totals.NewRollups(totals.RollupsConfig{Book: r.book, Flushed: r.flushed, Log: log})
	r.fetcher = fetch.New(r.fetchConfig())
	return r, nil
}

// open waits for the server and creates what is missing there. It returns nothing when ctx ends first.
func (r *rig) open(ctx context.Context) (*line, error) {
	dial := r.config.Dial("gofer worker " + r.config.WorkerName)
	dial.Patient, dial.Reconnected, dial.Failed = true, r.metrics.Reconnected, r.metrics.AsyncError
	dial.Closed = func(reason error) { r.drain(reason) } // a new process connects anew
	dial.Waiting = r.obstructed
	nc, err := bus.Connect(ctx, dial, r.log)
	if ctx.Err() != nil {
		if nc != nil {
			nc.Close()
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := r.build(nc)
	if err == nil {
		err = r.prepare(ctx, l.client)
	}
	if err != nil || ctx.Err() != nil {
		nc.Close()
		return nil, err
	}
	r.line.Store(l)
	return l, nil
}

// build makes what works on a connection. Nothing runs yet.
func (r *rig) build(nc *nats.Conn) (*line, error) {
	client, err := bus.NewWithDomain(nc, r.names, r.config.NATSJSDomain)
	if err != nil {
		return nil, err
	}
	w, err := worker.New(worker.Config{
		Client: client, Queues: r.config.Queues, Concurrency: r.config.Concurrency, Do: r.fetcher.Do,
		DrainTimeout: r.config.DrainTimeout.Std() - r.tail(), Ended: r.ended, Log: r.log, Name: r.config.WorkerName,
		Counted: r.counted(),
		Restore: func(ctx context.Context) error { return client.Ensure(ctx, r.config.Settings()) },
		Inspect: func(ctx context.Context) (bus.Streams, error) { return client.InspectStreams(ctx, r.config.Settings()) },
	})
	return &line{nc: nc, client: client, worker: w}, err
}

// obstructed keeps for /readyz what a worker that starts waits for.
func (r *rig) obstructed(reason error) {
	text := config.Explain(reason)
	r.obstacle.Store(&text)
}

// prepare creates streams and consumers, as soon as the server lets it. What waiting cannot cure ends it.
func (r *rig) prepare(ctx context.Context, client *bus.Client) error {
	said := ""
	for ; ctx.Err() == nil; sleep(ctx, time.Second) {
		err := client.Ensure(ctx, r.config.Settings())
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, bus.ErrConfig) {
			return &failure{code: exitConfig, err: err}
		}
		r.obstructed(err)
		if text := config.Explain(err); text != said {
			r.log.Warn("the streams cannot be set up yet, trying again", "error", text)
			said = text
		}
	}
	return nil
}

// flushed counts a flush of the rollups, which is a message, too.
func (r *rig) flushed(ok bool) {
	r.metrics.Flushed(ok)
	r.metrics.Published("rollup", ok, 0)
}

func (r *rig) fetchConfig() fetch.Config {
	return fetch.Config{
		Pool: r.pool, Policy: r.policy, OnRetry: r.retried, OnBreaker: r.breakersChanged, OnAttempt: r.attempted, OnPick: r.picked,
		Denied: r.settings.Denied, AttemptTimeout: r.config.AttemptTimeout.Std(), MaxBodyBytes: r.config.MaxBodyBytes,
		HostRate: r.config.HostRate, HostConcurrency: r.config.HostConcurrency,
		RetryBudget: r.config.RetryBudget(), RetryFloor: float64(r.config.Concurrency),
		MaxWait: r.config.MaxWait.Std(), AllowDirect: r.config.AllowDirect,
		AllowPrivateTargets: r.config.AllowPrivateTargets, Worker: r.config.WorkerName, Log: r.log,
	}
}

func (r *rig) policy() jobs.Policy {
	p, _ := r.settings.Policy()
	return p
}

// retried stores the announcement before the wait that it announces.
func (r *rig) retried(e jobs.RetryEvent) {
	r.book.Retry(e)
	r.metrics.Retry(e)
	r.log.Info("retry", "queue", e.Queue, "job", e.JobID, "attempt", e.Attempt, "proxy", e.Proxy, "fault", e.Fault, "error", e.Error, "delay", e.Delay.String(), "kind", e.Kind)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := r.line.Load().client.PublishRetry(ctx, e)
	r.metrics.Published("event", err == nil, time.Since(began))
	if err != nil {
		r.log.Warn("retry event not stored", "queue", e.Queue, "job", e.JobID, "error", err)
	}
}

// send puts a message into the outbox; a full one loses it, with a word about it, rather than hold up a job.
func (r *rig) send(publish func(context.Context) error) {
	select {
	case r.outbox <- publish:
	default:
		r.metrics.Published("event", false, 0)
		r.log.Warn("event dropped, too many wait to be published")
	}
}

func (r *rig) attempted(queue string, a jobs.Attempt, bytes int64, reason string) {
	fact := rollup.AttemptFact{
		Queue: queue, Proxy: a.Proxy, Region: a.Region, Attempt: a.Attempt, Status: a.Status, Fault: a.Fault, Reason: reason,
		Duration: a.Duration.Std(), Bytes: bytes,
	}
	r.book.Attempt(fact)
	r.metrics.Attempt(fact)
}

func (r *rig) ended(job jobs.Job, result jobs.Result) {
	fact := rollup.JobFact{
		Queue: result.Queue, ID: result.ID, Outcome: result.Outcome, Error: result.Error, Detail: result.Detail, Policy: job.Retry.Over(r.policy()).Name(),
		Attempts: result.AttemptCount, Duration: result.Duration, Bytes: result.Bytes,
	}
	r.book.Job(fact)
	r.metrics.Job(fact)
}

func (r *rig) handler(addr string) http.Handler {
	return admin.New(admin.Config{
		Addr: addr, Token: r.config.AdminToken, Worker: r.config.WorkerName, Version: buildVersion(), Log: r.log,
		MaxStreams: min(64, connectionLimit()/2), Ready: r.ready, Pool: r.pool, Book: r.book, Cluster: r.clusterBook, Metrics: r.metrics, Policy: r.settings.Policy,
		SetPolicy: r.setPolicy, ResetPolicy: r.resetPolicy, ResetBreaker: r.resetBreaker,
	})
}

// setPolicy makes p the fleet's retry policy; every worker has it within a second.
func (r *rig) setPolicy(ctx context.Context, p jobs.Policy) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	kv, err := r.policies(ctx)
	if err != nil {
		return err
	}
	_, before := r.settings.Policy()
	if _, err := kv.Put(ctx, fleet.PolicyKey, data); err != nil {
		return err
	}
	// Whoever asks this worker next shall find it; if the watch is being made anew, that takes a second.
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		if _, now := r.settings.Policy(); !now.Equal(before) {
			break
		}
	}
	return nil
}

// resetPolicy returns to the policy of the workers' environment.
func (r *rig) resetPolicy(ctx context.Context) error {
	kv, err := r.policies(ctx)
	if err == nil {
		err = kv.Delete(ctx, fleet.PolicyKey)
	}
	return err
}

func (r *rig) policies(ctx context.Context) (jetstream.KeyValue, error) {
	l := r.line.Load()
	if l == nil || !l.nc.IsConnected() {
		return nil, bus.ErrUnreachable
	}
	return l.client.Bucket(ctx, "policy")
}
