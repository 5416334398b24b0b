package rotation

import (
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/rotation/outlier"
)

// filter is what a set's members have in common. The zero value takes every proxy.
type filter struct {
	tags   string // joined by commas, in the order of the job
	region string
	host   string // those that do not rest for this host; empty asks for none
}

// set is the proxies that pass a filter, sorted by what can be done with them now: those that are ready stand in an order of
// their own, those due for a probe and the spare ones in lists, the others nowhere. A change of one proxy costs the same
// however many there are.
type set struct {
	id     uint64 // its slot, and a number of its own above that
	filter filter
	rests  *hostRests // of the filter's host
	size   int        // members, whatever their class
	used   uint64     // when it was asked for last, in picks
	ready  order
	due    turns
	spare  turns
	table  *table
}

// class is what can be done with a proxy now.
type class uint8

const (
	out   class = iota // nothing: open, full, resting
	due                // a probe
	spare              // an attempt, if nothing else is left: another worker found it dead
	ready              // an attempt
)

// place is where a proxy stands in a set. It counts only while the set is live, so that a set that is dropped need not visit
// its members.
type place struct {
	set uint64 // its id
	at  int32  // ≥ 0 in the order, nowhere, ≤ -2 in due or spare
}

const nowhere = -1

// turnAt is the place number i of due or spare, which share the numbers below nowhere; turnOf is what it stands for.
func turnAt(c class, i int) int32 { return int32(-2 - 2*i - int(c-due)) }

func turnOf(at int32) (c class, i int) {
	n := int(-2 - at)
	return due + class(n%2), n / 2
}

// dense is an array without gaps of proxies that know their places in it.
type dense struct {
	set  uint64
	list []*entry
}

func (d *dense) put(i int, e *entry) {
	d.list[i] = e
	e.in(d.set).at = int32(i)
}

func (d *dense) len() int { return len(d.list) }

func (d *dense) add(e *entry) {
	d.list = append(d.list, e)
	d.put(len(d.list)-1, e)
}

// remove moves the last one into the gap.
func (d *dense) remove(e *entry) {
	at, last := e.in(d.set), len(d.list)-1
	d.put(int(at.at), d.list[last])
	d.list[last] = nil
	d.list = d.list[:last]
	at.at = nowhere
}

// newSet makes an empty set in a slot.
func (p *Pool) newSet(f filter, slot int) *set {
	p.setIDs++
	id := p.setIDs*maxSets + uint64(slot)
	s := &set{id: id, filter: f, ready: newOrder(p.strategy, id, p)}
	if f.host != "" {
		s.rests = p.rests.ask(f.host)
		s.rests.asked = true
	}
	p.slots[slot] = s
	return s
}

// live is the set of an id; nil if it was dropped.
func (p *Pool) live(id uint64) *set {
	if s := p.slots[id%maxSets]; s != nil && s.id == id {
		return s
	}
	return nil
}

// join makes a proxy that is none yet a member if it passes the filter.
func (p *Pool) join(s *set, e *entry, now time.Duration) {
	if e.gone || !s.filter.matches(e.proxy) {
		return
	}
	i := slices.IndexFunc(e.places, func(at place) bool { return p.live(at.set) == nil })
	if i < 0 {
		i = len(e.places)
		e.places = append(e.places, place{})
	}
	e.places[i] = place{set: s.id, at: nowhere}
	s.size++
	c, _ := e.class(now)
	s.move(e, &e.places[i], c)
}

// setOf is the set of a filter; nil if no proxy passes it. The pool's lock is held, and given up meanwhile if the set has to be
// made.
func (p *Pool) setOf(f filter) *set {
	if f == (filter{}) {
		return p.slots[0]
	}
	for {
		if s := p.sets[f]; s != nil {
			s.used = p.picks
			return s
		}
		if p.words != nil && p.words.lacks(f) {
			return nil
		}
		p.mu.Unlock()
		p.makeSet(f)
		p.mu.Lock()
	}
}

