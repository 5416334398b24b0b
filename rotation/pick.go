package rotation

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// Pick takes a proxy for one attempt. The events are breakers that became half-open by it. The error is a *NoProxyError.
func (p *Pool) Pick(need Need) (Lease, []Event, error) {
	entries := *p.entries.Load()
	if len(entries) == 0 {
		return Lease{}, nil, &NoProxyError{Reason: Empty}
	}
	// A preference is given up before the wish for another proxy: a job that failed through one goes to another region
	// rather than to the same proxy again.
	for _, s := range need.searches() {
		if lease, events, ok := p.choose(entries, s); ok {
			return lease, events, nil
		}
	}
	return Lease{}, nil, p.none(entries, need)
}

// search is a need with its preferences made strict or given up.
type search struct {
	Need
	region  bool
	exclude bool
	now     time.Time
}

func (n Need) searches() []search {
	now := time.Now()
	all := make([]search, 0, 4)
	for _, exclude := range []bool{true, false} {
		if exclude && len(n.Exclude) == 0 {
			continue
		}
		if n.Region != "" {
			all = append(all, search{Need: n, region: true, exclude: exclude, now: now})
		}
		if n.Region == "" || !n.RegionStrict {
			all = append(all, search{Need: n, exclude: exclude, now: now})
		}
	}
	return all
}

// matches reports whether a proxy could ever serve the need.
func (s *search) matches(proxy *Proxy) bool {
	if s.ID != "" && proxy.ID != s.ID || (s.region || s.RegionStrict) && proxy.Region != s.Region {
		return false
	}
	for _, tag := range s.Tags {
		if !slices.Contains(proxy.Tags, tag) {
			return false
		}
	}
	return true
}

// usable reports whether e may serve the search now. It changes nothing.
func (p *Pool) usable(e *entry, s *search) bool {
	proxy := e.proxy.Load()
	return e.breaker.Ready() && s.matches(proxy) &&
		(!s.exclude || !slices.Contains(s.Exclude, proxy.ID)) &&
		(proxy.MaxInflight == 0 || e.inflight.Load() < int64(proxy.MaxInflight)) &&
		!p.cool.resting(proxy.ID, s.Host, s.now)
}

// choose picks by strategy and takes the permit. A race for the last permit that is lost goes to the next choice.
func (p *Pool) choose(entries []*entry, s search) (Lease, []Event, bool) {
	for range 4 {
		e := p.strike(entries, &s)
		if e == nil {
			return Lease{}, nil, false
		}
		permit, change, ok := e.breaker.Allow()
		if !ok {
			continue
		}
		e.inflight.Add(1)
		e.used.Add(1)
		proxy := e.proxy.Load()
		return Lease{pool: p, entry: e, proxy: proxy, permit: permit, host: s.Host, probe: permit.Probe()}, event(proxy.ID, change), true
	}
	return Lease{}, nil, false
}

// strike is the strategy's choice among the usable proxies; nil when there is none.
func (p *Pool) strike(entries []*entry, s *search) *entry {
	if s.Session != "" {
		return p.sticky(entries, s)
	}
	switch *p.strategy.Load() {
	case Random:
		return p.from(entries, s, rand.IntN(len(entries)))
	case Weighted:
		return p.heaviest(entries, s)
	case LeastUsed:
		return p.least(entries, s)
	case Performance:
		return p.better(entries, s)
	case RoundRobin:
	}
	return p.from(entries, s, int(p.cursor.Add(1)%uint64(len(entries))))
}

// from is the first usable proxy at or after start, around the list.
func (p *Pool) from(entries []*entry, s *search, start int) *entry {
	for i := range entries {
		if e := entries[(start+i)%len(entries)]; p.usable(e, s) {
			return e
		}
	}
	return nil
}

// sticky sends a session to the usable proxy with the highest hash of session and proxy (rendezvous hashing): the same one
// on every worker, another one only while the first cannot be used.
func (p *Pool) sticky(entries []*entry, s *search) (best *entry) {
	var highest uint64
	for _, e := range entries {
		if h := hash(s.Session, e.proxy.Load().ID); (best == nil || h > highest) && p.usable(e, s) {
			best, highest = e, h
		}
	}
	return best
}

// heaviest is smooth weighted round robin: each usable proxy earns its weight, the richest is chosen and pays the sum.
func (p *Pool) heaviest(entries []*entry, s *search) (best *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum int64
	for _, e := range entries {
		if !p.usable(e, s) {
			continue
		}
		weight := int64(max(1, e.proxy.Load().Weight))
		e.credit += weight
		sum += weight
		if best == nil || e.credit > best.credit {
			best = e
		}
	}
	if best != nil {
		best.credit -= sum
	}
	return best
}

func (p *Pool) least(entries []*entry, s *search) (best *entry) {
	var inflight, used int64
	for _, e := range entries {
		i, u := e.inflight.Load(), e.used.Load()
		if (best == nil || i < inflight || i == inflight && u < used) && p.usable(e, s) {
			best, inflight, used = e, i, u
		}
	}
	return best
}

