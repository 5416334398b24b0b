package breaker_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// law is a breaker as its documentation tells it, without a thought of speed, locks or memory. Time is what it is told; a
// step leaves the value it was called on as it was, so a checker may go back.
type law struct {
	standing
	failures []failed // of this generation
	probes   []underway
	permits  []permit // not settled yet
}

// standing is the part of a law that can be compared.
type standing struct {
	state          breaker.State
	gen            uint64
	changed, until time.Duration
	openings       int // in a row
	successes      int
}

type failed struct {
	at     time.Duration
	target uint64
}

type underway struct {
	call    int
	expires time.Duration
}

// permit is what a call was given, and in which generation.
type permit struct {
	call  int
	gen   uint64
	probe bool
}

func (l law) equal(o law) bool {
	return l.standing == o.standing && slices.Equal(l.failures, o.failures) && slices.Equal(l.probes, o.probes) && slices.Equal(l.permits, o.permits)
}

// deed is something that is done to a breaker.
type deed struct {
	do     verb
	call   int // which permit
	target uint64
	rest   time.Duration
	now    time.Duration
}

type verb string

const (
	allow     verb = "allow"
	success   verb = "success"
	failure   verb = "failure"
	ignore    verb = "ignore"
	trip      verb = "trip"
	reset     verb = "reset"
	snapshot  verb = "snapshot"
	ready     verb = "ready"
	remaining verb = "remaining"
)

// answer is everything that a breaker says to a deed.
type answer struct {
	ok, probe bool
	event     breaker.Event
	snapshot  breaker.Snapshot
	remaining time.Duration
}

// court is what stays the same during a history.
type court struct {
	cfg  breaker.Config
	time func(time.Duration) time.Time
}

func newCourt(b *breaker.Breaker) court { return court{b.Group().Config(), b.Group().Time} }

// step is what the law says to a deed.
func (c court) step(l law, d deed) (law, answer) {
	l.failures, l.probes, l.permits = slices.Clone(l.failures), slices.Clone(l.probes), slices.Clone(l.permits)
	var a answer
	switch d.do {
	case allow:
		a = c.allow(&l, d)
	case success, failure, ignore:
		a.event = c.settle(&l, d)
	case trip, reset:
		a.event = c.command(&l, d)
	case snapshot:
		a.snapshot = c.snapshot(&l, d.now)
	case ready:
		a.ok = c.nextTry(&l, d.now) <= d.now
	case remaining:
		a.remaining = max(0, c.nextTry(&l, d.now)-d.now)
	}
	return l, a
}

// nextTry is from when on a call may go through.
func (c court) nextTry(l *law, now time.Duration) time.Duration {
	switch l.state {
	case breaker.Open:
		return l.until
	case breaker.HalfOpen:
		if len(l.probes) == c.cfg.Probes {
			return l.probes[0].expires
		}
	case breaker.Closed:
	}
	return min(now, 0)
}

func (c court) allow(l *law, d deed) (a answer) {
	if l.state == breaker.Open {
		if d.now < l.until {
			return a
		}
		a.event = c.become(l, breaker.HalfOpen, d.now, "open time over")
		l.failures = nil
	}
	a.ok = true
	if l.state == breaker.HalfOpen {
		endLeases(l, d.now)
		a.ok = len(l.probes) < c.cfg.Probes
		a.probe = a.ok
	}
	if a.probe {
		l.probes = append(l.probes, underway{d.call, d.now + c.cfg.ProbeLease})
	}
	if a.ok {
		l.permits = append(l.permits, permit{d.call, l.gen, a.probe})
	}
	return a
}

func endLeases(l *law, now time.Duration) {
	l.probes = slices.DeleteFunc(l.probes, func(p underway) bool { return p.expires <= now })
}

