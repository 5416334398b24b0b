package outlier

import (
	"math"
	"slices"
	"time"
)

const (
	// maxFailedProxies bounds how many proxies are distinguished in a streak of the pool.
	maxFailedProxies = 16
	// outageSites is at how many sites the pool must fail where no failure names a proxy.
	outageSites = 3
	// After narrowAfter responses without one from a third site, the pool counts as one that serves at most two sites.
	narrowAfter = 64
	// rateAttempts is how many attempts a mean of successes spans.
	rateAttempts = 64
	// significance is the probability below which a streak is not taken for chance, at the pool's own rate of success.
	significance = 1e-5
	// probeSignificance is the same for a streak of failed probes of one proxy.
	probeSignificance = 0.05
	// An outage may begin once mayBeOutageFrom proxies that worked have failed. It has begun once outageFrom of them have.
	mayBeOutageFrom, outageFrom = 3, 5
	// outageReported is how long an outage is reported after the latest failure: without jobs nobody finds out that it
	// is over.
	outageReported = time.Minute
	// testEvery is how often one attempt goes on during an outage, to find out whether it is over.
	testEvery = time.Second
)

// pool is the evidence about all proxies together.
type pool struct {
	// all is of the attempts that the failures of a streak are compared with. Attempts in an outage do not count.
	all                mean
	newSites           mean          // of the attempts at sites that had never responded before
	lastNewSiteRelayer Proxy         // plus one: through which the latest of these succeeded
	lastNewSiteFailure Proxy         // plus one: through which the latest of these failed
	relayed            time.Duration // when any proxy relayed a response last; zero: never

	relays uint64    // responses that proxies relayed
	served [3]served // the sites of the latest ones, the latest first

	failures    int    // since a proxy relayed a response
	named       streak // of failures that name the proxy
	silent      streak // of failures at sites that answered before
	silentSites []Site // of those failures, at most outageSites
	lastFailure time.Duration

	outage      bool
	outageBegan time.Duration
	outageEnded time.Duration
	nextTest    time.Duration
}

// served is a site that some proxy relayed.
type served struct {
	site  Site
	relay uint64 // the number of the latest response
}

// noteRelay records that a proxy relayed a response of a site.
func (p *pool) noteRelay(s Site) {
	p.relays++
	i := 0
	for i < len(p.served)-1 && p.served[i].site != s {
		i++
	}
	copy(p.served[1:i+1], p.served[:i])
	p.served[0] = served{s, p.relays}
}

// isNarrow reports whether the pool serves two sites at most.
func (p *pool) isNarrow() bool { return p.relays-p.served[2].relay >= narrowAfter }

// mean is a moving mean of successes.
type mean struct {
	rate  float64 // share of the attempts that succeed
	rated float64 // attempts in the mean, at most rateAttempts
}

// add moves the mean to an attempt: 1 for a success, 0 for a failure. While it has few attempts, it is their plain
// average.
func (m *mean) add(good float64) {
	m.rated = min(m.rated+1, rateAttempts)
	m.rate += (good - m.rate) / m.rated
}

// probability is how probable it is that so many attempts in a row fail.
func (m *mean) probability(streak int) float64 {
	return math.Pow(1-min(max(m.rate, 0.01), 0.99), float64(streak))
}

// isUnlikely reports whether a streak is less probable than a bound. Without any attempt nothing is unlikely.
func (m *mean) isUnlikely(streak int, than float64) bool {
	return m.rated > 0 && m.probability(streak) < than
}

// streak counts the failures of the pool since a proxy relayed a response.
type streak struct {
	n       int     // failures that say something new
	proxies []Proxy // through which they came; only proxies that had worked before
}

// add adds a failure. A failure that says nothing new does not extend the streak, but its proxy is added.
func (s *streak) add(p Proxy, isNew, workedBefore bool) {
	if isNew {
		s.n++
	}
	if workedBefore && len(s.proxies) < maxFailedProxies && !slices.Contains(s.proxies, p) {
		s.proxies = append(s.proxies, p)
	}
}

// clear ends the streak.
func (s *streak) clear() { s.n, s.proxies = 0, s.proxies[:0] }

// remove forgets a proxy whose index is given to another one.
func (s *streak) remove(p Proxy) {
	s.proxies = slices.DeleteFunc(s.proxies, func(q Proxy) bool { return q == p })
}

// OutageChange says that an outage began or ended with an attempt. The zero value says neither.
type OutageChange struct {
	Began, Ended bool
	// Since is when the outage began.
	Since time.Duration
	// Failures is how many attempts failed in a row, Proxies through how many proxies that had worked; zero when it ended.
	Failures, Proxies int
}

