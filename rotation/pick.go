package rotation

import (
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Need is what a pick asks for. The zero value takes any proxy.
type Need struct {
	// Host is the target's "host:port".
	Host string
	// Tags must all be on the proxy.
	Tags []string
	// Region is preferred, and demanded with RegionStrict.
	Region       string
	RegionStrict bool
	// Session sends picks of one name to one proxy while it works, but for those that find it full or ahead of its rate.
	Session string
	// ID names the only proxy allowed.
	ID string
	// Exclude are the ids of proxies that are taken only when no other is left: those that failed the job. A job that has
	// some is not spent on finding out about others: proxies that delivered at their latest attempt are preferred.
	Exclude []string
}

// Reason is why no proxy could be picked.
type Reason string

// The reasons.
const (
	Empty     Reason = "empty"     // the pool has no proxies
	Unmatched Reason = "unmatched" // no proxy of the pool can meet the need
	Resting   Reason = "resting"   // those that could are open, cooling or busy
	Failing   Reason = "failing"   // the pool fails as a whole
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
	case Failing:
		return "the pool fails as a whole: the network of this worker, or what all of the proxies stand behind, is down"
	case Resting:
	}
	return "every proxy that could be used is resting or busy"
}

// Pick takes a proxy for one attempt. The events are breakers that became half-open by it. The error is a *NoProxyError.
func (p *Pool) Pick(need Need) (Lease, []Event, error) {
	now := p.group.Now() // beside the lock: the clock is read in a tenth of the time of a pick
	p.mu.Lock()
	defer p.mu.Unlock()
	p.picks++
	p.wake(now, wakeups)
	p.endRests(now, wakeups)
	if p.slots[0].size == 0 {
		return Lease{}, nil, &NoProxyError{Reason: Empty}
	}
	if !p.judge.MayStart(now) {
		return Lease{}, nil, p.paused(need)
	}
	var lease Lease
	events, ok := p.search(&need, now, &lease)
	if !ok && (p.line.late(now) || p.rests.late(now)) {
		// So many times came at once that not all were looked at.
		p.wake(now, len(p.line))
		p.endRests(now, len(p.rests.line))
		events, ok = p.search(&need, now, &lease)
	}
	if !ok {
		return Lease{}, nil, p.none(need, now)
	}
	p.judge.Started(now)
	return lease, events, nil
}

// paused is why nothing is picked between two tests of an outage. A need that no proxy can meet is told so all the same.
func (p *Pool) paused(need Need) *NoProxyError {
	var fits bool
	if need.ID != "" {
		e := p.byID[need.ID]
		fits = e != nil && p.fits(need, e.proxy)
	} else {
		s := p.setOf(p.narrow(&need, nil, need.RegionStrict))
		fits = s != nil && s.size > 0
	}
	if !fits {
		return &NoProxyError{Reason: Unmatched}
	}
	return &NoProxyError{Reason: Failing, RetryAt: p.group.Time(p.judge.NextTest())}
}

// endRests lets proxies back to the hosts that they rested for, and forgets rests beyond the bound; at most so many.
func (p *Pool) endRests(now time.Duration, most int) {
	for range most {
		e, h, more := p.rests.end(now)
		if !more {
			return
		}
		if e != nil && h.asked {
			p.refresh(e, now)
		}
	}
}

// search looks for a proxy; those that another worker found dead come last.
func (p *Pool) search(need *Need, now time.Duration, lease *Lease) (events []Event, ok bool) {
	f := skips{exclude: need.Exclude, rests: p.rests.of(need.Host), due: p.leaveTests}
	if need.ID != "" {
		return p.only(need, &f, now, lease)
	}
	events, ok = p.seek(need, &f, now, lease)
	if ok || len(p.slots[0].spare.list) == 0 {
		return events, ok
	}
	f.spare, f.exclude = true, need.Exclude
	return p.seek(need, &f, now, lease)
}

// seek gives preferences up one after the other. The region goes before the wish for another proxy: a job that failed
// through one goes to another region rather than to the same proxy again.
func (p *Pool) seek(need *Need, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	for {
		for _, region := range [2]bool{true, false} {
			if region && need.Region == "" || !region && need.Region != "" && need.RegionStrict {
				continue
			}
			if events, ok = p.choose(need, p.narrow(need, f.rests, region), f, now, lease); ok {
				return events, true
			}
		}
		if len(f.exclude) == 0 {
			return nil, false
		}
		f.exclude = nil
	}
}

// narrow is the filter of a need. A host for which most of the proxies rest gets a set of its own, without them.
func (p *Pool) narrow(need *Need, rests *hostRests, region bool) filter {
	var out filter
	switch len(need.Tags) {
	case 0:
	case 1:
		out.tags = need.Tags[0]
	default:
		out.tags = strings.Join(need.Tags, ",")
	}
	if region {
		out.region = need.Region
	}
	if rests != nil && len(rests.until) > 2*draws && 2*len(rests.until) > p.slots[0].size {
		out.host = need.Host
	}
	return out
}

// only takes the one proxy that the need names.
func (p *Pool) only(need *Need, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	e := p.byID[need.ID]
	if e == nil || f.rests.has(e) || !p.fits(*need, e.proxy) {
		return nil, false
	}
	if c, _ := e.class(now); c == out {
		return nil, false
	}
	return p.take(e, need, now, lease)
}

