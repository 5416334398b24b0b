package sites

import (
	"hash/maphash"
	"math"
	"slices"
	"time"
)

// Refusal says why no attempt may begin at a site, and when to ask again.
type Refusal struct {
	// State is Fresh, Resting, Testing or Returning: what an attempt waits for is a share of the slots, the next test, the end of
	// the present test, or its place in the slow start.
	State State
	// Since is when the rest began; zero if the site does not rest.
	Since time.Time
	// Until is the time of the next test; zero if the site does not rest.
	Until time.Time
	// Failed is when a test failed last since Since; zero if none did.
	Failed time.Time
	// At is when to ask again. Those that are refused get different times, so that they do not all come back at once.
	At time.Time
}

// Kind is how an attempt ended, as evidence about its site.
type Kind uint8

// The kinds. NoEvidence is an attempt that says nothing about the site: the proxy or this host failed, or the attempt
// was cut short.
const (
	NoEvidence Kind = iota
	Answered        // it answered, whatever the status
	Failed          // the site did not answer, and that may be its fault
	Gateway         // it answered 502, 504 or 520 to 530
)

// Outcome is how an attempt ended.
type Outcome struct {
	Kind Kind
	// Site is where the attempt ended, if a redirect led it elsewhere. Then the site of the visit has answered.
	Site string
	// Via names the proxy or the exit; a direct attempt has a name, too.
	Via string
	// Routes is how many proxies and exits attempts may use now; zero means many.
	Routes int
	// Took is how long the attempt took.
	Took time.Duration
	// JobTimeout says that the attempt failed at a time limit which its publisher chose. Such a failure counts only if the
	// site usually answers within that limit.
	JobTimeout bool
	// Outage says that the pool of proxies fails as a whole.
	Outage bool
	// Count is what people read of the attempt. It decides nothing.
	Count Count
}

// Ask is what an attempt asks of a site.
type Ask struct {
	// MaxDuration is how long the attempt may take. A test that takes longer loses its place to another one.
	MaxDuration time.Duration
	// Released says that the job waited for the site and that the fleet released it: as the test, or in the slow start.
	Released bool
}

// Visit is one attempt at a site. Report ends it. A deferred Release ends it without evidence if nothing else did. The zero value
// is a visit that has ended. A Visit belongs to one goroutine at a time.
type Visit struct {
	t     *Table
	s     *site
	began time.Duration
	era   uint32
	test  uint32 // number of the test; zero: it is none
}

// Test reports whether the attempt finds out whether a resting site answers. It should use a proxy that works.
func (v *Visit) Test() bool { return v.test != 0 }

// Enter begins an attempt at a site, host and port with the default port left out. If refused is not nil, the attempt must not
// begin, and the visit has ended.
func (t *Table) Enter(name string, ask Ask) (v Visit, refused *Refusal, events []Event) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.get(name)
	v = Visit{t: t, s: s, began: now, era: s.era}
	switch {
	case s.state == Answering:
	case s.isNew() && int(s.running) >= t.share():
		return Visit{}, t.refuse(s, now), nil
	case s.state == Returning && !ask.Released && float32(s.running) >= s.limit:
		return Visit{}, t.refuse(s, now), nil
	case s.isResting() && !t.mayTest(s, ask, now):
		return Visit{}, t.refuse(s, now), nil
	case s.isResting():
		events = t.beginTest(s, ask.MaxDuration, now)
		v.test, v.era = s.test, s.era
	}
	s.running++
	return v, nil, events
}

// fleetTestWait is how long after its time a test is left to the worker that releases tests. It is longer than the
// longest pause between two releases. The releasing worker knows only of jobs that wait: a site without waiting jobs is
// tested by a job that does not wait.
const fleetTestWait = 15 * time.Second

