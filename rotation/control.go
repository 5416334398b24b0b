package rotation

import (
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Reset closes a proxy's breaker and forgets what other workers said; false means that there is no such proxy.
func (p *Pool) Reset(id string) ([]Event, bool) {
	return p.change(id, func(e *entry) breaker.Event {
		e.avoided, e.avoid, e.avoidedBy = false, 0, ""
		return e.breaker.Reset("reset by hand")
	})
}

// ForceOpen opens a proxy's breaker at once for rest; false means that there is no such proxy.
func (p *Pool) ForceOpen(id string, rest time.Duration, reason string) ([]Event, bool) {
	return p.change(id, func(e *entry) breaker.Event { return e.breaker.Trip(rest, reason) })
}

// Avoid makes a proxy the last resort until a time, because the worker by found it dead; a time that is past ends that. It
// is picked only when no other proxy can be, so that a worker that is wrong about all of them takes none away. Its breaker
// is not asked and does not change. False means that there is no such proxy.
func (p *Pool) Avoid(id string, until time.Time, by string) bool {
	_, known := p.change(id, func(e *entry) breaker.Event {
		e.avoided, e.avoid, e.avoidedBy = true, p.group.Now()+time.Until(until), by
		return breaker.Event{}
	})
	return known
}

// LeaveTests says whether somebody else finds out if proxies whose open time is over work again. Then a pick takes such a
// proxy only when it names it, or when no other is left.
func (p *Pool) LeaveTests(leave bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveTests = leave
}

// Due is the ids of the proxies whose open time is over and that nobody tests now. A pick that names one tests it.
func (p *Pool) Due() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake(p.group.Now(), len(p.line))
	ids := make([]string, 0, len(p.slots[0].due.list))
	for _, e := range p.slots[0].due.list {
		ids = append(ids, e.proxy.ID)
	}
	return ids
}

func (p *Pool) change(id string, act func(*entry) breaker.Event) ([]Event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.byID[id]
	if e == nil {
		return nil, false
	}
	changed := act(e)
	p.noteChange(e, changed)
	p.refresh(e, p.group.Now())
	return event(e.proxy, changed), true
}

func event(proxy *proxylist.Proxy, e breaker.Event) []Event {
	if !e.Changed() {
		return nil
	}
	return []Event{{ProxyID: proxy.ID, Event: e}}
}
