package main

import (
	"context"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// gauges are what the metrics page reads at each scrape. Before the server has answered they are zero.
func (r *rig) gauges() metrics.Gauges {
	queues := make([]string, len(r.config.Queues))
	for i, q := range r.config.Queues {
		queues[i] = q.Name
	}
	return metrics.Gauges{
		Version: buildVersion(), Revision: buildRevision(), ConfigHash: r.config.Hash(), Queues: queues, Process: true,
		Slots:       func() int { return r.config.Concurrency },
		Book:        func() *rollup.Book { book, _ := r.rollups.Fleet(); return book },
		RTT:         func() time.Duration { return time.Duration(r.rtt.Load()) },
		InFlight:    func() map[string]int { return r.stats().InFlight },
		Ready:       r.isReady,
		Draining:    func() bool { l := r.line.Load(); return l != nil && l.worker.Draining() },
		Connected:   func() bool { l := r.line.Load(); return l != nil && l.nc.IsConnected() },
		Loop:        r.loop,
		PoolFailing: func() bool { _, failing := r.pool.Failing(); return failing },
		ProxyStates: r.proxyStates, EachProxy: r.eachProxy, ProxiesAvoided: r.avoided,
		HostWaits:   func() int64 { return r.fetcher.Waited() },
		RetriesHeld: func() int64 { return r.fetcher.Held() },
		IdleConns:   func() int { return r.fetcher.Idle() },
		Backlog:     r.backlog,
	}
}

func (r *rig) stats() worker.Stats {
	if l := r.line.Load(); l != nil {
		return l.worker.Stats()
	}
	return worker.Stats{}
}

func (r *rig) isReady() bool {
	for _, c := range r.ready() {
		if !c.OK {
			return false
		}
	}
	return true
}

func (r *rig) loop() metrics.Loop {
	s := r.stats()
	return metrics.Loop{Parked: s.Parked, HandedBack: s.HandedBack, Lost: s.Lost, Duplicates: s.Duplicates, Overdue: r.overdue.Load()}
}

func (r *rig) proxyStates() map[string]int {
	out := map[string]int{}
	for _, state := range r.pool.States() {
		out[state.String()]++
	}
	return out
}

func (r *rig) eachProxy() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for id, state := range r.pool.States() {
			if !yield(id, state.String()) {
				return
			}
		}
	}
}

// rttEvery is how often the way to the server is measured.
const rttEvery = 5 * time.Second

// measure keeps the time that the way to the server and back takes, until ctx ends.
func (r *rig) measure(ctx context.Context, nc *nats.Conn) {
	for ; ctx.Err() == nil; sleep(ctx, rttEvery) {
		bounded, cancel := context.WithTimeout(ctx, rttEvery)
		began := time.Now()
		if nc.FlushWithContext(bounded) == nil {
			r.rtt.Store(int64(time.Since(began)))
		}
		cancel()
	}
}

// counted joins the loop's counters with the metrics.
func (r *rig) counted() worker.Counted {
	return worker.Counted{Taken: r.metrics.Taken, Published: r.metrics.Published, Acked: r.metrics.Acked, Buried: r.metrics.Buried}
}

func (r *rig) picked(took time.Duration, err error) { r.metrics.Picked(r.pool.Strategy(), took, err) }

// backlog is what the queues held a few seconds ago.
func (r *rig) backlog() map[string]metrics.Backlog {
	out := map[string]metrics.Backlog{}
	if l := r.line.Load(); l != nil {
		for queue, b := range l.worker.Backlog() {
			out[queue] = metrics.Backlog{
				Pending: b.Pending, AckPending: b.Held, Paused: b.Paused, Redelivered: b.Redelivered, Waiting: b.Pulls,
			}
		}
	}
	return out
}
