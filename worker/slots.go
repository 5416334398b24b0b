package worker

import (
	"context"
	"math"
	"sync"
	"time"
)

const (
	probeEvery = 200 * time.Millisecond // how often a lane that looked empty is looked at while others have work
	idleWait   = time.Second            // how long a pull waits when no lane has work; a drain waits for its end
	mostPulled = 256                    // of one pull: a larger one would only delay the first of its messages
)

// slots shares a worker's slots among its lanes. A lane is hungry when its last pull left work behind. Hungry lanes
// share the slots by the weight of their queue, and the lanes of one queue evenly: a storm of retries cannot starve
// the fresh jobs of its queue, nor any queue another. A lane that looked empty looks again: while no lane has work it waits
// for some without a slot, and else it gets one slot now and then, so what it lent out comes back at its next look.
type slots struct {
	mu    sync.Mutex
	total int
	free  int
	lanes []*share
	// weight is the sum over the queues that have a hungry lane.
	weight float64
	// looking is how many slots are held by looks while others have work, and lookedLast whether the last slot went to one.
	looking    int
	lookedLast bool
}

// queueShare is what the lanes of one queue have together.
type queueShare struct {
	weight float64
	hungry int // how many of its lanes are
}

// share is one lane's part in slots.
type share struct {
	queue *queueShare
	// grants receives what this lane may pull; it holds one, because a lane asks again only after it has taken that.
	grants chan claim

	used    int  // slots in a pull or busy with a job
	hungry  bool // the last pull left work behind
	waiting bool
	looking bool      // its pull is one of slots.looking
	looked  time.Time // when the last pull began
	// credit is what fractions of slots add up to (smooth weighted round robin): with fewer slots than lanes a light
	// lane would never get a whole one.
	credit float64
}

// claim is the leave to pull n messages into as many slots; with a wait, which means to wait for one without a slot: what comes
// needs a cover.
type claim struct {
	n    int
	wait time.Duration
}

// held is how many slots the claim holds.
func (c claim) held() int {
	if c.wait > 0 {
		return 0
	}
	return c.n
}

func newSlots(total int) *slots { return &slots{total: total, free: total} }

// add makes n lanes of one queue. All lanes are added before the first take.
func (s *slots) add(weight, n int) []*share {
	queue := &queueShare{weight: float64(weight)}
	for range n {
		s.lanes = append(s.lanes, &share{queue: queue, grants: make(chan claim, 1)})
	}
	return s.lanes[len(s.lanes)-n:]
}

// take waits until l may pull. ok is false when ctx ended first; then there is nothing to give back.
func (s *slots) take(ctx context.Context, l *share) (c claim, ok bool) {
	s.mu.Lock()
	l.waiting = true
	s.dispatch(time.Now())
	s.mu.Unlock()
	select {
	case c := <-l.grants:
		return c, true
	case <-ctx.Done():
		return claim{}, s.withdraw(l)
	}
}

// rest says that l takes nothing for a while, whatever work is left: others may have its slots.
func (s *slots) rest(l *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(l, false)
	s.dispatch(time.Now())
}

// withdraw ends l's waiting. A grant that came in the same moment is given back. It always returns false.
func (s *slots) withdraw(l *share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.waiting = false
	select {
	case c := <-l.grants:
		s.giveBack(l, c.held())
	default:
	}
	return false
}

// cover takes a slot for a message that was waited for without one. If it reports false all slots have been given out
// meanwhile.
func (s *slots) cover(l *share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		return false
	}
	s.free--
	l.used++
	return true
}

// pulled ends a pull: unused slots come back, and hungry tells whether work was left behind.
func (s *slots) pulled(l *share, unused int, hungry bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked(l)
	s.turn(l, hungry)
	s.giveBack(l, unused)
}

// looked ends a look.
func (s *slots) looked(l *share) {
	if l.looking {
		l.looking = false
		s.looking--
	}
}

