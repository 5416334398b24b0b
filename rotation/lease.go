package rotation

import (
	"cmp"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Kind classifies what an attempt says about its proxy.
type Kind uint8

// The kinds of a verdict.
const (
	Neutral     Kind = iota // nothing
	Relayed                 // the proxy relayed a response, whatever its status
	ProxyFault              // the proxy failed
	Unclear                 // the proxy or the target failed; package outlier decides whether it counts
	TargetFault             // the target failed, and the proxy reached it
	PairFault               // this host bans this proxy
	Refused                 // this proxy refuses this host, or the host refuses all proxies; package outlier decides
)

// Verdict is what an attempt reports about its proxy.
type Verdict struct {
	Kind Kind
	// Host is where the attempt ended, "host:port", after redirects; empty means the host of the pick.
	Host string
	// Answered says of an Unclear verdict that a response came, from the target or from a server that stands in for it.
	Answered bool
	// Proven says of a Relayed verdict that the response came over TLS with the target, whose certificate is good.
	Proven bool
	// JobTimeout says that the job's own time was over before the attempt's. The verdict then counts only if the attempt took
	// long enough for any proxy: a second, and eight times the pool's mean latency.
	JobTimeout bool
	// CoolDown is how long the proxy is not used for this host. With Refused and PairFault without Ban, zero means 5 min.
	CoolDown time.Duration
	// Ban says of a PairFault by which rule the response is a ban: the key of a job's rule, or FleetBan. The pair then
	// cools down for 5 min at Host, for needs with the same Ban only. With UsedLast, for all needs, and Refused, too.
	Ban uint64
	// NotBanned says of a Relayed verdict that the response is no ban. It ends the cooldowns of FleetBan and UsedLast.
	NotBanned bool
	// Trip opens the breaker at once, for this long; zero means that it does not.
	Trip    time.Duration
	Latency time.Duration
	Reason  string
	// Gateway says of a failure through a gateway that the gateway itself failed: it cannot be reached, TLS to it fails, or it
	// refuses the credentials. Without it the failure is that of the exit. NoTunnel says that the gateway answered CONNECT with a
	// 5xx.
	Gateway, NoTunnel bool
	// Doubtful says of a failure through a gateway that the response was 502 or 504: the exit failed only if another
	// exit brings another response.
	Doubtful bool
}

// Lease is one attempt's claim on a proxy. Report ends it. A deferred Release ends it without evidence if nothing else did. The
// zero value is a lease that has ended. A lease belongs to one goroutine at a time.
type Lease struct {
	pool   *Pool
	entry  *entry
	proxy  *proxylist.Proxy
	exit   exit
	host   string
	named  bool           // the job named the proxy
	chosen bool           // the job narrowed down the choice
	number uint64         // orders the leases of a pool
	permit breaker.Permit // of a probe; the zero value if the breaker was closed
}

// Proxy returns the proxy.
func (l *Lease) Proxy() *proxylist.Proxy { return l.proxy }

// ID returns the proxy's id.
func (l *Lease) ID() string { return l.proxy.ID }

// IsProbe reports whether the attempt probes a half-open breaker.
func (l *Lease) IsProbe() bool { return l.permit.Probe() }

// Healthy reports whether the proxy is healthy: it relayed a response within the last ten minutes.
func (l *Lease) Healthy() bool {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return !l.entry.removed && l.pool.judge.Healthy(l.entry.index, l.pool.group.Now())
}

// Release ends the lease without evidence, unless it has ended.
func (l *Lease) Release() { l.Report(Verdict{}) }

// maxLosses is how many attempts of a proxy in a row may lose before their first byte. The next one must run to its
// end.
const maxLosses = 5

// Lose ends the lease of an attempt that was cancelled because a hedge or the attempt beside it was faster. That is no
// failure of the proxy. began says that a response had begun.
func (l *Lease) Lose(began bool) {
	if e := l.entry; e != nil {
		l.pool.mu.Lock()
		if e.losses = min(e.losses+1, maxLosses); began {
			e.losses = 0
		}
		l.pool.mu.Unlock()
	}
	l.Release()
}

// MustEnd reports whether the latest attempts of the proxy all lost before their first byte, so that this one may not be
// cancelled: a proxy that only loses may be dead.
func (l *Lease) MustEnd() bool {
	if l.entry == nil {
		return false
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	return l.entry.losses >= maxLosses
}

// Report ends the lease and returns the breaker events that the verdict caused. A second call does nothing.
func (l *Lease) Report(v Verdict) []Event {
	if l.entry == nil {
		return nil
	}
	e, p := l.entry, l.pool
	l.entry = nil
	now := p.group.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	full := e.inflight >= e.maxInflight
	e.inflight--
	if e.removed {
		l.permit.Release() // the proxy left the pool: the verdict says nothing about a proxy that has its id now
		return nil
	}
	if e.isGateway && l.exit.gateway {
		l.judgeExit(e, e.gateway, &v, now)
	}
	leftSet := l.ban(e, &v, now)
	if v.Host != "" {
		l.host = v.Host
	}
	if v.CoolDown > 0 {
		leftSet = p.cooldowns.start(e, cooldownKey{host: l.host}, now+v.CoolDown).hasSet || leftSet
	}
	probe := l.IsProbe()
	changed, outage := l.apply(e, &v, now)
	p.noteChange(e, changed)
	// A trip may lengthen an open time without a change of state.
	p.updateSets(e, now, full || probe || leftSet || v.Trip > 0 || changed.Changed())
	return append(event(l.proxy, changed), outage...)
}

// ban begins or ends the cooldowns of bans, and reports whether that changes a set.
func (l *Lease) ban(e *entry, v *Verdict, now time.Duration) (changed bool) {
	p := l.pool
	switch {
	case (v.Kind == PairFault || v.Kind == Refused) && v.Ban != 0:
		return p.cooldowns.start(e, cooldownKey{cmp.Or(v.Host, l.host), v.Ban}, now+banFor).hasSet
	case (v.Kind == PairFault || v.Kind == Refused) && v.CoolDown == 0:
		v.CoolDown = banFor
	case v.Kind == Relayed && v.NotBanned && e.cooling:
		for _, ban := range [2]uint64{FleetBan, UsedLast} {
			h := p.cooldowns.end(e, cooldownKey{l.host, ban})
			changed = changed || h != nil && h.hasSet
		}
		return changed
	}
	return false
}

// apply adds the verdict to the evidence, and reports it to the breaker if the evidence says so.
func (l *Lease) apply(e *entry, v *Verdict, now time.Duration) (changed breaker.Event, outage []Event) {
	p := l.pool
	if v.JobTimeout && v.Latency < max(time.Second, time.Duration(8*p.meanLatency)) {
		v.Kind = Neutral
	}
	if v.Answered {
		e.losses = 0
	}
	a := l.attempt(e, v, now)
	if v.Trip > 0 {
		p.judge.Failed(a)
		e.record.add(false, 0)
		l.permit.Release()
		return e.breaker.Trip(v.Trip, v.Reason), nil
	}
	var ruling outlier.Ruling
	switch v.Kind {
	case Relayed:
		e.record.add(true, v.Latency)
		p.meanLatency = movingMean(p.meanLatency, v.Latency)
		ruling = p.judge.Relayed(a)
		changed = l.permit.Success()
	case ProxyFault:
		ruling = p.judge.ProxyFailed(a)
	case Unclear, Refused:
		ruling = p.judge.Unclear(a)
	case PairFault:
		ruling = p.judge.Banned(a)
		if v.Ban != 0 && v.Ban != FleetBan && v.Ban != UsedLast {
			ruling.Failed = false // a publisher's rule says nothing to the others
		}
	case TargetFault:
		// The proxy relayed what the target said.
		if ruling = p.judge.Reached(a); l.IsProbe() {
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

// attempt returns the facts of the lease for the judge.
func (l *Lease) attempt(e *entry, v *Verdict, now time.Duration) outlier.Attempt {
	return outlier.Attempt{
		Proxy: e.index, Site: siteOf(l.host), Began: max(0, now-v.Latency), Ended: now, Number: l.number, Probe: l.IsProbe(),
		Answered: v.Answered, Proven: v.Proven, Closed: len(l.pool.list) - l.pool.unhealthy, Named: l.named, Chosen: l.chosen,
	}
}

// failure counts a failure against the proxy, unless the breaker's state has changed since the pick. A closed breaker counts
// nothing but failures, so a permit is taken only here.
func (l *Lease) failure(e *entry, target uint64, reason string) breaker.Event {
	if !l.IsProbe() {
		if e.changed >= l.number {
			return breaker.Event{}
		}
		l.permit, _, _ = e.breaker.Allow()
	}
	return l.permit.Failure(target, reason)
}
