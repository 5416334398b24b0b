package rotation

import "math/bits"

// wheel gives each proxy its share by weight, evenly spread. Proxies whose weights have the same number of binary digits share a
// spoke. Spokes are chosen by smooth weighted round robin, as in nginx. Within a spoke the proxies take turns, and a proxy uses
// its turn in proportion to its weight: at least half of the time. So a pick visits two proxies on average, however many there
// are and whatever their weights.
type wheel struct {
	spokes [10]spoke // weights are 1 to 1000
}

type spoke struct {
	dense
	credits []credit // parallel to the list of dense
	sum     int64    // of the weights
	credit  int64
	next    int
}

// credit is a proxy's weight, and what it has earned by its turns and not used yet.
type credit struct{ weight, balance int32 }

func newWheel(set uint64) *wheel {
	w := new(wheel)
	for i := range w.spokes {
		w.spokes[i].set = set
	}
	return w
}

func (w *wheel) spokeOf(e *entry) *spoke {
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
	s := w.spokeOf(e)
	s.add(e)
	s.credits = append(s.credits, credit{weight: e.weight})
	s.sum += int64(e.weight)
}

func (w *wheel) remove(e *entry) {
	s := w.spokeOf(e)
	i, last := e.placeIn(s.set).at, len(s.credits)-1
	s.credits[i] = s.credits[last] // as dense does
	s.credits = s.credits[:last]
	s.remove(e)
	s.sum -= int64(e.weight)
}

func (w *wheel) touch(*entry) {}

func (w *wheel) pick(f skips) *entry {
	for range draws {
		i := w.nextSpoke()
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

// nextSpoke returns the spoke whose turn it is; -1 if all are empty.
func (w *wheel) nextSpoke() int {
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

// pick goes from turn to turn until a proxy uses its turn.
func (s *spoke) pick(digits int, f skips) *entry {
	maxWeight := int32(2<<digits - 1)
	for range 2 * draws {
		if s.next >= len(s.list) {
			s.next = 0
		}
		e, c := s.list[s.next], &s.credits[s.next]
		s.next++
		if c.balance += c.weight; c.balance < maxWeight {
			continue
		}
		c.balance -= maxWeight
		if !f.skip(e) {
			return e
		}
	}
	return nil
}
