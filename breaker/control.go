package breaker

import "time"

// Trip opens the breaker at once, whatever it has counted. It is for failures that do not go away by themselves, such as refused
// credentials. The breaker stays open for openTime; zero means the open time that the configuration computes. Trip never shortens
// the open time of an open breaker. To lengthen it is no change of state and returns no event.
func (b *Breaker) Trip(openTime time.Duration, reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if stateOf(b.word.Load()) != Open {
		return b.open(now, openTime, reason)
	}
	if openTime > b.Until()-now {
		b.refuseFor(now, openTime)
	}
	return Event{}
}

// Reset closes the breaker and forgets everything: the failures and how often it opened in a row.
func (b *Breaker) Reset(reason string) Event {
	now := b.group.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.openings = 0
	if stateOf(b.word.Load()) == Closed {
		b.failures.clear()
		return Event{}
	}
	return b.become(Closed, now, reason)
}
