// Package outlier decides whether a failed attempt counts against its proxy.
//
// The evidence is how attempts ended: per proxy, per site, and over the whole pool. A failure that names the proxy counts. A
// failure that may as well be the site's counts in two cases:
//
//   - The site relays responses through other proxies, and this proxy fails three times in four.
//   - The proxy failed at unknown sites so often in a row that chance is ruled out.
//
// No failure counts during an outage, which is the time in which all proxies that worked fail one after the other: the network
// of the worker, or what all proxies depend on, is down.
//
// The package is pure: it has no lock, no clock, no breaker and no I/O. The caller numbers nothing itself: Add returns the
// index of a proxy, and times are durations on one clock of the caller's choice.
package outlier

import "time"

// Proxy is the index of a proxy. Add returns it, and it is valid until Remove.
type Proxy int32

// Site is a hash of a site's host and port. Zero names no site.
type Site uint64

// HealthyFor is how long a relayed response shows that a proxy works.
const HealthyFor = 10 * time.Minute

// MaxFailedProbes is how many probes of a proxy may fail at unknown sites before its breaker opens again, however likely
// such failures are in this pool.
const MaxFailedProbes = 3

// Attempt is what the caller knows of an attempt that has ended.
type Attempt struct {
	Proxy Proxy
	Site  Site
	// Began and Ended are times on the caller's clock.
	Began, Ended time.Duration
	// Number orders attempts by their start, from 1 on.
	Number uint64
	// Probe is true for the attempt that tests a half-open breaker.
	Probe bool
	// Answered is true if an HTTP response came, from the target or from somebody in its place.
	Answered bool
	// Closed is the number of proxies whose breaker is closed.
	Closed int
}

// Ruling is what the evidence makes of one attempt. The zero value is: the attempt counts against nobody.
type Ruling struct {
	// Counts is true if the failure counts against the proxy.
	Counts bool
	// Failed is true if the attempt enters the proxy's record as a failure.
	Failed bool
	// Site is the site at which the failure counts; zero if the failure proves itself, wherever it happened.
	Site Site
	// Outage says whether an outage began or ended with this attempt.
	Outage OutageChange
	// Late are earlier failures that count only now, because the site relayed a response through another proxy.
	Late []LateFailure
}

// LateFailure is an earlier failed attempt that counts only now.
type LateFailure struct {
	Proxy  Proxy
	Site   Site
	Number uint64
}

// Judge holds the evidence. The zero value is ready for use. It must not be shared between goroutines without a lock.
type Judge struct {
	proxies []evidence
	free    []Proxy // indexes that Remove gave back
	sites   sites
	pool    pool
}

// Add makes room for the evidence about one more proxy.
func (j *Judge) Add() Proxy {
	if n := len(j.free); n > 0 {
		p := j.free[n-1]
		j.free = j.free[:n-1]
		return p
	}
	j.proxies = append(j.proxies, evidence{})
	return Proxy(len(j.proxies) - 1)
}

// Remove forgets a proxy. Its index is given to another one later, and what sites remember of the old one is void.
func (j *Judge) Remove(p Proxy) {
	j.proxies[p] = evidence{generation: j.proxies[p].generation + 1}
	j.pool.remove(p)
	j.free = append(j.free, p)
}

// len is the number of proxies.
func (j *Judge) len() int { return len(j.proxies) - len(j.free) }

// Healthy reports whether a proxy relayed a response in the last ten minutes.
func (j *Judge) Healthy(p Proxy, now time.Duration) bool {
	return j.proxies[p].relayed.within(HealthyFor, now)
}

// Reliable reports whether a proxy is healthy and its latest attempt ended well.
func (j *Judge) Reliable(p Proxy, now time.Duration) bool {
	return j.proxies[p].recent.last() && j.Healthy(p, now)
}

// AnyHealthy reports whether any proxy relayed a response in the last ten minutes. If none did, whatever lies between the
// worker and the sites may be what fails.
func (j *Judge) AnyHealthy(now time.Duration) bool {
	return j.pool.relayed != 0 && now-j.pool.relayed <= HealthyFor
}

// Answered reports whether a site is known to have relayed a response through some proxy.
func (j *Judge) Answered(s Site) bool { return j.sites.known(s) }

// BreakerChanged forgets a proxy's streak and its failed probes: failures before a change of its breaker say nothing about
// the time after it.
func (j *Judge) BreakerChanged(p Proxy) { j.proxies[p].streak, j.proxies[p].failedProbes = 0, 0 }

