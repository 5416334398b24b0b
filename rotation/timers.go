package rotation

import "time"

// timers is a binary heap of values and their times, the earliest first. Cancelling is lazy: the caller that pops a
// value checks whether its time is still the current one. The pool's lock guards it.
type timers[V any] []timer[V]

type timer[V any] struct {
	at    time.Duration
	value V
}

// expired reports whether the earliest time has come.
func (t timers[V]) expired(now time.Duration) bool { return len(t) > 0 && t[0].at <= now }

// push adds a value. It costs O(log n).
func (t *timers[V]) push(at time.Duration, value V) {
	*t = append(*t, timer[V]{at, value})
	q := *t
	for i := len(q) - 1; i > 0; {
		parent := (i - 1) / 2
		if q[parent].at <= q[i].at {
			return
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

// pop removes and returns the earliest value. The heap must not be empty. It costs O(log n).
func (t *timers[V]) pop() timer[V] {
	q := *t
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], timer[V]{} // so that the popped value can be collected
	q = q[:last]
	*t = q
	for i, child := 0, 1; child < last; i, child = child, 2*child+1 {
		if child+1 < last && q[child+1].at < q[child].at {
			// The smaller child moves up.
			child++
		}
		if q[i].at <= q[child].at {
			break
		}
		q[i], q[child] = q[child], q[i]
	}
	return first
}
