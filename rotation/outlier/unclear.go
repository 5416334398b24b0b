package outlier

// Unclear takes in a failure that may be the proxy's or the site's.
func (j *Judge) Unclear(a Attempt) Ruling {
	e, x := &j.proxies[a.Proxy], j.sites.get(a.Site)
	isNew := x.isNew()
	if e.known == 0 {
		e.known = secondsOf(a.Ended)
	}
	note, again := x.fail(a, e.generation)
	if !x.answeredEver() {
		j.pool.met(a, false)
	}
	if x.isToBlame(j.len()) {
		return j.failedAtSiteToBlame(a, x)
	}
	e.endedWell = false
	if x.respondedWithin(HealthyFor, a.Ended) {
		return j.failedWhereOthersDoNot(a, x, note, again)
	}
	if j.isSignificant(a, isNew) || j.probesFail(a) {
		return j.rule(Ruling{Counts: true, Failed: true, Site: a.Site})
	}
	if note != nil {
		note.open = a.Number // it counts if the site relays a response through another proxy soon
	}
	return j.rule(Ruling{Failed: true})
}

// failedAtSiteToBlame is for a failure that is the site's own. If several sites that answered are silent to every proxy, the
// pool may be to blame.
func (j *Judge) failedAtSiteToBlame(a Attempt, x *site) Ruling {
	if a.Answered || !x.respondedWithin(HealthyFor, a.Ended) {
		return Ruling{}
	}
	return j.poolFailed(a, a.Site, false)
}

// rule returns the ruling, or none in an outage: then nothing counts, and nothing enters a record.
func (j *Judge) rule(r Ruling) Ruling {
	if j.pool.outage {
		return Ruling{Outage: r.Outage}
	}
	return r
}

// failedWhereOthersDoNot is for a failure at a site that answered in the last ten minutes.
func (j *Judge) failedWhereOthersDoNot(a Attempt, x *site, note *failure, again bool) Ruling {
	isNew := x.respondedWithin(answersFor, a.Ended) || !again && a.Began >= j.pool.relayed
	ruling := Ruling{}
	if !a.Answered {
		// A part of the site may be down while the rest responds. Silence may be the whole pool's.
		ruling = j.poolFailed(a, a.Site, isNew)
	}
	ruling.Failed = true
	switch n, witness := x.witnesses(a.Proxy, HealthyFor, a.Ended); {
	case j.pool.outage || a.Named:
	case n == 0:
		if note != nil {
			note.open = a.Number
		}
	default:
		lately, _ := x.witnesses(a.Proxy, answersFor, a.Ended)
		if n > 1 {
			witness = several
		}
		j.contradicted(a, lately, witness, &ruling)
	}
	if j.probesFail(a) {
		ruling.Counts = true
	}
	return j.rule(ruling)
}

// contradicted is for a failure at a site that others relayed: so many in the last minute, and the witness in the last ten.
func (j *Judge) contradicted(a Attempt, lately int, witness Proxy, ruling *Ruling) {
	e, narrow := &j.proxies[a.Proxy], j.pool.isNarrow()
	if e.isEnough(a, lately) {
		j.enough(a, narrow, ruling)
	}
	if a.others() < 2 || e.accuse(witness) {
		e.record.add(a.Site, false, a.Ended, a.Ended)
	}
	if a.Answered {
		return
	}
	e.note(silence{site: a.Site, began: a.Began, at: a.Ended, witness: witness}) // without a number: it counts by itself
	if e.isSilent(a, a.Site, narrow) {
		ruling.Counts, ruling.Site = true, a.Site
		ruling.Late = append(ruling.Late, e.silences.take(a.Proxy, a.Ended)...)
	}
}

// enough is for a failure at a site that enough others relayed. It counts once the proxy fails mostly, and then the earlier ones
// of this kind count, too. At one or two sites they do not: the sites' own failures come in bursts.
func (j *Judge) enough(a Attempt, narrow bool, ruling *Ruling) {
	e := &j.proxies[a.Proxy]
	switch {
	case e.record.failsMostly(a.Site, narrow):
		ruling.Counts = true
		if !narrow {
			ruling.Late = e.doubts.take(a.Ended)
		}
	case !a.Probe && !narrow:
		if e.doubts == nil {
			e.doubts = new(doubts)
		}
		e.doubts.add(LateFailure{a.Proxy, a.Site, a.Number}, a.Ended)
	}
}

// isEnough reports whether so many witnesses convict: two, or all others where there are fewer. One witness convicts only a
// proxy that relays nothing at all, for that one may be what claims too much.
func (e *evidence) isEnough(a Attempt, witnesses int) bool {
	switch a.others() {
	case 0:
		return false
	case 1:
		return witnesses >= 1 && e.isBarren(a.Ended)
	}
	return witnesses >= 2
}

// isSignificant reports whether a failure at an unknown site is one too many to be chance.
func (j *Judge) isSignificant(a Attempt, firstOfSite bool) bool {
	if a.Probe || a.Chosen || !firstOfSite || a.others() == 0 {
		return false
	}
	return j.pool.contacts.isUnlikely(j.proxies[a.Proxy].extendStreak(a.Began), significance)
}

// probesFail counts a failed probe that nothing else decides, and reports whether it is one too many. In a pool of one proxy
// a breaker does not open for what may be the site's failure, so it does not open again for that either.
func (j *Judge) probesFail(a Attempt) bool {
	if !a.Probe || a.Named || j.len() < 2 {
		return false
	}
	e := &j.proxies[a.Proxy]
	e.failedProbes++
	return e.failedProbes >= MaxFailedProbes || j.pool.contacts.isUnlikely(int(e.failedProbes), probeSignificance)
}
