package breaker

import "time"

// Permit is the leave to make one call. Settle it once with Success, Failure or Ignore; a deferred Release settles it as
// ignored when nothing else did, also in a panic. The zero value is settled. It belongs to one goroutine at a time and may be
// handed on, but only one of its copies may be settled.
type Permit struct {
	b   *Breaker
	gen uint64
	// probe is the probe's number, 0 for a call through a closed breaker.
	probe uint64
}

// Probe reports whether the call decides about a half-open breaker.
func (p *Permit) Probe() bool { return p.probe != 0 }

// Allow asks to make one call. The event is the step from open to half-open if this call took it.
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
		// The failures that opened it are in the event; the generation of the probes starts with none.
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

// Success settles the permit: the call went well.
func (p *Permit) Success() Event {
	b, gen, id := p.take()
	// A closed breaker counts no successes, so there is nothing to lock for.
	if b == nil || id == 0 {
		return Event{}
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.settle(gen, id, now) {
		return Event{}
	}
	if b.successes++; b.successes < b.group.cfg.Successes {
		b.publish(now)
		return Event{}
	}
	return b.become(Closed, now, "probe succeeded")
}

// Failure settles the permit: the call failed. A target other than zero names what the call was for; reason is what the
// event says if this failure opens the breaker.
func (p *Permit) Failure(target uint64, reason string) Event {
	b, gen, id := p.take()
	if b == nil {
		return Event{}
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.settle(gen, id, now) {
		return Event{}
	}
	b.failures.add(now, target)
	if id == 0 && !b.tripped(now) {
		return Event{}
	}
	return b.open(now, 0, reason)
}

// Ignore settles the permit: the call says nothing. A probe's place is free again.
func (p *Permit) Ignore() {
	b, gen, id := p.take()
	if b == nil || id == 0 {
		return
	}
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.settle(gen, id, now) {
		b.publish(now)
	}
}

// Release is Ignore for a permit that nothing has settled; it is for defer.
func (p *Permit) Release() { p.Ignore() }

func (p *Permit) take() (b *Breaker, gen, probe uint64) {
	b, gen, probe = p.b, p.gen, p.probe
	*p = Permit{}
	return b, gen, probe
}

// settle reports whether a result may count: its generation goes on and, for a probe, its lease too. The probe's place is
// free afterwards; whoever asked publishes that, when it is known what else changes.
func (b *Breaker) settle(gen, id uint64, now time.Duration) bool {
	if gen != b.generation() || b.forced {
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

// endLeases drops the probes whose lease is over; their results will be void.
func (b *Breaker) endLeases(now time.Duration) {
	kept := b.probes[:0]
	for _, p := range b.probes {
		if p.expires > now {
			kept = append(kept, p)
		}
	}
	b.probes = kept
}

// publish lets a look see that the breaker is half-open and when the next probe may go: now, or when the first lease ends.
func (b *Breaker) publish(now time.Duration) {
	until := max(now, 1) // 0 would say closed
	if len(b.probes) == b.group.cfg.Probes {
		until = b.probes[0].expires // probes are in the order of their beginning
	}
	b.until.Store(-int64(until))
}

// tripped reports whether enough failures lie in the window, from enough targets.
func (b *Breaker) tripped(now time.Duration) bool {
	recent, distinct := b.failures.recent(now - b.group.cfg.Window)
	return recent >= b.group.cfg.FailureThreshold && distinct >= b.group.cfg.DistinctTargets
}

// open rests for rest, or for as long as the openings in a row ask for.
func (b *Breaker) open(now, rest time.Duration, reason string) Event {
	if stateOf(b.word.Load()) == Closed {
		healthy := (now - b.changed) / b.group.cfg.Window
		b.openings = int(max(0, time.Duration(b.openings)-healthy))
	}
	if rest <= 0 {
		rest = b.group.cfg.openTime(b.openings)
	}
	b.openings++
	e := b.become(Open, now, reason)
	b.rest(now, rest)
	e.NextTest = b.group.Time(b.Until())
	return e
}

// rest keeps an open breaker open for d from now, and d is bounded so that the sum does not overflow.
func (b *Breaker) rest(now, d time.Duration) { b.until.Store(int64(now + min(d, never-now-1))) }

func (b *Breaker) generation() uint64 { return generationOf(b.word.Load()) }

// become starts the next generation. Opening keeps the failures for whoever asks what happened, and leaves it to the caller
// to say until when.
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
