package waiting

import (
	"slices"
	"sort"
)

// entry is what is remembered of a waiting job, in 24 bytes. The order of the fields avoids padding, because a table
// may hold a million entries.
type entry struct {
	seq uint64
	// until is the second of its time, and since the second in which it entered its state, both counted from 1970.
	until, since uint32
	site         uint32 // index of its site; zero stands for all sites without an index
	queue        uint8  // index of its queue; zero stands for all queues without an index
	state        uint8  // index in states; gone if the job no longer waits
}

// gone marks an entry that compact removes.
const gone = 0

// chunkSize is how many entries are allocated at once. A table that grew by doubling would need three times its memory meanwhile.
const chunkSize = 1 << 13

// table holds entries by their sequence. Its zero value is empty.
type table struct {
	chunks [][]entry // all of them are full but the last one
	// n is the number of entries. Chunk i holds entries from i*chunkSize on, so an index needs no search.
	n int
}

// The pointer is valid until the next compact.
func (t *table) at(i int) *entry { return &t.chunks[i/chunkSize][i%chunkSize] }

// add appends an entry, whose sequence is higher than all others. The order by sequence is what from and find
// rely on.
func (t *table) add(e entry) {
	if t.n == len(t.chunks)*chunkSize {
		t.chunks = append(t.chunks, make([]entry, 0, chunkSize))
	}
	last := &t.chunks[len(t.chunks)-1]
	*last = append(*last, e)
	t.n++
}

// from returns the index of the first entry whose sequence is seq or higher. It is a binary search, since the
// entries are ordered by sequence.
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

// compact removes the entries that are gone and adds others, which may be anywhere. It works in place and keeps
// the order: an entry only moves to a lower index.
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

func (t *table) truncate(n int) {
	full := (n + chunkSize - 1) / chunkSize
	// Dropped chunks are cleared, so that their memory is freed although the slice keeps its capacity.
	clear(t.chunks[full:])
	t.chunks, t.n = t.chunks[:full], n
	if n%chunkSize != 0 {
		t.chunks[full-1] = t.chunks[full-1][:n%chunkSize]
	}
}

// sort is for the rare case that a job was overlooked before.
func (t *table) sort() {
	// It needs twice the memory for a moment, unlike compact.
	all := slices.Concat(t.chunks...)
	slices.SortFunc(all, func(a, b entry) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	*t = table{}
	for _, e := range all {
		t.add(e)
	}
}
