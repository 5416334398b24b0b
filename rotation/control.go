package rotation

import (
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Reset closes a proxy's breaker and forgets the findings of other workers. It reports false if there is no
// such proxy. Findings are dropped, too: a manual reset says that the proxy works, whatever other workers found.
func (p *Pool) Reset(id string) ([]Event, bool) {
	return p.change(id, func(e *entry) breaker.Event {
		e.avoided, e.avoidedUntil, e.avoidedBy = false, 0, ""
		return e.breaker.Reset("reset by hand")
	})
}

// ForceOpen opens a proxy's breaker at once for openTime. It reports false if there is no such proxy.
func (p *Pool) ForceOpen(id string, openTime time.Duration, reason string) ([]Event, bool) {
	// It is for a fault that no count of failures finds, such as an interceptor.
	return p.change(id, func(e *entry) breaker.Event { return e.breaker.Trip(openTime, reason) })
}

// Avoid makes a proxy the last resort until a time, because the worker by found it dead. A time in the past ends that. The
// proxy is picked only if no other proxy can be, so a worker that is wrong about all proxies makes none unusable. The breaker
// does not change. Avoid reports false if there is no such proxy.
func (p *Pool) Avoid(id string, until time.Time, by string) bool {
	_, known := p.change(id, func(e *entry) breaker.Event {
		// The time is converted to the pool's own clock, which is monotonic: a change of the wall clock must
		// not lengthen a finding.
		e.avoided, e.avoidedUntil, e.avoidedBy = true, p.group.Now()+time.Until(until), by
		return breaker.Event{}
	})
	return known
}

// LeaveProbes leaves the probes to a health checker, or ends that. While leave is true, a pick takes a probeable proxy only if
// the pick names it, or if no other is left.
func (p *Pool) LeaveProbes(leave bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Probes that are under way go on; only the next picks obey.
	p.leaveProbes = leave
}

// Probeable returns the ids of the probeable proxies: their open time is over and no probe is running. A pick that names one of
// them probes it.
func (p *Pool) Probeable() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	// All timers that have expired are handled, and not only a few as in a pick: a health checker asks rarely
	// and wants the whole list.
	p.refreshExpired(p.group.Now(), len(p.timers))
	// Set 0 has all proxies. Its probeable ones are those of the pool.
	ids := make([]string, 0, len(p.slots[0].probeable.list))
	for _, e := range p.slots[0].probeable.list {
		ids = append(ids, e.proxy.ID)
	}
	return ids
}

// change lets act change the entry of a proxy under the lock, and moves the proxy in its sets. It reports false if there
// is no such proxy.
func (p *Pool) change(id string, act func(*entry) breaker.Event) ([]Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[id]
	if e == nil {
		return nil, false
	}
	changed := act(e)
	// The number of the change is noted before the class: a verdict of an attempt that began before it no
	// longer counts.
	p.noteChange(e, changed)
	p.refresh(e, p.group.Now())
	return event(e.proxy, changed), true
}

// event makes the event of a breaker's change; none if nothing changed.
func event(proxy *proxylist.Proxy, e breaker.Event) []Event {
	// Most calls change nothing, and then no slice is made.
	if !e.Changed() {
		return nil
	}
	return []Event{{ProxyID: proxy.ID, Event: e}}
}
