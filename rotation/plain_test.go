package rotation_test

import (
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// plain is a pool as its documentation tells it, without a thought of speed: one list, gone through from its beginning to its
// end for every question. The breakers are real ones, for they are tested by themselves. What a failure of the pool as a whole
// is, it lets the real pool say.
type plain struct {
	group   *breaker.Group
	list    []*member
	rests   map[rest]time.Duration // until when
	targets map[string]*told
	failing bool
	test    time.Duration // when an attempt may find out whether the pool still fails
	over    time.Duration // when it failed last

	// How many attempts in a hundred deliver, of the latest 64 or so, and the faults since one did.
	rate, rated float64
	streak      int

	opened []rotation.Event // of others than whose attempt ended
}

// member is one proxy.
type member struct {
	proxylist.Proxy
	breaker  *breaker.Breaker
	inflight int
	free     time.Duration
	avoid    time.Duration // until when it is the last resort
	by       string        // the worker that said so
	ends     []bool        // of the attempts that speak for or against it
	worked   time.Duration // when it last reached a target; zero: never
	row      int           // of failures at targets that nobody knew, since then
	tests    int           // that failed at such targets
	since    uint64        // the breaker's generation that these two are of
}

type rest struct {
	m    *member
	host string
}

// told is what is known of a target.
type told struct {
	failedBy []charge // since it answered last
	answered time.Duration
	name     uint64
}

// charge is a failure that may turn out to be the proxy's.
type charge struct {
	*ticket
	at   time.Duration
	open bool
}

// ticket is a lease, seen from the plain pool.
type ticket struct {
	m      *member
	permit breaker.Permit
	host   string
	probe  bool
}

func newPlain(cfg breaker.Config) *plain {
	return &plain{group: breaker.NewGroup(cfg), rests: map[rest]time.Duration{}, targets: map[string]*told{}}
}

func (p *plain) get(id string) *member {
	for _, m := range p.list {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// replace keeps the members that stay.
func (p *plain) replace(proxies []proxylist.Proxy) (c rotation.Change) {
	var list []*member
	for _, proxy := range proxies {
		if slices.ContainsFunc(list, func(m *member) bool { return m.ID == proxy.ID }) {
			continue
		}
		m := p.get(proxy.ID)
		switch {
		case m == nil:
			m = &member{breaker: p.group.New()}
			c.Added++
		case !reflect.DeepEqual(m.Proxy, proxy):
			c.Changed++
		}
		m.Proxy = proxy
		list = append(list, m)
	}
	c.Removed = len(p.list) + c.Added - len(list)
	p.list = list
	return c
}

// at is from when on a member may be picked, by itself; never when it is full.
func (m *member) at() time.Duration {
	if m.MaxInflight > 0 && m.inflight >= m.MaxInflight {
		return never
	}
	return max(m.breaker.Until(), m.free)
}

// nextFor is from when on a member may be picked for a host.
func (p *plain) nextFor(m *member, host string) time.Duration {
	return max(m.at(), p.rests[rest{m, host}])
}

const never = time.Duration(1<<63 - 1)

// onlyBusy reports whether a need that was given m would have been given the other one, too, if that were not full or ahead of
// its rate.
func (p *plain) onlyBusy(other, m *member, need rotation.Need) bool {
	now := p.group.Now()
	excluded := func(m *member) bool { return slices.Contains(need.Exclude, m.ID) }
	return other.fits(need) && other.at() > now && other.breaker.Until() == 0 && p.rests[rest{other, need.Host}] <= now &&
		(other.avoid <= now || m.avoid > now) && (!excluded(other) || excluded(m))
}

// fits reports whether a member may ever serve a need.
func (m *member) fits(need rotation.Need) bool {
	for _, tag := range need.Tags {
		if !slices.Contains(m.Tags, tag) {
			return false
		}
	}
	return (need.ID == "" || need.ID == m.ID) && (!need.RegionStrict || need.Region == "" || need.Region == m.Region)
}

// usable are the members that may serve a need now.
func (p *plain) usable(need rotation.Need) []*member {
	now := p.group.Now()
	return pick(p.list, func(m *member) bool { return m.fits(need) && p.nextFor(m, need.Host) <= now })
}

// offered are the usable ones that meet the most of the need's wishes: one that no worker found dead before another proxy
// before the region.
func (p *plain) offered(need rotation.Need) []*member {
	usable := p.usable(need)
	if need.ID != "" {
		return usable
	}
	if trusted := pick(usable, func(m *member) bool { return m.avoid <= p.group.Now() }); len(trusted) > 0 {
		usable = trusted
	}
	fresh := pick(usable, func(m *member) bool { return !slices.Contains(need.Exclude, m.ID) })
	for _, some := range [][]*member{fresh, usable} {
		near := pick(some, func(m *member) bool { return need.Region == "" || m.Region == need.Region })
		if len(near) > 0 {
			return near
		}
		if len(some) > 0 {
			return some
		}
	}
	return nil
}

func pick(list []*member, keep func(*member) bool) (out []*member) {
	for _, m := range list {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}

// refuse is why a pick gets nothing, and when it may be tried again; nil when it gets something. Only a pick that gets a
// proxy is the attempt that finds out whether the pool still fails.
func (p *plain) refuse(need rotation.Need) *rotation.NoProxyError {
	now := p.group.Now()
	if len(p.list) == 0 {
		return &rotation.NoProxyError{Reason: rotation.Empty}
	}
	fitting := pick(p.list, func(m *member) bool { return m.fits(need) })
	if len(fitting) == 0 {
		return &rotation.NoProxyError{Reason: rotation.Unmatched}
	}
	if p.failing && now < p.test {
		return &rotation.NoProxyError{Reason: rotation.Failing, RetryAt: p.group.Time(p.test)}
	}
	if len(p.offered(need)) > 0 {
		p.test = now + time.Second
		return nil
	}
	soonest := never
	for _, m := range fitting {
		soonest = min(soonest, p.nextFor(m, need.Host))
	}
	if soonest == never {
		return &rotation.NoProxyError{Reason: rotation.Resting}
	}
	return &rotation.NoProxyError{Reason: rotation.Resting, RetryAt: p.group.Time(soonest)}
}

// take begins an attempt.
func (p *plain) take(m *member, host string) (*ticket, breaker.Event) {
	permit, e, _ := m.breaker.Allow()
	now := p.group.Now()
	m.inflight++
	if m.Rate > 0 {
		interval := time.Duration(float64(time.Second) / m.Rate)
		// A proxy may be a tenth of a second ahead of its rate, unless that is less than one attempt.
		if m.free = max(m.free, now-100*time.Millisecond) + interval; interval >= 100*time.Millisecond {
			m.free = now + interval
		}
	}
	return &ticket{m, permit, host, permit.Probe()}, e
}

// settle ends an attempt. failing says whether the pool fails as a whole, this attempt included: then nobody is to blame.
func (p *plain) settle(t *ticket, v rotation.Verdict, failing bool) breaker.Event {
	m, now := t.m, p.group.Now()
	if t.probe {
		defer t.permit.Release()
	}
	m.inflight--
	if !slices.Contains(p.list, m) {
		return breaker.Event{}
	}
	if v.Kind == rotation.PairFault && v.CoolDown == 0 {
		v.CoolDown = 5 * time.Minute
	}
	if v.CoolDown > 0 {
		key := rest{m, t.host}
		p.rests[key] = max(p.rests[key], now+v.CoolDown)
	}
	switch {
	case failing && !p.failing:
		p.failing, p.test = true, now
	case v.Trip == 0 && slices.Contains([]rotation.Kind{rotation.Delivered, rotation.TargetFault, rotation.PairFault}, v.Kind):
		m.worked, m.row = max(now, 1), 0
		p.delivered(now)
	}
	if v.Trip > 0 {
		t.permit.Release()
		m.ends = append(m.ends, false)
		return m.breaker.Trip(v.Trip, v.Reason)
	}
	target := p.target(t.host)
	switch v.Kind {
	case rotation.Delivered:
		m.ends = append(m.ends, true)
		p.clear(target, t)
		return t.permit.Success()
	case rotation.TargetFault:
		if t.probe {
			return t.permit.Success()
		}
	case rotation.PairFault:
		m.ends = append(m.ends, false)
	case rotation.ProxyFault:
		return p.blame(t, 0, v.Reason)
	case rotation.Unclear:
		return p.unclear(t, target, v)
	case rotation.Neutral, rotation.Refused: // the histories have no refusals
	}
	return breaker.Event{}
}

func (p *plain) target(host string) *told {
	if p.targets[host] == nil {
		p.targets[host] = &told{answered: -time.Minute, name: uint64(len(p.targets) + 1)}
	}
	return p.targets[host]
}

// unclear blames the target if it failed through three proxies, or all of two, and the proxy otherwise.
func (p *plain) unclear(t *ticket, target *told, v rotation.Verdict) breaker.Event {
	now := p.group.Now()
	i := slices.IndexFunc(target.failedBy, func(c charge) bool { return c.m == t.m })
	first := len(target.failedBy) == 0
	switch {
	case i >= 0 && i < 3:
		target.failedBy[i] = charge{t, now, false}
	case i < 0:
		i = len(target.failedBy)
		target.failedBy = append(target.failedBy, charge{t, now, false})
	}
	name := target.name
	switch {
	case len(target.failedBy) >= 3 || len(target.failedBy) == 2 && len(p.list) <= 2:
		return breaker.Event{}
	case now-target.answered < time.Minute:
		if !t.m.failsMostly() {
			if !v.Answered {
				p.streak++
			}
			if v.Answered || !p.failing {
				t.m.ends = append(t.m.ends, false)
			}
			return breaker.Event{}
		}
		name = 0
	case !p.convicts(t, first, now-v.Latency):
		p.streak++
		if !p.failing {
			t.m.ends = append(t.m.ends, false)
		}
		target.failedBy[i].open = true
		return breaker.Event{}
	}
	return p.blame(t, name, v.Reason)
}

// clear blames those for a failure who failed where a proxy delivers now, a moment ago and not in an outage, and who fail most of
// the time.
func (p *plain) clear(target *told, t *ticket) {
	now := p.group.Now()
	for _, c := range target.failedBy[:min(3, len(target.failedBy))] {
		if c.open && c.m != t.m && slices.Contains(p.list, c.m) && now-c.at < time.Minute && c.at > p.over && c.m.failsMostly() && c.m.breaker.Until() == 0 {
			p.opened = append(p.opened, wrap(c.m.ID, c.permit.Failure(target.name, "failed where another proxy delivers"))...)
		}
	}
	target.failedBy, target.answered = nil, now
}

// delivered takes the faults since the last delivery, unless they were an outage's, and this delivery into the mean.
func (p *plain) delivered(now time.Duration) {
	mix := func(good float64) {
		p.rated = min(p.rated+1, 64)
		p.rate += (good - p.rate) / p.rated
	}
	if p.failing {
		p.over = now
	} else {
		for range min(p.streak, 64) {
			mix(0)
		}
	}
	mix(1)
	p.streak = 0
	p.failing = false // anything else leaves it open, even when the pool no longer says so
}

// convicts reports whether a failure at a target that nobody knows is the proxy's: the third in a test, or one that happens by
// chance less than once in a hundred thousand times, in a test once in twenty. Others than tests count if the target failed
// nobody before, and the attempt began in a later second than that in which the proxy delivered last.
func (p *plain) convicts(t *ticket, first bool, begun time.Duration) bool {
	if g := t.m.breaker.Snapshot().Generation; g != t.m.since {
		t.m.row, t.m.tests, t.m.since = 0, 0, g
	}
	if t.probe {
		t.m.tests++
		return t.m.tests >= 3 || p.unlikely(t.m.tests, 0.05)
	}
	n := 0
	if first && (t.m.worked == 0 || begun >= t.m.worked.Truncate(time.Second)+time.Second) {
		t.m.row++
		n = t.m.row
	}
	return p.unlikely(n, 1e-5)
}

// unlikely reports whether so many failures in a row are less probable than that.
func (p *plain) unlikely(streak int, than float64) bool {
	return p.rated == 0 || math.Pow(1-min(max(p.rate, 0.01), 0.99), float64(streak)) < than
}

// sound reports whether the member reached its target at its latest attempt that counts, not long ago.
func (p *plain) sound(m *member) bool {
	return m.worked > 0 && p.group.Now()-m.worked <= 10*time.Minute && len(m.ends) > 0 && m.ends[len(m.ends)-1]
}

// failsMostly reports whether this failure makes three in four of the last nine.
func (m *member) failsMostly() bool {
	last := m.ends[max(0, len(m.ends)-8):]
	bad := 1
	for _, good := range last {
		if !good {
			bad++
		}
	}
	return 4*bad > 3*len(last)
}

func (p *plain) blame(t *ticket, target uint64, reason string) breaker.Event {
	p.streak++
	if p.failing {
		return breaker.Event{}
	}
	t.m.ends = append(t.m.ends, false)
	return t.permit.Failure(target, reason)
}

// status is what the pool should say of a member.
func (p *plain) status(m *member) rotation.Status {
	b, cfg := m.breaker.Snapshot(), p.group.Config()
	s := rotation.Status{
		ID: m.ID, Addr: m.Addr(), Tags: m.Tags, Region: m.Region, State: b.State, Failures: b.Failures, Threshold: cfg.FailureThreshold,
		Window: cfg.Window, OpenTimeout: cfg.OpenTimeout, NextTest: b.NextTest, LastChange: b.LastChange, Inflight: m.inflight,
	}
	if m.avoid > p.group.Now() {
		s.AvoidedUntil, s.AvoidedBy = p.group.Time(m.avoid), m.by
	}
	return s
}
