package rotation

import (
	"math"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation/outlier"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// entry is one proxy and what is known of it. The pool's lock guards it. It is what an attempt through a proxy that works
// reads and writes, in 64 bytes, a line of a processor's cache: among 100,000 proxies a pick waits for memory more than for
// anything else, and what is near is found sooner.
type entry struct {
	*seldom
	proxy    *proxylist.Proxy
	free     time.Duration // when its rate lets the next attempt start
	record   record
	interval float32       // between two attempts, in nanoseconds; zero without a rate
	index    outlier.Proxy // of the evidence about it
	inflight uint16
	most     uint16 // in flight at once
	gone     bool   // no longer of the pool
	troubled bool   // its breaker is not closed
	avoided  bool   // another worker found it dead, until avoid
	resting  bool   // for some host, or more
}

// seldom is what is needed when a proxy changes its class.
type seldom struct {
	breaker   breaker.Breaker
	changed   uint64        // the number of the last lease before the breaker's state changed last
	places    []place       // one for each set, and some of sets that are no more; in home while there are few
	avoid     time.Duration // until when it is spare, by another worker's judgement
	wake      time.Duration // when it is looked at again; zero when it is not in line for that
	avoidedBy string        // the worker
	weight    int32
	hosts     int32 // that it rests for
	home      [2]place
}

func newEntry(proxy *proxylist.Proxy, group *breaker.Group) *entry {
	e := &entry{seldom: new(seldom)}
	group.Init(&e.breaker)
	e.places = e.home[:0]
	e.describe(proxy)
	return e
}

// describe takes the word of the list about the proxy.
func (e *entry) describe(proxy *proxylist.Proxy) {
	e.proxy = proxy
	e.most, e.interval, e.weight = math.MaxUint16, 0, int32(max(1, min(proxy.Weight, 1000)))
	if proxy.MaxInflight > 0 {
		e.most = uint16(min(proxy.MaxInflight, math.MaxUint16))
	}
	if proxy.Rate > 0 {
		e.interval = float32(float64(time.Second) / proxy.Rate)
	}
}

// never is the time of what does not come by itself.
const never = time.Duration(1<<63 - 1)

// class is what can be done with the proxy now, and when that may change by itself.
func (e *entry) class(now time.Duration) (c class, at time.Duration) {
	if e.gone || e.inflight >= e.most {
		return out, never
	}
	var until time.Duration
	if e.troubled {
		until = e.breaker.Until()
	}
	switch at = max(until, e.free); {
	case at > now:
		return out, at
	case e.isAvoided(now):
		return spare, e.avoid
	case until == 0:
		return ready, never
	}
	return due, never
}

// isAvoided reports whether another worker's judgement makes it spare.
func (e *entry) isAvoided(now time.Duration) bool { return e.avoided && e.avoid > now }

// cost orders two proxies: what the score lacks, times the attempts that would be under way.
func (e *entry) cost(pace float64) float64 {
	return (float64(e.inflight) + 1) * (1.1 - e.record.score(pace))
}

// burst is how far ahead of its rate a proxy may be used: rates below ten a second are kept one by one.
const burst = 100 * time.Millisecond

// start counts an attempt that begins now, by GCRA (ITU-T I.371): free is the theoretical arrival time less the burst. It
// reports whether the proxy cannot take another one now.
func (e *entry) start(now time.Duration) (spent bool) {
	e.inflight++
	if interval := time.Duration(e.interval); interval > 0 {
		e.free = max(now-burst, e.free) + interval
		if interval >= burst {
			e.free = now + interval
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

// in is the place in a set; nil if the proxy is no member.
func (e *entry) in(set uint64) *place {
	for i := range e.places {
		if e.places[i].set == set {
			return &e.places[i]
		}
	}
	return nil
}

// refresh puts the proxy where it belongs now.
func (p *Pool) refresh(e *entry, now time.Duration) {
	p.count(e)
	c, at := e.class(now)
	for i := range e.places {
		if s := p.live(e.places[i].set); s != nil {
			s.move(e, &e.places[i], c)
		}
	}
	if at != never && (e.wake == 0 || at < e.wake) {
		e.wake = at
		p.line.push(waiting{at, e})
	}
}

// count notes whether the proxy is open or on probation, and how many are.
func (p *Pool) count(e *entry) {
	before := e.troubled
	e.troubled = !e.gone && e.breaker.Until() != 0
	switch {
	case e.troubled && !before:
		p.troubled++
	case before && !e.troubled:
		p.troubled--
	}
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
