package rotation

import (
	"slices"
	"time"
)

// pin keeps a session with the proxy that it moved to.
type pin struct {
	e     *entry
	until time.Duration
	list  uint64 // the version of the pool's list in which the proxy was a member of the session's set; zero: look
}

// table sends a session to a proxy by Maglev hashing (Eisenbud and others, NSDI 2016): the same on every worker, and when a
// few proxies come or go nearly every session stays where it is.
type table struct {
	version uint64   // of the pool's list
	spots   []*entry // each a member; none without members
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
	t := &table{version: version}
	if len(members) > 0 {
		t.spots = make([]*entry, size)
		t.fill(members, names)
	}
	return t
}

// fill lets the members take turns, each taking the first free spot of its own walk through the table.
func (t *table) fill(members []*entry, names map[*entry]uint64) {
	size := uint64(len(t.spots))
	at, step := make([]uint64, len(members)), make([]uint64, len(members))
	for i, e := range members {
		at[i], step[i] = names[e]%size, 1+spread(names[e]+1)%(size-1)
	}
	for filled := 0; ; {
		for i, e := range members {
			for t.spots[at[i]] != nil {
				at[i] = (at[i] + step[i]) % size
			}
			t.spots[at[i]] = e
			if filled++; filled == len(t.spots) {
				return
			}
		}
	}
}

// failovers is how many spots a session tries before it takes any proxy.
const failovers = 32

// sticky is the session's proxy: the one that it moved to, or else the usable one that its name leads to first. Whoever
// has to go elsewhere is pinned there, so that it does not move back and forth; not a session whose proxy works and is only
// busy, for that comes back in a moment.
func (p *Pool) sticky(s *set, session string, f skips, now time.Duration) *entry {
	name := hash(session, s.filter.tags+s.filter.region)
	list := p.version
	if p.words == nil {
		list = 0 // it is just changing
	}
	stays := false
	if pinned := p.pinned(name, now); pinned.e != nil {
		usable := (list > 0 && pinned.list == list || s.has(pinned.e)) && f.take(pinned.e, now)
		stays = usable || s.busy(pinned.e, f, now)
		if stays {
			p.pins.put(name, pin{pinned.e, now + p.cfg.SessionTTL, list})
		}
		if usable {
			return pinned.e
		}
	}
	t := s.table
	if len(t.spots) == 0 {
		return nil
	}
	h := name
	for try := range failovers {
		e := t.spots[h%uint64(len(t.spots))]
		if (list > 0 || s.has(e)) && f.take(e, now) { // the table is of the same list
			p.move(name, e, try == 0, stays, now)
			return e
		}
		stays = stays || try == 0 && s.busy(e, f, now)
		h = spread(h + 1)
	}
	e := s.any(f)
	if e != nil {
		p.move(name, e, false, stays, now)
	}
	return e
}

// move notes where a session goes: to its own proxy, or elsewhere. It stays where it is if this is only for once.
func (p *Pool) move(session uint64, e *entry, own, stays bool, now time.Duration) {
	switch {
	case stays:
	case own:
		p.pins.drop(session)
	default:
		p.pins.put(session, pin{e: e, until: now + p.cfg.SessionTTL})
	}
}

// pinned is where the session moved to, if that was used lately. While it cannot be used the pin stays until the session has
// found something else: with spare proxies allowed it may be the one after all.
func (p *Pool) pinned(session uint64, now time.Duration) pin {
	if p.pins.len() == 0 {
		return pin{}
	}
	pinned, ok := p.pins.get(session)
	if ok && pinned.until < now {
		p.pins.drop(session)
		return pin{}
	}
	return pinned
}
