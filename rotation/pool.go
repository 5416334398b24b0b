// Package rotation chooses the proxy for the next attempt.
//
// A Pick filters the proxies by the state of their breakers without locking a breaker, asks the strategy, and takes a permit only
// from the chosen proxy. It returns a Lease, which ends with one Verdict. The package outlier decides whether a failure
// counts against the proxy, and the proxy's breaker counts it. A ban and a Retry-After cool down a pair of proxy and host, and
// the breaker does not change.
package rotation

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/latency"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Config configures a Pool. The zero value is usable.
type Config struct {
	// Strategy is the first strategy; empty means RoundRobin.
	Strategy Strategy
	// Breaker configures the breaker of each proxy.
	Breaker breaker.Config
	// SessionTTL is how long a session that had to move stays with its new proxy after its last use; zero means 10 min.
	SessionTTL time.Duration
	// Exits configures the words of gateways.
	Exits exits.Config
}

// Pool holds proxies and their state. Make one with New. It may be shared between goroutines.
//
// The cost of an operation hardly grows with the number of proxies. Sets index the proxies by what a pick may do with them now:
// one set for all proxies, and one for each filter that jobs ask for. A proxy whose state changes moves within its sets. One
// lock guards everything. It is held for a few hundred nanoseconds: longer work, such as a new list, is done in batches.
type Pool struct {
	cfg   Config
	group *breaker.Group
	times latency.Tracker // has a lock of its own

	// build serialises the making of sets, tables and lists. It is locked before mu. It keeps two goroutines
	// from making the same set or table, which takes milliseconds for a large list, while mu is free.
	build sync.Mutex

	// mu guards all fields below and the state of every entry.
	mu       sync.Mutex
	strategy Strategy
	// It is never changed in place, so a reader may use it after the lock is released.
	list    []*entry // in the order given; Replace makes a new one
	version uint64   // of list
	byID    map[string]*entry
	// Without an index, picks scan the list; see Replace.
	index *tagIndex // of list; nil while Replace changes it
	// Set 0 always exists. The others come and go with the filters that jobs ask for.
	slots     [maxSets]*set   // slot 0 holds the set of all proxies
	sets      map[filter]*set // of all filters but the empty one
	setIDs    uint64
	timers    timers[*entry] // of proxies that become available by themselves
	cooldowns cooldowns
	judge     outlier.Judge // decides whether a failure counts
	exits     *exits.Words  // of gateways
	gateways  int           // proxies that have many exits
	// Indexes of removed proxies are used again, and are nil meanwhile.
	entries      []*entry // by the judge's index
	pins         generations[pin]
	picks        uint64  // so far
	leases       uint64  // started so far
	earnedProbes float64 // grows with each pick; from 1 on the next pick may be a probe
	meanLatency  float64 // mean latency of good attempts, in nanoseconds
	unhealthy    int     // proxies whose breaker is not closed

	leaveProbes bool // picks leave probes to a health checker
}

// New makes an empty pool.
func New(cfg Config) *Pool {
	if cfg.SessionTTL <= 0 {
		cfg.SessionTTL = 10 * time.Minute
	}
	p := &Pool{
		cfg: cfg, group: breaker.NewGroup(cfg.Breaker), strategy: RoundRobin, byID: map[string]*entry{}, sets: map[filter]*set{},
		cooldowns: cooldowns{byKey: map[cooldownKey]*hostCooldowns{}}, earnedProbes: 1, index: newTagIndex(nil),
		exits: exits.New(cfg.Exits),
	}
	if cfg.Strategy != "" {
		p.strategy = cfg.Strategy
	}
	// The set of all proxies has the empty filter, and is never dropped.
	p.sets[filter{}] = p.newSet(filter{}, 0)
	return p
}

// Change counts what Replace did.
type Change struct{ Added, Removed, Changed int }

// batchSize is how many proxies are handled while the lock is held once.
const batchSize = 128

