package breaker

import (
	"math"
	"time"
)

// Permit allows one call. Report the end of the call once with Success, Failure or Ignore. A deferred Release reports it as
// ignored if nothing else did, also in a panic. The zero value is a permit whose call has ended. A permit belongs to one
// goroutine at a time. It may be passed on, but only one of its copies may be used.
type Permit struct {
	b   *Breaker
	gen uint64
	// probe is the probe's number, 0 for a call through a closed breaker.
	probe uint64
}

// Probe reports whether the call is a probe of a half-open breaker.
func (p *Permit) Probe() bool { return p.probe != 0 }

// Allow asks for a permit for one call. A closed breaker answers without a lock. The event is the change from open to half-open,
// if this call caused it.
func (b *Breaker) Allow() (p Permit, e Event, ok bool) {
	if word := b.word.Load(); stateOf(word) == Closed {
		return Permit{b: b, gen: generationOf(word)}, e, true
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.allow(now)
}

func (b *Breaker) allow(now time.Duration) (p Permit, e Event, ok bool) {
	switch stateOf(b.word.Load()) {
	case Closed:
		return Permit{b: b, gen: b.generation()}, e, true
	case Open:
		if b.Until() > now {
			return p, e, false
		}
		e = b.become(HalfOpen, now, "open time over")
		// The event has the failures that opened the breaker. The generation of the probes starts without any.
		b.failures.clear()
	case HalfOpen:
	}
	b.endLeases(now)
	if len(b.probes) == b.group.cfg.Probes {
		return p, e, false
	}
	b.lastProbe++
	b.probes = append(b.probes, probe{id: b.lastProbe, expires: now + b.group.cfg.ProbeLease})
	b.publish(now)
	return Permit{b: b, gen: b.generation(), probe: b.lastProbe}, e, true
}

// Success reports that the call succeeded.
func (p *Permit) Success() Event {
	b, gen, id := p.take()
	// A closed breaker counts no successes, so it needs no lock.
	if b == nil || id == 0 {
		return Event{}
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.consume(gen, id, now) {
		return Event{}
	}
	if b.successes++; b.successes < b.group.cfg.Successes {
		b.publish(now)
		return Event{}
	}
	return b.become(Closed, now, "probe succeeded")
}

// Failure reports that the call failed. A target other than zero identifies what the call was for, see
// Config.DistinctTargets. The event has the reason if this failure opens the breaker.
func (p *Permit) Failure(target uint64, reason string) Event {
	b, gen, id := p.take()
	if b == nil {
		return Event{}
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.consume(gen, id, now) {
		return Event{}
	}
	b.failures.add(now, target)
	if id == 0 && !b.tripped(now) {
		return Event{}
	}
	return b.open(now, 0, reason)
}

// Ignore reports that the call says nothing about the guarded thing. The place of a probe is free again.
func (p *Permit) Ignore() {
	b, gen, id := p.take()
	if b == nil || id == 0 {
		return
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.consume(gen, id, now) {
		b.publish(now)
	}
}

// Release is Ignore, for use with defer. It does nothing if the end of the call was reported.
func (p *Permit) Release() { p.Ignore() }

func (p *Permit) take() (b *Breaker, gen, probe uint64) {
	b, gen, probe = p.b, p.gen, p.probe
	*p = Permit{}
	return b, gen, probe
}

// consume reports whether a result still counts: the generation of its permit is the current one, and a probe's lease is not
// over. It frees the place of the probe. The caller then publishes the new deadline, because it knows what else changes.
func (b *Breaker) consume(gen, id uint64, now time.Duration) bool {
	if gen != b.generation() {
		return false
	}
	if id == 0 {
		return true
	}
	b.endLeases(now)
	for i, p := range b.probes {
		if p.id == id {
			b.probes = append(b.probes[:i], b.probes[i+1:]...)
			return true
		}
	}
	return false
}

// endLeases drops the probes whose lease is over. Their results no longer count.
func (b *Breaker) endLeases(now time.Duration) {
	kept := b.probes[:0]
	for _, p := range b.probes {
		if p.expires > now {
			kept = append(kept, p)
		}
	}
	b.probes = kept
}

// publish stores the lock-free deadline of a half-open breaker: when the next probe may start. That is now, or, while every
// place is taken, when the first lease ends.
func (b *Breaker) publish(now time.Duration) {
	until := max(now, 1) // zero would mean closed
	if len(b.probes) == b.group.cfg.Probes {
		until = b.probes[0].expires // probes are in the order of their start
	}
	b.until.Store(-int64(until))
}

// tripped reports whether the window holds enough failures, from enough targets.
func (b *Breaker) tripped(now time.Duration) bool {
	recent, distinct := b.failures.recent(now - b.group.cfg.Window)
	return recent >= b.group.cfg.FailureThreshold && distinct >= b.group.cfg.DistinctTargets
}

// open opens the breaker for openTime; zero means a time that doubles with each opening in a row.
func (b *Breaker) open(now, openTime time.Duration, reason string) Event {
	if stateOf(b.word.Load()) == Closed {
		healthy := (now - b.changed) / b.group.cfg.Window
		b.openings = int(max(0, time.Duration(b.openings)-healthy))
	}
	if openTime <= 0 {
		openTime = b.group.cfg.openTime(b.openings)
	}
	b.openings++
	e := b.become(Open, now, reason)
	b.refuseFor(now, openTime)
	e.NextTest = b.group.Time(b.Until())
	return e
}

// refuseFor sets the deadline of an open breaker. The sum does not overflow.
func (b *Breaker) refuseFor(now, d time.Duration) {
	b.until.Store(int64(now + min(d, math.MaxInt64-now)))
}

func (b *Breaker) generation() uint64 { return generationOf(b.word.Load()) }

// become starts the next generation and returns its event. A breaker that opens keeps its failures, so that a reading shows
// them, and its caller sets the deadline.
func (b *Breaker) become(to State, now time.Duration, reason string) Event {
	word := b.word.Load()
	e := Event{Generation: generationOf(word) + 1, From: stateOf(word), To: to, At: b.group.Time(now), Reason: reason}
	e.Failures, _ = b.failures.recent(now - b.group.cfg.Window)
	b.changed, b.successes, b.probes = now, 0, b.probes[:0]
	if to == Closed {
		b.failures.clear()
		b.until.Store(0)
	}
	b.word.Store(e.Generation<<stateBits | uint64(to))
	return e
}
