package rotation

import (
	"runtime"
	"slices"
	"time"
)

// filter is what the members of a set have in common. The zero value accepts every proxy.
type filter struct {
	tags      string // joined by commas, in the order of the job
	region    string
	cooldowns cooldownKey // the members do not cool down by it; zero means any
}

// set indexes the proxies that match a filter by their class. Available ones are in the order of the strategy, probeable and
// avoided ones in cycles, unavailable ones nowhere. Moving a proxy costs the same however many there are.
type set struct {
	id        uint64 // unique; its slot is id modulo maxSets
	filter    filter
	cooldowns *hostCooldowns // of the filter's key
	size      int            // members, whatever their class
	lastUsed  uint64         // the number of the pick that used it last
	available order
	probeable cycle
	avoided   cycle
	table     *table
}

// class is what a pick may do with a proxy now.
type class uint8

const (
	unavailable class = iota // nothing: open, full, ahead of its rate
	probeable                // probe it
	avoided                  // use it if no other is left: another worker found it dead
	available                // use it
)

// position is the position of a proxy in a set. It is stale once the set is dropped, so that dropping a set need not visit its
// members.
type position struct {
	set uint64 // the id of the set
	at  int32  // at least 0: in the order; nowhere; at most -2: in a cycle
}

const nowhere = -1

// encodeCyclePosition encodes index i of the cycle of a class. The two cycles share the numbers below nowhere. cyclePosition
// decodes it.
func encodeCyclePosition(c class, i int) int32 { return int32(-2 - 2*i - int(c-probeable)) }

func decodeCyclePosition(at int32) (c class, i int) {
	n := int(-2 - at)
	return probeable + class(n%2), n / 2
}

// dense is an array without gaps. Each proxy in it knows its index.
type dense struct {
	set  uint64
	list []*entry
}

// put stores a proxy at an index, and the index in the proxy.
func (d *dense) put(i int, e *entry) {
	d.list[i] = e
	e.positionIn(d.set).at = int32(i)
}

func (d *dense) len() int { return len(d.list) }

func (d *dense) add(e *entry) {
	d.list = append(d.list, e)
	d.put(len(d.list)-1, e)
}

// remove moves the last proxy into the gap.
func (d *dense) remove(e *entry) {
	at, last := e.positionIn(d.set), len(d.list)-1
	d.put(int(at.at), d.list[last])
	d.list[last] = nil
	d.list = d.list[:last]
	at.at = nowhere
}

// newSet makes an empty set in a slot.
func (p *Pool) newSet(f filter, slot int) *set {
	p.setIDs++
	id := p.setIDs*maxSets + uint64(slot)
	s := &set{id: id, filter: f, available: newOrder(p.strategy, id, p)}
	if f.cooldowns.host != "" {
		s.cooldowns = p.cooldowns.ensure(f.cooldowns)
		s.cooldowns.hasSet = true
	}
	p.slots[slot] = s
	return s
}

// liveSet returns the set of an id; nil if it was dropped.
func (p *Pool) liveSet(id uint64) *set {
	if s := p.slots[id%maxSets]; s != nil && s.id == id {
		return s
	}
	return nil
}

// join makes a proxy a member if it matches the filter. It must not be one yet.
func (p *Pool) join(s *set, e *entry, now time.Duration) {
	if e.removed || !s.filter.matches(e) {
		return
	}
	i := slices.IndexFunc(e.positions, func(at position) bool { return p.liveSet(at.set) == nil })
	if i < 0 {
		i = len(e.positions)
		e.positions = append(e.positions, position{})
	}
	e.positions[i] = position{set: s.id, at: nowhere}
	s.size++
	c, _ := e.class(now)
	s.moveTo(e, &e.positions[i], c)
}

// setOf returns the set of a filter; nil if no proxy matches. The pool's lock is held before and after, but not while a set is
// made.
func (p *Pool) setOf(f filter) *set {
	if f == (filter{}) {
		return p.slots[0]
	}
	for {
		if s := p.sets[f]; s != nil {
			s.lastUsed = p.picks
			return s
		}
		if p.index != nil && p.index.matchesNone(f) {
			return nil
		}
		p.mu.Unlock()
		p.makeSet(f)
		p.mu.Lock()
	}
}