// Replace makes proxies the list of the pool. A proxy whose id stays keeps its state, whatever else changes about it. Of two
// proxies with the same id the first one counts. Picks go on meanwhile.
func (p *Pool) Replace(proxies []proxylist.Proxy) (c Change) {
	// build is held for the whole replacement, mu for one batch at a time.
	p.build.Lock()
	defer p.build.Unlock()
	list, byID, todo, fresh := p.compare(proxies, &c)
	p.mu.Lock()
	// While the list changes, an index of either list would be wrong.
	p.index = nil
	p.mu.Unlock()
	// New proxies are added before old ones go, so the pool is never empty in between.
	for part := range slices.Chunk(todo, batchSize) {
		p.install(part, fresh)
		runtime.Gosched() // a waiting pick gets the lock before the next batch
	}
	for part := range slices.Chunk(p.missingFrom(byID), batchSize) {
		p.remove(part)
		c.Removed += len(part)
		runtime.Gosched()
	}
	w := newTagIndex(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	// Counted again from the list itself, since install only adds to it.
	p.gateways = countGateways(list)
	// The three change together under the lock, so that they always belong to one list.
	p.list, p.byID, p.index = list, byID, w
	p.version++
	return c
}

// countGateways counts the proxies that have many exits.
func countGateways(list []*entry) (n int) {
	for _, e := range list {
		if e.isGateway {
			n++
		}
	}
	return n
}

// compare compares a new list with the pool. It makes the entries of new proxies, and returns what is to be installed: new
// entries, and known ones whose description changed; fresh has the new descriptions. It runs without the lock: only Replace
// writes list, byID and the descriptions, and build serialises Replace.
func (p *Pool) compare(proxies []proxylist.Proxy, c *Change) (list []*entry, byID map[string]*entry, todo []*entry, fresh map[*entry]*proxylist.Proxy) {
	list, byID, fresh = make([]*entry, 0, len(proxies)), make(map[string]*entry, len(proxies)), map[*entry]*proxylist.Proxy{}
	// Positions in sets have 32 bits: see maxPool.
	for i := range min(len(proxies), maxPool) {
		// A copy, because the entry keeps the pointer and the caller may use its slice again.
		proxy := proxies[i]
		if byID[proxy.ID] != nil {
			continue
		}
		e := p.byID[proxy.ID]
		switch {
		case e == nil:
			e = newEntry(&proxy, p.group)
			todo = append(todo, e)
			c.Added++
		// Equal compares what the list says, and not the state.
		case !e.proxy.Equal(&proxy):
			todo, fresh[e] = append(todo, e), &proxy
			c.Changed++
		}
		byID[proxy.ID] = e
		list = append(list, e)
	}
	return list, byID, todo, fresh
}

// install puts new and changed proxies into the sets.
func (p *Pool) install(part []*entry, fresh map[*entry]*proxylist.Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.group.Now()
	for _, e := range part {
		if proxy := fresh[e]; proxy != nil {
			// Its filters may match other sets now, so it leaves all and joins again below.
			p.leaveSets(e)
			e.describe(proxy)
		} else {
			p.addToJudge(e)
		}
		if e.isGateway {
			p.gateways++ // before a pick can find it; Replace counts again at its end
		}
		for _, s := range p.slots {
			if s != nil {
				p.join(s, e, now)
			}
		}
		// It also sets the timer for the next change of the class, which join does not.
		p.refresh(e, now)
	}
}

// addToJudge gives a new proxy its index of the judge.
func (p *Pool) addToJudge(e *entry) {
	e.index = p.judge.Add()
	// The judge gives out an index that is free, or the next new one, so the slice grows by one at most.
	if int(e.index) == len(p.entries) {
		p.entries = append(p.entries, nil)
	}
	p.entries[e.index] = e
}

// missingFrom returns the proxies of the current list that are not in byID.
func (p *Pool) missingFrom(byID map[string]*entry) (out []*entry) {
	// A duplicate is in neither list, so identity is compared, not only the id.
	for _, e := range p.list {
		if byID[e.proxy.ID] != e {
			out = append(out, e)
		}
	}
	return out
}

// remove takes proxies out of the pool. Their leases go on, and the verdicts count nowhere.
func (p *Pool) remove(part []*entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range part {
		// Verdicts of open leases check this flag.
		e.removed, e.maxInflight = true, 0
		p.leaveSets(e)
		p.countUnhealthy(e)
		p.judge.Remove(e.index)
		p.entries[e.index] = nil
	}
}

// leaveSets takes a proxy out of every set.
func (p *Pool) leaveSets(e *entry) {
	for i := range e.positions {
		if s := p.liveSet(e.positions[i].set); s != nil {
			// Moving to unavailable takes it out of the set's orders.
			s.moveTo(e, &e.positions[i], unavailable)
			s.size--
		}
	}
	// The slice is kept for the sets that the proxy joins next.
	e.positions = e.positions[:0]
}

// Len returns the number of proxies.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list)
}

// Closed returns the number of proxies whose breaker is closed, busy ones included.
func (p *Pool) Closed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Removed proxies are not counted as unhealthy, so the difference is right.
	return len(p.list) - p.unhealthy
}

// Usable reports whether the pool has a proxy for a pick without special needs: one that may be used now, or whose breaker is
// closed. A closed one that is full or ahead of its rate works, and a pool at the limits of all its proxies works best.
func (p *Pool) Usable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// All expired timers: the answer has to be right, and it is asked for once every few seconds.
	p.refreshExpired(p.group.Now(), len(p.timers))
	s := p.slots[0]
	return len(p.list) > p.unhealthy || s.available.len()+len(s.probeable.list)+len(s.avoided.list) > 0
}
