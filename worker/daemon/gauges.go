package daemon

import (
	"context"
	"iter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// gauges are what the metrics page reads at each scrape. A scrape must not block, so only Book asks a server, for at most a
// second, and has its last numbers otherwise. Before the server has answered they are zero.
func (d *daemon) gauges() metrics.Gauges {
	return metrics.Gauges{
		Version: d.cfg.Version, Revision: d.cfg.Revision, ConfigHash: d.cfg.ConfigHash, Queues: d.cfg.Streams.Queues, Process: true,
		Slots: func() int { return d.cfg.Concurrency },
		// Fleet returns what is known and does not wait for the server; its second value reports whether that is
		// the fleet's.
		Book:     func() *rollup.Book { book, _ := d.totals.Fleet(context.Background()); return book },
		RTT:      func() time.Duration { return time.Duration(d.rtt.Load()) },
		InFlight: func() map[string]int { return d.stats().InFlight },
		Ready:    d.isReady,
		// Each gauge looks up the connection at each scrape: it appears while the page is served.
		Draining:    func() bool { conn := d.connected.Load(); return conn != nil && conn.worker.IsDraining() },
		Connected:   func() bool { conn := d.connected.Load(); return conn != nil && conn.nc.IsConnected() },
		Loop:        d.loopCounters,
		InOutage:    func() bool { _, failing := d.pool.Outage(); return failing },
		ProxyStates: d.proxyStates, EachProxy: d.eachProxy, ProxiesAvoided: d.countAvoided,
		Sites: d.countSites, SitesFollowed: d.followedSites,
		DomainWaits:    func() int64 { return d.fetcher.DomainWaits() },
		Hedges:         func() (won, lost, failed int64) { return d.fetcher.Hedges() },
		DelayedRetries: func() int64 { return d.fetcher.DelayedRetries() },
		IdleConns:      func() int { return d.fetcher.IdleConns() },
		Backlog:        d.backlog,
		FleetJobs:      d.fleetJobs,
	}
}

// stats are the counters of the loop; zero before it exists. A pointer that is not nil never becomes nil again,
// so the result may be used without a lock.
func (d *daemon) stats() worker.Stats {
	if conn := d.connected.Load(); conn != nil {
		return conn.worker.Stats()
	}
	return worker.Stats{}
}

// isReady reports whether every check of readiness holds.
func (d *daemon) isReady() bool {
	for _, c := range d.ready() {
		if !c.OK {
			return false
		}
	}
	return true
}

// loopCounters joins the counters of the loop with those of the two releasers, which run beside it.
func (d *daemon) loopCounters() metrics.Loop {
	s := d.stats()
	return metrics.Loop{Scheduled: s.Scheduled, HandedBack: s.HandedBack, LeasesLost: s.LeasesLost, Duplicates: s.Duplicates, Overdue: d.overdue.Load(), SiteReleases: d.siteReleases.Load()}
}

// proxyStates counts the proxies by the state of their breakers. The keys are those of the API.
func (d *daemon) proxyStates() map[string]int {
	out := map[string]int{}
	for _, state := range d.pool.States() {
		out[state.String()]++
	}
	return out
}

// eachProxy yields the id and the state of each proxy's breaker. A copy would be large: a pool may have 100,000.
func (d *daemon) eachProxy() iter.Seq2[string, string] {
	// States is an iterator that locks the pool for a part at a time.
	return func(yield func(string, string) bool) {
		for id, state := range d.pool.States() {
			if !yield(id, state.String()) {
				return
			}
		}
	}
}

// rttInterval is the time between two pings of the server, and the longest that one may take.
const rttInterval = 5 * time.Second

// measureRTT pings the server until ctx ends. A ping without an answer leaves the last measurement.
func (d *daemon) measureRTT(ctx context.Context, nc *nats.Conn) {
	for ; ctx.Err() == nil; sleep(ctx, rttInterval) {
		bounded, cancel := context.WithTimeout(ctx, rttInterval)
		began := time.Now()
		// Flush waits for the server's PONG, so its time is a round trip.
		if nc.FlushWithContext(bounded) == nil {
			d.rtt.Store(int64(time.Since(began)))
		}
		cancel()
	}
}

// observer counts what the loop does.
func (d *daemon) observer() worker.Observer {
	return worker.Observer{
		Ended: d.recordJob, Taken: d.metrics.CountTaken, Published: d.metrics.CountPublish, Acked: d.metrics.CountAck, DeadLettered: d.metrics.CountDeadLetter,
	}
}

// recordPick counts a pick under the strategy that applies now.
func (d *daemon) recordPick(took time.Duration, err error) {
	d.metrics.CountPick(d.pool.Strategy(), took, err)
}

// recordSiteWait counts a job that has to wait for its site.
func (d *daemon) recordSiteWait(state sites.State) { d.metrics.CountSiteWait(state.String()) }

// backlog is what the queues held when the loop inspected its consumers last, at most a few seconds ago.
func (d *daemon) backlog() map[string]metrics.Backlog {
	// The map is empty rather than nil before the connection.
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
