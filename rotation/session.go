package rotation

import (
	"slices"
	"time"
)

// pin keeps a session with the proxy that it moved to.
type pin struct {
	e     *entry
	until time.Duration
}

// table sends a session to a proxy by Maglev hashing (Eisenbud and others, NSDI 2016): the same on every worker, and when a
// few proxies come or go nearly every session stays where it is.
type table struct {
	version uint64 // of the pool's list
	members []*entry
	spots   []int32
}

func newTable(version uint64, members []*entry, names map[*entry]uint64) *table {
	slices.SortFunc(members, func(a, b *entry) int {
		switch x, y := names[a], names[b]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	// The sizes of tables are primes: at least ten spots a proxy keep the parts alike within a tenth.
	primes := [...]int{251, 1021, 4093, 16381, 65521, 262139, 1048573, 4194301}
	size := primes[len(primes)-1]
	for _, prime := range primes {
		if prime >= 10*len(members) {
			size = prime
			break
		}
	}
	t := &table{version: version, members: members, spots: make([]int32, size)}
	t.fill(names)
	return t
}

// fill lets the members take turns, each taking the first free spot of its own walk through the table.
func (t *table) fill(names map[*entry]uint64) {
	for i := range t.spots {
		t.spots[i] = nowhere
	}
	size := uint64(len(t.spots))
	at, step := make([]uint64, len(t.members)), make([]uint64, len(t.members))
	for i, e := range t.members {
		at[i], step[i] = names[e]%size, 1+spread(names[e]+1)%(size-1)
	}
	for filled := 0; len(t.members) > 0; {
		for i := range t.members {
			for t.spots[at[i]] != nowhere {
				at[i] = (at[i] + step[i]) % size
			}
			t.spots[at[i]] = int32(i)
			if filled++; filled == len(t.spots) {
				return
			}
		}
	}
}

// failovers is how many spots a session tries before it takes any proxy.
const failovers = 32

// sticky is the session's proxy: the one that it moved to, or else the usable one that its name leads to first. Whoever
// has to go elsewhere is pinned there, so that it does not move back and forth.
func (p *Pool) sticky(s *set, slot int, session string, f skips, now time.Duration) *entry {
	name := hash(session, s.filter.tags+s.filter.region)
	if p.pins.len() > 0 {
		if e := p.pinned(s, slot, name, f, now); e != nil {
			return e
		}
	}
	h := name
	for try := range failovers {
		t := s.table
		if len(t.members) == 0 {
			return nil
		}
		e := t.members[t.spots[h%uint64(len(t.spots))]]
		if s.usable(e, slot, f) && !f.skip(e) {
			if try > 0 {
				p.pins.put(name, pin{e, now + p.cfg.SessionTTL})
			} else {
				p.pins.drop(name)
			}
			return e
		}
		h = spread(h + 1)
	}
	if e := s.any(f); e != nil {
		p.pins.put(name, pin{e, now + p.cfg.SessionTTL})
		return e
	}
	return nil
}

// pinned is where the session moved to. If that cannot be used the pin stays until the session has found something else: with
// spare proxies allowed it may be the one after all.
func (p *Pool) pinned(s *set, slot int, name uint64, f skips, now time.Duration) *entry {
	pinned, ok := p.pins.get(name)
	if !ok {
		return nil
	}
	if pinned.until < now {
		p.pins.drop(name)
		return nil
	}
	if !s.usable(pinned.e, slot, f) || f.skip(pinned.e) {
		return nil
	}
	p.pins.put(name, pin{pinned.e, now + p.cfg.SessionTTL})
	return pinned.e
}
