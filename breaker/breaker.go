// Package breaker decides whether something that fails may be tried again.
//
// A Breaker is closed while calls go through, open while they are refused, and half-open while a few probes find out
// whether it has recovered. It opens after a number of failures within a rolling window that is exact and is booked by
// the end of a call: calls that all time out after more than the window open it as well. The step to half-open is lazy,
// so there is no timer and no goroutine. A result counts only in the generation in which its call was allowed: a late
// answer from before the last change of state changes nothing. A probe that never reports loses its place when its lease
// ends. Nothing is called out: what changed is returned.
package breaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// State is what a breaker does with calls.
type State uint8

// The states.
const (
	Closed   State = iota // calls go through
	Open                  // calls are refused
	HalfOpen              // probes go through
)

// String is "closed", "open" or "half_open".
func (s State) String() string { return [...]string{"closed", "open", "half_open"}[s] }

// Config is how a breaker judges. The zero value is usable.
type Config struct {
	// FailureThreshold is how many failures within Window open the breaker; zero means 5.
	FailureThreshold int
	// Window is how long a failure counts; zero means 60 s.
	Window time.Duration
	// OpenTimeout is how long the first opening lasts; zero means 30 s. It doubles with each opening in a row.
	OpenTimeout time.Duration
	// MaxOpenTimeout caps the doubling; zero means 10 min.
	MaxOpenTimeout time.Duration
	// Jitter is the part of the open time that is added at random, so that breakers that opened together are not probed
	// together; zero means 0.2, below zero none.
	Jitter float64
	// Probes is how many calls may be under way while half-open, Successes how many of them close the breaker; zero
	// means 1.
	Probes, Successes int
	// ProbeLease is how long a probe may take before its place is given to another; zero means 35 s.
	ProbeLease time.Duration
	// DistinctTargets is from how many different targets the failures in the window must come; zero means 2. A failure
	// without a target counts as one of its own. It keeps one dead target from opening everything that leads to it.
	DistinctTargets int
}