// Relayed takes in that the proxy relayed a response of the site.
func (j *Judge) Relayed(a Attempt) Ruling {
	j.proxies[a.Proxy].recent.add(true)
	ruling := j.Reached(a)
	for _, f := range j.sites.relayed(a.Site, a.Ended) {
		if j.isLate(f, a) {
			ruling.Late = append(ruling.Late, LateFailure{f.by, a.Site, f.open})
		}
	}
	return ruling
}

// isLate reports whether an undecided failure is the fault of its proxy, now that attempt a shows that the site responds.
func (j *Judge) isLate(f failure, a Attempt) bool {
	if f.open == 0 || f.by == a.Proxy || f.generation != j.proxies[f.by].generation {
		return false
	}
	stale := a.Ended-f.at >= answersFor || f.at <= j.pool.outageEnded
	return !stale && j.proxies[f.by].recent.failsMostly()
}

// Reached takes in that the proxy reached a target, whatever the target then did.
func (j *Judge) Reached(a Attempt) Ruling {
	j.proxies[a.Proxy].relayed = secondsOf(a.Ended)
	if !j.pool.succeeded(a.Ended) {
		return Ruling{}
	}
	return Ruling{Outage: OutageChange{Ended: true, Since: j.pool.outageBegan}}
}

// Failed takes in a failure that says nothing about the pool or the site: what it means is decided already.
func (j *Judge) Failed(p Proxy) Ruling {
	j.proxies[p].recent.add(false)
	return Ruling{Failed: true}
}

// Banned takes in that the site does not serve the proxy: the proxy reached the site, and the attempt failed.
func (j *Judge) Banned(a Attempt) Ruling {
	ruling := j.Reached(a)
	ruling.Failed = j.Failed(a.Proxy).Failed
	return ruling
}

// Refused takes in that the proxy refused to serve a site. That counts once the proxy fails most of the time.
func (j *Judge) Refused(a Attempt) Ruling {
	counts := j.proxies[a.Proxy].recent.failsMostly()
	ruling := j.Failed(a.Proxy)
	ruling.Counts, ruling.Site = counts, a.Site
	return ruling
}

// ProxyFailed takes in a failure that names the proxy. It counts, except in an outage.
func (j *Judge) ProxyFailed(a Attempt) Ruling { return j.count(a, 0, true) }

// Unclear takes in a failure that may be the proxy's or the site's.
func (j *Judge) Unclear(a Attempt) Ruling {
	f, state := j.sites.failed(a, j.proxies[a.Proxy].generation, j.len())
	switch state {
	case siteFails:
		return Ruling{}
	case siteAnswers:
		if j.proxies[a.Proxy].recent.failsMostly() {
			return j.count(a, 0, true)
		}
		// A part of the site may be down or hang while the rest responds, and good proxies meet that now and then. Silence
		// may still be the whole pool's.
		if a.Answered {
			return j.Failed(a.Proxy)
		}
		return j.note(a, true)
	case siteNew, siteFailedBefore:
	}
	// A repeated failure at a site that never answered is no evidence against a proxy, and neither is an attempt that began
	// before the latest response of the pool: hung attempts end late and all together.
	isNew := state == siteNew && a.Began >= j.pool.relayed
	if j.isSignificant(a, state == siteNew) {
		return j.count(a, a.Site, isNew)
	}
	f.open = a.Number // it counts if the site relays a response through another proxy soon
	return j.note(a, isNew)
}

// isSignificant reports whether a failure at an unknown site is one too many to be chance.
func (j *Judge) isSignificant(a Attempt, firstOfSite bool) bool {
	e := &j.proxies[a.Proxy]
	if a.Probe {
		e.failedProbes++
		return e.failedProbes >= MaxFailedProbes || j.pool.isUnlikely(int(e.failedProbes), probeSignificance)
	}
	n := 0
	if firstOfSite {
		n = e.extendStreak(a.Began)
	}
	return j.pool.isUnlikely(n, significance)
}

// count rules that a failure counts against the proxy, except in an outage.
func (j *Judge) count(a Attempt, site Site, isNew bool) Ruling {
	ruling := j.note(a, isNew)
	if !j.pool.outage {
		ruling.Counts, ruling.Site = true, site
	}
	return ruling
}

// note takes a failure into the evidence about the pool and, except in an outage, into that about the proxy. It decides
// nothing about the proxy.
func (j *Judge) note(a Attempt, isNew bool) Ruling {
	var ruling Ruling
	if j.pool.failed(a, isNew, j.Healthy(a.Proxy, a.Ended)) {
		ruling.Outage = OutageChange{
			Began: true, Since: a.Ended, Failures: j.pool.failures, Proxies: len(j.pool.failedProxies),
		}
	}
	if !j.pool.outage {
		ruling.Failed = j.Failed(a.Proxy).Failed
	}
	return ruling
}
