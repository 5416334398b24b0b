package rotation

import "math/rand/v2"

// levels is a bucket queue of proxies, ordered by attempts in flight. Ties go to the proxy that entered its bucket first. The
// head of the lowest bucket is the least used. Every change costs O(1), where a heap would miss the cache once a level.
type levels struct {
	// list holds the proxies, and each proxy knows its index in it.
	dense
	nodes   []node   // parallel to the list of dense
	buckets []bucket // by attempts in flight
	// It is a lower bound: pick raises it, link lowers it.
	lowest int // all buckets below are empty
}

// node links a proxy to its neighbours in its bucket, by their indexes.
type node struct{ prev, next, bucket int32 }

// bucket is a doubly linked list of the proxies with the same number of attempts in flight; nowhere marks an empty one.
type bucket struct{ head, tail int32 }

// add puts a proxy at the end of its bucket.
func (l *levels) add(e *entry) {
	l.dense.add(e)
	l.nodes = append(l.nodes, node{})
	// The index is that of the proxy just added by dense.
	l.link(int32(len(l.list)-1), int32(e.inflight))
}

// remove takes a proxy out. The last proxy of the array takes over its index, so its links are moved along.
func (l *levels) remove(e *entry) {
	i, last := e.positionIn(l.set).at, int32(len(l.list)-1)
	// Unlinked first: the neighbours must not point to an index that is about to be another proxy.
	l.unlink(i)
	if i != last {
		// The last proxy moves into the gap, as in dense.
		n := l.nodes[last]
		l.nodes[i] = n
		// The neighbours of the moved proxy get its new index.
		*l.before(n) = i
		*l.after(n) = i
	}
	l.nodes = l.nodes[:last]
	l.dense.remove(e)
}

// touch moves a proxy whose number of attempts in flight has changed to its bucket.
func (l *levels) touch(e *entry) {
	i, level := e.positionIn(l.set).at, int32(e.inflight)
	if l.nodes[i].bucket != level {
		l.unlink(i)
		l.link(i, level)
	}
}

// link puts index i at the end of a bucket.
func (l *levels) link(i, level int32) {
	// Buckets are made up to the level and kept: a level that was reached once is reached again.
	for len(l.buckets) <= int(level) {
		l.buckets = append(l.buckets, bucket{nowhere, nowhere})
	}
	r := &l.buckets[level]
	n := node{prev: r.tail, next: nowhere, bucket: level}
	l.nodes[i] = n
	*l.before(n) = i
	r.tail = i
	// A proxy that entered below lowest has to be found by the next pick.
	l.lowest = min(l.lowest, int(level))
}

// unlink takes index i out of its bucket.
func (l *levels) unlink(i int32) {
	n := l.nodes[i]
	*l.before(n) = n.next
	*l.after(n) = n.prev
}

// before returns the link that points forward to n; after returns the link that points back to n. At the ends of a
// bucket these are the bucket's head and tail.
func (l *levels) before(n node) *int32 {
	if n.prev == nowhere {
		return &l.buckets[n.bucket].head
	}
	return &l.nodes[n.prev].next
}

func (l *levels) after(n node) *int32 {
	if n.next == nowhere {
		return &l.buckets[n.bucket].tail
	}
	return &l.nodes[n.next].prev
}

// pick returns the least used proxy that is not skipped. Skipped ones go to the end of their bucket, so that the next
// pick does not meet them at once. After draws of them it takes a random sample instead, because a pick must not visit
// thousands.
func (l *levels) pick(f skips) *entry {
	for l.lowest < len(l.buckets) && l.buckets[l.lowest].head == nowhere {
		l.lowest++
	}
	tries := draws
	for level := l.lowest; level < len(l.buckets); level++ {
		last := l.buckets[level].tail
		for i := l.buckets[level].head; i != nowhere; i = l.buckets[level].head {
			// The tail is noted before the walk, since skipped proxies are put behind it: the walk ends when
			// the last one was seen.
			switch {
			case tries == 0 && f.judge != nil:
				return nil // there may be no reliable one
			case tries == 0:
				return l.sample(f)
			}
			if e := l.list[i]; !f.skip(e) {
				return e
			}
			tries--
			l.unlink(i)
			l.link(i, int32(level))
			if i == last {
				break
			}
		}
	}
	return nil
}

// sample returns the least used of a few random proxies.
func (l *levels) sample(f skips) (best *entry) {
	for range draws {
		// The comparison comes first, because the test for skipping costs more.
		if e := l.list[rand.IntN(len(l.list))]; (best == nil || e.inflight < best.inflight) && !f.skip(e) {
			best = e
		}
	}
	if best == nil {
		return l.scan(f)
	}
	return best
}
