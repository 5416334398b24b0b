package outlier

import "time"

// siteState is what is known of a site when an attempt there failed.
type siteState uint8

const (
	siteNew          siteState = iota + 1 // nothing is known
	siteFailedBefore                      // it failed before, through this proxy or another one
	siteAnswers                           // it responds through other proxies
	siteFails                             // it fails through so many proxies that the site is to blame
)

// answersFor is how long a response shows that a site works, and how long a failure stays undecided.
const answersFor = time.Minute

// maxSites bounds the sites that are remembered.
const maxSites = 1 << 16

// site remembers through which proxies a site failed since it responded last.
type site struct {
	failed      [3]failure
	failures    uint8         // failed[:failures] are in use
	respondedAt time.Duration // zero: never
}

// failure is the latest failure of the site through one proxy.
type failure struct {
	by         Proxy
	generation uint32 // of the index by
	at         time.Duration
	open       uint64 // the number of the attempt while it is undecided who is to blame; zero: it is decided
}

// sites remembers sites in two halves: when the young half is full, the old half goes. A site that is used becomes young.
type sites struct{ young, old map[Site]*site }

func (s *sites) known(key Site) bool {
	x, ok := s.young[key]
	if !ok {
		x, ok = s.old[key]
	}
	return ok && x.respondedAt > 0
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

// relayed notes a response of the site. It returns the failures that preceded it: they were not the site's.
func (s *sites) relayed(key Site, now time.Duration) []failure {
	x := s.get(key)
	x.respondedAt = now
	if x.failures == 0 {
		return nil
	}
	preceding := x.failed
	n := x.failures
	x.failed, x.failures = [3]failure{}, 0
	return preceding[:n]
}

// failed notes a failure of the site through a proxy, and returns the note and the state of the site. The note is nil if the site failed
// through enough proxies before: then the site is to blame. Where the pool has fewer proxies, fewer are enough.
func (s *sites) failed(a Attempt, generation uint32, proxies int) (*failure, siteState) {
	x := s.get(a.Site)
	i, n := 0, int(x.failures)
	for i < n && (x.failed[i].by != a.Proxy || x.failed[i].generation != generation) {
		i++
	}
	var note *failure
	if i < len(x.failed) {
		note = &x.failed[i]
		*note = failure{by: a.Proxy, generation: generation, at: a.Ended}
		x.failures = uint8(max(n, i+1))
	}
	again := i < n
	switch n = int(x.failures); {
	case n >= min(len(x.failed), max(2, proxies)):
		return note, siteFails
	case x.respondedAt > 0 && a.Ended-x.respondedAt < answersFor:
		return note, siteAnswers
	case n > 1 || again:
		return note, siteFailedBefore
	}
	return note, siteNew
}
