// Package breaker is a circuit breaker: it decides whether a call to something that fails may be made.
//
// A closed Breaker allows every call, an open one refuses every call, and a half-open one allows a few probes that find out
// whether the guarded thing has recovered. These rules hold:
//
//   - A breaker opens when a number of failures lies in a rolling window. A failure counts when its call ends, so calls that
//     take longer than the window open the breaker, too.
//   - An open breaker becomes half-open at the first call after its open time. There is no timer and no goroutine.
//   - A result counts only in the generation of its permit: a change of state starts a generation, and late results of an
//     earlier one change nothing.
//   - A probe that never reports loses its place when its lease ends.
//   - Changes of state are returned as events. There are no callbacks.
//
// A call through a closed breaker that succeeds takes no lock and reads no clock. All times are monotonic, so a step of the wall
// clock changes nothing.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is the state of a breaker.
type State uint8

// The states.
const (
	Closed   State = iota // all calls are allowed
	Open                  // all calls are refused
	HalfOpen              // only probes are allowed
)

// String is "closed", "open" or "half_open".
func (s State) String() string { return [...]string{"closed", "open", "half_open"}[s] }

// Event is a change of state. The zero value means that nothing changed.
type Event struct {
	// Generation numbers the changes of one breaker from 1, without gaps.
	Generation uint64
	From, To   State
	At         time.Time
	Reason     string
	// Failures is the number of failures in the window.
	Failures int
	// NextTest is when an open breaker allows a probe; zero in the other states.
	NextTest time.Time
}

// Changed reports whether there was a change.
func (e Event) Changed() bool { return e.Generation != 0 }

// Group holds what many breakers have in common: the configuration and the clock. So each of a hundred thousand breakers
// stays small. Make one with NewGroup. It may be shared between goroutines.
type Group struct {
	cfg  Config
	base time.Time
}

// NewGroup makes a group whose clock starts at zero now.
func NewGroup(cfg Config) *Group { return &Group{cfg: cfg.withDefaults(), base: time.Now()} }

// Config returns the configuration of the breakers, with its defaults.
func (g *Group) Config() Config { return g.cfg }

// Now reads the group's monotonic clock: the time since NewGroup.
func (g *Group) Now() time.Duration { return time.Since(g.base) }

// Time converts a reading of the group's clock to a time of day.
func (g *Group) Time(now time.Duration) time.Time { return g.base.Add(now) }

// Breaker guards one thing that may fail. Make one with New, Group.New or Group.Init. It may be shared between goroutines.
type Breaker struct {
	group *Group

	// word is generation and state in one, so that a call through a closed breaker needs one load. It is written under mu.
	word atomic.Uint64
	// until is the lock-free deadline. Zero means closed, positive means open until then, negative means half-open, and the
	// next probe may start at its absolute value. It is written under mu: after word when the breaker opens, before word when
	// it closes. So two readers without a lock agree on which of their readings came first.
	until atomic.Int64

	// mu guards the fields below, and every write of the fields above.
	mu        sync.Mutex
	changed   time.Duration // when this generation began
	openings  int           // openings in a row, for the doubling of the open time
	successes int           // of the probes of this generation
	lastProbe uint64
	probes    []probe  // in the order of their start
	onlyProbe [1]probe // the memory of probes in the common case of one
	failures  window
}

// probe is a running call through a half-open breaker.
type probe struct {
	id      uint64
	expires time.Duration
}

// New makes a closed breaker with a group of its own.
func New(cfg Config) *Breaker { return NewGroup(cfg).New() }

// New makes a closed breaker of the group.
func (g *Group) New() *Breaker {
	b := new(Breaker)
	g.Init(b)
	return b
}

// Init makes b, which must be a zero Breaker, a closed breaker of the group. It is for a breaker that is a field of the thing
// that it guards.
func (g *Group) Init(b *Breaker) {
	b.group, b.failures.ring = g, make([]failure, 0, g.cfg.FailureThreshold)
	b.probes = b.onlyProbe[:0]
	if g.cfg.Probes > 1 {
		b.probes = make([]probe, 0, g.cfg.Probes)
	}
}

// Group returns the group of the breaker.
func (b *Breaker) Group() *Group { return b.group }

// Until returns when Allow may allow a call again, on the group's clock: zero while the breaker is closed, the end of the open
// time while it is open, and the end of the first lease while every place for a probe is taken. It takes no lock.
func (b *Breaker) Until() time.Duration { return time.Duration(b.until.Load()).Abs() }

// Ready reports whether Allow would allow a call now. It changes nothing and takes no lock, so a filter may ask it for every
// candidate.
func (b *Breaker) Ready() bool {
	until := b.Until()
	return until == 0 || until <= b.group.Now()
}

// State returns the state after the last event. An open breaker whose open time is over is still Open: only a call makes it
// half-open. It takes no lock.
func (b *Breaker) State() State { return stateOf(b.word.Load()) }

// Remaining returns how long the breaker still refuses calls; zero if it may allow one now.
func (b *Breaker) Remaining() time.Duration {
	until := b.Until()
	if until == 0 {
		return 0
	}
	return max(0, until-b.group.Now())
}

// Snapshot is a reading of a breaker.
type Snapshot struct {
	State State
	// Generation is the number of the last change; zero if there was none.
	Generation uint64
	// Failures is the number of failures in the window.
	Failures int
	// NextTest is when an open breaker allows a probe; zero in the other states.
	NextTest time.Time
	// LastChange is when the state changed last; zero if it never did.
	LastChange time.Time
}

// Snapshot reads the breaker and changes nothing. The state is that of State.
func (b *Breaker) Snapshot() Snapshot {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	word := b.word.Load()
	s := Snapshot{State: stateOf(word), Generation: generationOf(word)}
	s.Failures, _ = b.failures.recent(now - b.group.cfg.Window)
	if s.Generation > 0 {
		s.LastChange = b.group.Time(b.changed)
	}
	if s.State == Open {
		s.NextTest = b.group.Time(b.Until())
	}
	return s
}

const stateBits = 2

func stateOf(word uint64) State       { return State(word & (1<<stateBits - 1)) }
func generationOf(word uint64) uint64 { return word >> stateBits }
