package rollup

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// RetentionHours is how many hours a Book keeps, the running one included.
const RetentionHours = 168

// aheadHours is how far ahead of this clock that of another worker may be.
const aheadHours = 2

// How many raw events a Book keeps at most, of each kind. They last an hour at 10,000 requests an hour, and less when
// more happens: memory stays flat.
const (
	maxRaw      = 10_000
	maxRetries  = 4096
	maxBreakers = 4096 // kept for RetentionHours, not for an hour
	maxFailures = 512  // so that a flood of successes does not wash the failures away
)

// Book counts what happens, hour by hour. Make one with NewBook; it may be shared by any number of goroutines. A book is
// fed in one of two ways: with facts, or with sums by Set.
type Book struct {
	id string

	mu      sync.Mutex
	hours   [RetentionHours]Hour // the hour n is at n modulo their number
	proxies table
	answer  answer
	seconds [Seconds]Second
	loaded  bool // fed by Set: its proxies may change after their hour

	attempts ring[AttemptFact]
	ended    ring[JobFact]
	failures ring[JobFact]
	retries  ring[jobs.RetryEvent]
	breakers ring[jobs.BreakerEvent]

	pending map[int64]*part
	taken   []Delta // drained and not done, the oldest first
	seq     uint64
}

// NewBook makes an empty book.
func NewBook() *Book {
	return &Book{
		id:       rand.Text(),
		proxies:  table{rows: map[string]*row{}},
		attempts: ring[AttemptFact]{most: maxRaw},
		ended:    ring[JobFact]{most: maxRaw},
		failures: ring[JobFact]{most: maxFailures},
		retries:  ring[jobs.RetryEvent]{most: maxRetries},
		breakers: ring[jobs.BreakerEvent]{most: maxBreakers},
		pending:  map[int64]*part{},
	}
}

// Attempt counts an attempt that ended.
func (b *Book) Attempt(f AttemptFact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&f.At)
	b.attempts.add(f)
	b.second(f.At).attempt(f)
	b.fold(hour, func(h *Hour) { h.attempt(f) })
	if f.Proxy != "" {
		b.foldProxy(hour, f.Proxy, countAttempt(f))
	}
}

// Job counts a job whose result was stored.
func (b *Book) Job(f JobFact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&f.At)
	if f.Outcome == jobs.Failed {
		b.failures.add(f)
	}
	f.Detail = "" // thousands of ended jobs are kept
	b.ended.add(f)
	b.second(f.At).job(f)
	b.fold(hour, func(h *Hour) { h.job(f) })
}

// Retry counts an announced retry.
func (b *Book) Retry(e jobs.RetryEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&e.At)
	b.retries.add(e)
	b.second(e.At).Retries++
	b.fold(hour, (*Hour).retry)
}

// Breaker counts a breaker that changed its state.
func (b *Book) Breaker(e jobs.BreakerEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.enter(&e.Timestamp)
	b.breakers.add(e)
	b.fold(hour, func(h *Hour) { h.breaker(e) })
	if e.ToState == "open" {
		b.foldProxy(hour, e.ProxyID, proxyCounts{proxyOpens: 1})
	}
}

// enter puts a time that is missing or ahead of the clock to now, and returns its hour. A clock that is ahead must
// not push kept hours out.
func (b *Book) enter(at *time.Time) int64 {
	now := time.Now()
	b.roll(hourOf(now))
	if at.IsZero() || at.After(now) {
		*at = now
	}
	return hourOf(*at)
}

// roll ends hours. What is not flushed of them is folded like the hours themselves: it may have to wait for long.
func (b *Book) roll(now int64) {
	if !b.proxies.roll(now, !b.loaded) {
		return
	}
	for hour, p := range b.pending {
		if hour < now {
			p.fold(b.proxies.names(hour))
		}
	}
}

// fold applies a fact to its hour and to what the next flush takes along. An hour that is no longer kept is left out
// of both.
func (b *Book) fold(hour int64, fact func(*Hour)) {
	h := b.hour(hour)
	if h == nil {
		return
	}
	fact(h)
	fact(&b.part(hour).hour)
}

// foldProxy leaves a proxy without a name if its id cannot be part of a subject.
func (b *Book) foldProxy(hour int64, id string, c proxyCounts) {
	if hour <= b.proxies.current-proxyHours {
		return
	}
	p := b.part(hour)
	p.every.merge(&c)
	b.proxies.every.add(hour, &c)
	if !jobs.ValidProxyID(id) {
		return
	}
	p.add(id, &c)
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
	case held > hour && held <= now+aheadHours:
		return nil
	case held != hour:
		*h = Hour{Start: startOf(hour)}
	}
	return h
}
