package waiting

import (
	"cmp"
	"slices"
	"sort"
)

// entry is what is remembered of a waiting job, in 24 bytes: the order of the fields avoids padding.
type entry struct {
	seq uint64
	// until is the time of the job, and since is when it entered its state, both in seconds since 1970.
	until, since uint32
	site         uint32 // index of the site; zero for all sites without an index
	queue        uint8  // index of the queue; zero for all queues without an index
	state        uint8  // as stateIndex numbers it, perhaps with passedMark; gone if the job no longer waits
}

// gone marks an entry that compact removes.
const gone = 0

// chunkSize is how many entries are allocated at once. A table that doubled would need three times its memory meanwhile.
const chunkSize = 1 << 13

// table holds entries in the order of their sequences. Its zero value is empty.
type table struct {
	chunks [][]entry // all but the last one are full
	n      int       // entries
}

// at returns the entry of an index. The pointer is valid until the next compact.
func (t *table) at(i int) *entry { return &t.chunks[i/chunkSize][i%chunkSize] }

// add appends an entry, whose sequence must be higher than all others.
func (t *table) add(e entry) {
	if t.n == len(t.chunks)*chunkSize {
		t.chunks = append(t.chunks, make([]entry, 0, chunkSize))
	}
	last := &t.chunks[len(t.chunks)-1]
	*last = append(*last, e)
	t.n++
}

// from returns the index of the first entry whose sequence is seq or higher.
func (t *table) from(seq uint64) int {
	return sort.Search(t.n, func(i int) bool { return t.at(i).seq >= seq })
}

// find returns the entry of a sequence, or nil.
func (t *table) find(seq uint64) *entry {
	if i := t.from(seq); i < t.n && t.at(i).seq == seq {
		return t.at(i)
	}
	return nil
}

// compact removes the entries that are gone, in place, and adds others, whose sequences may be lower.
func (t *table) compact(added []entry) {
	kept := 0
	for i := range t.n {
		if e := *t.at(i); e.state != gone {
			*t.at(kept) = e
			kept++
		}
	}
	t.truncate(kept)
	if len(added) == 0 {
		return
	}
	for _, e := range added {
		t.add(e)
	}
	// Added entries lie at the end and are out of order.
	t.sort()
}

// truncate keeps the first n entries.
func (t *table) truncate(n int) {
	full := (n + chunkSize - 1) / chunkSize
	// The slice keeps its capacity, so the dropped chunks are cleared to free their memory.
	clear(t.chunks[full:])
	t.chunks, t.n = t.chunks[:full], n
	if n%chunkSize != 0 {
		t.chunks[full-1] = t.chunks[full-1][:n%chunkSize]
	}
}

// sort restores the order. It needs twice the memory for a moment, but is rare: read has overlooked a job.
func (t *table) sort() {
	// It needs twice the memory for a moment, unlike compact.
	all := slices.Concat(t.chunks...)
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
	*t = table{}
	for _, e := range all {
		t.add(e)
	}
}
