package rotation

import (
	"slices"
	"time"
)

// pin keeps a session at the proxy to which it moved. Only sessions that had to move have one. The pins are
// few: a session that never had to move is found by the table alone.
type pin struct {
	e     *entry
	until time.Duration
	list  uint64 // the version of the pool's list in which the proxy was a member of the session's set; zero: unknown
}

// table maps a session to a proxy by Maglev hashing (Eisenbud and others, NSDI 2016). Every worker has the same table, and when
// a few proxies come or go, nearly every session stays at its proxy. The table is made from ids and not from
// the order of the list, so workers agree without speaking to each other.
type table struct {
	version uint64   // of the pool's list
	slots   []*entry // each a member; none without members
}

// newTable makes the table of a list. The members are sorted by their hashes, so that every worker gets the same table
// whatever the order of its list.
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
	// At least ten slots for each proxy keep the shares equal within a tenth. The size is a prime, so that every step
	// visits all slots.
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
		t.slots = make([]*entry, size)
		t.fill(members, names)
	}
	return t
}

// fill gives slots to the members in turn. Each takes the first free slot of its own permutation of the table.
func (t *table) fill(members []*entry, names map[*entry]uint64) {
	size := uint64(len(t.slots))
	at, step := make([]uint64, len(members)), make([]uint64, len(members))
	for i, e := range members {
		// step is between 1 and size-1, so it is never zero.
		at[i], step[i] = names[e]%size, 1+mixBits(names[e]+1)%(size-1)
	}
	for filled := 0; ; {
		for i, e := range members {
			// A free slot exists: the loop ends when the last one is filled.
			for t.slots[at[i]] != nil {
				at[i] = (at[i] + step[i]) % size
			}
			t.slots[at[i]] = e
			if filled++; filled == len(t.slots) {
				return
			}
		}
	}
}

// failovers is how many slots a session tries before it takes any proxy. It bounds a pick while many proxies cannot be
// used.
const failovers = 32

// pickForSession returns the session's proxy: the one that it moved to, else the first usable one on the session's path
// through the table. A session that has to move is pinned to its new proxy, so that it does not move back and forth. A
// session whose proxy is only busy is not pinned: that proxy is free again in a moment.
func (p *Pool) pickForSession(s *set, session string, f skips, now time.Duration) *entry {
	// The filter is part of the name: a session may be used with different tags, and is another one then.
	name := hash(session, s.filter.tags+s.filter.region)
	list := p.version
	if p.index == nil {
		list = 0 // the list is being changed
	}
	stays := false
	if pinned := p.pinOf(name, now); pinned.e != nil {
		// The set need not be asked if the pin was made under the same list: members are the same then.
		usable := (list > 0 && pinned.list == list || s.has(pinned.e)) && f.canTake(pinned.e, now)
		stays = usable || s.isBusy(pinned.e, f, now)
		if stays {
			// The use lengthens the pin. A busy proxy keeps it as well.
			p.pins.put(name, pin{pinned.e, now + p.cfg.SessionTTL, list})
		}
		if usable {
			return pinned.e
		}
	}
	t := s.table
	// The set has no members.
	if len(t.slots) == 0 {
		return nil
	}
	h := name
	// The path through the table depends on the session only, so every worker finds the same proxy next.
	for try := range failovers {
		e := t.slots[h%uint64(len(t.slots))]
		if (list > 0 || s.has(e)) && f.canTake(e, now) { // the table was made of the same list
			p.movePin(name, e, try == 0, stays, now)
			return e
		}
		stays = stays || try == 0 && s.isBusy(e, f, now)
		h = mixBits(h + 1)
	}
	// No slot was usable; any proxy is better than none.
	e := s.bestOf(f)
	if e != nil {
		p.movePin(name, e, false, stays, now)
	}
	return e
}

// movePin records the proxy of a session: its own, or another one. If stays is true, only this pick uses another proxy.
func (p *Pool) movePin(session uint64, e *entry, own, stays bool, now time.Duration) {
	switch {
	case stays:
	case own:
		p.pins.drop(session)
	default:
		p.pins.put(session, pin{e: e, until: now + p.cfg.SessionTTL})
	}
}

// pinOf returns the pin of a session that was used within the TTL. A pin whose proxy cannot be used stays until the session
// has found another proxy: a second search that allows avoided proxies may choose it.
func (p *Pool) pinOf(session uint64, now time.Duration) pin {
	if p.pins.len() == 0 {
		return pin{}
	}
	pinned, ok := p.pins.get(session)
	// Times are of the group's clock. A pin that was not used for the TTL is forgotten, and the session returns to its
	// own proxy.
	if ok && pinned.until < now {
		p.pins.drop(session)
		return pin{}
	}
	return pinned
}
