package sites

import (
	"math/rand/v2"
	"time"
)

// rest begins the rest of a site. The length follows from the rests before. The caller holds the lock, as it does for
// all functions below.
func (t *Table) rest(s *site, reason string, now time.Duration) []Event {
	from := s.state
	s.since, s.began, s.until, s.failed, s.foreign = now, now, now+s.length, 0, false
	s.nextAsk, s.firstRoute = 0, 0
	t.move(s, Resting)
	e := t.event(s, from, reason, now)
	s.clearStreak()
	s.history = history{}
	return []Event{e}
}

// testFailed lets a site rest again, for twice as long, up to maxRest.
func (t *Table) testFailed(s *site, now time.Duration) []Event {
	from := s.state
	s.length = min(2*s.length, maxRest)
	s.until, s.failed, s.foreign, s.nextAsk = now+s.length, now, false, 0
	t.move(s, Resting)
	return []Event{t.event(s, from, ReasonFailed, now)}
}

// testEndedWithoutEvidence lets another attempt test the site: at once, or after testAgain if the worker's own network is
// suspected (later).
func (t *Table) testEndedWithoutEvidence(s *site, later bool, now time.Duration) []Event {
	from := s.state
	s.until, s.nextAsk = now, 0
	if later {
		s.until = now + testAgain
	}
	t.move(s, Resting)
	return []Event{t.event(s, from, ReasonVoid, now)}
}

// endRest begins the slow start of a site that answers again, or that is said to by a finding or a reset. Attempts that
// began before are not counted in it. Only an answer to this worker marks the site as answered: a finding or a reset is
// no evidence of that.
func (t *Table) endRest(s *site, reason string, now time.Duration) []Event {
	from := s.state
	s.clearStreak()
	s.history = history{}
	s.era++
	s.running, s.limit, s.nextAsk = 0, 1, 0
	s.since, s.began, s.until, s.failed, s.foreign = 0, 0, 0, 0, false
	t.move(s, Returning)
	return []Event{t.event(s, from, reason, now)}
}

// blameUplink blames the worker's own network: failures count for no site now, and the rests that this worker began in
// the seconds before end.
func (t *Table) blameUplink(now time.Duration) (events []Event) {
	if !t.uplink.noteBroken(now) {
		return nil
	}
	for _, s := range t.resting {
		if !s.foreign && s.failed == 0 && now-s.began <= uplinkFor {
			events = append(events, t.undoRest(s, now)...)
		}
	}
	return events
}

// undoRest ends a rest as if it had never begun.
func (t *Table) undoRest(s *site, now time.Duration) []Event {
	from := s.state
	t.endRest(s, ReasonOutage, now)
	if s.hasAnswered() {
		t.move(s, Answering)
	} else {
		t.move(s, Fresh)
	}
	return []Event{t.event(s, from, ReasonOutage, now)}
}

// Apply applies a finding of another worker. The events are all Foreign. A finding is ignored if the site answered this
// worker within a minute. No finding makes a site rest for more than five minutes.
func (t *Table) Apply(f Finding) (events []Event) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch f.State {
	case Resting:
		events = t.applyRest(t.get(f.Site), f, now)
	case Testing:
		events = t.applyTest(t.find(f.Site), f, now)
	case Returning, Answering, Fresh:
		if s := t.find(f.Site); s != nil && s.isResting() {
			events = t.endRest(s, ReasonFinding, now)
		}
	}
	for i := range events {
		events[i].Foreign = true
	}
	return events
}

// ownAnswerFor is how long an answer to this worker outweighs the findings of others.
const ownAnswerFor = time.Minute

// applyRest applies a rest that another worker found. A rest is ignored if it is over, if the site answered this worker
// lately, or if this worker knows of a longer one.
func (t *Table) applyRest(s *site, f Finding, now time.Duration) []Event {
	until := min(t.reading(f.Until), now+maxRest)
	if until <= now || s.hasAnswered() && now-s.answered <= ownAnswerFor || s.isResting() && until <= s.until {
		return nil
	}
	from, failed := s.state, t.past(f.Failed, now)
	if from == Testing && !s.foreign && now < s.until && failed == 0 {
		return nil // the test of this worker decides
	}
	if !s.isResting() {
		s.since, s.failed, s.began = max(t.past(f.Since, now), 1), 0, now
		s.clearStreak()
		s.history = history{}
	}
	s.length = min(max(f.Rest, s.length, firstRest), maxRest)
	s.failed = max(s.failed, failed)
	s.until, s.foreign, s.nextAsk = until+minStagger+rand.N(maxStagger-minStagger), true, 0
	s.test++ // a test that still runs here counts as any attempt
	t.move(s, Resting)
	return []Event{t.event(s, from, ReasonFinding, now)}
}

// applyTest holds tests back while another worker tests the site.
func (t *Table) applyTest(s *site, f Finding, now time.Duration) []Event {
	until := min(t.reading(f.Until), now+maxTest)
	if s == nil || !s.isResting() || until <= now || s.state == Testing && !s.foreign && now < s.until {
		return nil
	}
	from := s.state
	s.until, s.tested, s.foreign, s.nextAsk = until+minStagger+rand.N(maxStagger-minStagger), now, true, 0
	s.test++
	t.move(s, Testing)
	return []Event{t.event(s, from, ReasonFinding, now)}
}

// reading converts a time of day to a reading of the table's clock.
func (t *Table) reading(at time.Time) time.Duration { return at.Sub(t.base) + 1 }

// past converts a time that cannot be in the future; zero stays zero.
func (t *Table) past(at time.Time, now time.Duration) time.Duration {
	if at.IsZero() {
		return 0
	}
	return min(max(t.reading(at), 1), now)
}

// Reset ends the rest of a site and forgets its failures. It reports whether the site is known. The events are
// those of this worker; other workers are asked by the caller.
func (t *Table) Reset(name string) (events []Event, known bool) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(name)
	if s == nil {
		return nil, false
	}
	s.clearStreak()
	s.history = history{}
	if s.isResting() {
		events = t.endRest(s, ReasonReset, now)
	}
	s.length, s.firstRoute = firstRest, 0
	return events, true
}
