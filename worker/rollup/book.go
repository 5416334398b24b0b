package rollup

import (
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// RetentionHours is how many hours a Book keeps, the running one included.
const RetentionHours = 168

// aheadHours is how far ahead of this clock that of another worker may be.
const aheadHours = 2

// How many events of each kind a Book keeps at most.
const (
	maxRetries  = 4096
	maxBreakers = 4096
	maxFailures = 512
)

// Book counts what happens, hour by hour. Make one with NewBook; it may be shared by any number of goroutines. A book is
// fed in one of two ways: with facts, or with sums by Put. Its memory is bounded: hours, proxies, events and
// parts all have limits.
type Book struct {
	// mu guards all fields.
	mu      sync.Mutex
	hours   [RetentionHours]Hour // the hour n is at n modulo their number
	proxies table
	answer  answer
	steps   map[time.Duration]*steps // by width
	// loaded is set by the first Put and never cleared.
	loaded bool // fed by Put: its proxies may change after their hour

	// The newest events of this worker. A book that is fed by Put has only breaker events.
	failures ring[JobFact]
	retries  ring[jobs.RetryEvent]
	breakers ring[jobs.BreakerEvent]

	parts map[partOf]*part // what is stored elsewhere, or has to be
}

// NewBook makes an empty book.
func NewBook() *Book {
	return &Book{
		steps:    map[time.Duration]*steps{ShortStep: newSteps(ShortStep), LongStep: newSteps(LongStep)},
		proxies:  table{rows: map[string]*row{}},
		failures: ring[JobFact]{limit: maxFailures},
		retries:  ring[jobs.RetryEvent]{limit: maxRetries},
		breakers: ring[jobs.BreakerEvent]{limit: maxBreakers},
		parts:    map[partOf]*part{},
	}
}

// AddAttempt counts an attempt that ended.
func (b *Book) AddAttempt(f AttemptFact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&f.At)
	b.fold(hour, func(h *Hour) { h.attempt(f) })
	if f.Proxy != "" {
		b.foldProxy(hour, f.Proxy, countAttempt(f))
	}
}

// AddJob counts a job whose result was stored.
func (b *Book) AddJob(f JobFact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&f.At)
	if f.Outcome == jobs.Failed {
		b.failures.add(f)
	}
	// Steps serve the live page, hours everything else; both count the same facts.
	b.eachStep(f.At, func(s *Step) { s.job(f) })
	b.fold(hour, func(h *Hour) { h.job(f) })
}

// AddRetry counts an announced retry. The delay itself is not summed.
func (b *Book) AddRetry(e jobs.RetryEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&e.At)
	b.retries.add(e)
	b.eachStep(e.At, func(s *Step) { s.Retries++ })
	b.fold(hour, (*Hour).retry)
}

// AddBreakerEvent counts a breaker that changed its state.
func (b *Book) AddBreakerEvent(e jobs.BreakerEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&e.Timestamp)
	b.breakers.add(e)
	b.fold(hour, func(h *Hour) { h.breaker(e) })
	// Of all changes only openings are counted by proxy.
	if e.ToState == "open" {
		b.foldProxy(hour, e.ProxyID, proxyCounts{proxyOpens: 1})
	}
}

// enter sets a time that is missing or ahead of the clock to now, and returns its hour. A clock that is ahead must not
// push out hours that are kept. The caller holds mu. It also ends the hours that are over.
func (b *Book) enter(at *time.Time) int64 {
	now := time.Now()
	b.roll(hourOf(now))
	if at.IsZero() || at.After(now) {
		*at = now
	}
	return hourOf(*at)
}

// roll ends the hours before now. Their parts keep only the busiest proxies, as the hours themselves do, because parts
// may wait for long until they are stored.
func (b *Book) roll(now int64) {
	if !b.proxies.roll(now, !b.loaded) {
		return
	}
	for at, p := range b.parts {
		if at.hour < now {
			p.sum.forgetIdle()
		}
	}
}

// fold applies a fact to its hour and to the hour's part. An hour that is no longer kept is left out of both.
func (b *Book) fold(hour int64, fact func(*Hour)) {
	h := b.hour(hour)
	if h == nil {
		return
	}
	fact(h)
	fact(&b.part(hour, Totals).sum.totals)
}

// foldProxy adds to the counts of a proxy in an hour. A proxy whose id is not valid counts among all proxies, without a
// row of its own.
func (b *Book) foldProxy(hour int64, id string, c proxyCounts) {
	if hour <= b.proxies.current-ProxyHours {
		return
	}
	// The part counts also proxies for which the table has no room: another book may have room.
	b.part(hour, Proxies).sum.addProxy(id, &c)
	b.proxies.every.add(hour, &c)
	if !jobs.ValidProxyID(id) {
		return
	}
	if r := b.proxies.row(id); r != nil {
		r.add(hour, &c)
	}
}

// hour is the slot of that hour, emptied if it still holds an older one, or one that a clock which stood ahead left
// there; nil when the hour is no longer kept.
func (b *Book) hour(hour int64) *Hour {
	now := hourOf(time.Now())
	if hour <= now-RetentionHours {
		return nil
	}
	h := &b.hours[hour%RetentionHours]
	switch held := hourOf(h.Start); {
	// The slot belongs to a later hour that is valid, so this one is too old for it.
	case held > hour && held <= now+aheadHours:
		return nil
	case held != hour:
		*h = Hour{Start: startOf(hour)}
	}
	return h
}

// Put replaces what the book holds of an hour, of the sum's kind. The sum belongs to the book from then on. An hour that is no
// longer kept, or that is too far ahead of the clock, is left out.
func (b *Book) Put(hour time.Time, s *Sum) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded = true
	n, now := hourOf(hour), hourOf(time.Now())
	b.roll(now)
	if n > now+aheadHours {
		return
	}
	if s.kind == Proxies {
		if n > now-ProxyHours {
			b.proxies.put(n, s)
			// A cached answer would miss what this call has changed.
			b.answer = answer{}
		}
		return
	}
	// Start stays: the hour is the same.
	if h := b.hour(n); h != nil {
		h.Latency, h.counts = s.totals.Latency, s.totals.counts
	}
}