// better is the cheaper of two usable proxies at random: the best of all would get everything at once.
func (p *Pool) better(entries []*entry, s *search) *entry {
	a := p.from(entries, s, rand.IntN(len(entries)))
	b := p.from(entries, s, rand.IntN(len(entries)))
	if a == nil || b == nil {
		return a
	}
	if cost(b) < cost(a) {
		return b
	}
	return a
}

func cost(e *entry) int64 { return (e.inflight.Load() + 1) * max(1, e.score.Load()) }

// none says why nothing was picked, and when something may be.
func (p *Pool) none(entries []*entry, need Need) *NoProxyError {
	s := search{Need: need, now: time.Now()}
	matched := false
	var soonest time.Time
	for _, e := range entries {
		proxy := e.proxy.Load()
		if !s.matches(proxy) {
			continue
		}
		matched = true
		at := s.now.Add(e.breaker.Remaining())
		if until := p.cool.until(proxy.ID, s.Host); until.After(at) {
			at = until
		}
		if soonest.IsZero() || at.Before(soonest) {
			soonest = at
		}
	}
	if !matched {
		return &NoProxyError{Reason: Unmatched}
	}
	return &NoProxyError{Reason: Resting, RetryAt: soonest}
}

// Kind is what an attempt says about its proxy.
type Kind uint8

// The kinds of a verdict.
const (
	Neutral     Kind = iota // nothing
	Delivered               // the proxy did its work, whatever the target said
	ProxyFault              // the proxy did not
	Unclear                 // proxy or target: counts unless the target is known to fail through others too
	TargetFault             // the target did not answer as it should; the proxy is not to blame
	PairFault               // this host does not serve this proxy
)

// Verdict is what became of an attempt.
type Verdict struct {
	Kind Kind
	// CoolDown rests the pair of proxy and host; zero with PairFault means 5 min.
	CoolDown time.Duration
	// Trip opens the breaker at once for this long.
	Trip    time.Duration
	Latency time.Duration
	Reason  string
}

// Lease is a proxy taken for one attempt. Report settles it; a deferred Release settles it as neutral when nothing else did.
// The zero value is settled.
type Lease struct {
	pool   *Pool
	entry  *entry
	proxy  *Proxy
	permit breaker.Permit
	host   string
	probe  bool
}

// Proxy is the proxy that was taken.
func (l *Lease) Proxy() *Proxy { return l.proxy }

// ID is its id.
func (l *Lease) ID() string { return l.proxy.ID }

// Probe reports whether the attempt decides about a half-open breaker.
func (l *Lease) Probe() bool { return l.probe }

// Release settles the lease as neutral, unless it is settled.
func (l *Lease) Release() { l.Report(Verdict{}) }

// Report settles the lease and returns what changed. A second call does nothing.
func (l *Lease) Report(v Verdict) []Event {
	if l.entry == nil {
		return nil
	}
	e, pool := l.entry, l.pool
	l.entry = nil
	e.inflight.Add(-1)
	e.learn(v)
	if v.Kind == PairFault && v.CoolDown == 0 {
		v.CoolDown = 5 * time.Minute
	}
	if v.CoolDown > 0 {
		pool.cool.rest(l.proxy.ID, l.host, v.CoolDown)
	}
	if v.Trip > 0 {
		l.permit.Release()
		return event(l.proxy.ID, e.breaker.Trip(v.Trip, v.Reason))
	}
	return event(l.proxy.ID, l.settle(v))
}

func (l *Lease) settle(v Verdict) breaker.Event {
	target := hash(l.host, "")
	switch v.Kind {
	case Delivered:
		l.pool.targets.succeeded(target)
		return l.permit.Success()
	case ProxyFault:
		return l.permit.Failure(0, v.Reason)
	case Unclear:
		switch l.pool.targets.failed(target, l.proxy.ID, l.pool.Len()) {
		case suspect:
			l.permit.Release()
		case healthy:
			return l.permit.Failure(0, v.Reason)
		case unknown:
			return l.permit.Failure(target, v.Reason)
		}
	case TargetFault, PairFault:
		// The proxy delivered what the target said, or it was not asked for more than this host.
		if l.probe && v.Kind == TargetFault {
			return l.permit.Success()
		}
		l.permit.Release()
	case Neutral:
		l.permit.Release()
	}
	return breaker.Event{}
}

// learn keeps the moving cost of an attempt; a failure costs ten seconds, however fast it was.
func (e *entry) learn(v Verdict) {
	sample := v.Latency
	switch v.Kind {
	case ProxyFault, Unclear, PairFault:
		sample = 10 * time.Second
	case Neutral:
		return
	case Delivered, TargetFault:
	}
	old := e.score.Load()
	if old == 0 {
		old = int64(sample)
	}
	e.score.Store(old + (int64(sample)-old)/8)
}