// fits reports whether a proxy could ever serve the need.
func (p *Pool) fits(need Need, proxy *proxylist.Proxy) bool {
	if need.ID != "" && proxy.ID != need.ID || need.RegionStrict && need.Region != "" && proxy.Region != need.Region {
		return false
	}
	return !slices.ContainsFunc(need.Tags, func(tag string) bool { return !slices.Contains(proxy.Tags, tag) })
}

// choose picks from a set and takes the permit.
func (p *Pool) choose(need *Need, from filter, f *skips, now time.Duration, lease *Lease) (events []Event, ok bool) {
	s := p.setOf(from)
	if s == nil {
		return nil, false
	}
	if need.Session != "" && (s.table == nil || s.table.version != p.version) {
		p.makeTable(s)
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

func (p *Pool) candidate(s *set, need *Need, f skips, now time.Duration) *entry {
	if need.Session != "" {
		return p.sticky(s, need.Session, f, now)
	}
	if !p.leaveTests && p.probes(s, need) {
		if e := s.due.pick(f); e != nil {
			p.probing--
			return e
		}
	}
	if len(need.Exclude) > 0 {
		if e := s.ready.pick(f.onlyReliable(&p.judge, now)); e != nil {
			return e
		}
	}
	return s.any(f)
}

// any is a proxy of the best class that has one.
func (s *set) any(f skips) *entry {
	if e := s.ready.pick(f); e != nil {
		return e
	}
	if e := s.due.pick(f); e != nil || !f.spare {
		return e
	}
	return s.spare.pick(f)
}

// The part of the picks that test proxies whose open time is over: what they are of all, within bounds. So a few that may
// have recovered are found out soon, and many that died together do not take over the traffic.
const (
	leastProbing = 0.1
	mostProbing  = 0.25
)

// probes reports whether this pick should test one that is due. A job that failed before is not used for that.
func (p *Pool) probes(s *set, need *Need) bool {
	part := leastProbing
	waiting := len(s.due.list)
	if waiting > 0 {
		part = min(max(part, float64(waiting)/float64(waiting+s.ready.len())), mostProbing)
	}
	p.probing = min(1, p.probing+part)
	return p.probing >= 1 && waiting > 0 && len(need.Exclude) == 0
}

// take gets the permit and starts the lease.
func (p *Pool) take(e *entry, need *Need, now time.Duration, lease *Lease) (events []Event, ok bool) {
	p.leases++
	*lease = Lease{pool: p, entry: e, proxy: e.proxy, host: need.Host, number: p.leases}
	if e.troubled {
		permit, change, ok := e.breaker.Allow()
		if !ok {
			return nil, false
		}
		p.noteChange(e, change)
		lease.permit, events = permit, event(e.proxy, change)
	}
	p.moved(e, now, e.start(now) || e.troubled)
	return events, true
}

// noteChange remembers when the state of a proxy's breaker changed. What failed before says nothing afterwards.
func (p *Pool) noteChange(e *entry, change breaker.Event) {
	if change.Changed() {
		e.changed = p.leases
		p.judge.BreakerChanged(e.index)
	}
}

// moved tells the sets of a change of e's load, and of its class if that may have changed.
func (p *Pool) moved(e *entry, now time.Duration, class bool) {
	if class {
		p.refresh(e, now)
	}
	if p.strategy != LeastUsed && (p.strategy != Performance || e.record.n != provenFrom) {
		return // nothing that the order goes by
	}
	for _, at := range e.places {
		if s := p.live(at.set); s != nil && at.at >= 0 {
			s.ready.touch(e)
		}
	}
}

// makeTable makes the set's table of sessions beside the lock, which is held before and after.
func (p *Pool) makeTable(s *set) {
	for s.table == nil || s.table.version != p.version {
		p.mu.Unlock()
		p.buildTable(s)
		p.mu.Lock()
	}
}

func (p *Pool) buildTable(s *set) {
	p.build.Lock()
	defer p.build.Unlock()
	if s.table != nil && s.table.version == p.version { // both change under build only
		return
	}
	members := p.words.members(s.filter)
	names := map[*entry]uint64{}
	for _, e := range members {
		names[e] = hash(e.proxy.ID, "")
	}
	t := newTable(p.version, members, names)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.table = t
}

// none says why nothing was picked, and when something may be.
func (p *Pool) none(need Need, now time.Duration) *NoProxyError {
	matched := false
	soonest := never
	f := p.rests.of(need.Host)
	for part := range slices.Chunk(p.candidates(need), step) {
		for _, e := range part {
			if !p.fits(need, e.proxy) {
				continue
			}
			matched = true
			c, at := e.class(now)
			if c != out {
				at = now // it rests for the host, or comes back this moment
			}
			if f.has(e) {
				at = max(at, f.until[e])
			}
			soonest = min(soonest, at)
		}
		// Whoever waits for the lock gets it between two parts.
		p.mu.Unlock()
		p.mu.Lock()
	}
	switch {
	case !matched:
		return &NoProxyError{Reason: Unmatched}
	case soonest == never:
		return &NoProxyError{Reason: Resting}
	}
	return &NoProxyError{Reason: Resting, RetryAt: p.group.Time(soonest)}
}
