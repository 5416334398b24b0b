package breaker

import "time"

// Trip opens the breaker at once for rest, whatever it counted; zero means as long as an opening takes. It is for
// failures that will not heal by themselves, such as refused credentials.
func (b *Breaker) Trip(rest time.Duration, reason string) Event {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forced || b.state == Open && time.Duration(b.until.Load()) >= now+rest {
		return Event{}
	}
	return b.open(now, rest, reason)
}

// ForceOpen refuses every call until Auto or Reset.
func (b *Breaker) ForceOpen(reason string) Event {
	return b.force(Open, forever, reason)
}

// ForceClosed lets every call through and counts nothing until Auto or Reset.
func (b *Breaker) ForceClosed(reason string) Event {
	return b.force(Closed, 0, reason)
}

func (b *Breaker) force(to State, until time.Duration, reason string) Event {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forced && b.state == to {
		return Event{}
	}
	b.forced = true
	e := b.become(to, now, reason)
	b.until.Store(int64(until))
	return e
}

// Reset closes the breaker and forgets everything, forced states included.
func (b *Breaker) Reset(reason string) Event {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Closed && !b.forced {
		b.failures, b.next, b.openings = b.failures[:0], 0, 0
		return Event{}
	}
	b.forced = false
	e := b.become(Closed, now, reason)
	b.openings = 0
	b.until.Store(0)
	return e
}

// Auto ends a forced state; the breaker judges again, from closed.
func (b *Breaker) Auto(reason string) Event {
	b.mu.Lock()
	forced := b.forced
	b.mu.Unlock()
	if !forced {
		return Event{}
	}
	return b.Reset(reason)
}

// Status is a reading of a breaker.
type Status struct {
	State  State
	Forced bool
	// Failures is how many failures are in the window.
	Failures int
	// NextTest is when an open breaker lets a probe through, zero in the other states and when it is forced open.
	NextTest time.Time
	// LastChange is when the state changed last, zero when it never did.
	LastChange time.Time
}

// Status reads the breaker and changes nothing. An open breaker whose time is over is still open: only a call makes it
// half-open.
func (b *Breaker) Status() Status {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{State: b.state, Forced: b.forced}
	s.Failures, _ = b.recent(now)
	if b.gen > 0 {
		s.LastChange = b.base.Add(b.changed)
	}
	if b.state == Open && !b.forced {
		s.NextTest = b.base.Add(time.Duration(b.until.Load()))
	}
	return s
}
