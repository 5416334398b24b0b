package rotation

import "math/rand/v2"

// order arranges the available proxies of a set for one strategy. The cost of an operation does not grow with their number,
// except for a pick that has to skip nearly all of them.
type order interface {
	len() int
	all() []*entry
	add(e *entry)
	remove(e *entry)
	// touch updates the order after a change of the proxy's load or record.
	touch(e *entry)
	// pick returns the strategy's choice; nil if every proxy is skipped.
	pick(f skips) *entry
}

// newOrder makes the empty order of a strategy for one set. An empty strategy is round robin.
func newOrder(s Strategy, set uint64, p *Pool) order {
	d := dense{set: set}
	switch s {
	case Random:
		return &lottery{dense: d}
	case Weighted:
		return newWheel(set)
	case LeastUsed:
		return &levels{dense: d}
	case Performance:
		return &twoChoices{dense: d, pool: p}
	case RoundRobin:
	}
	return &ring{dense: d}
}

// draws is how many random proxies a strategy tries before it checks every proxy in turn. A pick that wants only
// reliable proxies ends after the draws: a large pool may have none.
const draws = 16

func (d *dense) all() []*entry { return d.list }

// touch does nothing: most strategies do not depend on a proxy's load.
func (d *dense) touch(*entry) {}

// scan returns any proxy that is not skipped; nil if only a reliable one is wanted.
func (d *dense) scan(f skips) *entry {
	if len(d.list) == 0 || f.judge != nil {
		return nil
	}
	// It starts at a random place, so that the first usable proxy of the list does not get all picks.
	start := rand.IntN(len(d.list))
	for _, half := range [2][]*entry{d.list[start:], d.list[:start]} {
		for _, e := range half {
			if !f.skip(e) {
				return e
			}
		}
	}
	return nil
}

// ring picks one proxy after the other. Picks for hedges have a position of their own: where most proxies are not
// reliable yet, they would lead all others back to the same few.
type ring struct {
	dense
	next, nextBeside int
}

func (r *ring) pick(f skips) *entry {
	// A hedge advances its own position only.
	next := &r.next
	if f.beside {
		next = &r.nextBeside
	}
	for range min(draws, len(r.list)) {
		// The list may have become shorter since.
		if *next >= len(r.list) {
			*next = 0
		}
		e := r.list[*next]
		*next++
		if !f.skip(e) {
			return e
		}
	}
	return r.scan(f)
}

// lottery picks any proxy.
type lottery struct{ dense }

func (l *lottery) pick(f skips) *entry {
	if len(l.list) == 0 {
		return nil
	}
	// Drawing is with replacement, which needs no memory.
	for range draws {
		if e := l.list[rand.IntN(len(l.list))]; !f.skip(e) {
			return e
		}
	}
	return l.scan(f)
}