func (c court) settle(l *law, d deed) (e breaker.Event) {
	i := slices.IndexFunc(l.permits, func(p permit) bool { return p.call == d.call })
	if i < 0 {
		return e
	}
	p := l.permits[i]
	l.permits = slices.Delete(l.permits, i, i+1)
	if p.gen != l.gen {
		return e
	}
	if p.probe {
		endLeases(l, d.now)
		i := slices.IndexFunc(l.probes, func(u underway) bool { return u.call == d.call })
		if i < 0 {
			return e
		}
		l.probes = slices.Delete(l.probes, i, i+1)
	}
	switch d.do {
	case success:
		if !p.probe {
			break
		}
		if l.successes++; l.successes == c.cfg.Successes {
			return c.become(l, breaker.Closed, d.now, "probe succeeded")
		}
	case failure:
		l.failures = append(l.failures, failed{d.now, d.target})
		if p.probe || c.tripped(l, d.now) {
			return c.open(l, d.now, 0)
		}
	default: // the others settle nothing
	}
	return e
}

// recent are the failures that count: the last ones in the window, as many as open the breaker.
func (c court) recent(l *law, now time.Duration) (list []failed) {
	for _, f := range l.failures {
		if f.at > now-c.cfg.Window {
			list = append(list, f)
		}
	}
	return list[max(0, len(list)-c.cfg.FailureThreshold):]
}

func (c court) tripped(l *law, now time.Duration) bool {
	recent := c.recent(l, now)
	targets := map[string]bool{}
	for i, f := range recent {
		if f.target == 0 {
			targets[fmt.Sprint("own ", i)] = true
			continue
		}
		targets[fmt.Sprint(f.target)] = true
	}
	return len(recent) == c.cfg.FailureThreshold && len(targets) >= c.cfg.DistinctTargets
}

func (c court) open(l *law, now, rest time.Duration) breaker.Event {
	if l.state == breaker.Closed {
		l.openings = max(0, l.openings-int((now-l.changed)/c.cfg.Window))
	}
	if rest <= 0 {
		rest = c.cfg.OpenTimeout
		for range l.openings {
			rest = min(2*rest, c.cfg.MaxOpenTimeout)
		}
	}
	l.openings++
	e := c.become(l, breaker.Open, now, "")
	l.until = now + rest
	e.NextTest = c.time(l.until)
	return e
}

func (c court) become(l *law, to breaker.State, now time.Duration, reason string) breaker.Event {
	l.gen++
	e := breaker.Event{Generation: l.gen, From: l.state, To: to, At: c.time(now), Reason: reason, Failures: len(c.recent(l, now))}
	l.state, l.changed, l.until, l.successes, l.probes = to, now, 0, 0, nil
	if to == breaker.Closed {
		l.failures = nil
	}
	return e
}

func (c court) command(l *law, d deed) (e breaker.Event) {
	switch {
	case d.do == trip && l.state == breaker.Open:
		l.until = max(l.until, d.now+d.rest)
	case d.do == trip:
		return c.open(l, d.now, d.rest)
	case d.do == reset && l.state != breaker.Closed:
		l.openings = 0
		e = c.become(l, breaker.Closed, d.now, "")
	case d.do == reset:
		l.openings, l.failures = 0, nil
	}
	return e
}

func (c court) snapshot(l *law, now time.Duration) breaker.Snapshot {
	s := breaker.Snapshot{State: l.state, Generation: l.gen, Failures: len(c.recent(l, now))}
	if l.gen > 0 {
		s.LastChange = c.time(l.changed)
	}
	if l.state == breaker.Open {
		s.NextTest = c.time(l.until)
	}
	return s
}

// bench is a breaker before the court, with the permits that it gave.
type bench struct {
	*breaker.Breaker
	permits map[int]breaker.Permit
}

// do does a deed in earnest. The reasons of the test's own deeds are empty.
func (b *bench) do(d deed) (a answer) {
	p := b.permits[d.call]
	switch d.do {
	case allow:
		p, a.event, a.ok = b.Allow()
		a.probe = p.Probe()
		if a.ok {
			b.permits[d.call] = p
		}
		return a
	case success:
		a.event = p.Success()
	case failure:
		a.event = p.Failure(d.target, "")
	case ignore:
		p.Ignore()
	case trip:
		a.event = b.Trip(d.rest, "")
	case reset:
		a.event = b.Reset("")
	case snapshot:
		a.snapshot = b.Snapshot()
	case ready:
		a.ok = b.Ready()
	case remaining:
		a.remaining = b.Remaining()
	}
	delete(b.permits, d.call)
	return a
}
