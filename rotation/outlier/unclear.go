package outlier

// Unclear records a failure that may be the fault of the proxy or of the site.
func (j *Judge) Unclear(a Attempt) Ruling {
	e, x := &j.proxies[a.Proxy], j.sites.get(a.Site)
	isNew := x.isNew()
	if e.undecidedSince == 0 {
		e.undecidedSince = secondsOf(a.Ended)
	}
	note, again := x.noteFailure(a, e.generation)
	if !x.answeredEver() {
		j.pool.noteNewSite(a, false)
	}
	if x.isToBlame(j.len()) {
		return j.failedAtSiteToBlame(a, x)
	}
	j.latest[a.Proxy].endedWell = false
	if x.respondedWithin(HealthyFor, a.Ended) {
		return j.failedAtAnsweringSite(a, x, note, again)
	}
	if j.isSignificant(a, isNew) || j.probesFail(a) {
		return j.rule(Ruling{Counts: true, Failed: true, Site: a.Site})
	}
	if note != nil {
		note.open = a.Number // it counts if the site relays a response through another proxy soon
	}
	return j.rule(Ruling{Failed: true})
}

// failedAtSiteToBlame judges a failure that is the site's own. If several sites that answered before are silent to
// every proxy, the pool may be to blame.
func (j *Judge) failedAtSiteToBlame(a Attempt, x *site) Ruling {
	if a.Answered || !x.respondedWithin(HealthyFor, a.Ended) {
		return Ruling{}
	}
	return j.poolFailed(a, a.Site, false)
}

// rule returns the ruling; in an outage it returns the zero ruling, so that nothing counts and nothing enters a record.
func (j *Judge) rule(r Ruling) Ruling {
	if j.pool.outage {
		return Ruling{Outage: r.Outage}
	}
	return r
}

// failedAtAnsweringSite judges a failure at a site that responded in the last ten minutes.
func (j *Judge) failedAtAnsweringSite(a Attempt, x *site, note *failure, again bool) Ruling {
	isNew := x.respondedWithin(answersFor, a.Ended) || !again && a.Began >= j.pool.relayed
	ruling := Ruling{}
	if !a.Answered {
		// A part of the site may be down while the rest responds. Silence may be the whole pool's.
		ruling = j.poolFailed(a, a.Site, isNew)
	}
	ruling.Failed = true
	switch n, relayedBy := x.relayedByOthers(a.Proxy, HealthyFor, a.Ended); {
	case j.pool.outage || a.Named:
	case n == 0:
		if note != nil {
			note.open = a.Number
		}
	default:
		lately, _ := x.relayedByOthers(a.Proxy, answersFor, a.Ended)
		if n > 1 {
			relayedBy = several
		}
		j.failedWhereOthersRelayed(a, lately, relayedBy, &ruling)
	}
	if j.probesFail(a) {
		ruling.Counts = true
	}
	return j.rule(ruling)
}

// failedWhereOthersRelayed judges a failure at a site that other proxies relayed. others is how many did in the last
// minute; relayedBy did in the last ten minutes.
func (j *Judge) failedWhereOthersRelayed(a Attempt, others int, relayedBy Proxy, ruling *Ruling) {
	e, narrow := &j.proxies[a.Proxy], j.pool.isNarrow()
	if e.haveEnoughRelayed(a, others) {
		j.countIfFailingMostly(a, narrow, ruling)
	}
	if a.others() < 2 || e.noteRelayer(relayedBy) {
		e.record.add(a.Site, false, a.Ended, a.Ended)
	}
	if a.Answered {
		return
	}
	// Without a number: the breaker counts this failure now.
	e.noteSilence(silence{site: a.Site, began: a.Began, at: a.Ended, relayedBy: relayedBy})
	if e.isSilent(a, a.Site, narrow) {
		ruling.Counts, ruling.Site = true, a.Site
		ruling.Late = append(ruling.Late, e.silences.take(a.Proxy, a.Ended)...)
	}
}

// countIfFailingMostly judges a failure at a site that enough others relayed. The failure counts once the proxy fails
// mostly, and then earlier failures of this kind count, too. Failures at only one or two sites do not count, because
// the sites' own failures come in bursts.
func (j *Judge) countIfFailingMostly(a Attempt, narrow bool, ruling *Ruling) {
	e := &j.proxies[a.Proxy]
	switch {
	case e.record.failsMostly(a.Site, narrow):
		ruling.Counts = true
		if !narrow {
			ruling.Late = e.pending.take(a.Ended)
		}
	case !a.Probe && !narrow:
		if e.pending == nil {
			e.pending = new(pendingFailures)
		}
		e.pending.add(LateFailure{a.Proxy, a.Site, a.Number}, a.Ended)
	}
}

// haveEnoughRelayed reports whether enough proxies relayed the site to make a failure evidence: two, or the only other one. That
// one may claim to relay what others cannot, so it is enough only against a proxy that relays nothing.
func (e *evidence) haveEnoughRelayed(a Attempt, relayers int) bool {
	switch a.others() {
	case 0:
		return false
	case 1:
		return relayers >= 1 && e.relaysNothing(a.Ended)
	}
	return relayers >= 2
}

// isSignificant reports whether the streak of failures at unknown sites is now too long to be chance.
func (j *Judge) isSignificant(a Attempt, firstOfSite bool) bool {
	if a.Probe || a.Chosen || !firstOfSite || a.others() == 0 {
		return false
	}
	return j.pool.newSites.isUnlikely(j.proxies[a.Proxy].extendStreak(a.Began), significance)
}

// probesFail counts a failed probe that nothing else decides, and reports whether there are now too many. In a pool of
// one proxy a breaker does not open for what may be the site's failure, so it does not open again for that either.
func (j *Judge) probesFail(a Attempt) bool {
	if !a.Probe || a.Named || j.len() < 2 {
		return false
	}
	e := &j.proxies[a.Proxy]
	e.failedProbes++
	return e.failedProbes >= MaxFailedProbes || j.pool.newSites.isUnlikely(int(e.failedProbes), probeSignificance)
}
