// Package rotation chooses the proxy for the next attempt.
//
// Proxies whose breaker rests are left out before the strategy chooses, by a look that changes nothing; only the chosen one
// gives a permit. A pick is a Lease that is settled once with a Verdict. Bans and Retry-After cool a pair of proxy and host
// without touching the breaker, and a target that fails through several proxies is held to blame itself. A failure at a target
// that nobody knows is held against the proxy when another one delivers from there, or when there are too many in a row to be bad
// luck.
package rotation

import (
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Strategy is how one of the usable proxies is chosen.
type Strategy string

// The strategies.
const (
	RoundRobin  Strategy = "round_robin" // one after the other
	Random      Strategy = "random"      // any of them
	Weighted    Strategy = "weighted"    // by weight, spread evenly
	LeastUsed   Strategy = "least_used"  // the one with the fewest attempts under way, then the one unused for longest
	Performance Strategy = "performance" // the better of two at random, by success and latency; strangers get 2 to 10 %
)

// Strategies are all of them.
func Strategies() []Strategy { return []Strategy{RoundRobin, Random, Weighted, LeastUsed, Performance} }

// ParseStrategy reads a strategy's name; an empty one is RoundRobin.
func ParseStrategy(name string) (Strategy, error) {
	s := Strategy(name)
	if name == "" {
		return RoundRobin, nil
	}
	if slices.Contains(Strategies(), s) {
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
	// SessionTTL is how long a session that had to move stays where it moved to after its last use; zero means 10 min.
	SessionTTL time.Duration
}

// Pool is the proxies and their state. Make one with New; it may be shared between goroutines.
//
// What each operation costs hardly grows with the number of proxies: those that can be used stand in
// sets without gaps, one for all and one for each filter that jobs ask for, and a proxy whose state changes moves between
// classes of the sets that it is in. One lock guards all of it and is held for a few hundred nanoseconds; what takes longer,
// such as a new list, is done in small steps.
type Pool struct {
	cfg   Config
	group *breaker.Group

	// build is held while a set or a list is made, before mu.
	build sync.Mutex

	mu       sync.Mutex
	strategy Strategy
	list     []*entry // as given; a new one with each Replace
	version  uint64   // of list
	byID     map[string]*entry
	words    *words        // of list; nil while Replace changes it
	slots    [maxSets]*set // slot 0 is of all proxies
	sets     map[filter]*set
	setIDs   uint64
	line     line // of those that become usable by themselves
	rests    rests
	judge    outlier.Judge // whether a failure counts
	entries  []*entry      // by index of the judge
	pins     aged[pin]
	picks    uint64
	leases   uint64  // that were started
	probing  float64 // the part of a probe that the picks since the last one have earned
	pace     float64 // mean latency of good attempts, in nanoseconds
	troubled int     // proxies that are open or on probation

	leaveTests bool // picks leave those that are due for a probe to others
}

// New makes an empty pool.
func New(cfg Config) *Pool {
	if cfg.SessionTTL <= 0 {
		cfg.SessionTTL = 10 * time.Minute
	}
	p := &Pool{
		cfg: cfg, group: breaker.NewGroup(cfg.Breaker), strategy: RoundRobin, byID: map[string]*entry{}, sets: map[filter]*set{},
		rests: rests{byHost: map[string]*hostRests{}}, probing: 1, words: newWords(nil),
	}
	if cfg.Strategy != "" {
		p.strategy = cfg.Strategy
	}
	p.sets[filter{}] = p.newSet(filter{}, 0)
	return p
}

// SetStrategy changes the strategy from the next pick on, an empty one to RoundRobin, and returns the one before. What is
// known of the proxies stays.
func (p *Pool) SetStrategy(s Strategy) (before Strategy) {
	if s == "" {
		s = RoundRobin
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.strategy
	if s == before {
		return before
	}
	p.strategy = s
	for _, set := range p.slots {
		if set == nil {
			continue
		}
		old := set.ready
		set.ready = newOrder(s, set.id, p)
		for _, e := range old.all() {
			e.in(set.id).at = nowhere
			set.ready.add(e)
		}
	}
	return before
}

// Strategy is the one in force.
func (p *Pool) Strategy() Strategy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.strategy
}

// Change says what Replace did.
type Change struct{ Added, Removed, Changed int }

// step is how many proxies are put in place under one hold of the lock.
const step = 128

// Replace makes proxies the pool. A proxy whose id stays keeps its state, whatever else changes about it; of two proxies
// with one id the first counts. Picks go on meanwhile.
func (p *Pool) Replace(proxies []proxylist.Proxy) (c Change) {
	p.build.Lock()
	defer p.build.Unlock()
	list, byID, todo, fresh := p.sort(proxies, &c)
	p.mu.Lock()
	p.words = nil
	p.mu.Unlock()
	for part := range slices.Chunk(todo, step) {
		p.settle(part, fresh)
		runtime.Gosched() // whoever waits for the lock comes before the next part
	}
	for part := range slices.Chunk(p.missing(byID), step) {
		p.retire(part)
		c.Removed += len(part)
		runtime.Gosched()
	}
	w := newWords(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list, p.byID, p.words = list, byID, w
	p.version++
	return c
}

// sort finds out which proxies are known, and which there is something to do about. The entries of new ones are made here,
// beside the lock; fresh is the new word about known ones. Only Replace writes the list, byID and what an entry's proxy is, so
// they may be read without the lock here.
func (p *Pool) sort(proxies []proxylist.Proxy, c *Change) (list []*entry, byID map[string]*entry, todo []*entry, fresh map[*entry]*proxylist.Proxy) {
	list, byID, fresh = make([]*entry, 0, len(proxies)), make(map[string]*entry, len(proxies)), map[*entry]*proxylist.Proxy{}
	for i := range min(len(proxies), maxPool) {
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
		case !e.proxy.Equal(&proxy):
			todo, fresh[e] = append(todo, e), &proxy
			c.Changed++
		}
		byID[proxy.ID] = e
		list = append(list, e)
	}
	return list, byID, todo, fresh
}

// settle puts new and changed proxies into the sets.
func (p *Pool) settle(part []*entry, fresh map[*entry]*proxylist.Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.group.Now()
	for _, e := range part {
		if proxy := fresh[e]; proxy != nil {
			p.leave(e)
			e.describe(proxy)
		} else {
			p.enroll(e)
		}
		for _, s := range p.slots {
			if s != nil {
				p.join(s, e, now)
			}
		}
		p.refresh(e, now)
	}
}

// enroll gives a new proxy its place in the evidence.
func (p *Pool) enroll(e *entry) {
	e.index = p.judge.Add()
	if int(e.index) == len(p.entries) {
		p.entries = append(p.entries, nil)
	}
	p.entries[e.index] = e
}

// missing is those of the present list that are not in byID.
func (p *Pool) missing(byID map[string]*entry) (out []*entry) {
	for _, e := range p.list {
		if byID[e.proxy.ID] != e {
			out = append(out, e)
		}
	}
	return out
}

// retire takes proxies out for good. Leases of them go on and count nowhere.
func (p *Pool) retire(part []*entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range part {
		e.gone = true
		p.leave(e)
		p.count(e)
		p.judge.Remove(e.index)
		p.entries[e.index] = nil
	}
}

// leave takes a proxy out of every set.
func (p *Pool) leave(e *entry) {
	for i := range e.places {
		if s := p.live(e.places[i].set); s != nil {
			s.move(e, &e.places[i], out)
			s.size--
		}
	}
	e.places = e.places[:0]
}

// Len is how many proxies there are.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list)
}

// Usable reports whether some proxy might be picked now.
func (p *Pool) Usable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake(p.group.Now(), len(p.line))
	s := p.slots[0]
	return s.ready.len()+len(s.due.list)+len(s.spare.list) > 0
}

