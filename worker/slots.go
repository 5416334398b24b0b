package worker

import (
	"context"
	"math"
	"sync"
	"time"
)

const (
	pollEvery = 200 * time.Millisecond // how often an idle consumer is polled while others are backlogged
	// idlePoll is how long a poll waits at most when no consumer is backlogged: 64 consumers cost a request in 4 s. They end at
	// different times (idleWait), so the requests do not come all at once either.
	idlePoll = 4 * time.Minute
	maxPull  = 256 // messages of one pull request: a larger one would only delay the first message
)

// slots shares a worker's slots among its consumers. A consumer is backlogged when its last fetch left messages behind.
// Backlogged consumers share the slots by the weight of their queue, and the consumers of one queue evenly. So a storm of
// retries cannot starve fresh jobs, and one queue cannot starve another. An idle consumer is polled. The poll holds no slot while
// no consumer is backlogged. Otherwise it holds one slot, every 200 ms at most.
//
// However long jobs run, each queue has guaranteed slots that other queues never get: one slot, and a quarter of its share by
// weight if the queue had work in the last ten minutes. With fewer slots than queues nothing is guaranteed, and the queues are
// served in weighted round robin.
type slots struct {
	mu        sync.Mutex // guards all fields below, and those of the consumers' shares
	total     int
	free      int
	createdAt time.Time
	consumers []*consumerSlots
	queues    []*queueSlots
	// totalWeight is the sum of the weights of all queues.
	totalWeight float64
	// backloggedWeight is the same over the queues that have a backlogged consumer. Zero means that no consumer is backlogged.
	backloggedWeight float64
	// polls is how many slots polls hold while other consumers are backlogged. polledLast is true if the last slot went to a
	// poll.
	polls      int
	polledLast bool
	// idlePoll is how long a poll waits at most when no consumer is backlogged.
	idlePoll time.Duration
}

// queueSlots is what the consumers of one queue have in common.
type queueSlots struct {
	weight     float64
	backlogged int       // how many of its consumers are
	used       int       // slots in a fetch or busy with a job
	worked     time.Time // when a job of the queue ran last; zero: never
}

// consumerSlots is the state of one consumer in slots.
type consumerSlots struct {
	queue *queueSlots
	// grants receives what may be fetched. Its capacity is one: a puller waits again only after it has received the grant.
	grants chan grant

	number      int  // in slots.consumers
	used        int  // slots in a fetch or busy with a job
	backlogged  bool // the last fetch left messages behind
	waiting     bool
	polling     bool      // its fetch is one of slots.polls
	lastFetchAt time.Time // when the last fetch began
	// currentWeight accumulates fractions of slots, as in the smooth weighted round robin of nginx. With fewer slots than
	// consumers, a consumer of small weight would otherwise never get a whole slot.
	currentWeight float64
}

// grant is the permission to fetch n messages into as many slots. If wait is above zero, it is a poll that holds no slot: each
// message that comes must acquire one.
type grant struct {
	n    int
	wait time.Duration
}

// slots returns how many slots the grant holds.
func (g grant) slots() int {
	if g.wait > 0 {
		return 0
	}
	return g.n
}

// newSlots makes slots without consumers, all of them free.
func newSlots(total int) *slots {
	return &slots{total: total, free: total, createdAt: time.Now(), idlePoll: idlePoll}
}

// add creates the shares of n consumers of one queue. All of them are added before the first waitForGrant.
func (s *slots) add(weight, n int) []*consumerSlots {
	queue := &queueSlots{weight: float64(weight)}
	s.queues = append(s.queues, queue)
	s.totalWeight += queue.weight
	for range n {
		s.consumers = append(s.consumers, &consumerSlots{queue: queue, number: len(s.consumers), grants: make(chan grant, 1)})
	}
	return s.consumers[len(s.consumers)-n:]
}

// waitForGrant waits until c may fetch. If ctx ends first, ok is false and there is nothing to give back.
func (s *slots) waitForGrant(ctx context.Context, c *consumerSlots) (g grant, ok bool) {
	s.startWaiting(c)
	// The ticks are needed: a poll becomes due, and a queue loses its guaranteed slots, without any event.
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case g := <-c.grants:
			return g, true
		case <-tick.C:
			s.startWaiting(c)
		case <-ctx.Done():
			return grant{}, s.withdraw(c)
		}
	}
}

// startWaiting makes c wait, unless it has a grant already, and hands out free slots.
func (s *slots) startWaiting(c *consumerSlots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.waiting = len(c.grants) == 0
	s.dispatch(time.Now())
}

// setIdle notes that c fetches nothing for a while, whatever its backlog: others may have its slots.
func (s *slots) setIdle(c *consumerSlots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setBacklogged(c, false)
	s.dispatch(time.Now())
}

// withdraw ends c's wait. It returns the slots of a grant that came at the same moment. It always returns false, for
// waitForGrant.
func (s *slots) withdraw(c *consumerSlots) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.waiting = false
	select {
	case g := <-c.grants:
		s.giveBack(c, g.slots())
	default:
	}
	return false
}

// acquire takes a slot for a message of a poll without slots. It reports false if there is none for this consumer.
func (s *slots) acquire(c *consumerSlots) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.available(c.queue, time.Now()) < 1 {
		return false
	}
	s.use(c, 1)
	return true
}

// use moves n free slots to a consumer.
func (s *slots) use(c *consumerSlots, n int) {
	s.free -= n
	c.used += n
	c.queue.used += n
}

