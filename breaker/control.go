package breaker

import "time"

// Trip opens the breaker at once for rest, whatever it counted; zero means as long as an opening takes. It is for failures
// that will not heal by themselves, such as refused credentials. An open breaker only rests longer, never shorter, and that
// is no change of state.
func (b *Breaker) Trip(rest time.Duration, reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.forced:
		return Event{}
	case stateOf(b.word.Load()) == Open:
		if rest > b.Until()-now {
			b.rest(now, rest)
		}
		return Event{}
	}
	return b.open(now, rest, reason)
}

// ForceOpen refuses every call until Auto or Reset.
func (b *Breaker) ForceOpen(reason string) Event { return b.force(Open, reason) }

// ForceClosed lets every call through and counts nothing until Auto or Reset.
func (b *Breaker) ForceClosed(reason string) Event { return b.force(Closed, reason) }

func (b *Breaker) force(to State, reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forced && stateOf(b.word.Load()) == to {
		return Event{}
	}
	b.forced = true
	e := b.become(to, now, reason)
	if to == Open {
		b.until.Store(int64(never))
	}
	return e
}

// Auto ends a forced state; the breaker judges again, from closed and in a new generation.
func (b *Breaker) Auto(reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.forced {
		return Event{}
	}
	b.forced = false
	return b.become(Closed, now, reason)
}

// Reset closes the breaker and forgets everything: failures, the openings in a row, a forced state.
func (b *Breaker) Reset(reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.openings = 0
	if stateOf(b.word.Load()) == Closed && !b.forced {
		b.failures.clear()
		return Event{}
	}
	b.forced = false
	return b.become(Closed, now, reason)
}
