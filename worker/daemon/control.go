package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// errDrainAsked is the cause of a drain that somebody asked for over NATS.
var errDrainAsked = errors.New("a drain was asked for")

// startControl starts the control service and returns what stops it. Without the rights for it a worker works all the same: it
// only logs that nobody can see or steer it.
func (d *daemon) startControl(conn *connection) (stop func()) {
	service, err := control.Start(conn.nc, d.controlConfig(conn))
	if err != nil {
		d.log.Error("the worker cannot be seen or steered over NATS", "error", err)
		return func() {}
	}
	return func() {
		if err := service.Stop(); err != nil {
			d.log.Warn("control service", "error", err)
		}
	}
}

// controlConfig are the verbs of the control service. They do what the HTTP API does, for a whole fleet.
func (d *daemon) controlConfig(conn *connection) control.Config {
	return control.Config{
		Names: d.names, Worker: d.cfg.Name, Version: d.cfg.Version, Log: d.log,
		Status: d.status, Steps: d.book.Steps, Breakers: d.breakers, Proxies: d.answerProxies, ResetBreaker: d.resetHere, Policy: d.settings.Policy, Environment: *d.cfg.Policy, Rollups: d.hours,
		Sites: d.answerSites, ResetSite: d.resetSiteHere,
		// It only begins the drain, so the caller gets an answer.
		Drain: func() { d.drain(errDrainAsked) },
		Pause: func(ctx context.Context, queue string) error {
			return client.New(conn.client).Pause(ctx, queue, time.Time{})
		},
		Resume: func(ctx context.Context, queue string) error {
			return client.New(conn.client).Resume(ctx, queue)
		},
	}
}

// status is what gofer workers shows of this worker: state, and each check of readiness that fails.
func (d *daemon) status() control.Status {
	s := control.Status{
		StartedAt: d.started.UTC(), Slots: d.cfg.Concurrency, InFlight: d.stats().InFlight, Proxies: d.proxyStates(),
		Ready: d.isReady(), Reasons: []string{}, ConfigHash: d.cfg.ConfigHash,
	}
	// conn is nil until the streams are set up. What needs it stays zero, and Ready says why.
	if conn := d.connected.Load(); conn != nil {
		s.Draining, s.Domain = conn.worker.IsDraining(), conn.client.Domain()
		s.Unsettled, s.UnsettledJobs = d.unsettledOf(conn.worker)
	}
	s.Unusual = d.unusual()
	if last := d.listError.Load(); last != nil {
		s.ProxiesError = last.reason()
	}
	for _, check := range d.ready() {
		if !check.OK {
			s.Reasons = append(s.Reasons, check.Name+": "+check.Detail)
		}
	}
	for _, q := range d.cfg.Queues {
		// A weight of zero means one, as in the loop.
		s.Queues = append(s.Queues, control.Queue{Queue: q.Name, Weight: max(1, q.Weight)})
	}
	return s
}

// hours are the latest hours of a scope, and the scope that they have: until the fleet's are read, this
// worker's stand in. Fleet never blocks on the server for long: it answers with what was read last.
func (d *daemon) hours(ctx context.Context, scope string, hours int) (points []rollup.Point, has string, err error) {
	book, known := d.totals.Fleet(ctx)
	if scope == control.ScopeWorker || !known {
		return d.book.Series(hours), control.ScopeWorker, nil
	}
	return book.Series(hours), control.ScopeCluster, nil
}

// clusterBook are the fleet's hours for the HTTP API, proxy by proxy.
func (d *daemon) clusterBook(ctx context.Context) (*rollup.Book, error) {
	book, _ := d.totals.FleetByProxy(ctx)
	return book, nil
}

// unsettledOf lists the jobs that a worker holds and cannot settle, the oldest first, and counts all. The list is bounded, so
// that the answer fits into a message. Unsettled returns the oldest first, so the list holds those that wait for longest.
func (d *daemon) unsettledOf(w *worker.Worker) (list []control.Unsettled, count int) {
	held := w.Unsettled()
	for _, job := range held[:min(len(held), control.MaxUnsettled)] {
		list = append(list, control.Unsettled{
			Queue: job.Queue, ID: job.ID, Since: job.Since.UTC(), Step: job.Step, Reason: d.cfg.Explain(job.Err), Permanent: job.Permanent,
		})
	}
	return list, len(held)
}
