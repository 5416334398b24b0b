package main

import (
	"context"
	"errors"
	"time"

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
		Status: r.status, Breakers: r.breakers, ResetBreaker: r.resetHere, Policy: r.settings.Policy, Environment: r.config.Policy(), Rollups: r.hours,
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
		s.Draining, s.Domain = l.worker.Draining(), l.client.Domain()
		s.Unsettled, s.UnsettledJobs = unsettledOf(l.worker)
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
