package rotation

import "math/rand/v2"

// twoChoices picks the better of two random proxies: the best of all would get all traffic at once (Mitzenmacher, "The power of
// two choices in randomized load balancing", 2001). Proven proxies, which have a long enough record, come first in the list, so
// that unproven ones get a bounded share of the draws.
type twoChoices struct {
	// list[:proven] are the proven proxies. Every change keeps this invariant.
	dense
	pool    *Pool
	proven  int
	numbers numbers
}

// add appends a proxy, and moves it to the proven ones if it is proven.
func (d *twoChoices) add(e *entry) {
	d.dense.add(e)
	if e.record.isProven() {
		// It is swapped with the first unproven proxy.
		d.swap(len(d.list)-1, d.proven)
		d.proven++
	}
}

// remove takes a proxy out and keeps the proven ones in front.
func (d *twoChoices) remove(e *entry) {
	// The proxy is moved behind the proven ones first: dense.remove moves the last proxy of the list into the gap,
	// which must not lie among the proven ones.
	d.demote(e)
	d.dense.remove(e)
}

// demote moves e behind the proven proxies.
func (d *twoChoices) demote(e *entry) {
	if i := int(e.positionIn(d.set).at); i < d.proven {
		d.proven--
		d.swap(i, d.proven)
	}
}

// swap exchanges two proxies of the list.
func (d *twoChoices) swap(i, j int) {
	a, b := d.list[i], d.list[j]
	d.put(i, b)
	d.put(j, a)
}

// touch moves a proxy whose record has become long enough to the proven ones, or back.
func (d *twoChoices) touch(e *entry) {
	i := int(e.positionIn(d.set).at)
	if i >= d.proven && e.record.isProven() {
		d.swap(i, d.proven)
		d.proven++
	}
	// A record becomes unproven when it is cleared.
	if !e.record.isProven() {
		d.demote(e)
	}
}

func (d *twoChoices) pick(f skips) *entry {
	if len(d.list) == 0 {
		return nil
	}
	// One draw decides the part, so a pick stays within it.
	low, high := d.bounds()
	if first := d.drawTwo(f, low, high); first != nil {
		return first
	}
	return d.scan(f)
}

// bounds returns the part of the list to draw from. While unproven proxies are the minority, they get 2 to 10 % of the draws. If
// nearly all are unproven, they have to be used.
func (d *twoChoices) bounds() (low, high int) {
	unproven := len(d.list) - d.proven
	if unproven == 0 || d.proven == 0 {
		return 0, len(d.list)
	}
	part := float64(unproven) / float64(len(d.list))
	// The share grows from 2 to 10 % up to one half, and from there to all of the draws.
	share := 0.02 + 0.16*part
	if part > 0.5 {
		share = 0.1 + 1.8*(part-0.5)
	}
	if rand.Float64() < share {
		return d.proven, len(d.list)
	}
	return 0, d.proven
}

// drawTwo draws pairs from a part of the list until one of a pair is not skipped.
func (d *twoChoices) drawTwo(f skips, low, high int) (best *entry) {
	among := d.list[low:high]
	for range draws / 2 {
		// Both are loaded before either is used, so that the processor waits for memory once.
		a, b := d.numbers.choose(among), d.numbers.choose(among)
		switch skipA, skipB := f.skip(a), f.skip(b); {
		// Two draws of the same proxy are no choice.
		case !skipA && !skipB && a != b:
			if b.cost(d.pool.meanLatency) < a.cost(d.pool.meanLatency) {
				return b
			}
			return a
		case !skipA:
			best = a
		case !skipB:
			best = b
		}
		// A single candidate was found; drawing again cannot find another.
		if best != nil && len(among) == 1 {
			return best
		}
	}
	return best
}
