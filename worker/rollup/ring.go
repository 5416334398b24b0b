package rollup

// ring keeps the newest entries, at most limit. It grows with its entries, so a worker with little work needs little memory. The
// lock of the Book guards it.
type ring[T any] struct {
	limit   int
	next    int // index of the oldest entry once the ring is full; the next entry replaces it
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

// newest returns up to limit of the entries for which keep returns true, newest first. keep sees every
// entry, because entries come from many goroutines and machines and are not quite in the order of their times.
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