// endPull ends a fetch. It gives back unused slots; backlogged means that messages were left behind.
func (s *slots) endPull(c *consumerSlots, unused int, backlogged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endPoll(c)
	s.setBacklogged(c, backlogged)
	// A consumer with messages left or taken had work, so its queue keeps its guaranteed share.
	if backlogged || c.used > unused {
		c.queue.worked = time.Now()
	}
	s.giveBack(c, unused)
}

// endPoll ends a poll that held a slot.
func (s *slots) endPoll(c *consumerSlots) {
	if c.polling {
		c.polling = false
		s.polls--
	}
}

// release gives back the slot of a job that has ended.
func (s *slots) release(c *consumerSlots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.queue.worked = time.Now()
	s.giveBack(c, 1)
}

// giveBack frees n slots of a consumer and hands out what is free. The caller holds the lock.
func (s *slots) giveBack(c *consumerSlots, n int) {
	s.use(c, -n)
	s.dispatch(time.Now())
}

// dispatch hands out free slots until no consumer may have one.
func (s *slots) dispatch(now time.Time) {
	for s.free > 0 {
		c, g := s.nextGrant(now)
		if c == nil {
			return
		}
		s.use(c, g.slots())
		c.waiting, c.lastFetchAt = false, now
		// It never blocks: a consumer that waits has received its last grant.
		c.grants <- g
	}
}

// nextGrant returns the consumer that gets the next slots: an idle one to be polled, or the backlogged one furthest below its
// share. Polls and backlogged consumers alternate, and polls hold at most an eighth of the slots. Without this limit, polls of
// a slow server could hold all slots and leave none for jobs.
func (s *slots) nextGrant(now time.Time) (*consumerSlots, grant) {
	if s.backloggedWeight == 0 {
		c := s.nextPoll(now, s.idlePoll)
		if c == nil {
			return nil, grant{}
		}
		return c, grant{n: 1, wait: s.idleWait(c, now)}
	}
	mayPoll := s.polls < max(1, s.total/8)
	if s.polledLast || !mayPoll {
		if c, g := s.nextBacklogged(now); c != nil {
			s.polledLast = false
			return c, g
		}
	}
	// Polls do not wait here, so that a slot is held for a round trip only.
	if c := s.nextPoll(now, 0); c != nil && mayPoll {
		c.polling = true
		s.polls++
		s.polledLast = true
		return c, grant{n: 1}
	}
	s.polledLast = false
	return s.nextBacklogged(now)
}

// nextPoll returns the waiting idle consumer whose last poll is the oldest. A poll that does not wait for messages is repeated
// only every pollEvery.
func (s *slots) nextPoll(now time.Time, wait time.Duration) (oldest *consumerSlots) {
	for _, c := range s.consumers {
		if !c.waiting || c.backlogged || wait == 0 && (now.Sub(c.lastFetchAt) < pollEvery || s.available(c.queue, now) < 1) {
			continue
		}
		if oldest == nil || c.lastFetchAt.Before(oldest.lastFetchAt) {
			oldest = c
		}
	}
	return oldest
}

// nextBacklogged returns the waiting backlogged consumer that is furthest below its share, and its grant.
func (s *slots) nextBacklogged(now time.Time) (*consumerSlots, grant) {
	var best *consumerSlots
	var bestNeed, bestMissing, promised float64
	for _, c := range s.consumers {
		if !c.backlogged {
			continue
		}
		missing := s.fraction(c)*float64(s.total) - float64(c.used)
		if !c.waiting {
			// Its fetch returns soon, so its missing slots stay free for it.
			promised += math.Max(0, math.Floor(missing))
			continue
		}
		// The consumer furthest below its share comes first; the accumulated fraction decides among those that
		// miss less than a slot.
		if need := missing + c.currentWeight; (best == nil || need > bestNeed) && s.available(c.queue, now) > 0 {
			best, bestNeed, bestMissing = c, need, missing
		}
	}
	if best == nil {
		return nil, grant{}
	}
	// At least one slot, at most what is free and not promised to others.
	n := min(max(1, int(math.Round(bestMissing))), s.free-int(promised), s.available(best.queue, now), maxPull)
	if n < 1 {
		return nil, grant{}
	}
	s.charge(best, n)
	return best, grant{n: n}
}

// charge accounts for n slots: each backlogged consumer earns its fraction of them, and the one that gets them pays n.
func (s *slots) charge(to *consumerSlots, n int) {
	for _, c := range s.consumers {
		if !c.backlogged {
			continue
		}
		c.currentWeight += float64(n) * s.fraction(c)
		if c == to {
			c.currentWeight -= float64(n)
		}
		// The bound keeps a consumer that could not fetch for long from getting all slots at once.
		c.currentWeight = max(-1, min(1, c.currentWeight))
	}
}

// fraction returns a backlogged consumer's share of all slots, between 0 and 1.
func (s *slots) fraction(c *consumerSlots) float64 {
	return c.queue.weight / s.backloggedWeight / float64(c.queue.backlogged)
}

// setBacklogged marks a consumer as backlogged or idle and maintains the sums that fraction needs.
func (s *slots) setBacklogged(c *consumerSlots, backlogged bool) {
	if c.backlogged == backlogged {
		return
	}
	c.backlogged = backlogged
	if backlogged {
		if c.queue.backlogged++; c.queue.backlogged == 1 {
			s.backloggedWeight += c.queue.weight
		}
		return
	}
	if c.queue.backlogged--; c.queue.backlogged == 0 {
		s.backloggedWeight -= c.queue.weight
	}
}
