// Package breaker decides whether something that fails may be tried again.
//
// A Breaker is closed while calls go through, open while they are refused, and half-open while a few probes find out
// whether it has recovered. It opens after a number of failures within a rolling window that is exact and is booked by
// the end of a call: calls that all time out after more than the window open it as well. The step to half-open is lazy,
// so there is no timer and no goroutine. A result counts only in the generation in which its call was allowed: a late
// answer from before the last change of state changes nothing. A probe that never reports loses its place when its lease
// ends. Nothing is called out: what changed is returned.
//
// A closed breaker takes no lock and reads no clock for a call that succeeds. Time is read on the monotonic clock only, so
// a step of the wall clock changes nothing.
package breaker

import (
	"math"
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

// Event is a change of state. The zero value says that nothing changed.
type Event struct {
	// Generation numbers the changes of one breaker from 1, without gaps.
	Generation uint64
	From, To   State
	At         time.Time
	Reason     string
	// Failures is how many failures were in the window.
	Failures int
	// NextTest is when an open breaker lets a probe through; zero in the other states and when it is forced open.
	NextTest time.Time
}

// Changed reports whether there was a change.
func (e Event) Changed() bool { return e.Generation != 0 }

// Group is breakers that judge by one configuration and read one clock: what each of a hundred thousand would otherwise
// hold for itself. Make one with NewGroup; it may be shared between goroutines.
type Group struct {
	cfg  Config
	base time.Time
}

// NewGroup makes a group whose clock starts now.
func NewGroup(cfg Config) *Group { return &Group{cfg: cfg.filled(), base: time.Now()} }

// Config is what the breakers judge by, with the defaults filled in.
func (g *Group) Config() Config { return g.cfg }

// Now is the group's monotonic clock: the time since the group was made.
func (g *Group) Now() time.Duration { return time.Since(g.base) }

// Time is a reading of the group's clock as a time of day.
func (g *Group) Time(now time.Duration) time.Time { return g.base.Add(now) }

// Breaker guards one thing that may fail. Make one with New or Group.New; it may be shared between goroutines.
type Breaker struct {
	group *Group

	// word is generation and state in one, so that a call through a closed breaker needs one load.
	word atomic.Uint64
	// until is all that a look reads: 0 while closed, else when Allow may say yes again, below zero while half-open; never
	// when forced open. A change stores it once, after word when it opens and before word when it closes: a look and a call
	// that take no lock then agree on which of them came first.
	until atomic.Int64

	mu        sync.Mutex
	forced    bool
	changed   time.Duration // when this generation began
	openings  int           // openings in a row, for the doubling
	successes int           // of the probes of this generation
	lastProbe uint64
	probes    []probe
	onlyProbe [1]probe // where probes lives in the common case of one
	failures  window
}

// probe is a call under way in half-open.
type probe struct {
	id      uint64
	expires time.Duration
}

const never = time.Duration(math.MaxInt64)

// New makes a closed breaker by itself.
func New(cfg Config) *Breaker { return NewGroup(cfg).New() }

// New makes a closed breaker of the group.
func (g *Group) New() *Breaker {
	b := new(Breaker)
	g.Init(b)
	return b
}

// Init makes b, a zero Breaker that is part of something larger, a closed one of the group. So a breaker can stand beside
// what it guards, in memory that is read anyway.
func (g *Group) Init(b *Breaker) {
	b.group, b.failures.ring = g, make([]failure, 0, g.cfg.FailureThreshold)
	b.probes = b.onlyProbe[:0]
	if g.cfg.Probes > 1 {
		b.probes = make([]probe, 0, g.cfg.Probes)
	}
}

// Group is what the breaker was made by.
func (b *Breaker) Group() *Group { return b.group }

// Until is when Allow may say yes again, on the group's clock: 0 while the breaker is closed, the end of the open time while
// it is open, and the end of the first lease while every probe is under way. It changes nothing and takes no lock.
func (b *Breaker) Until() time.Duration { return time.Duration(b.until.Load()).Abs() }

// Ready reports whether Allow would let a call through. It changes nothing, takes no lock, and knows that an open time is
// over without anybody having asked: a filter may call it for every candidate.
func (b *Breaker) Ready() bool {
	until := b.Until()
	return until == 0 || until <= b.group.Now()
}

// State is the state that the last event left behind, as Snapshot has it. It takes no lock.
func (b *Breaker) State() State { return stateOf(b.word.Load()) }

// Peek is the state that a call would meet now: an open breaker whose time is over is half-open. It changes nothing.
func (b *Breaker) Peek() State {
	switch until := time.Duration(b.until.Load()); {
	case until == 0:
		return Closed
	case until < 0 || until <= b.group.Now():
		return HalfOpen
	}
	return Open
}

// Remaining is how long the breaker goes on to refuse; zero when a call may be tried.
func (b *Breaker) Remaining() time.Duration {
	until := b.Until()
	if until == 0 || until == never {
		return until
	}
	return max(0, until-b.group.Now())
}

// Snapshot is a reading of a breaker.
type Snapshot struct {
	State  State
	Forced bool
	// Generation is the number of the last change, zero when there was none.
	Generation uint64
	// Failures is how many failures are in the window.
	Failures int
	// NextTest is when an open breaker lets a probe through, zero in the other states and when it is forced open.
	NextTest time.Time
	// LastChange is when the state changed last, zero when it never did.
	LastChange time.Time
}

// Snapshot reads the breaker and changes nothing. An open breaker whose time is over is still open here: only a call makes
// it half-open.
func (b *Breaker) Snapshot() Snapshot {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.word.Load()
	s := Snapshot{State: stateOf(word), Forced: b.forced, Generation: generationOf(word)}
	s.Failures, _ = b.failures.recent(now - b.group.cfg.Window)
	if s.Generation > 0 {
		s.LastChange = b.group.Time(b.changed)
	}
	if s.State == Open && !b.forced {
		s.NextTest = b.group.Time(b.Until())
	}
	return s
}

const stateBits = 2

func stateOf(word uint64) State       { return State(word & (1<<stateBits - 1)) }
func generationOf(word uint64) uint64 { return word >> stateBits }
