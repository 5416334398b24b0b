package worker

import "time"

const (
	guaranteeFor    = 10 * time.Minute // how long a queue without work keeps its guaranteed share
	guaranteedShare = 0.25             // the part of its share by weight that a queue is guaranteed
)

// available returns how many free slots a queue may use: its guaranteed ones, and those that are guaranteed to no other queue.
func (s *slots) available(queue *queueSlots, now time.Time) int {
	lendable := s.free
	for _, other := range s.queues {
		if other != queue {
			lendable -= max(0, s.guaranteed(other, now)-other.used)
		}
	}
	return min(s.free, max(lendable, s.guaranteed(queue, now)-queue.used))
}

// guaranteed returns how many slots no other queue may use: at least a quarter of the queue's share. The sum over all queues is
// at most the number of slots.
func (s *slots) guaranteed(queue *queueSlots, now time.Time) int {
	switch {
	// One slot for each queue cannot be guaranteed then.
	case s.total < len(s.queues):
		return 0
	case queue.worked.IsZero() || now.Sub(queue.worked) > guaranteeFor:
		return 1
	}
	return 1 + int(float64(s.total-len(s.queues))*queue.weight/s.totalWeight*guaranteedShare)
}
