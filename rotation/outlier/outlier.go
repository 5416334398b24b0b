// Package outlier decides whether a failed attempt counts against its proxy.
//
// The evidence is how attempts ended: per proxy, per site, and over the whole pool. A failure that names the proxy counts. A
// failure that may as well be the site's counts in three cases:
//
//   - Two other proxies relayed responses of the site lately, and this proxy fails three times in four.
//   - The proxy got no answer five times, at three sites or more that answer other proxies.
//
// - The proxy failed at unknown sites so often in a row that chance is ruled out, while other proxies reach such sites.
//
// No single proxy, site or publisher is evidence enough against a proxy: a proxy may claim to relay what others cannot, a site
// may respond to some proxies only, and a publisher chooses the sites. Where a pool has two proxies, the other one is enough.
// Where it has one, only failures that name it count.
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

// MaxFailedProbes is how many probes in a row may fail at unknown sites: the last one opens the breaker again, however
// likely such failures are in this pool.
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
	// Answered is true if an HTTP response came, from the target or from a server that stands in for it.
	Answered bool
	// Proven is true of a response that came over TLS with the site itself: its proxy cannot have made it up.
	Proven bool
	// Closed is the number of proxies whose breaker is closed.
	Closed int
	// Named is true if the job named the proxy. Chosen is true if it named anything that narrows down the choice: the proxy, a
	// session, tags, a region. A publisher could aim such jobs at one proxy.
	Named, Chosen bool
}

// others is how many proxies there are besides this one whose breaker is closed.
func (a Attempt) others() int {
	if a.Probe {
		return a.Closed
	}
	return max(0, a.Closed-1)
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
	latest  []latest // by the same indexes
	free    []Proxy  // indexes that Remove gave back
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
	j.proxies, j.latest = append(j.proxies, evidence{}), append(j.latest, latest{})
	return Proxy(len(j.proxies) - 1)
}

// Remove forgets a proxy. Its index is given to another one later, and what sites remember of the old one is void.
func (j *Judge) Remove(p Proxy) {
	j.proxies[p], j.latest[p] = evidence{generation: j.proxies[p].generation + 1}, latest{}
	j.pool.remove(p)
	j.free = append(j.free, p)
}

// len is the number of proxies.
func (j *Judge) len() int { return len(j.proxies) - len(j.free) }

// Healthy reports whether a proxy relayed a response in the last ten minutes.
func (j *Judge) Healthy(p Proxy, now time.Duration) bool {
	return j.latest[p].relayed.within(HealthyFor, now)
}

// Reliable reports whether a proxy is healthy and its latest attempt ended well.
func (j *Judge) Reliable(p Proxy, now time.Duration) bool {
	return j.latest[p].endedWell && j.Healthy(p, now)
}

// RelayedWithin reports whether a proxy relayed a response lately.
func (j *Judge) RelayedWithin(p Proxy, lately, now time.Duration) bool {
	return j.latest[p].relayed.within(lately, now)
}

// AnyHealthy reports whether any proxy relayed a response in the last ten minutes. If none did, the fault may lie
// anywhere between the worker and the sites.
func (j *Judge) AnyHealthy(now time.Duration) bool {
	return j.pool.relayed != 0 && now-j.pool.relayed <= HealthyFor
}

// HasAnswered reports whether a site is known to have relayed a response through some proxy.
func (j *Judge) HasAnswered(s Site) bool { return j.sites.hasAnswered(s) }

// BreakerChanged forgets a proxy's streak, its silences, pending failures and failed probes: failures before a change of its
// breaker say nothing about the time after it.
func (j *Judge) BreakerChanged(p Proxy) {
	e := &j.proxies[p]
	e.streak, e.failedProbes, e.silences, e.pending = 0, 0, nil, nil
}

// Relayed records that the proxy relayed a response of the site.
func (j *Judge) Relayed(a Attempt) Ruling {
	e := &j.proxies[a.Proxy]
	j.latest[a.Proxy].endedWell = true
	e.record.add(a.Site, true, a.Ended, a.Ended)
	ruling := j.Reached(a)
	x := j.sites.get(a.Site)
	if !x.answeredEver() {
		j.pool.noteNewSite(a, true)
	}
	j.pool.noteRelay(a.Site)
	for _, f := range x.noteRelay(a.Proxy, e.generation, a.Ended) {
		if j.isUndecided(f, a) {
			ruling.Late = append(ruling.Late, j.decide(f, a)...)
		}
	}
	return ruling
}

