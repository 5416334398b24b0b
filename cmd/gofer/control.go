package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// errDrainAsked is why a worker drains that nobody sent a signal.
var errDrainAsked = errors.New("a drain was asked for")

// answer starts the control service and returns what stops it. A worker whose user may not answer still works.
func (r *rig) answer(l *line) (stop func()) {
	service, err := control.Start(l.nc, r.controlConfig(l))
	if err != nil {
		r.log.Error("the worker cannot be seen or steered over NATS", "error", err)
		return func() {}
	}
	return func() {
		if err := service.Stop(); err != nil {
			r.log.Warn("control service", "error", err)
		}
	}
}

func (r *rig) controlConfig(l *line) control.Config {
	return control.Config{
		Names: r.names, Worker: r.config.WorkerName, Version: buildVersion(), Log: r.log,
		Status: r.status, Breakers: r.breakers, ResetBreaker: r.resetHere, Policy: r.share.Policy, Rollups: r.hours,
		Drain: func() { r.drain(errDrainAsked) },
		Pause: func(ctx context.Context, queue string) error { return l.client.Pause(ctx, queue, time.Time{}) },
		Resume: func(ctx context.Context, queue string) error {
			return l.client.Resume(ctx, queue)
		},
	}
}

// status is how this worker stands.
func (r *rig) status() control.Status {
	s := control.Status{
		StartedAt: r.started.UTC(), Slots: r.config.Concurrency, InFlight: r.stats().InFlight, Proxies: r.proxyStates(),
		Ready: r.isReady(),
	}
	if l := r.line.Load(); l != nil {
		s.Draining = l.worker.Draining()
	}
	for _, check := range r.ready() {
		if !check.OK {
			s.Reasons = append(s.Reasons, check.Name+": "+check.Detail)
		}
	}
	for _, q := range r.config.Queues {
		s.Queues = append(s.Queues, control.Queue{Queue: q.Name, Weight: max(1, q.Weight)})
	}
	return s
}

// breakers lists the first most breakers, those that are not closed before the others.
func (r *rig) breakers(most int) (list any, total int) {
	status := r.pool.Status()
	closed := func(s rotation.Status) int {
		if s.State == breaker.Closed {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(status, func(a, b rotation.Status) int { return closed(a) - closed(b) })
	shown := make([]admin.Breaker, min(most, len(status)))
	for i := range shown {
		shown[i] = admin.BreakerOf(status[i])
	}
	return shown, len(status)
}

// resetHere closes the breaker of one proxy in this worker, or all if proxy is empty, and returns how many those were.
func (r *rig) resetHere(proxy string) (reset int) {
	ids := []string{proxy}
	if proxy == "" {
		ids = ids[:0]
		for _, s := range r.pool.Status() {
			ids = append(ids, s.ID)
		}
	}
	for _, id := range ids {
		events, found := r.pool.Reset(id)
		if !found {
			continue
		}
		reset++
		r.breakersChanged(events)
	}
	return reset
}

// resetBreaker closes a proxy's breaker in every worker. This one comes first, and does nothing when its own message
// reaches it.
func (r *rig) resetBreaker(ctx context.Context, proxy string) error {
	r.resetHere(proxy)
	l := r.line.Load()
	if l == nil {
		return bus.ErrUnreachable
	}
	request, err := json.Marshal(control.ResetRequest{ProxyID: proxy})
	if err != nil {
		return err
	}
	if err := l.nc.Publish(control.Subject(r.names, control.ResetBreakers), request); err != nil {
		return err
	}
	return l.nc.FlushWithContext(ctx)
}

// hours are the newest ones of the fleet, or of this worker if that is asked for or the fleet's are not read yet.
func (r *rig) hours(_ context.Context, scope string, hours int) (points []rollup.Point, has string, err error) {
	book, known := r.rollups.Fleet()
	if scope == control.ScopeWorker || !known {
		return r.book.Series(hours), control.ScopeWorker, nil
	}
	return book.Series(hours), control.ScopeCluster, nil
}

func (r *rig) clusterBook(context.Context) (*rollup.Book, error) {
	book, _ := r.rollups.Fleet()
	return book, nil
}
