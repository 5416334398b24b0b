package sites

import (
	"cmp"
	"slices"
	"time"
)

// Status is what is known about a site.
type Status struct {
	Finding
	// Answered is when it answered this worker last; zero if it never did.
	Answered time.Time
	// Failures is how many attempts failed in a row.
	Failures int
	// Running is how many attempts run, and Limit how many may; zero means no bound. A job that the fleet released passes
	// the limit of a site that comes back.
	Running, Limit int
	// New says that the site has never answered. Then Limit bounds released jobs, too.
	New bool
	// Latency is the mean time of its latest answers.
	Latency time.Duration
	// Attempts and FailedAttempts are those of the last ten minutes that an answer followed.
	Attempts, FailedAttempts int
	// Changed is when its state changed last, and Reason why; zero before the first change.
	Changed time.Time
	Reason  string
	// Foreign says that the rest is another worker's finding.
	Foreign bool
	// Tally counts the attempts of the last 30 to 60 minutes. LastError is why the latest one of those failed that this table
	// remembers, and LastErrorAt when; empty and zero if none did.
	Tally       Tally
	LastError   string
	LastErrorAt time.Time
}

// Counts are numbers of sites.
type Counts struct{ Known, Resting, Returning int }

// Counts returns how many sites are known, rest and return.
func (t *Table) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counts{Known: len(t.young) + len(t.old) + len(t.resting), Resting: len(t.resting), Returning: t.returning}
}

// StatusOf returns the status of a site.
func (t *Table) StatusOf(name string) (Status, bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.find(name); s != nil {
		return t.status(s, now), true
	}
	return Status{}, false
}

// Status returns at most limit sites: the resting ones first, those that rest longest in front, then those that come back, then
// those with the most attempts of the last ten minutes.
func (t *Table) Status(limit int) []Status {
	all := t.statuses()
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Since.Compare(b.Since), cmp.Compare(b.Attempts, a.Attempts), cmp.Compare(a.Site, b.Site))
	})
	return all[:min(max(limit, 0), len(all))]
}

// rank orders states for Status.
func rank(s Status) int {
	switch s.State {
	case Resting, Testing:
		return 0
	case Returning:
		return 1
	case Fresh, Answering:
	}
	return 2
}

// statuses returns the status of every site, in no order.
func (t *Table) statuses() []Status {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Status, 0, len(t.young)+len(t.old)+len(t.resting))
	for _, in := range [...]map[string]*site{t.resting, t.young, t.old} {
		for _, s := range in {
			all = append(all, t.status(s, now))
		}
	}
	return all
}

// status is what is known about one site. The caller holds the lock.
func (t *Table) status(s *site, now time.Duration) Status {
	attempts, failed := s.attempted.sums(now)
	out := Status{
		Finding: t.finding(s), Answered: t.at(s.answered), Failures: int(s.failures), Running: int(s.running), Latency: s.latency.duration(),
		Attempts: int(attempts), FailedAttempts: int(failed), Foreign: s.foreign,
		Changed: t.at(s.changed), Reason: s.reason, Tally: s.tally.sum(now), LastError: s.tally.lastError, LastErrorAt: t.at(s.tally.lastErrorAt),
	}
	out.New = s.isNew()
	switch {
	case out.New:
		out.Limit = t.share()
	case s.state == Returning:
		out.Limit = int(s.limit)
	}
	return out
}
