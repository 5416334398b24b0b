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

// Book keeps hourly sums. Make one with NewBook; any number of goroutines may use it. A book gets either facts, by the methods
// Add…, or sums, by Put. Its memory is bounded: hours, proxies, events and parts all have limits.
type Book struct {
	// mu guards all fields.
	mu      sync.Mutex
	hours   [RetentionHours]Hour // hour n is at index n modulo RetentionHours
	proxies table
	answer  answer
	steps   map[time.Duration]*steps // by width
	// loaded is true from the first Put on. Then the proxies of an hour may still change after its end.
	loaded bool

	// The newest events. A book that gets sums has only breaker events, by RestoreBreakerEvent.
	failures ring[JobFact]
	retries  ring[jobs.RetryEvent]
	breakers ring[jobs.BreakerEvent]

	parts map[partOf]*part // the parts that Changed returns, until they are stored and their hour is over
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
	hour := b.beginFact(&f.At)
	b.count(hour, func(h *Hour) { h.attempt(f) })
	if f.Proxy != "" {
		b.countProxy(hour, f.Proxy, countAttempt(f))
	}
}

// AddJob counts a job whose result was stored.
func (b *Book) AddJob(f JobFact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.beginFact(&f.At)
	if f.Outcome == jobs.Failed {
		b.failures.add(f)
	}
	// The live page reads steps, all other queries read hours. Both count the same facts.
	b.eachStep(f.At, func(s *Step) { s.job(f) })
	b.count(hour, func(h *Hour) { h.job(f) })
}

// AddRetry counts an announced retry. The delay itself is not summed.
func (b *Book) AddRetry(e jobs.RetryEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.beginFact(&e.At)
	b.retries.add(e)
	b.eachStep(e.At, func(s *Step) { s.Retries++ })
	b.count(hour, (*Hour).retry)
}

// AddBreakerEvent counts a breaker that changed its state.
func (b *Book) AddBreakerEvent(e jobs.BreakerEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hour := b.beginFact(&e.Timestamp)
	b.breakers.add(e)
	b.count(hour, func(h *Hour) { h.breaker(e) })
	// By proxy, only openings are counted.
	if e.ToState == "open" {
		b.countProxy(hour, e.ProxyID, proxyCounts{proxyOpens: 1})
	}
}

// beginFact sets a time that is missing or ahead of the clock to now, and returns its hour. Otherwise a wrong clock could push
// out hours that are kept. It also ends the hours that are over. The caller holds mu.
func (b *Book) beginFact(at *time.Time) int64 {
	now := time.Now()
	b.roll(hourOf(now))
	if at.IsZero() || at.After(now) {
		*at = now
	}
	return hourOf(*at)
}

// roll ends the hours before now. Their parts keep only the busiest proxies, as the hours themselves do, because it may take long
// until parts are stored. The caller holds mu.
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

// count applies a fact to its hour and to the hour's part. A fact of an hour that is no longer kept counts in neither of them.
func (b *Book) count(hour int64, fact func(*Hour)) {
	h := b.hour(hour)
	if h == nil {
		return
	}
	fact(h)
	fact(&b.part(hour, Totals).sum.totals)
}

// countProxy adds to the counts of a proxy in an hour. A proxy whose id is not valid has no row, and counts only in the sum of
// all proxies.
func (b *Book) countProxy(hour int64, id string, c proxyCounts) {
	if hour <= b.proxies.current-ProxyHours {
		return
	}
	// The part also counts proxies for which the table has no room, because the book of the fleet may have room.
	b.part(hour, Proxies).sum.addProxy(id, &c)
	b.proxies.every.add(hour, &c)
	if !jobs.ValidProxyID(id) {
		return
	}
	if r := b.proxies.row(id); r != nil {
		r.add(hour, &c)
	}
}

// hour returns the slot of an hour; nil if the hour is no longer kept. It empties the slot if the slot holds an older hour, or an
// hour of the future, which a wrong clock has left.
func (b *Book) hour(hour int64) *Hour {
	now := hourOf(time.Now())
	if hour <= now-RetentionHours {
		return nil
	}
	h := &b.hours[hour%RetentionHours]
	switch held := hourOf(h.Start); {
	// The slot holds a later hour that is valid, so the asked hour is no longer kept.
	case held > hour && held <= now+aheadHours:
		return nil
	case held != hour:
		*h = Hour{Start: startOf(hour)}
	}
	return h
}

// Put replaces the sums that the book has of an hour and of the sum's kind. The book owns s afterwards. Put ignores an hour that
// is no longer kept, and an hour that is more than aheadHours ahead of the clock.
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
			// The cached answer does not have these sums.
			b.answer = answer{}
		}
		return
	}
	if h := b.hour(n); h != nil {
		h.Latency, h.counts = s.totals.Latency, s.totals.counts
	}
}
