package outlier

import (
	"slices"
	"time"
)

const (
	// silencesThatCount is how many attempts without an answer count against a proxy, if they were at silentSites sites
	// or more that answer other proxies.
	silencesThatCount = 5
	silentSites       = 3
	// silencesKept bounds the sites of which the latest silence is kept. It is more than twice silentSites, because the sites
	// that one proxy relayed may be left out.
	silencesKept = 7
)

// several stands for two or more proxies that relayed a site, or for one whose response is proven.
const several Proxy = -1

// silence is the latest attempt without an answer at a site that answered another proxy.
type silence struct {
	site      Site
	began, at time.Duration
	n         int    // attempts without an answer since the proxy relayed a response
	all       int    // attempts without an answer
	relayedBy Proxy  // the proxy that relayed the site, or several
	number    uint64 // of the attempt; zero once it counts
}

// silences are the silences of a proxy at the latest silent sites, the oldest first.
type silences struct {
	list [silencesKept]silence
	n    int
}

// add adds a silence of a proxy. relayed is when the proxy last relayed a response.
func (s *silences) add(x silence, relayed seconds) {
	x.n, x.all = 1, 1
	i := 0
	for i < s.n && s.list[i].site != x.site {
		i++
	}
	switch {
	case i < s.n:
		x.all += s.list[i].all
		if s.list[i].isSince(relayed) {
			x.n += s.list[i].n
		}
	case s.n == len(s.list):
		i = 0
	default:
		s.n++
	}
	copy(s.list[i:s.n], s.list[min(i+1, s.n):s.n])
	s.list[s.n-1] = x
}

// isSince reports whether the attempt began after the proxy's last relayed response.
func (x *silence) isSince(relayed seconds) bool { return x.began >= time.Duration(relayed)*time.Second }

// areEnough reports whether the silences of the last ten minutes count against the proxy: silencesThatCount attempts or more, at
// sites that areConfirmed.
func (s *silences) areEnough(now time.Duration, others int) bool {
	if s == nil {
		return false
	}
	attempts, lately := 0, make([]silence, 0, silencesKept)
	for _, x := range s.list[:s.n] {
		if now-x.at <= HealthyFor {
			attempts += x.all
			lately = append(lately, x)
		}
	}
	return attempts >= silencesThatCount && areConfirmed(lately, others)
}

// areEnoughSince reports the same for the silences since the proxy relayed a response. Two of the sites are left out, as in
// failsMostly.
func (s *silences) areEnoughSince(relayed seconds, others int) bool {
	if s == nil {
		return false
	}
	attempts, since := make([]int, 0, silencesKept), make([]silence, 0, silencesKept)
	for _, x := range s.list[:s.n] {
		if x.isSince(relayed) {
			attempts = append(attempts, x.n)
			since = append(since, x)
		}
	}
	slices.Sort(attempts)
	rest := 0
	for _, n := range attempts[:max(0, len(attempts)-partialSites)] {
		rest += n
	}
	return rest >= failuresElsewhere && areConfirmed(since, others)
}

// areConfirmed reports whether the silences are at silentSites sites or more, even without the sites that any single
// proxy relayed: that proxy may claim to relay what others cannot. Where others is 1, that proxy is enough.
func areConfirmed(list []silence, others int) bool {
	most := 0
	for _, x := range list {
		same := 0
		for _, y := range list {
			if x.relayedBy != several && y.relayedBy == x.relayedBy {
				same++
			}
		}
		most = max(most, same)
	}
	return len(list) >= silentSites && (others < 2 || len(list)-most >= silentSites)
}

// take returns the silences that do not count yet and ended in the last minute. From now on they count.
func (s *silences) take(by Proxy, now time.Duration) (late []LateFailure) {
	for i := range s.list[:s.n] {
		x := &s.list[i]
		if x.number != 0 && now-x.at < answersFor {
			late = append(late, LateFailure{by, x.site, x.number})
		}
		x.number = 0
	}
	return late
}

// pendingFailures are the latest failures of a proxy at sites that two others relayed. They count once the proxy fails mostly.
// The oldest comes first.
type pendingFailures struct {
	list [silencesThatCount - 1]struct {
		LateFailure
		at time.Duration
	}
	n int
}

// add adds a failure, in place of the oldest one if the list is full.
func (d *pendingFailures) add(f LateFailure, at time.Duration) {
	if d.n == len(d.list) {
		copy(d.list[:], d.list[1:])
		d.n--
	}
	d.list[d.n].LateFailure, d.list[d.n].at = f, at
	d.n++
}

// take returns those that ended in the last minute, and forgets all of them.
func (d *pendingFailures) take(now time.Duration) (late []LateFailure) {
	if d == nil {
		return nil
	}
	for _, f := range d.list[:d.n] {
		if now-f.at < answersFor {
			late = append(late, f.LateFailure)
		}
	}
	d.n = 0
	return late
}
