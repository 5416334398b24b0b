package outlier

import "time"

// answersFor is how long a response shows that a site works, and how long a failure stays undecided.
const answersFor = time.Minute

// maxSites bounds the sites that are remembered.
const maxSites = 1 << 16

// site remembers which proxies relayed a response of a site, and through which ones it failed since it responded last.
type site struct {
	failed   [3]failure
	failures uint8    // failed[:failures] are in use
	relays   [3]relay // of three different proxies, the latest first
}

// relay is the latest response of the site through one proxy.
type relay struct {
	by         Proxy
	generation uint32 // of the index by
	at         seconds
}

// failure is the latest failure of the site through one proxy.
type failure struct {
	by         Proxy
	generation uint32 // of the index by
	began, at  time.Duration
	answered   bool
	open       uint64 // the number of the attempt while it is undecided who is to blame; zero: it is decided
}

// sites remembers sites in two halves: when the young half is full, the old half is dropped. A site that is used
// becomes young.
type sites struct{ young, old map[Site]*site }

// hasAnswered reports whether a site is known to have responded. It does not make the site young.
func (s *sites) hasAnswered(key Site) bool {
	x, ok := s.young[key]
	if !ok {
		x, ok = s.old[key]
	}
	return ok && x.answeredEver()
}

// get finds or creates a site.
func (s *sites) get(key Site) *site {
	if x, ok := s.young[key]; ok {
		return x
	}
	x, ok := s.old[key]
	if !ok {
		x = new(site)
	}
	delete(s.old, key)
	if s.young == nil || len(s.young) >= maxSites/2 {
		s.young, s.old = map[Site]*site{}, s.young
	}
	s.young[key] = x
	return x
}

// answeredEver reports whether any proxy relayed a response of the site.
func (x *site) answeredEver() bool { return x.relays[0].at != 0 }

// isNew reports whether no attempt at the site has ended yet.
func (x *site) isNew() bool { return x.failures == 0 && !x.answeredEver() }

// noteRelay records a response of the site. It returns the failures before it, which were not the site's fault.
func (x *site) noteRelay(by Proxy, generation uint32, now time.Duration) []failure {
	i := 0
	for i < len(x.relays)-1 && (x.relays[i].by != by || x.relays[i].generation != generation) {
		i++
	}
	copy(x.relays[1:i+1], x.relays[:i])
	x.relays[0] = relay{by, generation, secondsOf(now)}
	preceding := x.failed
	n := x.failures
	x.failed, x.failures = [3]failure{}, 0
	return preceding[:n]
}

// relayedByOthers returns how many proxies besides one relayed the site lately, at most three, and one of them.
func (x *site) relayedByOthers(except Proxy, lately, now time.Duration) (n int, one Proxy) {
	for _, r := range x.relays {
		if r.by != except && r.at.within(lately, now) {
			n, one = n+1, r.by
		}
	}
	return n, one
}

// respondedWithin reports whether any proxy relayed the site lately.
func (x *site) respondedWithin(lately, now time.Duration) bool {
	return x.relays[0].at.within(lately, now)
}

// noteFailure records a failure of the site through a proxy. It returns the record, which is nil if the site failed
// through three other proxies before, and whether this is not the first failure since the site last responded.
func (x *site) noteFailure(a Attempt, generation uint32) (note *failure, again bool) {
	i, n := 0, int(x.failures)
	for i < n && (x.failed[i].by != a.Proxy || x.failed[i].generation != generation) {
		i++
	}
	if i < len(x.failed) {
		note = &x.failed[i]
		*note = failure{by: a.Proxy, generation: generation, began: a.Began, at: a.Ended, answered: a.Answered}
		x.failures = uint8(max(n, i+1))
	}
	return note, n > 0
}

// isToBlame reports whether the site failed through so many proxies since it last responded that the fault is its own.
// A small pool needs fewer proxies.
func (x *site) isToBlame(proxies int) bool {
	return int(x.failures) >= min(len(x.failed), max(2, proxies))
}
