package breaker

import "time"

// window holds the last failures of a generation in a ring with room for FailureThreshold of them. An older failure can never
// be among the recent ones that open the breaker, so the memory is constant.
type window struct {
	ring []failure
	next int // index of the oldest failure, once the ring is full
}

// failure is a failure that counts, and when its call ended.
type failure struct {
	at     time.Duration
	target uint64
}

func (w *window) add(at time.Duration, target uint64) {
	f := failure{at: at, target: target}
	if len(w.ring) < cap(w.ring) {
		w.ring = append(w.ring, f)
		return
	}
	w.ring[w.next] = f
	w.next = (w.next + 1) % len(w.ring)
}

func (w *window) clear() { w.ring, w.next = w.ring[:0], 0 }

// recent returns the number of failures later than after, and of their targets.
func (w *window) recent(after time.Duration) (n, distinct int) {
	for i, f := range w.ring {
		if f.at <= after {
			continue
		}
		n++
		if f.target == 0 || !w.seen(f.target, i, after) {
			distinct++
		}
	}
	return n, distinct
}

// seen reports whether a failure before index i, later than after, has the same target.
func (w *window) seen(target uint64, i int, after time.Duration) bool {
	for _, f := range w.ring[:i] {
		if f.target == target && f.at > after {
			return true
		}
	}
	return false
}
