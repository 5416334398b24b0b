package rotation

import "math/bits"

// wheel gives each proxy its share of the picks by weight, evenly spread. Proxies whose weights have the same number of binary
// digits form a group. Groups are chosen by smooth weighted round robin, as in nginx. Within a group the proxies take turns, and
// a proxy uses its turn in proportion to its weight: at least half of the time. So a pick visits two proxies on average, however
// many there are and whatever their weights.
type wheel struct {
	groups [10]weightGroup // weights are 1 to 1000
}

// weightGroup holds the proxies whose weights have the same number of binary digits, so that the largest is less than
// twice the smallest.
type weightGroup struct {
	dense
	balances []weightBalance // parallel to the list of dense
	sum      int64           // of the weights
	balance  int64
	next     int
}

// weightBalance is a proxy's weight, and the weight that it has earned and not used yet. balance is below the largest
// weight of the group, so it never overflows.
type weightBalance struct{ weight, balance int32 }

// newWheel makes an empty wheel for a set.
func newWheel(set uint64) *wheel {
	w := new(wheel)
	for i := range w.groups {
		w.groups[i].set = set
	}
	return w
}

// groupOf returns the group of a proxy's weight. Weights are 1 to 1000, which is 1 to 10 binary digits.
func (w *wheel) groupOf(e *entry) *weightGroup {
	// min guards against a weight beyond 1000, which describe has bounded.
	return &w.groups[min(bits.Len32(uint32(e.weight))-1, len(w.groups)-1)]
}

func (w *wheel) len() (n int) {
	for i := range w.groups {
		n += len(w.groups[i].list)
	}
	return n
}

func (w *wheel) all() (list []*entry) {
	for i := range w.groups {
		list = append(list, w.groups[i].list...)
	}
	return list
}

func (w *wheel) add(e *entry) {
	// A new member begins with no balance: it waits for its turn like the others.
	s := w.groupOf(e)
	s.add(e)
	s.balances = append(s.balances, weightBalance{weight: e.weight})
	s.sum += int64(e.weight)
}

func (w *wheel) remove(e *entry) {
	s := w.groupOf(e)
	i, last := e.positionIn(s.set).at, len(s.balances)-1
	// The order of dense and of balances has to stay the same.
	s.balances[i] = s.balances[last] // as dense does
	s.balances = s.balances[:last]
	s.remove(e)
	s.sum -= int64(e.weight)
}

// touch does nothing: weights do not depend on the load.
func (w *wheel) touch(*entry) {}

// pick tries a few groups in turn, and then takes any proxy that is not skipped.
func (w *wheel) pick(f skips) *entry {
	// A group whose proxies are all skipped costs one of the draws.
	for range draws {
		i := w.nextGroup()
		if i < 0 {
			return nil
		}
		if e := w.groups[i].pick(i, f); e != nil {
			return e
		}
	}
	for i := range w.groups {
		if e := w.groups[i].scan(f); e != nil {
			return e
		}
	}
	return nil
}

// nextGroup returns the index of the group whose turn it is; -1 if all are empty. Each group earns its weight, and the
// one with the largest balance pays the sum.
func (w *wheel) nextGroup() int {
	best, sum := -1, int64(0)
	for i := range w.groups {
		s := &w.groups[i]
		if len(s.list) == 0 {
			continue
		}
		// Over a long time each group is chosen in proportion to its sum.
		s.balance += s.sum
		sum += s.sum
		if best < 0 || s.balance > w.groups[best].balance {
			best = i
		}
	}
	if best >= 0 {
		w.groups[best].balance -= sum
	}
	return best
}

// pick goes through the group until a proxy has earned a turn. Each visit adds its weight to its balance, and a turn
// costs the largest weight that the group may have. So at least every second visit is a turn.
func (s *weightGroup) pick(digits int, f skips) *entry {
	// 2<<digits - 1 is the largest number with one binary digit more than the index.
	maxWeight := int32(2<<digits - 1)
	for range 2 * draws {
		if s.next >= len(s.list) {
			s.next = 0
		}
		e, c := s.list[s.next], &s.balances[s.next]
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