// isUndecided reports whether an earlier failure may be its proxy's fault, now that attempt a shows that the site
// responds.
func (j *Judge) isUndecided(f failure, a Attempt) bool {
	if f.open == 0 || f.by == a.Proxy || f.generation != j.proxies[f.by].generation {
		return false
	}
	return a.Ended-f.at < answersFor && (f.at > j.pool.outageEnded || j.pool.outageEnded == 0)
}

// decide holds an earlier failure against its proxy, because the site responds through another one. It returns the failures
// that count because of it.
func (j *Judge) decide(f failure, a Attempt) []LateFailure {
	e := &j.proxies[f.by]
	relayedBy := a.Proxy
	if a.Proven {
		relayedBy = several
	}
	if a.others() >= 2 && !e.noteRelayer(relayedBy) {
		return nil
	}
	e.record.add(a.Site, false, f.at, a.Ended)
	if f.answered {
		return nil
	}
	e.noteSilence(silence{site: a.Site, began: f.began, at: f.at, relayedBy: relayedBy, number: f.open})
	if !e.isSilent(a, a.Site, j.pool.isNarrow()) {
		return nil
	}
	return e.silences.take(f.by, a.Ended)
}

// noteSilence records an attempt without an answer at a site that answers other proxies.
func (e *evidence) noteSilence(s silence) {
	if e.silences == nil {
		e.silences = new(silences)
	}
	e.silences.add(s, e.relayed)
}

// isSilent reports whether the proxy got no answer too often: nothing came through it since the first of the silences, or it
// fails most of the time.
func (e *evidence) isSilent(a Attempt, at Site, narrow bool) bool {
	if a.others() < 2 && !e.relaysNothing(a.Ended) {
		return false // the only other proxy may claim to relay what others cannot
	}
	return e.silences.areEnoughSince(e.relayed, a.others()) || e.silences.areEnough(a.Ended, a.others()) && e.record.failsMostly(at, narrow)
}

// Reached records that the proxy reached a target, whatever the target then did.
func (j *Judge) Reached(a Attempt) Ruling {
	ended := secondsOf(a.Ended)
	j.proxies[a.Proxy].relayed, j.latest[a.Proxy].relayed = ended, ended
	if !j.pool.succeeded(a.Ended) {
		return Ruling{}
	}
	return Ruling{Outage: OutageChange{Ended: true, Since: j.pool.outageBegan}}
}

// Failed records a failure that says nothing about the pool or the site: what it means is decided already.
func (j *Judge) Failed(a Attempt) Ruling {
	j.latest[a.Proxy].endedWell = false
	j.proxies[a.Proxy].record.add(a.Site, false, a.Ended, a.Ended)
	return Ruling{Failed: true}
}

// Banned records that the site does not serve the proxy. The proxy relayed the site's response, so it works.
func (j *Judge) Banned(a Attempt) Ruling {
	ruling := j.Reached(a)
	ruling.Failed = true
	return ruling
}

// ProxyFailed records a failure that names the proxy. It counts, except in an outage.
func (j *Judge) ProxyFailed(a Attempt) Ruling {
	ruling := j.poolFailed(a, 0, true)
	if !j.pool.outage {
		ruling.Failed = j.Failed(a).Failed
		ruling.Counts = true
	}
	return ruling
}

// poolFailed adds a failure to the evidence about the pool. A zero site means that the failure names the proxy.
func (j *Judge) poolFailed(a Attempt, at Site, isNew bool) Ruling {
	if !j.pool.failed(a, at, isNew, j.Healthy(a.Proxy, a.Ended)) {
		return Ruling{}
	}
	_, proxies := j.pool.streak()
	return Ruling{Outage: OutageChange{Began: true, Since: a.Ended, Failures: j.pool.failures, Proxies: proxies}}
}