// makeSet makes a set in batches. The set follows every change from the start, and picks use it only when it is complete.
func (p *Pool) makeSet(f filter) {
	p.build.Lock()
	defer p.build.Unlock()
	members := p.index.members(f) // the index changes only while build is locked
	p.mu.Lock()
	if len(members) == 0 {
		p.index.noteUnmatched(f)
	}
	if p.sets[f] != nil || len(members) == 0 {
		p.mu.Unlock()
		return
	}
	s := p.newSet(f, p.freeSlot())
	p.mu.Unlock()
	for part := range slices.Chunk(members, batchSize) {
		p.mu.Lock()
		now := p.group.Now()
		for _, e := range part {
			p.join(s, e, now)
		}
		p.mu.Unlock()
		runtime.Gosched()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.lastUsed = p.picks
	p.sets[f] = s
}

// freeSlot returns an empty slot, or drops the set that was unused for the longest time. Slot 0 is never free.
func (p *Pool) freeSlot() int {
	oldest := 1
	for slot := 1; slot < maxSets; slot++ {
		s := p.slots[slot]
		if s == nil {
			return slot
		}
		if s.lastUsed < p.slots[oldest].lastUsed {
			oldest = slot
		}
	}
	s := p.slots[oldest]
	delete(p.sets, s.filter)
	p.slots[oldest] = nil
	if s.cooldowns != nil && !p.hasSetFor(s.cooldowns) {
		s.cooldowns.hasSet = false
		p.cooldowns.dropIfEmpty(s.cooldowns)
	}
	return oldest
}

// hasSetFor reports whether a set leaves out the proxies that cool down for a host.
func (p *Pool) hasSetFor(h *hostCooldowns) bool {
	return slices.ContainsFunc(p.slots[:], func(s *set) bool { return s != nil && s.cooldowns == h })
}

// moveTo moves a member, whose position is given, to class c.
func (s *set) moveTo(e *entry, in *position, c class) {
	at := in.at
	if c != unavailable && s.cooldowns.has(e) {
		c = unavailable
	}
	switch {
	case at >= 0 && c != available:
		s.available.remove(e)
	case at < nowhere:
		if was, i := decodeCyclePosition(at); was != c {
			s.cycleOf(was).remove(i, was, s.id)
			in.at = nowhere
		}
	}
	if in.at != nowhere {
		return
	}
	switch c {
	case available:
		s.available.add(e)
	case probeable, avoided:
		in.at = s.cycleOf(c).add(e, c)
	case unavailable:
	}
}

// cycleOf returns the cycle of a class, which is probeable or avoided.
func (s *set) cycleOf(c class) *cycle {
	if c == avoided {
		return &s.avoided
	}
	return &s.probeable
}

// has reports whether a proxy is a member.
func (s *set) has(e *entry) bool {
	return !e.removed && e.positionIn(s.id) != nil
}

// isBusy reports whether a member works and is only full or ahead of its rate.
func (s *set) isBusy(e *entry, f skips, now time.Duration) bool {
	return s.has(e) && !f.skip(e) && (e.inflight >= e.maxInflight || e.nextByRate > now) && !e.notClosed && (f.useAvoided || !e.isAvoided(now))
}

// cycle holds proxies that are picked in turn, whatever the strategy.
type cycle struct {
	list []*entry
	next int
}

// add adds a proxy and returns its position.
func (t *cycle) add(e *entry, c class) (at int32) {
	t.list = append(t.list, e)
	return encodeCyclePosition(c, len(t.list)-1)
}

// remove moves the last proxy into the gap.
func (t *cycle) remove(i int, c class, set uint64) {
	last := len(t.list) - 1
	t.list[i] = t.list[last]
	t.list[i].positionIn(set).at = encodeCyclePosition(c, i)
	t.list[last] = nil
	t.list = t.list[:last]
}

// pick returns the next proxy that is not skipped; nil if all are.
func (t *cycle) pick(f skips) *entry {
	for range t.list {
		t.next++
		if t.next >= len(t.list) {
			t.next = 0
		}
		if e := t.list[t.next]; !f.skip(e) {
			return e
		}
	}
	return nil
}