// Event is a change of a proxy's breaker. Without a ProxyID it is the pool's as a whole, which is open while the pool fails;
// such events are not numbered.
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
	// AvoidedUntil is until when the word of the worker AvoidedBy makes it the last resort; zero when none does.
	AvoidedUntil time.Time
	AvoidedBy    string
	Inflight     int
}

// Status reads every proxy, in the order of the list.
func (p *Pool) Status() []Status {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	out := make([]Status, 0, len(list))
	for part := range slices.Chunk(list, step) {
		p.mu.Lock()
		for _, e := range part {
			out = append(out, p.status(e))
		}
		p.mu.Unlock()
	}
	return out
}

// States walks the proxies in the order of the list: id and state of the breaker. It costs a fraction of Status.
func (p *Pool) States() iter.Seq2[string, breaker.State] {
	return func(yield func(string, breaker.State) bool) {
		p.mu.Lock()
		list := p.list
		p.mu.Unlock()
		var ids [step]string
		for part := range slices.Chunk(list, step) {
			p.mu.Lock()
			for i, e := range part {
				ids[i] = e.proxy.ID
			}
			p.mu.Unlock()
			for i, e := range part {
				if !yield(ids[i], e.breaker.State()) {
					return
				}
			}
		}
	}
}

// StatusOf reads one proxy.
func (p *Pool) StatusOf(id string) (Status, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[id]
	if e == nil {
		return Status{}, false
	}
	return p.status(e), true
}

func (p *Pool) status(e *entry) Status {
	b, cfg := e.breaker.Snapshot(), p.group.Config()
	s := Status{
		ID: e.proxy.ID, Addr: e.proxy.Addr(), Tags: e.proxy.Tags, Region: e.proxy.Region, State: b.State, Failures: b.Failures,
		Threshold: cfg.FailureThreshold, Window: cfg.Window, OpenTimeout: cfg.OpenTimeout, NextTest: b.NextTest,
		LastChange: b.LastChange, Inflight: int(e.inflight),
	}
	if e.isAvoided(p.group.Now()) {
		s.AvoidedUntil, s.AvoidedBy = p.group.Time(e.avoid), e.avoidedBy
	}
	return s
}
