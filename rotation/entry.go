package rotation

import (
	"math"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// entry is one proxy of the pool and its state. The pool's lock guards it.
//
// The fields of entry are what an attempt through a healthy proxy reads and writes. They fill one cache line of 64 bytes: with
// 100,000 proxies, a pick waits for memory more than for anything else.
type entry struct {
	*coldState
	proxy      *proxylist.Proxy
	nextByRate time.Duration // when the proxy's rate allows the next attempt
	record     record
	interval   float32 // between two attempts, in nanoseconds; zero without a rate
	// It is an index into Pool.entries, so that the judge needs no pointers.
	index       outlier.Proxy // of the evidence about the proxy
	inflight    uint16        // attempts in flight
	maxInflight uint16        // zero once the proxy left the pool
	isGateway   bool          // gateway is not nil
	// It is Until() != 0, kept here so that a pick reads one cache line.
	notClosed bool  // the breaker is open or half-open
	cooling   bool  // the proxy has a cooldown for at least one host
	digit     uint8 // of the proxy's id: a pick compares few ids, see excluded
}

// coldState is what is needed only when a proxy changes its class.
type coldState struct {
	breaker      breaker.Breaker
	changed      uint64        // the number of the last lease before the breaker's state changed
	positions    []position    // one for each set, and stale ones of dropped sets
	avoidedUntil time.Duration // the end of another worker's finding
	wakesAt      time.Duration // when the class is checked again; zero without a timer
	avoidedBy    string        // the worker whose finding it is
	openedBy     string        // why the breaker opened last
	gateway      *gateway      // nil if the proxy has one exit
	removed      bool          // the proxy left the pool; verdicts of its leases do not count
	losses       uint8         // hedged attempts in a row that lost before their first byte
	avoided      bool          // another worker found the proxy dead; see avoidedUntil
	weight       int32
	cooldowns    int32 // hosts for which the proxy cools down
	// Most proxies are in one or two sets, so their positions need no allocation.
	home [2]position // the memory of positions while they are few
}

// newEntry makes the entry of a new proxy. It belongs to no set yet.
func newEntry(proxy *proxylist.Proxy, group *breaker.Group) *entry {
	e := &entry{coldState: new(coldState)}
	// The group holds the settings and the clock that the breakers of a pool share.
	group.Init(&e.breaker)
	e.positions = e.home[:0]
	e.describe(proxy)
	return e
}

// describe sets what the list says about the proxy.
func (e *entry) describe(proxy *proxylist.Proxy) {
	e.proxy, e.digit = proxy, digitOf(proxy.ID)
	// Weights are bounded, so that ten groups of the wheel hold all of them.
	e.maxInflight, e.interval, e.weight = math.MaxUint16, 0, int32(max(1, min(proxy.Weight, 1000)))
	if proxy.MaxInflight > 0 {
		e.maxInflight = uint16(min(proxy.MaxInflight, math.MaxUint16))
	}
	if proxy.Rate > 0 {
		// A float of 32 bits holds every interval within a millionth, in half of the space.
		e.interval = float32(float64(time.Second) / proxy.Rate)
	}
	e.isGateway = proxy.IsGateway()
	switch {
	case !e.isGateway:
		e.gateway = nil
	case e.gateway == nil:
		e.gateway = new(gateway)
		// A new gateway is described below, too.
		fallthrough
	default:
		e.gateway.describe(proxy)
	}
}

// never is the time of an event that does not happen by itself.
const never = time.Duration(1<<63 - 1)

// class returns what a pick may do with the proxy now, and when that may change by itself.
func (e *entry) class(now time.Duration) (c class, at time.Duration) {
	// It does not end by itself: the release of a lease calls refresh again. A proxy that left the pool is always full.
	if e.inflight >= e.maxInflight {
		return unavailable, never
	}
	var until time.Duration
	if e.notClosed {
		until = e.breaker.Until()
	}
	// Both have to be over. The later one decides.
	switch at = max(until, e.nextByRate); {
	case at > now:
		return unavailable, at
	case e.isAvoided(now):
		return avoided, e.avoidedUntil
	case until == 0:
		return available, never
	}
	return probeable, never
}

// isAvoided reports whether another worker's finding holds.
func (e *entry) isAvoided(now time.Duration) bool { return e.avoided && e.avoidedUntil > now }

// cost orders two proxies for the performance strategy; the lower cost wins. It is 1.1 less the score, times the
// attempts that would be in flight. pace is the pool's mean latency, in nanoseconds.
func (e *entry) cost(pace float64) float64 {
	// 1.1 keeps the factor above zero, so that load counts even among proxies of a perfect record.
	return (float64(e.inflight) + 1) * (1.1 - e.record.score(pace))
}

// burst is how far ahead of its rate a proxy may be used. Rates below ten a second have no burst.
const burst = 100 * time.Millisecond

// start counts an attempt that begins now. It reports whether the proxy can take no other attempt now. The rate is
// limited by GCRA (ITU-T I.371): nextByRate is the theoretical arrival time less the burst.
func (e *entry) start(now time.Duration) (spent bool) {
	e.inflight++
	if interval := time.Duration(e.interval); interval > 0 {
		// The arrival time may lie at most one burst in the past, so a proxy that was idle for long cannot be
		// used more often at once than burst allows.
		e.nextByRate = max(now-burst, e.nextByRate) + interval
		// An interval longer than the burst would otherwise allow two attempts in quick succession.
		if interval >= burst {
			e.nextByRate = now + interval
		}
	}
	return e.inflight >= e.maxInflight || e.nextByRate > now
}

// positionIn returns the position in a set; nil if the proxy is no member. A proxy is in few sets, so a scan is quickest.
func (e *entry) positionIn(set uint64) *position {
	for i := range e.positions {
		if e.positions[i].set == set {
			return &e.positions[i]
		}
	}
	return nil
}

// refresh moves the proxy to its present class in every set, and sets a timer for the next change.
func (p *Pool) refresh(e *entry, now time.Duration) {
	p.countUnhealthy(e)
	c, at := e.class(now)
	for i := range e.positions {
		// A position of a dropped set is stale and left alone.
		if s := p.liveSet(e.positions[i].set); s != nil {
			s.moveTo(e, &e.positions[i], c)
		}
	}
	// One timer for each proxy is enough: an earlier one replaces it, and a later one is set when the earlier
	// expires.
	if at != never && (e.wakesAt == 0 || at < e.wakesAt) {
		e.wakesAt = at
		p.timers.push(at, e)
	}
}

// countUnhealthy keeps e.notClosed and the pool's count of proxies whose breaker is not closed. It is called after each
// change of a breaker.
func (p *Pool) countUnhealthy(e *entry) {
	before := e.notClosed
	e.notClosed = !e.removed && e.breaker.Until() != 0
	// The count changes only with the flag, so calling it again is harmless.
	switch {
	case e.notClosed && !before:
		p.unhealthy++
	case before && !e.notClosed:
		p.unhealthy--
	}
}

// maxWakeups bounds how many expired timers one pick handles. The next pick handles the rest. A burst of
// timers, as after an outage, would otherwise be handled in the pick that happens to come first.
const maxWakeups = 32

// refreshExpired refreshes proxies whose timer has expired, at most limit.
func (p *Pool) refreshExpired(now time.Duration, limit int) {
	// The lock is held, so the limit also bounds how long others wait.
	for ; limit > 0 && p.timers.expired(now); limit-- {
		e := p.timers.pop().value
		e.wakesAt = 0
		p.refresh(e, now)
	}
}