// release gives back the slot of a job that has ended.
func (s *slots) release(l *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(l, 1)
}

func (s *slots) giveBack(l *share, n int) {
	l.used -= n
	s.free += n
	s.dispatch(time.Now())
}

// busy is how many slots are taken, pulls included.
func (s *slots) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - s.free
}

// dispatch hands out free slots until nobody may have one.
func (s *slots) dispatch(now time.Time) {
	for s.free > 0 {
		l, c := s.next(now)
		if l == nil {
			return
		}
		s.free -= c.held()
		l.used += c.held()
		l.waiting, l.looked = false, now
		l.grants <- c
	}
}

// next is the lane that gets the next slots: one that is due for a look, or the neediest. While there is work, looks take
// turns with it and hold few slots: they must not eat up what they look for, however long the way to the server is.
func (s *slots) next(now time.Time) (*share, claim) {
	if s.weight == 0 {
		return s.nextLook(now, idleWait), claim{n: 1, wait: idleWait}
	}
	mayLook := s.looking < max(1, s.total/8)
	if s.lookedLast || !mayLook {
		if l, c := s.nextHungry(); l != nil {
			s.lookedLast = false
			return l, c
		}
	}
	if l := s.nextLook(now, 0); l != nil && mayLook {
		l.looking = true
		s.looking++
		s.lookedLast = true
		return l, claim{n: 1}
	}
	s.lookedLast = false
	return s.nextHungry()
}

// nextLook is the waiting lane that has not been looked at for longest. One that will not wait for work is not looked at too
// often.
func (s *slots) nextLook(now time.Time, wait time.Duration) (oldest *share) {
	for _, l := range s.lanes {
		if !l.waiting || l.hungry || wait == 0 && now.Sub(l.looked) < probeEvery {
			continue
		}
		if oldest == nil || l.looked.Before(oldest.looked) {
			oldest = l
		}
	}
	return oldest
}

// nextHungry is the waiting hungry lane that is furthest below its share, and how many slots it may pull.
func (s *slots) nextHungry() (*share, claim) {
	var best *share
	var bestNeed, bestMissing, promised float64
	for _, l := range s.lanes {
		if !l.hungry {
			continue
		}
		missing := s.part(l)*float64(s.total) - float64(l.used)
		if !l.waiting {
			// It is in a pull that comes back at once: what it lacks is not there to be borrowed.
			promised += math.Max(0, math.Floor(missing))
			continue
		}
		if need := missing + l.credit; best == nil || need > bestNeed {
			best, bestNeed, bestMissing = l, need, missing
		}
	}
	if best == nil {
		return nil, claim{}
	}
	n := min(max(1, int(math.Round(bestMissing))), s.free-int(promised), mostPulled)
	if n < 1 {
		return nil, claim{}
	}
	s.charge(best, n)
	return best, claim{n: n}
}

// charge books n slots: every hungry lane earns its part of them, the one that gets them pays.
func (s *slots) charge(to *share, n int) {
	for _, l := range s.lanes {
		if !l.hungry {
			continue
		}
		l.credit += float64(n) * s.part(l)
		if l == to {
			l.credit -= float64(n)
		}
		l.credit = max(-1, min(1, l.credit))
	}
}

// part is a hungry lane's part of all slots, between 0 and 1.
func (s *slots) part(l *share) float64 {
	return l.queue.weight / s.weight / float64(l.queue.hungry)
}

// turn makes a lane hungry or content and keeps the sums that part needs.
func (s *slots) turn(l *share, hungry bool) {
	if l.hungry == hungry {
		return
	}
	l.hungry = hungry
	if hungry {
		if l.queue.hungry++; l.queue.hungry == 1 {
			s.weight += l.queue.weight
		}
		return
	}
	if l.queue.hungry--; l.queue.hungry == 0 {
		s.weight -= l.queue.weight
	}
}
