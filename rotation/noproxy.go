package rotation

import (
	"slices"
	"time"
)

// outageError is the error of a pick between two tests of an outage. A need that no proxy can ever meet gets the reason
// Unmatched.
func (p *Pool) outageError(need Need) *NoProxyError {
	var fits bool
	if need.ID != "" {
		e := p.byID[need.ID]
		fits = e != nil && p.canServe(&need, e)
	} else {
		s := p.setOf(p.filterFor(&need, &skips{}, need.RegionStrict))
		fits = s != nil && s.size > 0
	}
	if !fits {
		return &NoProxyError{Reason: Unmatched}
	}
	return &NoProxyError{Reason: Outage, RetryAt: p.group.Time(p.judge.NextTest())}
}

// noProxyError returns why no proxy was picked, and when one may be available.
func (p *Pool) noProxyError(need Need, now time.Duration) *NoProxyError {
	none := &NoProxyError{Reason: Unavailable}
	soonest := never
	f := skips{ban: need.Ban}
	f.findCooldowns(p, need.Host)
	for part := range slices.Chunk(p.candidates(need), batchSize) {
		for _, e := range part {
			if !p.canServe(&need, e) {
				continue
			}
			none.Proxies++
			c, at := e.class(now)
			if c != unavailable {
				at = now // it cools down for the host, or became available this moment
			}
			if f.cooldowns.has(e) {
				at = max(at, f.cooldowns.until[e])
			}
			if f.isBanned(e) {
				at = max(at, f.banned.until[e])
			}
			switch {
			case f.cooldowns.has(e) || f.isBanned(e):
				none.Cooling++
			case e.notClosed:
				none.Open++
			}
			soonest = min(soonest, at)
		}
		// A waiting pick gets the lock between two batches.
		p.mu.Unlock()
		p.mu.Lock()
	}
	switch {
	case none.Proxies == 0:
		return &NoProxyError{Reason: Unmatched}
	case soonest != never:
		none.RetryAt = p.group.Time(soonest)
	}
	return none
}
