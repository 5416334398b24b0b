package rotation

import "github.com/gofer-mq/gofer/rotation/latency"

// Times returns what is known about the times to the first byte of the responses that the pool relayed.
func (p *Pool) Times() *latency.Tracker { return &p.times }

// CanPick reports whether a pick would find a proxy now for a need, which it takes as Fresh. It takes no proxy and no permit, and
// reports false during an outage and for a need that names its proxy. Nothing is reserved, so the result may be out of
// date when a pick follows.
func (p *Pool) CanPick(need Need) bool {
	now := p.group.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshExpired(now, maxWakeups)
	p.expireCooldowns(now, maxWakeups)
	if _, outage := p.judge.Outage(now); outage || p.slots[0].size == 0 || need.ID != "" {
		return false
	}
	// Beside, so that the position of RoundRobin stays as it is.
	f := skips{exclude: newExcluded(need.Exclude), ban: need.Ban, skipProbeable: p.leaveProbes, beside: true, need: p.needOfGateways(&need)}
	f.findCooldowns(p, need.Host)
	// First the preferred region, then any, unless the region is required.
	for _, region := range [2]bool{true, false} {
		if region && need.Region == "" || !region && need.Region != "" && need.RegionStrict {
			continue
		}
		if s := p.setOf(p.filterFor(&need, &f, region)); s != nil && s.canOffer(f) {
			return true
		}
	}
	return false
}

// canOffer reports whether a set has a proxy that can be used and is not skipped.
func (s *set) canOffer(f skips) bool {
	return s.available.pick(f) != nil || !f.skipProbeable && s.probeable.pick(f) != nil
}
