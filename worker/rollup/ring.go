package rollup

// ring keeps the newest entries, up to its limit. It grows while it is filled, so a quiet worker needs little
// memory. The book's lock guards it.
type ring[T any] struct {
	limit   int
	next    int // where the next one goes once the ring is full: the oldest
	entries []T
}

// add adds an entry, in place of the oldest one if the ring is full.
func (r *ring[T]) add(v T) {
	if len(r.entries) < r.limit {
		r.entries = append(r.entries, v)
		return
	}
	r.entries[r.next] = v
	r.next = (r.next + 1) % r.limit
}

// newest returns up to limit of the entries for which keep returns true, newest first. It reads all of them: they come from
// many goroutines and machines, so their times are not quite in order.
func (r *ring[T]) newest(limit int, keep func(*T) bool) []T {
	out := []T{}
	for i := range r.entries {
		at := (r.next + len(r.entries) - 1 - i) % len(r.entries)
		if len(out) < limit && keep(&r.entries[at]) {
			out = append(out, r.entries[at])
		}
	}
	return out
}
