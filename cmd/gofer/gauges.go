package main

import (
	"iter"

	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
)

// gauges are what the metrics page reads at each scrape. Before the server has answered they are zero.
func (r *rig) gauges() admin.Gauges {
	queues := make([]string, len(r.config.Queues))
	for i, q := range r.config.Queues {
		queues[i] = q.Name
	}
	return admin.Gauges{
		Version: buildVersion(), Queues: queues, Slots: func() int { return r.config.Concurrency }, Book: r.book, Process: true,
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

func (r *rig) loop() admin.Loop {
	s := r.stats()
	return admin.Loop{
		Received: s.Taken, Redelivered: s.Redelivered, Parked: s.Parked, HandedBack: s.HandedBack, Lost: s.Lost,
		Duplicates: s.Duplicates, Dead: s.Dead,
	}
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

// backlog is what the queues held a few seconds ago.
func (r *rig) backlog() map[string]admin.Backlog {
	out := map[string]admin.Backlog{}
	if l := r.line.Load(); l != nil {
		for queue, b := range l.worker.Backlog() {
			out[queue] = admin.Backlog{Pending: b.Pending, AckPending: b.Held}
		}
	}
	return out
}
