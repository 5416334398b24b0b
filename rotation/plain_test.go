package rotation_test

import (
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
	failing bool
	test    time.Duration // when an attempt may find out whether the pool still fails
}

// member is one proxy.
type member struct {
	proxylist.Proxy
	breaker  *breaker.Breaker
	inflight int
	free     time.Duration
	avoid    time.Duration // until when it is the last resort
	by       string        // the worker that said so
	worked   time.Duration // when it last reached a target; zero: never

	endedWell bool // the latest attempt that speaks for or against it did
}

type rest struct {
	m    *member
	host string
}

// ticket is a lease, seen from the plain pool.
type ticket struct {
	m      *member
	permit breaker.Permit
	host   string
	probe  bool
}

func newPlain(cfg breaker.Config) *plain {
	return &plain{group: breaker.NewGroup(cfg), rests: map[rest]time.Duration{}}
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
		return &rotation.NoProxyError{Reason: rotation.Outage, RetryAt: p.group.Time(p.test)}
	}
	if len(p.offered(need)) > 0 {
		p.test = now + time.Second
		return nil
	}
	soonest := never
	for _, m := range fitting {
		soonest = min(soonest, p.nextFor(m, need.Host))
	}
	none := &rotation.NoProxyError{Reason: rotation.Unavailable, Proxies: len(fitting)}
	if soonest != never {
		none.RetryAt = p.group.Time(soonest)
	}
	return none
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
	case v.Trip == 0 && slices.Contains([]rotation.Kind{rotation.Relayed, rotation.TargetFault, rotation.PairFault}, v.Kind):
		m.worked = max(now, 1)
		p.delivered()
	}
	if v.Trip > 0 {
		t.permit.Release()
		m.endedWell = false
		return m.breaker.Trip(v.Trip, v.Reason)
	}
	switch v.Kind {
	case rotation.Relayed:
		m.endedWell = true
		return t.permit.Success()
	case rotation.TargetFault:
		if t.probe {
			return t.permit.Success()
		}
	case rotation.ProxyFault:
		if !p.failing {
			m.endedWell = false
			return t.permit.Failure(0, v.Reason)
		}
	case rotation.Neutral, rotation.PairFault:
	case rotation.Unclear, rotation.Refused: // the histories have none: what they are evidence of has tests of its own
	}
	return breaker.Event{}
}

// delivered ends an outage.
func (p *plain) delivered() { p.failing = false } // anything else leaves it open, even when the pool no longer says so

// sound reports whether the member reached its target at its latest attempt that counts, not long ago.
func (p *plain) sound(m *member) bool {
	return m.worked > 0 && p.group.Now()-m.worked <= 10*time.Minute && m.endedWell
}

// status is what the pool should say of a member.
func (p *plain) status(m *member) rotation.Status {
	b, cfg := m.breaker.Snapshot(), p.group.Config()
	s := rotation.Status{
		ID: m.ID, Addr: m.Addr(), Tags: m.Tags, Region: m.Region, State: b.State, Failures: b.Failures, Threshold: cfg.FailureThreshold,
		Window: cfg.Window, OpenTimeout: cfg.OpenTimeout, NextTest: b.NextTest, LastChange: b.LastChange, Inflight: m.inflight,
		Weight: max(1, m.Weight), MaxInflight: m.MaxInflight, Rate: m.Rate, Gateway: m.IsGateway(),
	}
	if m.avoid > p.group.Now() {
		s.AvoidedUntil, s.AvoidedBy = p.group.Time(m.avoid), m.by
	}
	return s
}