func (c Config) filled() Config {
	def(&c.FailureThreshold, 5)
	def(&c.Window, time.Minute)
	def(&c.OpenTimeout, 30*time.Second)
	def(&c.MaxOpenTimeout, 10*time.Minute)
	def(&c.Jitter, 0.2)
	def(&c.Probes, 1)
	def(&c.Successes, 1)
	def(&c.ProbeLease, 35*time.Second)
	def(&c.DistinctTargets, 2)
	c.MaxOpenTimeout = max(c.MaxOpenTimeout, c.OpenTimeout)
	c.DistinctTargets = min(c.DistinctTargets, c.FailureThreshold)
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Event is a change of state. The zero value says that nothing changed.
type Event struct {
	// Generation numbers the changes of one breaker from 1, without gaps.
	Generation uint64
	From, To   State
	At         time.Time
	Reason     string
	// Failures is how many failures were in the window.
	Failures int
	// NextTest is when an open breaker lets a probe through; zero in the other states.
	NextTest time.Time
}

// Changed reports whether there was a change.
func (e Event) Changed() bool { return e.Generation != 0 }

// Breaker guards one thing that may fail. Make one with New; it may be shared between goroutines.
type Breaker struct {
	cfg  *Config
	base time.Time // every time in here is a duration since base, on the monotonic clock

	// until is what a peek reads: 0 while closed, else when the open time is over; forced states are the extremes.
	until atomic.Int64

	mu        sync.Mutex
	state     State
	forced    bool
	gen       uint64
	changed   time.Duration
	failures  []failure // a ring of the last failures of this generation
	next      int       // where the next failure goes
	openings  int       // openings in a row, for the doubling
	probes    []probe
	successes int
}

// failure is one that was counted.
type failure struct {
	at     time.Duration
	target uint64
}

// probe is a call under way in half-open.
type probe struct {
	id      uint64
	expires time.Duration
}

const forever = time.Duration(1<<63 - 1)

// New makes a closed breaker.
func New(cfg Config) *Breaker {
	c := cfg.filled()
	return &Breaker{cfg: &c, base: time.Now()}
}

// Config is what the breaker judges by, with the defaults filled in.
func (b *Breaker) Config() Config { return *b.cfg }

func (b *Breaker) now() time.Duration { return time.Since(b.base) }

// Ready reports whether Allow would probably let a call through. It changes nothing, takes no lock, and knows that an
// open time is over without anybody having asked: a filter may call it for every candidate.
func (b *Breaker) Ready() bool {
	until := b.until.Load()
	return until == 0 || time.Duration(until) <= b.now()
}

// Resting reports whether the breaker is anything but closed, without a lock.
func (b *Breaker) Resting() bool { return b.until.Load() != 0 }

// Remaining is how long the breaker goes on to refuse; zero when a call may be tried.
func (b *Breaker) Remaining() time.Duration {
	until := time.Duration(b.until.Load())
	if until == 0 {
		return 0
	}
	return max(0, until-b.now())
}

// Permit is the leave to make one call. Settle it once with Success, Failure or Ignore; a deferred Release settles it as
// ignored when nothing else did, also in a panic. The zero value is settled. It must not be copied after its first use.
type Permit struct {
	b   *Breaker
	gen uint64
	// probe is the probe's number, 0 for a call through a closed breaker.
	probe uint64
}

// Probe reports whether the call decides about a half-open breaker.
func (p *Permit) Probe() bool { return p.probe != 0 }

// Allow asks to make one call. The event is the step from open to half-open if this call took it.
func (b *Breaker) Allow() (p Permit, e Event, ok bool) {
	if b.until.Load() == 0 {
		b.mu.Lock()
		if b.state == Closed {
			p, ok = Permit{b: b, gen: b.gen}, true
		}
		b.mu.Unlock()
		if ok {
			return p, e, true
		}
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.allow(now)
}

func (b *Breaker) allow(now time.Duration) (p Permit, e Event, ok bool) {
	switch {
	case b.state == Closed:
		return Permit{b: b, gen: b.gen}, e, true
	case b.forced || time.Duration(b.until.Load()) > now && b.state == Open:
		return p, e, false
	case b.state == Open:
		e = b.become(HalfOpen, now, "open time over")
		b.until.Store(int64(now))
	}
	b.expireProbes(now)
	if len(b.probes) >= b.cfg.Probes {
		return p, e, false
	}
	id := rand.Uint64() | 1
	b.probes = append(b.probes, probe{id: id, expires: now + b.cfg.ProbeLease})
	b.publishHalfOpen(now)
	return Permit{b: b, gen: b.gen, probe: id}, e, true
}

// expireProbes drops the probes whose lease is over; their results will be void.
func (b *Breaker) expireProbes(now time.Duration) {
	kept := b.probes[:0]
	for _, p := range b.probes {
		if p.expires > now {
			kept = append(kept, p)
		}
	}
	b.probes = kept
}

// publishHalfOpen lets a peek see when the next probe could go: now, or when the first lease ends.
func (b *Breaker) publishHalfOpen(now time.Duration) {
	until := max(now, 1)
	if len(b.probes) >= b.cfg.Probes {
		until = b.probes[0].expires
		for _, p := range b.probes {
			until = min(until, p.expires)
		}
	}
	b.until.Store(int64(until))
}

// Success settles the permit: the call went well.
func (p *Permit) Success() Event {
	b, gen, id := p.take()
	// Nothing is counted while closed, so there is nothing to lock for.
	if b == nil || id == 0 {
		return Event{}
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.current(gen, id) {
		return Event{}
	}
	b.successes++
	b.publishHalfOpen(now)
	if b.successes < b.cfg.Successes {
		return Event{}
	}
	e := b.become(Closed, now, "probe succeeded")
	b.until.Store(0)
	return e
}

// Failure settles the permit: the call failed. A target other than zero names what the call was for.
func (p *Permit) Failure(target uint64, reason string) Event {
	b, gen, id := p.take()
	if b == nil {
		return Event{}
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.current(gen, id) {
		return Event{}
	}
	b.count(now, target)
	if b.state == Closed && !b.tripped(now) {
		return Event{}
	}
	return b.open(now, 0, reason)
}

// Ignore settles the permit: the call says nothing. A probe's place is free again.
func (p *Permit) Ignore() {
	b, gen, id := p.take()
	if b == nil || id == 0 {
		return
	}
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current(gen, id) {
		b.publishHalfOpen(now)
	}
}

// Release is Ignore for a permit that nothing has settled; it is for defer.
func (p *Permit) Release() { p.Ignore() }

func (p *Permit) take() (b *Breaker, gen, probe uint64) {
	b, gen, probe = p.b, p.gen, p.probe
	*p = Permit{}
	return b, gen, probe
}

// current reports whether a result may count: its generation goes on and, for a probe, its lease too. The probe's place
// is free afterwards.
func (b *Breaker) current(gen, id uint64) bool {
	if gen != b.gen || b.forced {
		return false
	}
	if id == 0 {
		return true
	}
	for i, p := range b.probes {
		if p.id == id {
			b.probes = append(b.probes[:i], b.probes[i+1:]...)
			return true
		}
	}
	return false
}

func (b *Breaker) count(now time.Duration, target uint64) {
	f := failure{at: now, target: target}
	if len(b.failures) < b.cfg.FailureThreshold {
		b.failures = append(b.failures, f)
		return
	}
	b.failures[b.next] = f
	b.next = (b.next + 1) % len(b.failures)
}

// tripped reports whether the ring is full of failures of the window, from enough targets.
func (b *Breaker) tripped(now time.Duration) bool {
	recent, distinct := b.recent(now)
	return recent >= b.cfg.FailureThreshold && distinct >= b.cfg.DistinctTargets
}

// recent counts the failures within the window, and their targets.
func (b *Breaker) recent(now time.Duration) (n, distinct int) {
	for i, f := range b.failures {
		if f.at <= now-b.cfg.Window {
			continue
		}
		n++
		if f.target == 0 || !b.seen(f.target, i, now) {
			distinct++
		}
	}
	return n, distinct
}

// seen reports whether an earlier failure of the window was at the same target.
func (b *Breaker) seen(target uint64, before int, now time.Duration) bool {
	for _, f := range b.failures[:before] {
		if f.target == target && f.at > now-b.cfg.Window {
			return true
		}
	}
	return false
}

// open rests for rest, or for as long as the openings in a row ask for.
func (b *Breaker) open(now, rest time.Duration, reason string) Event {
	if b.state == Closed {
		b.decay(now)
	}
	if rest == 0 {
		rest = b.openTime()
	}
	b.openings++
	failures, _ := b.recent(now)
	e := b.become(Open, now, reason)
	b.until.Store(int64(now + rest))
	e.Failures, e.NextTest = failures, b.base.Add(now+rest)
	return e
}

// openTime doubles with each opening in a row up to the cap; jitter only makes it longer.
func (b *Breaker) openTime() time.Duration {
	d := b.cfg.MaxOpenTimeout
	if b.openings < 32 {
		if doubled := b.cfg.OpenTimeout << b.openings; doubled > 0 && doubled>>b.openings == b.cfg.OpenTimeout {
			d = min(d, doubled)
		}
	}
	if b.cfg.Jitter <= 0 {
		return d
	}
	return d + time.Duration(rand.Float64()*b.cfg.Jitter*float64(d))
}

// decay forgets one opening for each window that was spent closed.
func (b *Breaker) decay(now time.Duration) {
	b.openings = max(0, b.openings-int((now-b.changed)/b.cfg.Window))
}

// become starts the next generation.
func (b *Breaker) become(to State, now time.Duration, reason string) Event {
	b.gen++
	e := Event{Generation: b.gen, From: b.state, To: to, At: b.base.Add(now), Reason: reason}
	b.state, b.changed, b.successes, b.next = to, now, 0, 0
	b.probes = b.probes[:0]
	if to != HalfOpen {
		b.failures = b.failures[:0]
	}
	return e
}
