package rollup

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// Events are raw events, oldest first.
type Events struct {
	Attempts []AttemptFact
	Jobs     []JobFact
	Retries  []jobs.RetryEvent
	Breakers []jobs.BreakerEvent
}

// Since returns the raw events after a time: those of the last hour, fewer when a ring was too small for it.
func (b *Book) Since(at time.Time) Events {
	if oldest := time.Now().Add(-time.Hour); at.Before(oldest) {
		at = oldest
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := Events{
		Attempts: b.attempts.newest(maxRaw, func(f *AttemptFact) bool { return f.At.After(at) }),
		Jobs:     b.ended.newest(maxRaw, func(f *JobFact) bool { return f.At.After(at) }),
		Retries:  b.retries.newest(maxRetries, func(e *jobs.RetryEvent) bool { return e.At.After(at) }),
		Breakers: b.breakers.newest(maxBreakers, func(e *jobs.BreakerEvent) bool { return e.Timestamp.After(at) }),
	}
	slices.Reverse(e.Attempts)
	slices.Reverse(e.Jobs)
	slices.Reverse(e.Retries)
	slices.Reverse(e.Breakers)
	return e
}

// BreakerEvents returns the newest breaker changes after a time, oldest first; never nil.
func (b *Book) BreakerEvents(since time.Time) []jobs.BreakerEvent {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.breakers.newest(maxBreakers, func(e *jobs.BreakerEvent) bool { return e.Timestamp.After(since) })
	slices.Reverse(events)
	return events
}

// RestoreBreakerEvent keeps a breaker event of the fleet that was stored at a time for BreakerEvents, without counting it: the sums of
// a book that is fed by Put know it already. Whoever may publish events may publish anything: one of no proxy or of an
// unknown state is an error; long texts are cut; and a time that cannot be, after the storing or RetentionHours before it,
// is that of the storing. An event older than RetentionHours is left out.
func (b *Book) RestoreBreakerEvent(e jobs.BreakerEvent, stored time.Time) error {
	if !jobs.ValidProxyID(e.ProxyID) || breakerState(e.FromState) == Other || breakerState(e.ToState) == Other {
		return fmt.Errorf("breaker event of proxy %.80q from %.20q to %.20q: no such proxy or state", e.ProxyID, e.FromState, e.ToState)
	}
	const retention = RetentionHours * time.Hour
	if e.Timestamp.After(stored) || e.Timestamp.Before(stored.Add(-retention)) {
		e.Timestamp = stored
	}
	if time.Since(e.Timestamp) > retention {
		return nil
	}
	e.Reason, e.Worker = clip(e.Reason), clip(e.Worker)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakers.add(e)
	return nil
}

// DropBreakerEvents drops the breaker events, not what was counted of them.
func (b *Book) DropBreakerEvents() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakers = ring[jobs.BreakerEvent]{limit: maxBreakers}
}

// clip copies what is left, which would otherwise hold on to the whole text.
func clip(text string) string {
	if len(text) <= 300 {
		return text
	}
	return strings.Clone(strings.ToValidUTF8(text[:300], ""))
}

// LastFailures returns up to limit failed jobs, newest first; never nil.
func (b *Book) LastFailures(limit int) []JobFact {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures.newest(limit, func(*JobFact) bool { return true })
}

// LastRetries returns up to limit announced retries, newest first; never nil.
func (b *Book) LastRetries(limit int) []jobs.RetryEvent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.retries.newest(limit, func(*jobs.RetryEvent) bool { return true })
}

// Seconds is how many seconds Recent looks back.
const Seconds = 300

// Second is what happened within one second.
type Second struct {
	At        time.Time `json:"at"`
	Jobs      int64     `json:"jobs"`
	Succeeded int64     `json:"succeeded"`
	Attempts  int64     `json:"attempts"`
	Failed    int64     `json:"failed_attempts"`
	Retries   int64     `json:"retries"`
	Bytes     int64     `json:"bytes"`
}

func (s *Second) attempt(f AttemptFact) {
	s.Attempts++
	s.Bytes += f.Bytes
	if f.failed() {
		s.Failed++
	}
}

func (s *Second) job(f JobFact) {
	s.Jobs++
	if f.Outcome == jobs.Succeeded {
		s.Succeeded++
	}
}

// second is the slot of a second. One that is too old is counted in a slot that nobody reads. A slot that is ahead of
// the clock was left by one that stood ahead.
func (b *Book) second(at time.Time) *Second {
	if at.Unix() < 0 {
		return &Second{}
	}
	s := &b.seconds[at.Unix()%Seconds]
	switch held := s.At.Unix(); {
	case held > at.Unix() && held <= time.Now().Unix():
		return &Second{}
	case held != at.Unix():
		*s = Second{At: time.Unix(at.Unix(), 0).UTC()}
	}
	return s
}

// Recent returns the newest whole seconds, at most Seconds−1, oldest first; those in which nothing happened included.
func (b *Book) Recent(seconds int) []Second {
	now := time.Now().Unix()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Second, 0, seconds)
	for at := now - int64(min(seconds, Seconds-1)); at < now; at++ {
		s := b.seconds[at%Seconds]
		if s.At.Unix() != at {
			s = Second{At: time.Unix(at, 0).UTC()}
		}
		out = append(out, s)
	}
	return out
}
