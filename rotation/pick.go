package rotation

import (
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// Pick takes a proxy for one attempt. The events are breakers that became half-open because of it. The error is a *NoProxyError.
func (p *Pool) Pick(need Need) (Lease, []Event, error) {
	now := p.group.Now() // outside the lock: reading the clock takes a tenth of the time of a pick
	p.mu.Lock()
	defer p.mu.Unlock()
	p.picks++
	p.refreshExpired(now, maxWakeups)
	p.expireCooldowns(now, maxWakeups)
	if p.slots[0].size == 0 {
		return Lease{}, nil, &NoProxyError{Reason: Empty}
	}
	if !p.judge.MayStart(now) {
		return Lease{}, nil, p.outageError(need)
	}
	var lease Lease
	events, ok := p.search(&need, now, &lease)
	if !ok && (p.timers.expired(now) || p.cooldowns.expired(now)) {
		// So many timers expired at once that not all were handled.
		p.refreshExpired(now, len(p.timers))
		p.expireCooldowns(now, len(p.cooldowns.ends))
		events, ok = p.search(&need, now, &lease)
	}
	if !ok {
		return Lease{}, nil, p.noProxyError(need, now)
	}
	p.judge.Started(now)
	return lease, events, nil
}

// expireCooldowns removes cooldowns that have ended or exceed the bound, at most limit.
func (p *Pool) expireCooldowns(now time.Duration, limit int) {
	for range limit {
		e, h, more := p.cooldowns.expire(now)
		if !more {
			return
		}
		if e != nil && h.hasSet {
			p.refresh(e, now)
		}
	}
}

// search finds a proxy. Proxies that cool down by a FleetBan or UsedLast come after the others, and proxies that another worker
// found dead come last.
func (p *Pool) search(need *Need, now time.Duration, lease *Lease) (events []Event, ok bool) {
	f := skips{ban: need.Ban, skipProbeable: p.leaveProbes, beside: need.Beside, need: p.needOfGateways(need)}
	f.findCooldowns(p, need.Host)
	if need.ID != "" {
		return p.pickByID(need, &f, now, lease)
	}
	for _, f.useAvoided = range [2]bool{false, true} {
		if f.useAvoided && (need.NoLastResort || len(p.slots[0].avoided.list) == 0) {
			break
		}
		f.exclude = newExcluded(need.Exclude)
		if events, ok = p.searchByPreference(need, &f, now, lease); ok {
			return events, true
		}
		if f.hasLast() && !need.NoLastResort {
			last := f
			last.takeLast()
			last.exclude = newExcluded(need.Exclude)
			if events, ok = p.searchByPreference(need, &last, now, lease); ok {
				return events, true
			}
		}
	}
	return nil, false
}

// searchByPreference gives up preferences one by one. It gives up the region before the excluded proxies: a job that failed
// through a proxy rather goes to another region than to the same proxy again.
func (p *Pool) searchByPreference(need *Need, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	for {
		for _, region := range [2]bool{true, false} {
			if region && need.Region == "" || !region && need.Region != "" && need.RegionStrict {
				continue
			}
			if events, ok = p.choose(need, p.filterFor(need, f, region), f, now, lease); ok {
				return events, true
			}
		}
		if len(f.exclude.ids) == 0 || need.NoLastResort {
			return nil, false
		}
		f.exclude = excluded{}
	}
}

// filterFor returns the filter of a need. A host for which most of the proxies cool down gets a set of its own without them.
func (p *Pool) filterFor(need *Need, f *skips, region bool) filter {
	var out filter
	switch len(need.Tags) {
	case 0:
	case 1:
		out.tags = need.Tags[0]
	default:
		out.tags = strings.Join(need.Tags, ",")
	}
	if region {
		out.region = p.index.regionOf(need.Region)
	}
	for _, cooling := range [3]*hostCooldowns{f.cooldowns, f.banned, f.last} {
		if n := cooling.size(); n > 2*draws && 2*n > p.slots[0].size {
			out.cooldowns = cooling.key
		}
	}
	return out
}

// pickByID takes the one proxy that the need names.
func (p *Pool) pickByID(need *Need, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	e := p.byID[need.ID]
	if e == nil || f.cooldowns.has(e) || f.isBanned(e) || !p.canServe(need, e) {
		return nil, false
	}
	if c, _ := e.class(now); c == unavailable {
		return nil, false
	}
	return p.take(e, need, now, lease)
}

// canServe reports whether a proxy can ever meet the need, whatever its state.
func (p *Pool) canServe(need *Need, e *entry) bool {
	proxy := e.proxy
	if need.ID != "" && proxy.ID != need.ID || need.RegionStrict && need.Region != "" && proxy.Region != need.Region && !e.hasAnyRegion() {
		return false
	}
	return e.serves(need) && !slices.ContainsFunc(need.Tags, func(tag string) bool { return !slices.Contains(proxy.Tags, tag) })
}

// choose picks from the set of a filter and takes the permit.
func (p *Pool) choose(need *Need, from filter, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	s := p.setOf(from)
	// The lock is released while a table is made. Meanwhile the set may be dropped, and a dropped set is not kept up to
	// date: its proxies may be full or gone. So the set is looked up again.
	for s != nil && need.Session != "" && !p.hasTable(s) {
		p.makeTable(s)
		s, now = p.setOf(from), p.group.Now()
		f.findCooldowns(p, need.Host)
	}
	if s == nil {
		return nil, false
	}
	for range 4 {
		e := p.candidate(s, need, *f, now)
		if e == nil {
			return nil, false
		}
		if events, ok = p.take(e, need, now, lease); ok {
			return events, true
		}
		p.refresh(e, now)
	}
	return nil, false
}

// candidate returns the strategy's choice from a set; nil if there is none.
func (p *Pool) candidate(s *set, need *Need, f skips, now time.Duration) *entry {
	if need.Session != "" {
		return p.pickForSession(s, need.Session, f, now)
	}
	if !p.leaveProbes && p.shouldProbe(s, need) {
		if e := s.probeable.pick(f); e != nil {
			p.earnedProbes--
			return e
		}
	}
	if need.Relayed {
		if e := s.available.pick(f.onlyRelayed(&p.judge, now)); e != nil {
			return e
		}
	}
	if need.isRetry() {
		if e := s.available.pick(f.onlyReliable(&p.judge, now)); e != nil {
			return e
		}
	}
	return s.bestOf(f)
}

// bestOf returns a proxy of the best class that has one.
func (s *set) bestOf(f skips) *entry {
	if e := s.available.pick(f); e != nil {
		return e
	}
	if e := s.probeable.pick(f); e != nil || !f.useAvoided {
		return e
	}
	return s.avoided.pick(f)
}

// The share of picks that probe proxies whose open time is over is the share of these proxies, within bounds. So a few
// proxies that may have recovered are probed soon, and many that died together do not take over the traffic.
const (
	minProbeShare = 0.1
	maxProbeShare = 0.25
)

// shouldProbe reports whether this pick should probe a proxy. A job that failed before is not used for that.
func (p *Pool) shouldProbe(s *set, need *Need) bool {
	share := minProbeShare
	waiting := len(s.probeable.list)
	if waiting > 0 {
		share = min(max(share, float64(waiting)/float64(waiting+s.available.len())), maxProbeShare)
	}
	p.earnedProbes = min(1, p.earnedProbes+share)
	return p.earnedProbes >= 1 && waiting > 0 && !need.isRetry() && !need.Relayed
}

// take gets a permit and starts the lease. It reports false if the breaker refuses.
func (p *Pool) take(e *entry, need *Need, now time.Duration, lease *Lease) (events []Event, ok bool) {
	p.leases++
	*lease = Lease{
		pool: p, entry: e, proxy: e.proxy, host: need.Host, number: p.leases, named: need.ID != "" && !need.Trusted,
		chosen: need.ID != "" || need.Session != "" || len(need.Tags) > 0 || need.Region != "",
	}
	if e.isGateway {
		lease.exit = p.exitOf(e, need, now)
	}
	if e.notClosed {
		permit, change, ok := e.breaker.Allow()
		if !ok {
			return nil, false
		}
		p.noteChange(e, change)
		lease.permit, events = permit, event(e.proxy, change)
	}
	p.updateSets(e, now, e.start(now) || e.notClosed)
	return events, true
}

// noteChange records that the state of a proxy's breaker changed: failures of earlier leases no longer count.
func (p *Pool) noteChange(e *entry, change breaker.Event) {
	if change.Changed() {
		e.changed = p.leases
		p.judge.BreakerChanged(e.index)
		if change.To == breaker.Open {
			e.openedBy = change.Reason
		}
	}
}

// updateSets updates the sets after a change of e's load, and of its class if that may have changed.
func (p *Pool) updateSets(e *entry, now time.Duration, class bool) {
	if class {
		p.refresh(e, now)
	}
	if p.strategy != LeastUsed && (p.strategy != Performance || e.record.n != provenFrom) {
		return // the strategy does not depend on the load
	}
	for _, at := range e.positions {
		if s := p.liveSet(at.set); s != nil && at.at >= 0 {
			s.available.touch(e)
		}
	}
}

// hasTable reports whether the set has a table of sessions of the present list.
func (p *Pool) hasTable(s *set) bool { return s.table != nil && s.table.version == p.version }

// makeTable makes the set's table of sessions. The lock is held before and after, but not meanwhile.
func (p *Pool) makeTable(s *set) {
	p.mu.Unlock()
	p.buildTable(s)
	p.mu.Lock()
}

func (p *Pool) buildTable(s *set) {
	p.build.Lock()
	defer p.build.Unlock()
	if p.hasTable(s) { // it changes only while build is locked
		return
	}
	members := p.index.members(s.filter)
	names := map[*entry]uint64{}
	for _, e := range members {
		names[e] = hash(e.proxy.ID, "")
	}
	t := newTable(p.version, members, names)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.table = t
}
