package rollup

// ring keeps the newest entries, at most most of them. It grows as it is filled, so a quiet worker pays for little.
type ring[T any] struct {
	most    int
	next    int // where the next one goes once the ring is full: the oldest
	entries []T
}

func (r *ring[T]) add(v T) {
	if len(r.entries) < r.most {
		r.entries = append(r.entries, v)
		return
	}
	r.entries[r.next] = v
	r.next = (r.next + 1) % r.most
}

// newest returns up to most of the entries that keep wants, newest first. It looks at all of them: they come from
// many goroutines and machines, so their times are not quite in order.
func (r *ring[T]) newest(most int, keep func(*T) bool) []T {
	out := []T{}
	for i := range r.entries {
		at := (r.next + len(r.entries) - 1 - i) % len(r.entries)
		if len(out) < most && keep(&r.entries[at]) {
			out = append(out, r.entries[at])
		}
	}
	return out
}
