package rollup

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// BreakerEvents returns the newest breaker changes after a time, oldest first; never nil.
func (b *Book) BreakerEvents(since time.Time) []jobs.BreakerEvent {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.breakers.newest(maxBreakers, func(e *jobs.BreakerEvent) bool { return e.Timestamp.After(since) })
	slices.Reverse(events)
	return events
}

// RestoreBreakerEvent adds a breaker event of the fleet to the events of BreakerEvents. It does not count the event, because the
// sums that the book gets by Put include it. stored is the time at which JetStream stored the event. The publisher of the event
// is not trusted: an invalid proxy id or an unknown state is an error, long texts are cut, and a time that is after stored, or
// more than RetentionHours before it, is replaced by stored. An event older than RetentionHours is ignored.
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
	// The proxy id and the states need no clip: the check above bounds their length.
	e.Reason, e.Worker = clip(e.Reason), clip(e.Worker)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakers.add(e)
	return nil
}

// DropBreakerEvents drops the breaker events. The sums stay as they are.
func (b *Book) DropBreakerEvents() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakers = ring[jobs.BreakerEvent]{limit: maxBreakers}
}

// clip returns the first 300 bytes of a text, as a copy: a part of a string keeps the whole string in memory.
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
