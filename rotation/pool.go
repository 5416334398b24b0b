// Package rotation chooses the proxy for the next attempt.
//
// Proxies whose breaker rests are left out before the strategy chooses, by a look that changes nothing; only the chosen one
// gives a permit. A pick is a Lease that is settled once with a Verdict. Bans and Retry-After cool a pair of proxy and host
// without touching the breaker, and a target that fails through several proxies is held to blame itself.
package rotation

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// Strategy is how one of the usable proxies is chosen.
type Strategy string

// The strategies.
const (
	RoundRobin  Strategy = "round_robin" // one after the other
	Random      Strategy = "random"      // any of them
	Weighted    Strategy = "weighted"    // by weight, spread evenly
	LeastUsed   Strategy = "least_used"  // the one with the fewest attempts under way, then the fewest at all
	Performance Strategy = "performance" // the better of two at random
)

// ParseStrategy reads a strategy's name; an empty one is RoundRobin.
func ParseStrategy(name string) (Strategy, error) {
	s := Strategy(name)
	if name == "" {
		return RoundRobin, nil
	}
	if slices.Contains([]Strategy{RoundRobin, Random, Weighted, LeastUsed, Performance}, s) {
		return s, nil
	}
	return "", fmt.Errorf("strategy %q is none of round_robin, random, weighted, least_used, performance", name)
}

// Config is what a Pool is made of. The zero value is usable.
type Config struct {
	// Strategy is RoundRobin when empty.
	Strategy Strategy
	// Breaker is how each proxy is judged.
	Breaker breaker.Config
}

// Pool is the proxies and their state. Make one with New; it may be shared between goroutines.
type Pool struct {
	cfg      Config
	strategy atomic.Pointer[Strategy]
	entries  atomic.Pointer[[]*entry]
	cursor   atomic.Uint64
	cool     *coolDowns
	targets  *targets

	mu   sync.Mutex // for Replace, the weighted strategy and byID
	byID map[string]*entry
}

// entry is one proxy and what is known of it.
type entry struct {
	proxy    atomic.Pointer[Proxy]
	breaker  *breaker.Breaker
	inflight atomic.Int64
	used     atomic.Int64
	credit   int64        // of the weighted strategy
	score    atomic.Int64 // of the performance strategy: expected cost of an attempt, in nanoseconds
}

// New makes an empty pool.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg, cool: newCoolDowns(), targets: newTargets(), byID: map[string]*entry{}}
	p.SetStrategy(cfg.Strategy)
	p.entries.Store(new([]*entry))
	return p
}

// SetStrategy changes the strategy from the next pick on.
func (p *Pool) SetStrategy(s Strategy) {
	if s == "" {
		s = RoundRobin
	}
	p.strategy.Store(&s)
}

// Change says what Replace did.
type Change struct{ Added, Removed, Changed int }

// Replace makes proxies the pool. A proxy whose id stays keeps its state, whatever else changes about it; of two proxies
// with one id the first counts.
func (p *Pool) Replace(proxies []Proxy) (c Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*entry, 0, len(proxies))
	byID := make(map[string]*entry, len(proxies))
	for _, proxy := range proxies {
		if byID[proxy.ID] != nil {
			continue
		}
		e := p.byID[proxy.ID]
		switch {
		case e == nil:
			e = &entry{breaker: breaker.New(p.cfg.Breaker)}
			c.Added++
		case e.proxy.Load().Line() != proxy.Line():
			c.Changed++
		}
		e.proxy.Store(&proxy)
		byID[proxy.ID] = e
		list = append(list, e)
	}
	for id := range p.byID {
		if byID[id] == nil {
			c.Removed++
		}
	}
	p.byID = byID
	p.entries.Store(&list)
	return c
}

// Len is how many proxies there are.
func (p *Pool) Len() int { return len(*p.entries.Load()) }

// Usable reports whether some proxy might be picked now.
func (p *Pool) Usable() bool {
	return slices.ContainsFunc(*p.entries.Load(), func(e *entry) bool { return e.breaker.Ready() })
}

// Need is what a pick asks for. The zero value takes any proxy.
type Need struct {
	// Host is the target's "host:port".
	Host string
	// Tags must all be on the proxy.
	Tags []string
	// Region is preferred, and demanded with RegionStrict.
	Region       string
	RegionStrict bool
	// Session sends picks of one name to one proxy while it works.
	Session string
	// ID names the only proxy allowed.
	ID string
	// Exclude are the ids of proxies that are taken only when no other is left.
	Exclude []string
}

// Reason is why no proxy could be picked.
type Reason string

// The reasons.
const (
	Empty     Reason = "empty"     // the pool has no proxies
	Unmatched Reason = "unmatched" // no proxy of the pool can meet the need
	Resting   Reason = "resting"   // those that could are open, cooling or busy
)

// NoProxyError tells that no proxy could be picked, and when it may be tried again.
type NoProxyError struct {
	Reason Reason
	// RetryAt is zero when that is not known.
	RetryAt time.Time
}

// Error says it in words.
func (e *NoProxyError) Error() string {
	switch e.Reason {
	case Empty:
		return "the pool has no proxies"
	case Unmatched:
		return "no proxy of the pool matches what the job asks for"
	case Resting:
	}
	return "every proxy that could be used is resting or busy"
}

// Event is a change of a proxy's breaker.
type Event struct {
	ProxyID string
	breaker.Event
}

// Status is a reading of one proxy.
type Status struct {
	ID, Addr    string
	Tags        []string
	Region      string
	State       breaker.State
	Failures    int
	Threshold   int
	Window      time.Duration
	OpenTimeout time.Duration
	// NextTest is zero unless the breaker is open; LastChange is zero when it never changed.
	NextTest, LastChange time.Time
	Inflight             int
}

// Status reads every proxy, in the order of the list.
func (p *Pool) Status() []Status {
	entries := *p.entries.Load()
	out := make([]Status, len(entries))
	for i, e := range entries {
		out[i] = e.status()
	}
	return out
}

// StatusOf reads one proxy.
func (p *Pool) StatusOf(id string) (Status, bool) {
	e := p.find(id)
	if e == nil {
		return Status{}, false
	}
	return e.status(), true
}

func (p *Pool) find(id string) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

func (e *entry) status() Status {
	b, proxy, cfg := e.breaker.Snapshot(), e.proxy.Load(), e.breaker.Group().Config()
	return Status{
		ID: proxy.ID, Addr: proxy.Addr(), Tags: proxy.Tags, Region: proxy.Region, State: b.State, Failures: b.Failures,
		Threshold: cfg.FailureThreshold, Window: cfg.Window, OpenTimeout: cfg.OpenTimeout, NextTest: b.NextTest,
		LastChange: b.LastChange, Inflight: int(e.inflight.Load()),
	}
}

// Reset closes a proxy's breaker; false means that there is no such proxy.
func (p *Pool) Reset(id string) ([]Event, bool) {
	e := p.find(id)
	if e == nil {
		return nil, false
	}
	return event(id, e.breaker.Reset("reset")), true
}

// ForceOpen opens a proxy's breaker at once for rest; false means that there is no such proxy.
func (p *Pool) ForceOpen(id string, rest time.Duration, reason string) ([]Event, bool) {
	e := p.find(id)
	if e == nil {
		return nil, false
	}
	return event(id, e.breaker.Trip(rest, reason)), true
}

func event(id string, e breaker.Event) []Event {
	if !e.Changed() {
		return nil
	}
	return []Event{{ProxyID: id, Event: e}}
}
