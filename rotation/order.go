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
type lottery struct {
	dense
	numbers numbers
}

func (l *lottery) pick(f skips) *entry {
	if len(l.list) == 0 {
		return nil
	}
	// Drawing is with replacement, which needs no memory.
	for range draws {
		if e := l.numbers.choose(l.list); !f.skip(e) {
			return e
		}
	}
	return l.scan(f)
}

// numbers are random numbers for the next choices. They are drawn eight at a time, and the proxies that they choose now are
// read: a proxy that is in no cache costs as much as half of a pick, and the processor waits for eight at once.
type numbers struct {
	ahead [8]uint32
	left  int // of ahead
}

// choose returns any proxy of a list that is not empty. The list may change between two calls: a number is a share of its
// length, not an index.
func (n *numbers) choose(among []*entry) *entry {
	if n.left == 0 {
		for i := range n.ahead {
			n.ahead[i] = rand.Uint32()
			_ = chosen(among, n.ahead[i]).inflight // loads the cache line
		}
		n.left = len(n.ahead)
	}
	n.left--
	return chosen(among, n.ahead[n.left])
}

// chosen returns the proxy of a number.
func chosen(among []*entry, number uint32) *entry {
	return among[uint64(number)*uint64(len(among))>>32]
}
