// Package sites keeps attempts away from sites that do not answer. It decides which site rests, when a resting site is
// tested, and how fast its jobs come back.
//
// An attempt begins with Table.Enter, which may refuse it, and ends with Visit.Report. What changed is returned as events,
// and other workers learn it as findings. A rest is no breaker of package breaker: its length comes from other workers, too,
// a test that says nothing is repeated at once, and after a rest the attempts come back one by one.
package sites

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// firstRest is how long a site rests at first. Each test that fails doubles it, up to maxRest.
	firstRest, maxRest = 60 * time.Second, 5 * time.Minute
	// minTest and maxTest bound the time after which a test loses its place to another one.
	minTest, maxTest = 35 * time.Second, 2 * time.Minute
	// minStagger and maxStagger bound the additional rest in a worker that knows of a rest by a finding, so that mostly one
	// worker tests: the one that found it, or that made the last test, comes first.
	minStagger, maxStagger = 300 * time.Millisecond, time.Second
	// testAgain is how soon a test follows one that said nothing because the worker's own network failed.
	testAgain = time.Second
)

// Config configures a Table. The zero value is usable.
type Config struct {
	// Slots is how many jobs the worker runs at once; zero means 64. A site that has never answered gets an eighth of them.
	Slots int
	// Max bounds the sites that are remembered; zero means 100,000. Resting sites and the latest used ones stay.
	Max int
}

// Table holds the state of all sites of one worker. Make one with New. It may be shared between goroutines.
type Table struct {
	cfg  Config
	base time.Time
	seed maphash.Seed

	// mu guards all fields below and every site.
	mu sync.Mutex
	// young and old are two generations of sites: when young is full, old is forgotten. Resting sites are in neither.
	young, old  map[string]*site
	resting     map[string]*site
	pool        rates  // of attempts at sites that answer
	uplink      uplink // evidence about the worker's own network
	meanLatency mean   // of all answers
	returning   int
	leaveTests  bool // only released attempts are tests
}

// New makes an empty table.
func New(cfg Config) *Table {
	if cfg.Slots <= 0 {
		cfg.Slots = 64
	}
	if cfg.Max <= 0 {
		cfg.Max = 100_000
	}
	return &Table{cfg: cfg, base: time.Now(), seed: maphash.MakeSeed(), young: map[string]*site{}, resting: map[string]*site{}}
}

// now reads the table's monotonic clock. It is never zero, which means never.
func (t *Table) now() time.Duration { return time.Since(t.base) + 1 }

// at converts a reading of the clock; zero stays zero.
func (t *Table) at(now time.Duration) time.Time {
	if now == 0 {
		return time.Time{}
	}
	return t.base.Add(now - 1).UTC()
}

// share is how many attempts at once a site gets that has never answered. At least two, so that a worker with few
// slots still tries more than one job.
func (t *Table) share() int { return max(2, t.cfg.Slots/8) }

// get finds or creates a site, and makes it young.
func (t *Table) get(name string) *site {
	if s := t.young[name]; s != nil {
		return s
	}
	if s := t.resting[name]; s != nil {
		return s
	}
	s := t.old[name]
	if s == nil {
		s = &site{name: name, length: firstRest}
	}
	delete(t.old, name)
	t.remember(s)
	return s
}

// remember makes a site young. If there is no room, the old sites are forgotten.
func (t *Table) remember(s *site) {
	if len(t.young) >= max(1, t.cfg.Max/4) {
		for _, gone := range t.old {
			if gone.state == Returning { // an attempt that still runs there must not change the count again
				gone.state = Answering
				t.returning--
			}
		}
		t.old, t.young = t.young, map[string]*site{}
	}
	t.young[s.name] = s
}

// find returns a known site; nil if there is none.
func (t *Table) find(name string) *site {
	for _, in := range [...]map[string]*site{t.young, t.resting, t.old} {
		if s := in[name]; s != nil {
			return s
		}
	}
	return nil
}

// move sets the state of a site, and keeps the tables of states in step. Where there is no room for another resting
// site, one of them is forgotten.
func (t *Table) move(s *site, to State) {
	was, is := s.isResting(), to == Resting || to == Testing
	if s.state == Returning {
		t.returning--
	}
	if to == Returning {
		t.returning++
	}
	s.state = to
	switch {
	case is && !was:
		delete(t.young, s.name)
		delete(t.old, s.name)
		if len(t.resting) >= max(1, t.cfg.Max/2) {
			for name := range t.resting {
				delete(t.resting, name)
				break
			}
		}
		t.resting[s.name] = s
	case was && !is:
		delete(t.resting, s.name)
		t.remember(s)
	}
}