// Outage reports since when all proxies fail. Ongoing is false a minute after the latest failure: without attempts nobody
// knows.
func (j *Judge) Outage(now time.Duration) (since time.Duration, ongoing bool) {
	return j.pool.outageBegan, j.pool.outage && now-j.pool.lastFailure <= outageReported
}

// MayBeOutage reports whether an outage goes on or begins: proxies that worked fail one after the other, so that the latest
// failures should not use up attempts of the jobs that met them.
func (j *Judge) MayBeOutage() bool { return j.pool.outage || j.pool.mayBeOutage() }

// MayStart reports whether an attempt may start now: always, but in an outage only once a second.
func (j *Judge) MayStart(now time.Duration) bool { return !j.pool.outage || now >= j.pool.nextTest }

// NextTest is when the next attempt may start in an outage.
func (j *Judge) NextTest() time.Duration { return j.pool.nextTest }

// Started records that an attempt starts. In an outage it is the test of this second.
func (j *Judge) Started(now time.Duration) {
	if j.pool.outage {
		j.pool.nextTest = now + testEvery
	}
}

// succeeded records a relayed response, and reports whether it ended an outage.
func (p *pool) succeeded(now time.Duration) (ended bool) {
	p.relayed = max(now, 1)
	if ended = p.outage; ended {
		p.outageEnded = now
	} else {
		for range min(p.failures, rateAttempts) {
			p.all.add(0)
		}
	}
	p.all.add(1)
	p.failures, p.outage = 0, false
	p.named.clear()
	p.silent.clear()
	p.silentSites = p.silentSites[:0]
	return ended
}

// noteNewSite records how an attempt ended at a site that had never responded before.
//
// Consecutive successes of one proxy that prove nothing count once: a proxy that claims to reach every site must not make
// the others look worse. Consecutive failures of one proxy count once as well, because they are compared with how the
// others fare.
func (p *pool) noteNewSite(a Attempt, relayed bool) {
	if relayed && p.lastNewSiteFailure == a.Proxy+1 {
		p.lastNewSiteFailure = 0 // its next failure begins another streak
	}
	switch {
	case a.Chosen:
	case !relayed && p.lastNewSiteFailure != a.Proxy+1:
		p.newSites.add(0)
		p.lastNewSiteFailure = a.Proxy + 1
	case !relayed:
	case a.Proven || p.lastNewSiteRelayer != a.Proxy+1:
		p.newSites.add(1)
		p.lastNewSiteRelayer = a.Proxy + 1
	}
}

// failed records a failure, and reports whether an outage began with it. Zero names no site: the failure names the proxy.
func (p *pool) failed(a Attempt, at Site, isNew, workedBefore bool) (began bool) {
	p.failures++
	p.lastFailure = a.Ended
	if at == 0 {
		p.named.add(a.Proxy, isNew, workedBefore)
	} else {
		p.silent.add(a.Proxy, isNew, workedBefore)
		if len(p.silentSites) < outageSites && !slices.Contains(p.silentSites, at) {
			p.silentSites = append(p.silentSites, at)
		}
	}
	_, proxies := p.streak()
	if p.outage || !p.mayBeOutage() || proxies < max(outageFrom, min(maxFailedProxies, a.Closed*3/4)) {
		return false
	}
	p.outage, p.outageBegan, p.nextTest = true, a.Ended, a.Ended
	return true
}

// streak returns how many failures in a row count for the pool, and of how many proxies. Failures at one or two sites are
// those sites' own, though all proxies meet them.
func (p *pool) streak() (n, proxies int) {
	n, proxies = p.named.n, len(p.named.proxies)
	if len(p.silentSites) < outageSites {
		return n, proxies
	}
	for _, q := range p.silent.proxies {
		if !slices.Contains(p.named.proxies, q) {
			proxies++
		}
	}
	return n + p.silent.n, proxies
}

// remove forgets a proxy whose index is given to another one.
func (p *pool) remove(proxy Proxy) {
	p.named.remove(proxy)
	p.silent.remove(proxy)
	if p.lastNewSiteRelayer == proxy+1 {
		p.lastNewSiteRelayer = 0
	}
	if p.lastNewSiteFailure == proxy+1 {
		p.lastNewSiteFailure = 0
	}
}

// mayBeOutage reports whether the streak is too long to be chance.
func (p *pool) mayBeOutage() bool {
	n, proxies := p.streak()
	return proxies >= mayBeOutageFrom && p.all.probability(n) < significance
}
