package rotation

import "math/bits"

// wheel gives each proxy its weight's part, evenly spread. Proxies whose weights have the same number of binary digits share a
// spoke. The spokes take turns by smooth weighted round robin, as in nginx; within a spoke they take turns one after the
// other, and a turn is used as often as the weight is of the spoke's greatest, which is half of the time at least. So a pick
// looks at two proxies or fewer, however many there are and whatever their weights.
type wheel struct {
	spokes [10]spoke // weights are 1 to 1000
}

type spoke struct {
	dense
	shares []share // beside dense's list
	sum    int64   // of the weights
	credit int64
	next   int
}

// share is what a proxy may have, and what it has had less or more than that.
type share struct{ weight, credit int32 }

func newWheel(set uint64) *wheel {
	w := new(wheel)
	for i := range w.spokes {
		w.spokes[i].set = set
	}
	return w
}

func (w *wheel) spoke(e *entry) *spoke {
	return &w.spokes[min(bits.Len32(uint32(e.weight))-1, len(w.spokes)-1)]
}

func (w *wheel) len() (n int) {
	for i := range w.spokes {
		n += len(w.spokes[i].list)
	}
	return n
}

func (w *wheel) all() (list []*entry) {
	for i := range w.spokes {
		list = append(list, w.spokes[i].list...)
	}
	return list
}

func (w *wheel) add(e *entry) {
	s := w.spoke(e)
	s.add(e)
	s.shares = append(s.shares, share{weight: e.weight})
	s.sum += int64(e.weight)
}

func (w *wheel) remove(e *entry) {
	s := w.spoke(e)
	i, last := e.in(s.set).at, len(s.shares)-1
	s.shares[i] = s.shares[last] // as dense does
	s.shares = s.shares[:last]
	s.remove(e)
	s.sum -= int64(e.weight)
}

func (w *wheel) touch(*entry) {}

func (w *wheel) pick(f skips) *entry {
	for range draws {
		i := w.turn()
		if i < 0 {
			return nil
		}
		if e := w.spokes[i].pick(i, f); e != nil {
			return e
		}
	}
	for i := range w.spokes {
		if e := w.spokes[i].scan(f); e != nil {
			return e
		}
	}
	return nil
}

// turn is the spoke whose turn it is; below zero when all are empty.
func (w *wheel) turn() int {
	best, sum := -1, int64(0)
	for i := range w.spokes {
		s := &w.spokes[i]
		if len(s.list) == 0 {
			continue
		}
		s.credit += s.sum
		sum += s.sum
		if best < 0 || s.credit > w.spokes[best].credit {
			best = i
		}
	}
	if best >= 0 {
		w.spokes[best].credit -= sum
	}
	return best
}

// pick goes on from turn to turn until one is used.
func (s *spoke) pick(digits int, f skips) *entry {
	most := int32(2<<digits - 1)
	for range 2 * draws {
		if s.next >= len(s.list) {
			s.next = 0
		}
		e, share := s.list[s.next], &s.shares[s.next]
		s.next++
		if share.credit += share.weight; share.credit < most {
			continue
		}
		share.credit -= most
		if !f.skip(e) {
			return e
		}
	}
	return nil
}
