package daemon

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
func (d *daemon) gauges() metrics.Gauges {
	return metrics.Gauges{
		Version: d.cfg.Version, Revision: d.cfg.Revision, ConfigHash: d.cfg.ConfigHash, Queues: d.cfg.Streams.Queues, Process: true,
		Slots:       func() int { return d.cfg.Concurrency },
		Book:        func() *rollup.Book { book, _ := d.totals.Fleet(context.Background()); return book },
		RTT:         func() time.Duration { return time.Duration(d.rtt.Load()) },
		InFlight:    func() map[string]int { return d.stats().InFlight },
		Ready:       d.isReady,
		Draining:    func() bool { conn := d.connected.Load(); return conn != nil && conn.worker.Draining() },
		Connected:   func() bool { conn := d.connected.Load(); return conn != nil && conn.nc.IsConnected() },
		Loop:        d.loop,
		PoolFailing: func() bool { _, failing := d.pool.Failing(); return failing },
		ProxyStates: d.proxyStates, EachProxy: d.eachProxy, ProxiesAvoided: d.avoided,
		HostWaits:   func() int64 { return d.fetcher.Waited() },
		RetriesHeld: func() int64 { return d.fetcher.Held() },
		IdleConns:   func() int { return d.fetcher.Idle() },
		Backlog:     d.backlog,
	}
}

func (d *daemon) stats() worker.Stats {
	if conn := d.connected.Load(); conn != nil {
		return conn.worker.Stats()
	}
	return worker.Stats{}
}

func (d *daemon) isReady() bool {
	for _, c := range d.ready() {
		if !c.OK {
			return false
		}
	}
	return true
}

func (d *daemon) loop() metrics.Loop {
	s := d.stats()
	return metrics.Loop{Parked: s.Parked, HandedBack: s.HandedBack, Lost: s.Lost, Duplicates: s.Duplicates, Overdue: d.overdue.Load()}
}

func (d *daemon) proxyStates() map[string]int {
	out := map[string]int{}
	for _, state := range d.pool.States() {
		out[state.String()]++
	}
	return out
}

func (d *daemon) eachProxy() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for id, state := range d.pool.States() {
			if !yield(id, state.String()) {
				return
			}
		}
	}
}

// rttEvery is how often the way to the server is measured.
const rttEvery = 5 * time.Second

// measure keeps the time that the way to the server and back takes, until ctx ends.
func (d *daemon) measure(ctx context.Context, nc *nats.Conn) {
	for ; ctx.Err() == nil; sleep(ctx, rttEvery) {
		bounded, cancel := context.WithTimeout(ctx, rttEvery)
		began := time.Now()
		if nc.FlushWithContext(bounded) == nil {
			d.rtt.Store(int64(time.Since(began)))
		}
		cancel()
	}
}

// observer joins the loop with the metrics and the rollups.
func (d *daemon) observer() worker.Observer {
	return worker.Observer{
		Ended: d.ended, Taken: d.metrics.Taken, Published: d.metrics.Published, Acked: d.metrics.Acked, DeadLettered: d.metrics.DeadLettered,
	}
}

func (d *daemon) picked(took time.Duration, err error) {
	d.metrics.Picked(d.pool.Strategy(), took, err)
}

// backlog is what the queues held a few seconds ago.
func (d *daemon) backlog() map[string]metrics.Backlog {
	out := map[string]metrics.Backlog{}
	if conn := d.connected.Load(); conn != nil {
		for queue, b := range conn.worker.Backlog() {
			out[queue] = metrics.Backlog{
				Pending: b.Pending, AckPending: b.Held, Paused: b.Paused, Redelivered: b.Redelivered, Waiting: b.Pulls,
			}
		}
	}
	return out
}
