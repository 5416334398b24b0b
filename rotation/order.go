package rotation

import "math/rand/v2"

// order is one strategy's arrangement of the proxies that are ready. No operation costs more the
// more there are; pick only does when it has to skip nearly all of them.
type order interface {
	len() int
	all() []*entry
	add(e *entry)
	remove(e *entry)
	// touch tells that what the order judges by has changed: load, record or weight.
	touch(e *entry)
	// pick is the strategy's choice; nil when every one is skipped.
	pick(f skips) *entry
}

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
		return &duel{dense: d, pool: p}
	case RoundRobin:
	}
	return &ring{dense: d}
}

// draws is how often a strategy draws again before every proxy is looked at in turn. Reliable ones it does not look for further:
// there may be none among very many.
const draws = 16

func (d *dense) all() []*entry { return d.list }

func (d *dense) touch(*entry) {}

// scan is any proxy that is not skipped; none if only a reliable one is wanted.
func (d *dense) scan(f skips) *entry {
	if len(d.list) == 0 || f.judge != nil {
		return nil
	}
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

// ring takes one after the other.
type ring struct {
	dense
	next int
}

func (r *ring) pick(f skips) *entry {
	for range min(draws, len(r.list)) {
		if r.next >= len(r.list) {
			r.next = 0
		}
		e := r.list[r.next]
		r.next++
		if !f.skip(e) {
			return e
		}
	}
	return r.scan(f)
}

// lottery takes any.
type lottery struct{ dense }

func (l *lottery) pick(f skips) *entry {
	if len(l.list) == 0 {
		return nil
	}
	for range draws {
		if e := l.list[rand.IntN(len(l.list))]; !f.skip(e) {
			return e
		}
	}
	return l.scan(f)
}
