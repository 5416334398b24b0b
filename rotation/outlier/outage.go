package outlier

import (
	"math"
	"slices"
	"time"
)

const (
	// maxFailedProxies bounds how many proxies are told apart in a streak of the pool.
	maxFailedProxies = 16
	// rateAttempts is how many attempts the mean of successes spans.
	rateAttempts = 64
	// significance is how improbable a streak has to be, at the pool's own rate of success, to be no chance.
	significance = 1e-5
	// probeSignificance is the same for probes of one proxy that fail.
	probeSignificance = 0.05
	// doubtFrom proxies that worked must fail before failures are held against no job; outageFrom make an outage.
	doubtFrom, outageFrom = 3, 5
	// outageReported is how long after the latest failure an outage is reported: without jobs nobody finds out that it is over.
	outageReported = time.Minute
	// testEvery is how often one attempt goes on during an outage, to find out whether it is over.
	testEvery = time.Second
)

// pool is the evidence about all proxies together.
type pool struct {
	rate          float64       // share of attempts that succeed: a moving mean. Attempts in an outage do not count.
	rated         float64       // attempts in the mean, at most rateAttempts
	failures      int           // since a proxy relayed a response
	streak        int           // those failures that say more than the one before
	failedProxies []Proxy       // of the streak: those that had worked before
	relayed       time.Duration // when any proxy relayed a response last; zero: never
	lastFailure   time.Duration

	outage      bool
	outageBegan time.Duration
	outageEnded time.Duration
	nextTest    time.Duration
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

// Doubtful reports whether proxies that worked fail one after the other, so that the latest failures should not be held
// against the jobs that met them. It is true during an outage.
func (j *Judge) Doubtful() bool { return j.pool.outage || j.pool.isDoubtful() }

// MayStart reports whether an attempt may start now: always, but in an outage only once a second.
func (j *Judge) MayStart(now time.Duration) bool { return !j.pool.outage || now >= j.pool.nextTest }

// NextTest is when the next attempt may start in an outage.
func (j *Judge) NextTest() time.Duration { return j.pool.nextTest }

// Started notes that an attempt starts. In an outage it is the test of this second.
func (j *Judge) Started(now time.Duration) {
	if j.pool.outage {
		j.pool.nextTest = now + testEvery
	}
}

// succeeded notes a relayed response, and reports whether it ended an outage.
func (p *pool) succeeded(now time.Duration) (ended bool) {
	p.relayed = max(now, 1)
	if ended = p.outage; ended {
		p.outageEnded = now
	} else {
		for range min(p.failures, rateAttempts) {
			p.rateAttempt(0)
		}
	}
	p.rateAttempt(1)
	p.failures, p.streak, p.outage = 0, 0, false
	p.failedProxies = p.failedProxies[:0]
	return ended
}

// rateAttempt takes the end of an attempt into the mean.
func (p *pool) rateAttempt(good float64) {
	p.rated = min(p.rated+1, rateAttempts)
	p.rate += (good - p.rate) / p.rated
}

// failed notes a failure, and reports whether an outage began with it. A failure of a site through a second proxy is not new:
// it extends no streak.
func (p *pool) failed(a Attempt, isNew, workedBefore bool) (began bool) {
	p.failures++
	p.lastFailure = a.Ended
	if isNew {
		p.streak++
		if workedBefore && len(p.failedProxies) < maxFailedProxies && !slices.Contains(p.failedProxies, a.Proxy) {
			p.failedProxies = append(p.failedProxies, a.Proxy)
		}
	}
	if p.outage || !p.isDoubtful() || len(p.failedProxies) < max(outageFrom, min(maxFailedProxies, a.Closed*3/4)) {
		return false
	}
	p.outage, p.outageBegan, p.nextTest = true, a.Ended, a.Ended
	return true
}

// remove forgets a proxy whose index is given to another one.
func (p *pool) remove(proxy Proxy) {
	p.failedProxies = slices.DeleteFunc(p.failedProxies, func(q Proxy) bool { return q == proxy })
}

// isDoubtful reports whether the streak is too long to be chance.
func (p *pool) isDoubtful() bool {
	return len(p.failedProxies) >= doubtFrom && p.probability(p.streak) < significance
}

// isUnlikely reports whether a streak is less probable than that. While no attempt has succeeded, the rate is unknown and
// every streak counts as unlikely.
func (p *pool) isUnlikely(streak int, than float64) bool {
	return p.rated == 0 || p.probability(streak) < than
}

// probability is how probable a streak is at the pool's own rate of success.
func (p *pool) probability(streak int) float64 {
	return math.Pow(1-min(max(p.rate, 0.01), 0.99), float64(streak))
}
