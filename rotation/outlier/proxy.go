package outlier

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// evidence is what is known about one proxy. The zero value knows nothing.
type evidence struct {
	generation     uint32  // of the index: Remove advances it
	relayed        seconds // when the proxy relayed a response last
	undecidedSince seconds // when it failed first at a site where it is unclear who is to blame
	streakSince    seconds // the value of relayed when the streak began
	streak         uint16  // consecutive failures at sites that nobody had met before
	failedProbes   uint8   // probes that failed at unknown sites since the breaker was last open
	lastRelayer    Proxy   // plus one: the proxy whose response was the last to show that a failure was not the site's
	record         record
	silences       *silences        // nil until the first one
	pending        *pendingFailures // nil until the first one
}

// latest is what picks read of the evidence about a proxy. It lies apart from the rest, which is 15 times as large: so that of
// 100,000 proxies stays in the processor's cache.
type latest struct {
	relayed   seconds // a copy of evidence.relayed; Reached writes both
	endedWell bool    // the latest attempt ended well
}

// extendStreak counts a failure at an unknown site and returns the length of the streak. An attempt that began before the
// proxy's last relayed response belongs to no streak.
func (e *evidence) extendStreak(began time.Duration) int {
	if began < time.Duration(e.relayed)*time.Second {
		return 0
	}
	if e.streakSince != e.relayed {
		e.streak, e.streakSince = 0, e.relayed
	}
	e.streak = min(e.streak, math.MaxUint16-1) + 1
	return int(e.streak)
}

// relaysNothing reports whether the proxy relayed nothing for a minute, in which it had attempts.
func (e *evidence) relaysNothing(now time.Duration) bool {
	return !e.relayed.within(answersFor, now) && !e.undecidedSince.within(answersFor, now)
}

// noteRelayer records a proxy that relayed a site at which this one failed, and reports whether it differs from the one
// before. A proxy that claims to relay what no other can is evidence once, however often it does so.
func (e *evidence) noteRelayer(by Proxy) (isOther bool) {
	if by == several {
		return true
	}
	isOther = e.lastRelayer != by+1
	e.lastRelayer = by + 1
	return isOther
}

// seconds is a time on the caller's clock in whole seconds, plus one. Zero means never.
type seconds uint32

// secondsOf converts a time of the caller's clock.
func secondsOf(at time.Duration) seconds { return seconds(at/time.Second) + 1 }

// within reports whether the time is at most d ago, to a second.
func (s seconds) within(d, now time.Duration) bool {
	return s != 0 && now-time.Duration(s)*time.Second <= d
}

const (
	// recordSize is how many attempts of a proxy are remembered.
	recordSize = 12
	// recordFor is how long an attempt is kept although its site has fewer of them than another site.
	recordFor = time.Minute
)

// record is how the latest attempts of a proxy ended, the oldest first, at sites that respond to others. A site with
// more attempts than others loses its own oldest ones first, so that many jobs for one site do not outweigh the other
// sites.
type record struct {
	sites [recordSize]uint16 // a part of the site's hash
	ended [recordSize]seconds
	good  uint16 // one bit an attempt
	n     uint8
}

// add records how an attempt at a site ended, and when.
func (r *record) add(site Site, good bool, at, now time.Duration) {
	if r.n == recordSize {
		r.remove(r.dispensable(now))
	}
	i := int(r.n)
	for i > 0 && r.ended[i-1] > secondsOf(at) {
		i--
	}
	copy(r.sites[i+1:], r.sites[i:r.n])
	copy(r.ended[i+1:], r.ended[i:r.n])
	r.sites[i], r.ended[i] = uint16(site), secondsOf(at)
	below := r.good & (1<<i - 1)
	r.good = below | r.good>>i<<(i+1)
	if good {
		r.good |= 1 << i
	}
	r.n++
}

// dispensable returns the attempt to forget: the oldest of all if it is older than recordFor, else the oldest at the
// site with the most attempts.
func (r *record) dispensable(now time.Duration) (index int) {
	if !r.ended[0].within(recordFor, now) {
		return 0
	}
	most := 0
	for i := range r.sites {
		same := 0
		for _, site := range r.sites {
			if site == r.sites[i] {
				same++
			}
		}
		if same > most {
			index, most = i, same
		}
	}
	return index
}

// remove takes out one attempt, and keeps the order.
func (r *record) remove(i int) {
	copy(r.sites[i:], r.sites[i+1:])
	copy(r.ended[i:], r.ended[i+1:])
	below := r.good & (1<<i - 1)
	r.good = below | r.good>>(i+1)<<i
	r.n--
}

// failsMostly reports whether, with one more failure at the site, more than three in four of the attempts failed: at each site
// by itself, and then on average over the sites. Two sites may refuse a healthy proxy, so the two sites with the
// largest shares of failures are left out, and the proxy must have failed at other sites, too. A pool that serves only
// two sites has no other sites.
func (r *record) failsMostly(site Site, narrow bool) bool {
	var tallies [recordSize + 1]tally
	list := r.tally(tallies[:0], uint16(site))
	slices.SortFunc(list, tally.compare)
	enough := 0.75
	if !narrow {
		list = list[:max(0, len(list)-partialSites)]
		enough = 0.6 // of the sites that remain
	}
	sum, failures := 0.0, 0
	for _, t := range list {
		sum += t.share()
		failures += t.failed
	}
	return sum > enough*float64(len(list)) && (narrow || failures >= failuresElsewhere)
}

const (
	// partialSites is the number of sites whose failures alone are not enough evidence against a proxy.
	partialSites = 2
	// failuresElsewhere is how often a proxy must have failed at other sites.
	failuresElsewhere = 3
)

// tally is how a proxy's attempts at one site ended.
type tally struct {
	site      uint16
	failed, n int
}

// share is the share of the attempts that failed.
func (t tally) share() float64 { return float64(t.failed) / float64(t.n) }

// compare sorts by the share of failures, and equal shares by the number of failures. The worst site comes last.
func (t tally) compare(u tally) int {
	return cmp.Or(cmp.Compare(t.share(), u.share()), cmp.Compare(t.failed, u.failed))
}

// tally appends a tally for each site to list. It counts one more failure at the site failed.
func (r *record) tally(list []tally, failed uint16) []tally {
	list = append(list, tally{site: failed, failed: 1, n: 1})
	for i, site := range r.sites[:r.n] {
		k := slices.IndexFunc(list, func(t tally) bool { return t.site == site })
		if k < 0 {
			k = len(list)
			list = append(list, tally{site: site})
		}
		list[k].n++
		if r.good>>i&1 == 0 {
			list[k].failed++
		}
	}
	return list
}
