package rotation

import (
	"math"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// entry is one proxy and what is known of it. The pool's lock guards it. What every pick and verdict reads stands together at
// its beginning, the breaker's own first words included: among 100,000 proxies a pick waits for memory more than for
// anything else.
type entry struct {
	proxy     *Proxy
	places    []place       // by slot; in home while there are few
	free      time.Duration // when its rate lets the next attempt start
	interval  time.Duration // between two attempts; zero without a rate
	used      uint64        // when it was picked last, in picks
	delivered time.Duration // when it last reached a target; zero: never

	// What two proxies are compared by.
	record   record
	inflight int32
	most     int32 // in flight at once
	gone     bool  // no longer of the pool
	troubled bool  // counted among the pool's troubled
	breaker  breaker.Breaker

	home      [2]place
	avoid     time.Duration // until when it is spare, by another worker's judgement
	wake      time.Duration // when it is looked at again; zero when it is not in line for that
	weight    int32
	credit    int32  // of the weighted strategy
	avoidedBy string // the worker
}

func newEntry(proxy *Proxy, group *breaker.Group) *entry {
	e := new(entry)
	group.Init(&e.breaker)
	e.places = e.home[:0]
	e.describe(proxy)
	return e
}

// describe takes the word of the list about the proxy.
func (e *entry) describe(proxy *Proxy) {
	e.proxy = proxy
	e.most, e.interval, e.weight, e.credit = math.MaxInt32, 0, int32(max(1, min(proxy.Weight, 1000))), 0
	if proxy.MaxInflight > 0 {
		e.most = int32(min(proxy.MaxInflight, math.MaxInt32))
	}
	if proxy.Rate > 0 {
		e.interval = time.Duration(float64(time.Second) / proxy.Rate)
	}
}

// never is the time of what does not come by itself.
const never = time.Duration(1<<63 - 1)

// class is what can be done with the proxy now, and when that may change by itself.
func (e *entry) class(now time.Duration) (c class, at time.Duration) {
	if e.gone || e.inflight >= e.most {
		return out, never
	}
	until := e.breaker.Until()
	switch at = max(until, e.free); {
	case at > now:
		return out, at
	case e.avoid > now:
		return spare, e.avoid
	case until == 0:
		return ready, never
	}
	return due, never
}

// sound reports whether the proxy worked lately, at its latest attempt included.
func (e *entry) sound(now time.Duration) bool {
	return e.delivered != 0 && now-e.delivered <= working && e.record.last()
}

// cost orders two proxies: what the score lacks, times the attempts that would be under way.
func (e *entry) cost(pace float64) float64 {
	return float64(e.inflight+1) * (1.1 - e.record.score(pace))
}

// burst is how far ahead of its rate a proxy may be used: rates below ten a second are kept one by one.
const burst = 100 * time.Millisecond

// start counts an attempt that begins now, by GCRA (ITU-T I.371): free is the theoretical arrival time less the burst. It
// reports whether the proxy cannot take another one now.
func (e *entry) start(now time.Duration, pick uint64) (spent bool) {
	e.inflight++
	e.used = pick
	if e.interval > 0 {
		e.free = max(now-burst, e.free) + e.interval
		if e.interval >= burst {
			e.free = now + e.interval
		}
	}
	return e.inflight >= e.most || e.free > now
}

// line is the proxies that become usable by themselves, the next one first. An entry stands in it at most once for each time
// that it was found to be earlier than known before; what is outdated is found out when its time comes.
type line []waiting

type waiting struct {
	at time.Duration
	e  *entry
}

// late reports whether somebody's time has come.
func (l line) late(now time.Duration) bool { return len(l) > 0 && l[0].at <= now }

func (l *line) push(w waiting) {
	*l = append(*l, w)
	q := *l
	for i := len(q) - 1; i > 0; {
		parent := (i - 1) / 2
		if q[parent].at <= q[i].at {
			return
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (l *line) pop() *entry {
	q := *l
	first, last := q[0].e, len(q)-1
	q[0] = q[last]
	q[last] = waiting{}
	q = q[:last]
	*l = q
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && q[child+1].at < q[child].at {
			child++
		}
		if q[i].at <= q[child].at {
			return first
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}

// refresh puts the proxy where it belongs now.
func (p *Pool) refresh(e *entry, now time.Duration) {
	c, at := e.class(now)
	for slot := range e.places {
		if s := p.slots[slot]; s != nil && e.places[slot].set == s.id {
			s.move(e, slot, c)
		}
	}
	if at != never && (e.wake == 0 || at < e.wake) {
		e.wake = at
		p.line.push(waiting{at, e})
	}
	p.count(e)
}

// count keeps the number of proxies that are open or on probation.
func (p *Pool) count(e *entry) {
	troubled := !e.gone && e.breaker.Until() != 0
	switch {
	case troubled && !e.troubled:
		p.troubled++
	case !troubled && e.troubled:
		p.troubled--
	}
	e.troubled = troubled
}

// wakeups bounds how many proxies one pick looks at because their time has come; the next pick goes on.
const wakeups = 32

// wake looks at those whose time has come.
func (p *Pool) wake(now time.Duration, most int) {
	for ; most > 0 && p.line.late(now); most-- {
		e := p.line.pop()
		e.wake = 0
		p.refresh(e, now)
	}
}
