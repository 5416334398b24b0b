package breaker

import "time"

// window is the last failures of a generation: a ring of as many as open the breaker. An older one can never be among the
// threshold's worth that are recent, so nothing is lost by forgetting it, and the memory is constant.
type window struct {
	ring []failure
	next int // the oldest once the ring is full
}

// failure is one that was counted, at the end of its call.
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

// recent counts the failures later than after, and the targets that they came from.
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

// seen reports whether one of the failures before index i, later than after, was at the same target.
func (w *window) seen(target uint64, i int, after time.Duration) bool {
	for _, f := range w.ring[:i] {
		if f.target == target && f.at > after {
			return true
		}
	}
	return false
}
