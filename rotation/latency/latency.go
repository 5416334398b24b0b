// Package latency knows how long sites take for the first byte of a response: quantiles for each site, and for all of them
// together. Recent times count more than old ones; after ten minutes a time counts half.
//
// Quantiles above 5 ms are right within 9 %. A site takes less than 200 bytes. The package does no I/O and has no clock.
package latency

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// knownFrom is how many times make a site known; older ones count in part.
	knownFrom = 10
	// poolKnownFrom is how many responses make the pool known.
	poolKnownFrom = 50
	// DefaultMaxSites is how many sites are remembered by default.
	DefaultMaxSites = 100_000
	// chunkSize is for how many sites there is made room at once.
	chunkSize = 64
	// discount is the part that Discount takes back.
	discount = 31.0 / 32
	// candidates is how many sites are compared when one has to be forgotten.
	candidates = 8
)

// Tracker remembers times to the first byte. The zero value is ready for use, and it may be shared between goroutines.
type Tracker struct {
	// MaxSites bounds the sites that are remembered; zero means DefaultMaxSites. The busiest stay. Set it before use.
	MaxSites int

	mu      sync.Mutex // guards all fields below
	seed    maphash.Seed
	start   time.Time // of the seconds in sketches; zero before the first use
	pool    sketch
	answers uint64 // so far
	index   map[uint64]uint32
	chunks  []*[chunkSize]site
	n       int // sites that are in use
	hand    int // the site at which the next search for one to forget begins
	dice    dice
}

// site is what is known of one site.
type site struct {
	key     uint64
	sketch  sketch
	fastest uint32 // the shortest time to a first byte, in microseconds and plus one; zero: no response came
}

// AddResponse takes in that a response of the site began after a time.
func (t *Tracker) AddResponse(name string, after time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	second := t.second(now)
	t.answers++
	t.pool.add(after, second, &t.dice)
	s := t.site(name, second)
	s.sketch.add(after, second, &t.dice)
	if micros := microsOf(after); s.fastest == 0 || micros < s.fastest {
		s.fastest = micros
	}
}

// AddTimeout takes in that no response of the site began within a time. It counts for the site as if a response had begun then.
// It does not count for the pool: what silent sites do says nothing about others.
func (t *Tracker) AddTimeout(name string, atLeast time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	second := t.second(now)
	t.site(name, second).sketch.add(atLeast, second, &t.dice)
}

// DiscountTimeout makes what AddTimeout took in a moment ago, with the same time, count a thirty-second part: another proxy has
// shown that the site is not that slow.
func (t *Tracker) DiscountTimeout(name string, atLeast time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	second := t.second(now)
	if s := t.lookUp(name); s != nil {
		s.sketch.remove(atLeast, discount, second, &t.dice)
	}
}

// Quantile returns the time within which a share q of the responses of a site begin, and of the pool's as long as the site is not
// known. It reports false as long as the pool has brought less than 50 responses.
func (t *Tracker) Quantile(name string, q float64, now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answers < poolKnownFrom {
		return 0, false
	}
	if s := t.lookUp(name); s != nil && s.sketch.numberAt(t.second(now)) >= knownFrom {
		return s.sketch.quantile(q)
	}
	return t.pool.quantile(q)
}

// HasAnsweredWithin reports whether a response of the site ever began within a time.
func (t *Tracker) HasAnsweredWithin(name string, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.lookUp(name)
	return s != nil && s.fastest != 0 && s.fastest <= microsOf(d)
}

// microsOf is a duration as fastest holds it: in microseconds, plus one.
func microsOf(d time.Duration) uint32 { return uint32(min(max(d, 0), longest).Microseconds()) + 1 }

// second is a time as sketches count it.
func (t *Tracker) second(now time.Time) uint32 {
	if t.start.IsZero() {
		t.start = now
	}
	return uint32(max(0, now.Sub(t.start)) / time.Second)
}

// keyOf is the hash of a name. The seed is random, so nobody can choose names that collide.
func (t *Tracker) keyOf(name string) uint64 {
	if t.index == nil {
		t.seed, t.index = maphash.MakeSeed(), map[uint64]uint32{}
	}
	return maphash.String(t.seed, name)
}

// at is the site in a place.
func (t *Tracker) at(place int) *site { return &t.chunks[place/chunkSize][place%chunkSize] }

// lookUp finds a site; nil if it is not remembered.
func (t *Tracker) lookUp(name string) *site {
	if place, ok := t.index[t.keyOf(name)]; ok {
		return t.at(int(place))
	}
	return nil
}

// site finds or creates a site. If there are too many, one with few times is forgotten.
func (t *Tracker) site(name string, second uint32) *site {
	key := t.keyOf(name)
	if place, ok := t.index[key]; ok {
		return t.at(int(place))
	}
	place := t.n
	if maxSites := t.MaxSites; maxSites > 0 && t.n >= maxSites || t.n >= DefaultMaxSites {
		place = t.quietest(second)
		delete(t.index, t.at(place).key)
	} else {
		if place == len(t.chunks)*chunkSize {
			t.chunks = append(t.chunks, new([chunkSize]site))
		}
		t.n++
	}
	s := t.at(place)
	*s = site{key: key}
	t.index[key] = uint32(place)
	return s
}

// quietest is the place of the site with the fewest recent times among the next few.
func (t *Tracker) quietest(second uint32) (place int) {
	fewest := -1.0
	for range candidates {
		t.hand = (t.hand + 1) % t.n
		if number := t.at(t.hand).sketch.numberAt(second); fewest < 0 || number < fewest {
			place, fewest = t.hand, number
		}
	}
	return place
}
