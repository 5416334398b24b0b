package rotation

import (
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
)

// MaxFailedProbes is how many probes of a proxy may fail at unknown sites before its breaker opens again.
const MaxFailedProbes = outlier.MaxFailedProbes

// Outage reports whether an outage goes on, and since when. During an outage one attempt a second goes on as a test, other
// picks get a NoProxyError with the reason Outage, and no failure counts against a proxy. A minute after the latest failure
// an outage is no longer reported: without attempts nobody knows.
func (p *Pool) Outage() (since time.Time, ongoing bool) {
	p.mu.Lock()
	// The clock is the group's, which begins with the pool.
	defer p.mu.Unlock()
	began, ongoing := p.judge.Outage(p.group.Now())
	if !ongoing {
		return time.Time{}, false
	}
	return p.group.Time(began), true
}

// MayBeOutage reports whether an outage goes on or begins: proxies that worked fail one after the other. The latest failures then
// should not use up attempts of the jobs that met them.
func (p *Pool) MayBeOutage() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge.MayBeOutage()
}

// HasAnswered reports whether a site, "host:port", is known to have responded through some proxy. A failure at a site that never
// responded may be the site's own, whatever the state of the pool.
func (p *Pool) HasAnswered(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge.HasAnswered(siteOf(host))
}

// AnyHealthy reports whether any proxy is healthy. If none is, the fault may lie in the network of the worker.
func (p *Pool) AnyHealthy() bool {
	// It is for the daemon's readiness, which must not blame proxies for the network of the worker.
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.judge.AnyHealthy(p.group.Now())
}

// siteOf returns the hash of a host for the judge. Hashes keep the evidence small, however long names are. Two sites
// with one hash share their evidence; the chance is one in 10^19.
func siteOf(host string) outlier.Site { return outlier.Site(hash(host, "")) }

// outageEvents returns the event of an outage that began or ended.
func (p *Pool) outageEvents(c outlier.OutageChange, now time.Duration) []Event {
	e := breaker.Event{At: p.group.Time(now), Failures: c.Failures}
	switch {
	// At most one of the two is set.
	case c.Began:
		e.From, e.To = breaker.Closed, breaker.Open
		e.Reason = fmt.Sprintf("%d attempts in a row failed, and %d proxies that had worked", c.Failures, c.Proxies)
	case c.Ended:
		e.From, e.To = breaker.Open, breaker.Closed
		e.Reason = "a proxy relayed a response again after " + (now - c.Since).Round(time.Millisecond).String()
	default:
		return nil
	}
	return []Event{{Event: e}}
}

// lateFailures counts earlier undecided failures against their proxies, unless their breakers have changed since, and
// returns the breakers that opened. A failure is late if other proxies relayed the site after its verdict.
func (p *Pool) lateFailures(late []outlier.LateFailure, now time.Duration) (opened []Event) {
	for _, f := range late {
		e := p.entries[f.Proxy]
		// The breaker has changed since the attempt began, so the failure is of its past.
		if e.notClosed || e.changed >= f.Number {
			continue
		}
		// A permit is needed to report a failure. The state is closed here, so it is granted.
		permit, _, _ := e.breaker.Allow()
		if change := permit.Failure(uint64(f.Site), "failed where another proxy relays responses"); change.Changed() {
			p.noteChange(e, change)
			p.refresh(e, now)
			opened = append(opened, event(e.proxy, change)...)
		}
	}
	return opened
}