// mayTest reports whether the attempt may be the test of a resting site. Where the fleet releases the tests, other
// attempts do not test for a while; otherwise each worker would test by itself.
func (t *Table) mayTest(s *site, ask Ask, now time.Duration) bool {
	switch {
	case ask.Released && s.state == Resting:
		return now >= s.until-maxStagger
	case t.leaveTests && !ask.Released:
		return now >= s.until+fleetTestWait
	}
	return now >= s.until
}

// LeaveTests sets whether a worker of the fleet releases the tests of resting sites: then only released attempts are
// tests. A test that runs is not affected.
func (t *Table) LeaveTests(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveTests = on
}

// beginTest makes the attempt that begins the test of a resting site.
func (t *Table) beginTest(s *site, maxDuration, now time.Duration) []Event {
	from := s.state
	s.test++
	s.nextAsk, s.tested, s.foreign = 0, now, false
	s.until = now + min(max(maxDuration, minTest), maxTest)
	t.move(s, Testing)
	return []Event{t.event(s, from, ReasonTest, now)}
}

const (
	// The time between two refused attempts: at a site that rests or returns, and at a new site.
	restGap, newGap = 4 * time.Millisecond, 20 * time.Millisecond
	// askSoonest is the shortest wait of a refused attempt, askAhead the longest.
	askSoonest, askAhead = 100 * time.Millisecond, 10 * time.Minute
	// answerWait is how long a test may take before nobody expects an answer any more.
	answerWait = time.Second
)

// refuse gives a refused attempt the time at which it may ask again.
func (t *Table) refuse(s *site, now time.Duration) *Refusal {
	r := &Refusal{State: s.state}
	start, gap := now+max(askSoonest, s.latency.duration()), restGap
	switch s.state {
	case Fresh:
		start, gap = now+max(askSoonest, t.meanLatency.duration()), newGap
	case Resting:
		start = s.until
	case Testing:
		if start = s.until; now-s.tested < answerWait {
			start = now + answerWait
		}
	case Answering, Returning:
	}
	if s.isResting() {
		r.Since, r.Until, r.Failed = t.at(s.since), t.at(s.until), t.at(s.failed)
	}
	ask := max(start, s.nextAsk)
	if ask > start+askAhead {
		ask = start
	}
	s.nextAsk = ask + gap
	r.At = t.at(ask)
	return r
}

// Release ends the visit without evidence, unless it has ended.
func (v *Visit) Release() []Event { return v.Report(Outcome{}) }

// Report ends the visit and returns what changed. A second call does nothing.
func (v *Visit) Report(o Outcome) (events []Event) {
	t := v.t
	if t == nil {
		return nil
	}
	v.t = nil
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.s.era == v.era {
		v.s.running--
	}
	if o.Site == "" || o.Site == v.s.name || o.Kind == NoEvidence {
		v.s.tally.add(now, &o.Count)
		return t.ended(v.s, v, &o, now)
	}
	led := Outcome{Kind: Answered, Via: o.Via, Routes: o.Routes}
	events = t.ended(v.s, v, &led, now)
	to := t.get(o.Site)
	to.tally.add(now, &o.Count)
	return append(events, t.ended(to, &Visit{began: v.began}, &o, now)...)
}

// ended takes the end of an attempt into the evidence about a site.
func (t *Table) ended(s *site, v *Visit, o *Outcome, now time.Duration) []Event {
	if o.Kind == Answered {
		return t.answered(s, o, now)
	}
	test := s.state == Testing && v.test != 0 && v.test == s.test
	void := o.Kind == NoEvidence || o.Kind == Failed && t.hadLittleTime(s, o)
	var events []Event
	if o.Kind != NoEvidence {
		s.pending = min(s.pending, math.MaxUint16-1) + 1
		if s.hasAnswered() && !void && !s.isResting() {
			t.uplink.add(s, o.Kind == Gateway, now)
		}
		if o.Outage || t.uplink.isBroken(now) {
			events = t.blameUplink(now)
			void = true
		}
	}
	switch void = void || v.began < t.uplink.to; {
	case void && test:
		return append(events, t.testEndedWithoutEvidence(s, o.Kind != NoEvidence, now)...)
	case void:
		return events
	case test:
		return append(events, t.testFailed(s, now)...)
	case s.isResting():
		return events
	}
	return append(events, t.failed(s, v, o, now)...)
}

