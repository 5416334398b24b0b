package rotation

import (
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
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
	proxy  *proxylist.Proxy
	host   string
	number uint64         // of the pool's leases
	permit breaker.Permit // of a probe; settled for a proxy whose breaker was closed
}

// Proxy is the proxy that was taken.
func (l *Lease) Proxy() *proxylist.Proxy { return l.proxy }

// ID is its id.
func (l *Lease) ID() string { return l.proxy.ID }

// Probe reports whether the attempt decides about a half-open breaker.
func (l *Lease) Probe() bool { return l.permit.Probe() }

// Works reports whether the proxy reached a target within the last ten minutes.
func (l *Lease) Works() bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return !l.entry.gone && l.pool.judge.Healthy(l.entry.index, l.pool.group.Now())
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
	changed, outage := l.apply(e, &v, now)
	p.noteChange(e, changed)
	p.moved(e, now, full || probe || rested || v.Trip > 0 || changed.Changed()) // a trip may lengthen a rest, and that is no change
	return append(event(l.proxy, changed), outage...)
}

// apply takes the verdict into the evidence, and into the breaker if the evidence says so.
func (l *Lease) apply(e *entry, v *Verdict, now time.Duration) (changed breaker.Event, outage []Event) {
	p := l.pool
	if v.Hurried && v.Latency < max(time.Second, time.Duration(8*p.pace)) {
		v.Kind = Neutral
	}
	if v.Trip > 0 {
		p.judge.Failed(e.index)
		e.record.add(false, 0)
		l.permit.Release()
		return e.breaker.Trip(v.Trip, v.Reason), nil
	}
	a := l.attempt(e, v, now)
	var ruling outlier.Ruling
	switch v.Kind {
	case Delivered:
		e.record.add(true, v.Latency)
		p.pace = mix(p.pace, v.Latency)
		ruling = p.judge.Relayed(a)
		changed = l.permit.Success()
	case ProxyFault:
		ruling = p.judge.ProxyFailed(a)
	case Unclear:
		ruling = p.judge.Unclear(a)
	case PairFault:
		ruling = p.judge.Banned(a)
	case Refused:
		// Whether the proxy works for others is known from what it relays to them, not from this.
		ruling = p.judge.Refused(a)
	case TargetFault:
		// The proxy relayed what the target said.
		if ruling = p.judge.Reached(a); l.Probe() {
			changed = l.permit.Success()
		}
	case Neutral:
	}
	if ruling.Failed {
		e.record.add(false, 0)
	}
	if ruling.Counts {
		changed = l.failure(e, uint64(ruling.Site), v.Reason)
	}
	l.permit.Release()
	return changed, append(p.outageEvents(ruling.Outage, now), p.lateFailures(ruling.Late, now)...)
}

// attempt is what the evidence is told of the lease.
func (l *Lease) attempt(e *entry, v *Verdict, now time.Duration) outlier.Attempt {
	return outlier.Attempt{
		Proxy: e.index, Site: siteOf(l.host), Began: max(0, now-v.Latency), Ended: now, Number: l.number, Probe: l.Probe(),
		Answered: v.Answered, Closed: len(l.pool.list) - l.pool.troubled,
	}
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
