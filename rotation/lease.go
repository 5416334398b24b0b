package rotation

import (
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

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
	Refused                 // this proxy does not serve this host: counts once it refuses most of what it is asked for
)

// Verdict is what became of an attempt.
type Verdict struct {
	Kind Kind
	// Host is the one that the attempt ended at, "host:port"; empty means the lease's.
	Host string
	// Answered tells of an Unclear one that there was an answer, the target's or one in its place.
	Answered bool
	// Hurried tells that the job's own time was over, before the attempt's: that counts only if a proxy could have been faster.
	Hurried bool
	// CoolDown rests the pair of proxy and host; zero with PairFault and Refused means 5 min.
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
	host   string
	number uint64         // of the pool's leases
	permit breaker.Permit // of a probe; settled for a proxy whose breaker was closed
}

// Proxy is the proxy that was taken.
func (l *Lease) Proxy() *Proxy { return l.proxy }

// ID is its id.
func (l *Lease) ID() string { return l.proxy.ID }

// Probe reports whether the attempt decides about a half-open breaker.
func (l *Lease) Probe() bool { return l.permit.Probe() }

// Works reports whether the proxy reached a target within the last ten minutes.
func (l *Lease) Works() bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return l.entry.delivered.within(working, l.pool.group.Now())
}

// Release settles the lease as neutral, unless it is settled.
func (l *Lease) Release() { l.Report(Verdict{}) }

// Report settles the lease and returns what changed. A second call does nothing.
func (l *Lease) Report(v Verdict) []Event {
	if l.entry == nil {
		return nil
	}
	e, p := l.entry, l.pool
	l.entry = nil
	now := p.group.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	full := e.inflight >= e.most
	e.inflight--
	if e.gone {
		l.permit.Release() // what became of it says nothing of the pool that is there now
		return nil
	}
	if (v.Kind == PairFault || v.Kind == Refused) && v.CoolDown == 0 {
		v.CoolDown = 5 * time.Minute
	}
	if v.Host != "" {
		l.host = v.Host
	}
	rested := v.CoolDown > 0 && p.rests.begin(e, l.host, now+v.CoolDown).asked
	probe := l.Probe()
	changed, whole := l.settle(e, &v, now)
	p.noteChange(e, changed)
	p.moved(e, now, full || probe || rested || v.Trip > 0 || changed.Changed()) // a trip may lengthen a rest, and that is no change
	return append(event(l.proxy, changed), whole...)
}

// settle books the verdict with the breaker, the target, the record and the watch over the whole pool.
func (l *Lease) settle(e *entry, v *Verdict, now time.Duration) (changed breaker.Event, whole []Event) {
	if v.Trip > 0 {
		e.record.add(false, 0)
		l.permit.Release()
		return e.breaker.Trip(v.Trip, v.Reason), nil
	}
	if v.Hurried && v.Latency < max(time.Second, time.Duration(8*l.pool.pace)) {
		v.Kind = Neutral
	}
	switch v.Kind {
	case Delivered:
		e.record.add(true, v.Latency)
		l.pool.pace = mix(l.pool.pace, v.Latency)
		return l.permit.Success(), append(l.pool.worked(e, now), l.pool.cleared(hash(l.host, ""), e, now)...)
	case ProxyFault:
		return l.fault(e, 0, v, true, now)
	case Unclear:
		return l.unclear(e, v, now)
	case PairFault:
		e.record.add(false, 0)
		whole = l.pool.worked(e, now)
	case Refused:
		// That a proxy works for others is said by what it delivers to them, not by this.
		failing := e.record.failing()
		e.record.add(false, 0)
		if failing {
			return l.failure(e, hash(l.host, ""), v.Reason), nil
		}
	case TargetFault:
		// The proxy delivered what the target said.
		whole = l.pool.worked(e, now)
		if l.Probe() {
			return l.permit.Success(), whole
		}
	case Neutral:
	}
	l.permit.Release()
	return breaker.Event{}, whole
}

// unclear asks what is known of the target before it blames the proxy.
func (l *Lease) unclear(e *entry, v *Verdict, now time.Duration) (changed breaker.Event, whole []Event) {
	p, target := l.pool, hash(l.host, "")
	failed, standing := p.targets.failed(target, e, len(p.list), now)
	blame := true
	switch standing {
	case suspect:
		l.permit.Release()
		return breaker.Event{}, nil
	case healthy:
		if e.record.failing() {
			return l.fault(e, 0, v, true, now) // the failure stands for itself
		}
		// A part of the target may be down or hang while the rest answers, and good proxies meet that now and then. Silence may
		// still be the whole pool's.
		if !v.Answered {
			whole, blame = p.faulty(e, true, now)
		}
	case unknown, doubted:
		// That it fails again, through a second proxy or the same one, says little of either. An attempt that began before the
		// latest delivery says nothing of the time since: what hangs is given up late, and with others that hang.
		first, begun := standing == unknown, max(0, now-v.Latency)
		news := first && begun >= p.outage.last
		if l.convicts(e, first, begun) {
			return l.fault(e, target, v, news, now)
		}
		failed.open = l.number // it is the proxy's if the target answers through another one soon; see cleared
		whole, blame = p.faulty(e, news, now)
	}
	if blame {
		e.record.add(false, 0)
	}
	l.permit.Release()
	return breaker.Event{}, whole
}

// convicts reports whether a failure at a site that nobody knows is one too many to be bad luck of the proxy.
func (l *Lease) convicts(e *entry, first bool, begun time.Duration) bool {
	o, n := &l.pool.outage, 0
	if l.Probe() {
		e.tests++
		return e.tests >= MostTests || o.unlikely(int(e.tests), doubt)
	}
	if first {
		n = e.inRow(begun)
	}
	return o.unlikely(n, chance)
}

// cleared books that a target answered through a proxy: others that failed there a moment ago are to blame for it, if they
// fail most of the time.
func (p *Pool) cleared(target uint64, through *entry, now time.Duration) (opened []Event) {
	failed, some := p.targets.succeeded(target, now)
	if !some {
		return nil
	}
	for _, f := range failed {
		e := f.by
		stale := now-f.at >= lately || f.at <= p.outage.over
		if e == nil || e == through || e.gone || e.troubled || e.changed >= f.open || stale || !e.record.failing() {
			continue
		}
		permit, _, _ := e.breaker.Allow()
		if change := permit.Failure(target, "failed where another proxy delivers"); change.Changed() {
			p.noteChange(e, change)
			p.refresh(e, now)
			opened = append(opened, event(e.proxy, change)...)
		}
	}
	return opened
}

// fault blames the proxy, unless the whole pool fails.
func (l *Lease) fault(e *entry, target uint64, v *Verdict, news bool, now time.Duration) (breaker.Event, []Event) {
	whole, blame := l.pool.faulty(e, news, now)
	if !blame {
		l.permit.Release()
		return breaker.Event{}, whole
	}
	e.record.add(false, 0)
	return l.failure(e, target, v.Reason), whole
}

// failure counts a failure against the proxy, unless its breaker has changed its state since it was picked. A closed breaker
// counts nothing else, so that only now a permit is needed for one.
func (l *Lease) failure(e *entry, target uint64, reason string) breaker.Event {
	if !l.Probe() {
		if e.changed >= l.number {
			return breaker.Event{}
		}
		l.permit, _, _ = e.breaker.Allow()
	}
	return l.permit.Failure(target, reason)
}