// makeSet makes a set in small steps. It takes part in every change from its first moment on, and is asked only when it is
// complete.
func (p *Pool) makeSet(f filter) {
	p.build.Lock()
	defer p.build.Unlock()
	members := p.words.members(f) // these change under build only
	p.mu.Lock()
	if len(members) == 0 {
		p.words.isVoid(f)
	}
	if p.sets[f] != nil || len(members) == 0 {
		p.mu.Unlock()
		return
	}
	s := p.newSet(f, p.freeSlot())
	p.mu.Unlock()
	for part := range slices.Chunk(members, step) {
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
	s.used = p.picks
	p.sets[f] = s
}

// freeSlot is an empty slot, or that of the set unused for longest. Slot 0 is never free.
func (p *Pool) freeSlot() int {
	oldest := 1
	for slot := 1; slot < maxSets; slot++ {
		s := p.slots[slot]
		if s == nil {
			return slot
		}
		if s.used < p.slots[oldest].used {
			oldest = slot
		}
	}
	s := p.slots[oldest]
	delete(p.sets, s.filter)
	p.slots[oldest] = nil
	if s.rests != nil && !p.isAsked(s.rests) {
		s.rests.asked = false
		p.rests.tidy(s.rests)
	}
	return oldest
}

// isAsked reports whether a set leaves out those that rest for the host.
func (p *Pool) isAsked(h *hostRests) bool {
	return slices.ContainsFunc(p.slots[:], func(s *set) bool { return s != nil && s.rests == h })
}

// move puts a member, whose place is given, where c belongs.
func (s *set) move(e *entry, in *place, c class) {
	at := in.at
	if c != out && s.rests.has(e) {
		c = out
	}
	switch {
	case at >= 0 && c != ready:
		s.ready.remove(e)
	case at < nowhere:
		if was, i := turnOf(at); was != c {
			s.turns(was).remove(i, was, s.id)
			in.at = nowhere
		}
	}
	if in.at != nowhere {
		return
	}
	switch c {
	case ready:
		s.ready.add(e)
	case due, spare:
		in.at = s.turns(c).add(e, c)
	case out:
	}
}

func (s *set) turns(c class) *turns {
	if c == spare {
		return &s.spare
	}
	return &s.due
}

// has reports whether a proxy is a member.
func (s *set) has(e *entry) bool {
	return !e.gone && e.in(s.id) != nil
}

// busy reports whether a member works and is only full or ahead of its rate.
func (s *set) busy(e *entry, f skips, now time.Duration) bool {
	return s.has(e) && !f.skip(e) && (e.inflight >= e.most || e.free > now) && !e.troubled && (f.spare || !e.isAvoided(now))
}

// turns is proxies that are taken around, without regard to the strategy.
type turns struct {
	list []*entry
	next int
}

// add returns the place.
func (t *turns) add(e *entry, c class) (at int32) {
	t.list = append(t.list, e)
	return turnAt(c, len(t.list)-1)
}

// remove moves the last one into the gap.
func (t *turns) remove(i int, c class, set uint64) {
	last := len(t.list) - 1
	t.list[i] = t.list[last]
	t.list[i].in(set).at = turnAt(c, i)
	t.list[last] = nil
	t.list = t.list[:last]
}

func (t *turns) pick(f skips) *entry {
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

// skips is what one pick leaves out although it is ready: the proxies that failed the job, those that rest for its host and,
// without spare, those that another worker found dead.
type skips struct {
	exclude []string
	rests   *hostRests
	spare   bool
	due     bool // sessions leave out those that are due for a probe
	now     time.Duration
	judge   *outlier.Judge // leaves out the proxies that are not reliable now; nil leaves out none
}

func (f skips) skip(e *entry) bool {
	return f.rests.has(e) || len(f.exclude) > 0 && slices.Contains(f.exclude, e.proxy.ID) || f.judge != nil && !f.judge.Reliable(e.index, f.now)
}

// take reports whether a proxy that is asked for by itself can be taken now.
func (f skips) take(e *entry, now time.Duration) bool {
	c, _ := e.class(now)
	return (c == ready || c == due && !f.due || c != out && f.spare) && !f.skip(e)
}

// onlyReliable also leaves out the proxies whose latest attempt failed, or that relayed no response lately.
func (f skips) onlyReliable(judge *outlier.Judge, now time.Duration) skips {
	f.judge, f.now = judge, now
	return f
}

// maxSets bounds the filters that are kept at once; the one unused for longest makes room.
const maxSets = 256

// maxPool keeps indexes within int32.
const maxPool = math.MaxInt32 / 2
