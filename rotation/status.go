package rotation

import (
	"iter"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// Event is a change of a proxy's breaker. Without a ProxyID it is an outage of the pool: to Open when the outage begins, to
// Closed when it ends. Events of outages have no generation. They are values: the pool returns them, and its
// callers publish them without its lock.
type Event struct {
	ProxyID string
	breaker.Event
}

// Status is the state of one proxy at one time. The slices and strings are shared with the list and must not be
// changed.
type Status struct {
	ID, Addr    string
	Tags        []string
	Region      string
	State       breaker.State
	Failures    int
	Threshold   int
	Window      time.Duration
	OpenTimeout time.Duration
	// Reason is why the breaker opened; empty while it is closed.
	Reason string
	// NextTest is zero unless the breaker is open. LastChange is zero if the state never changed.
	NextTest, LastChange time.Time
	// AvoidedUntil is when the finding of the worker AvoidedBy ends: until then the proxy is the last resort. Zero
	// means that there is no finding.
	AvoidedUntil time.Time
	AvoidedBy    string
	Inflight     int
	// Cooldowns is at how many sites the proxy cools down now, mostly because they have banned it.
	Cooldowns int
	// Weight, MaxInflight and Rate are those of the list; zero sets no bound.
	Weight, MaxInflight int
	Rate                float64
	// Gateway says that the proxy has many exits. ExitsTried counts the attempts that say something about their exit, and
	// ExitsFailed the attempts after which the exit counts as failed.
	Gateway                 bool
	ExitsTried, ExitsFailed uint64
}

// Condition is what a list of proxies is sorted by. It costs a fraction of a Status.
type Condition struct {
	ID        string
	State     breaker.State
	IsAvoided bool
	// Cooldowns is at how many sites the proxy cools down now, mostly because they have banned it.
	Cooldowns int
}

// Conditions iterates over the proxies in the order of the list.
func (p *Pool) Conditions() iter.Seq[Condition] {
	return func(yield func(Condition) bool) {
		p.mu.Lock()
		// The slice is never changed in place, so it may be walked outside of the lock. Proxies that left
		// meanwhile are yielded all the same.
		list := p.list
		p.mu.Unlock()
		var found [batchSize]Condition
		for part := range slices.Chunk(list, batchSize) {
			p.mu.Lock()
			now := p.group.Now()
			for i, e := range part {
				found[i] = Condition{ID: e.proxy.ID, State: e.breaker.State(), IsAvoided: e.isAvoided(now), Cooldowns: int(e.cooldowns)}
			}
			p.mu.Unlock()
			// yield runs without the lock: it may take long, or ask the pool.
			for _, c := range found[:len(part)] {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Status returns the state of every proxy, in the order of the list.
func (p *Pool) Status() []Status { return p.StatusFrom(0, maxPool) }

// StatusFrom returns the state of at most limit proxies from an index of the list on, in its order. A list that changes
// between two calls moves the proxies to other indexes.
func (p *Pool) StatusFrom(from, limit int) []Status {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	list = list[min(from, len(list)):]
	list = list[:min(limit, len(list))]
	out := make([]Status, 0, len(list))
	for part := range slices.Chunk(list, batchSize) {
		p.mu.Lock()
		for _, e := range part {
			out = append(out, p.status(e))
		}
		p.mu.Unlock()
	}
	return out
}

// States iterates over the proxies in the order of the list: id and state of the breaker. It costs a fraction of Status.
func (p *Pool) States() iter.Seq2[string, breaker.State] {
	return func(yield func(string, breaker.State) bool) {
		p.mu.Lock()
		list := p.list
		p.mu.Unlock()
		var ids [batchSize]string
		for part := range slices.Chunk(list, batchSize) {
			p.mu.Lock()
			for i, e := range part {
				ids[i] = e.proxy.ID
			}
			p.mu.Unlock()
			for i, e := range part {
				// The breaker's state is read without the pool's lock, since it is atomic.
				if !yield(ids[i], e.breaker.State()) {
					return
				}
			}
		}
	}
}

// StatusOf returns the state of one proxy. It reports false if there is no such proxy.
func (p *Pool) StatusOf(id string) (Status, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[id]
	if e == nil {
		return Status{}, false
	}
	return p.status(e), true
}

// status reads the state of one proxy. The caller holds the lock.
func (p *Pool) status(e *entry) Status {
	// The snapshot is consistent in itself, though the pool may change right after it.
	b, cfg := e.breaker.Snapshot(), p.group.Config()
	s := Status{
		ID: e.proxy.ID, Addr: e.proxy.Addr(), Tags: e.proxy.Tags, Region: e.proxy.Region, State: b.State, Failures: b.Failures,
		Threshold: cfg.FailureThreshold, Window: cfg.Window, OpenTimeout: cfg.OpenTimeout, NextTest: b.NextTest,
		LastChange: b.LastChange, Inflight: int(e.inflight), Cooldowns: int(e.cooldowns), Weight: int(e.weight), MaxInflight: e.proxy.MaxInflight, Rate: e.proxy.Rate,
	}
	if b.State != breaker.Closed {
		s.Reason = e.openedBy
	}
	if g := e.gateway; g != nil {
		s.Gateway, s.ExitsTried, s.ExitsFailed = true, g.tried, g.failed
	}
	if e.isAvoided(p.group.Now()) {
		s.AvoidedUntil, s.AvoidedBy = p.group.Time(e.avoidedUntil), e.avoidedBy
	}
	return s
}
