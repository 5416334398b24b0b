package sites

import "time"

// State is the state of a site.
type State uint8

// The states.
const (
	Fresh     State = iota // it has never answered
	Answering              // attempts are not bounded
	Resting                // it does not answer: no attempt may begin
	Testing                // the rest is over, and one attempt finds out whether the site answers
	Returning              // it answers again: attempts come back one by one
)

// String is the state's name in messages.
func (s State) String() string {
	return [...]string{"new", "answering", "resting", "testing", "returning"}[min(s, Returning)]
}

// ParseState reads a state's name.
func ParseState(name string) (State, bool) {
	for s := Fresh; s <= Returning; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}

// The reasons of events.
const (
	ReasonFailures = "failures"    // it failed so often in a row that chance is ruled out
	ReasonShare    = "share"       // fewer than one in ten of its last 30 attempts brought an answer
	ReasonTest     = "test"        // a test began
	ReasonFailed   = "test_failed" // a test failed: it rests for longer
	ReasonVoid     = "test_void"   // a test ended without evidence: the next one follows
	ReasonAnswer   = "answer"      // it answered
	ReasonSlower   = "slower"      // an attempt failed while the jobs come back: half as many may run
	ReasonOutage   = "outage"      // the worker's own network failed: the rest was a mistake
	ReasonReset    = "reset"       // a user ended the rest
	ReasonFinding  = "finding"     // another worker reported it
)

// Finding is what one worker reports to the others about a site.
type Finding struct {
	// Site is host and port, the default port left out.
	Site string
	// State is Resting or Testing. Any other state means that the site does not rest.
	State State
	// Since is when the rest began; further rests without an answer in between belong to it.
	Since time.Time
	// Until is when the next test may begin, or when the present one loses its place to another. It is zero in Returning.
	Until time.Time
	// Rest is the length of the present rest.
	Rest time.Duration
	// Failed is when a test failed last since Since; zero if none did.
	Failed time.Time
}

// Event is a change of a site's state.
type Event struct {
	Finding
	From State
	At   time.Time
	// Reason is one of Reasons.
	Reason string
	// Failures is how many attempts failed in a row.
	Failures int
	// Foreign is true of what Apply changed: the other workers know it.
	Foreign bool
}

// site is what is known about one site. Times are readings of the table's clock; zero means never.
type site struct {
	name  string
	state State

	answered time.Duration // when it answered this worker last
	latency  mean          // of answers

	running int32 // attempts at the site in this era
	era     uint32
	limit   float32       // of running, while Returning
	nextAsk time.Duration // when the next attempt that is refused may ask again

	failures  uint16        // in a row
	lastFail  time.Duration // when the last of them ended
	pending   uint16        // failures since the latest answer, whether they count for the site or not
	routes    []uint32      // hashes of the different proxies of that streak, at most maxStreak
	history   history       // of the latest attempts
	attempted rates         // of this site alone
	tally     tallies       // of what attempts brought

	length     time.Duration // of the present or next rest
	since      time.Duration // when the first rest without an answer in between began
	began      time.Duration // when the present rest was found; later tests that fail do not change it
	until      time.Duration // of the rest or the test
	tested     time.Duration // when the present test began
	failed     time.Duration // when a test failed since then
	test       uint32        // number of the latest test
	foreign    bool          // the rest is another worker's finding
	changed    time.Duration // when its state changed last; Answering after Returning is no change
	reason     string        // why
	firstRoute uint32        // hash of the proxy that brought the first answer after the rest
}

// isResting reports whether no attempt may begin, the test excepted.
func (s *site) isResting() bool { return s.state == Resting || s.state == Testing }

// hasAnswered reports whether the site answered this worker at some time. Only failures at such sites say something of the
// worker's own network.
func (s *site) hasAnswered() bool { return s.answered != 0 }

// isNew reports whether the site gets no more than a share of the slots, because it has never answered. A site that a finding
// or a reset lets return is still new.
func (s *site) isNew() bool { return s.state == Fresh || s.state == Returning && !s.hasAnswered() }

// event describes the site after a change.
func (t *Table) event(s *site, from State, reason string, now time.Duration) Event {
	if from != s.state {
		s.changed, s.reason = now, reason
	}
	return Event{Finding: t.finding(s), From: from, At: t.at(now), Reason: reason, Failures: int(s.failures)}
}

// finding returns what this worker reports about the site.
func (t *Table) finding(s *site) Finding {
	f := Finding{Site: s.name, State: s.state, Rest: s.length}
	if s.isResting() {
		f.Since, f.Until, f.Failed = t.at(s.since), t.at(s.until), t.at(s.failed)
	}
	return f
}