// hadLittleTime reports whether a failure says nothing about the site, because the attempt had too little time.
func (t *Table) hadLittleTime(s *site, o *Outcome) bool {
	if !o.JobTimeout {
		return false
	}
	usual := s.latency
	if usual == 0 {
		usual = t.meanLatency
	}
	return o.Took < max(time.Second, 4*usual.duration())
}

// answered records an answer. An answer ends a rest.
func (t *Table) answered(s *site, o *Outcome, now time.Duration) (events []Event) {
	if s.hasAnswered() && !s.isResting() {
		t.uplink.add(s, true, now)
	}
	failures := uint32(s.pending)
	switch s.state {
	case Resting, Testing:
		events = t.endRest(s, ReasonAnswer, now)
		failures = 0 // the site was down: its failures say nothing about others
	case Returning:
		if s.limit++; s.limit >= float32(t.cfg.Slots) {
			t.move(s, Answering)
		}
	case Fresh:
		s.state, s.changed, s.reason = Answering, now, ReasonAnswer
	case Answering:
	}
	s.answered = now
	s.clearStreak()
	s.history.add(true, now)
	s.attempted.add(now, 1+failures, failures)
	t.pool.add(now, 1+failures, failures)
	if o.Took > 0 {
		s.latency.add(o.Took)
		t.meanLatency.add(o.Took)
	}
	if s.length > firstRest {
		t.resetRest(s, o)
	}
	return events
}

// resetRest sets the length of the next rest back to firstRest, once answers have come by two routes. One proxy alone may
// claim answers that the site never gave.
func (t *Table) resetRest(s *site, o *Outcome) {
	way := t.routeOf(o.Via)
	switch {
	case s.firstRoute == 0 && o.Routes != 1:
		s.firstRoute = way
	case s.firstRoute != way:
		s.length, s.firstRoute = firstRest, 0
	}
}

// routeOf is a hash that stands for a proxy; it is never zero.
func (t *Table) routeOf(via string) uint32 { return uint32(maphash.String(t.seed, via)) | 1 }

// clearStreak forgets the failures in a row.
func (s *site) clearStreak() { s.failures, s.pending, s.routes = 0, 0, s.routes[:0] }

// failed counts a failure, and begins a rest if there are enough of them. An attempt that began before the latest answer
// does not extend the streak: attempts at a slow site time out together.
func (t *Table) failed(s *site, v *Visit, o *Outcome, now time.Duration) (events []Event) {
	s.history.add(false, now)
	if s.hasAnswered() && v.began < s.answered {
		if s.history.isBarren() {
			return t.rest(s, ReasonShare, now)
		}
		return nil
	}
	if s.state == Returning {
		s.limit = max(1, s.limit/2)
		defer func() {
			if len(events) == 0 {
				events = []Event{t.event(s, Returning, ReasonSlower, now)}
			}
		}()
	}
	if t.uplink.covers(s.lastFail) { // it failed while the worker's own network did
		s.failures, s.routes = 0, s.routes[:0]
	}
	s.failures = min(s.failures, 1<<15) + 1
	s.lastFail = now
	if way := t.routeOf(o.Via); len(s.routes) < maxStreak && !slices.Contains(s.routes, way) {
		s.routes = append(s.routes, way)
	}
	if int(s.failures) >= minStreak {
		n := t.streakFor(s, now)
		ways := n
		if o.Routes > 0 {
			ways = min(n, o.Routes)
		}
		if int(s.failures) >= n && len(s.routes) >= ways {
			return t.rest(s, ReasonFailures, now)
		}
	}
	if s.history.isBarren() {
		return t.rest(s, ReasonShare, now)
	}
	return nil
}
