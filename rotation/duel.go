package rotation

import "math/rand/v2"

// duel takes the better of two that are drawn at random: the best of all would get everything at once (Mitzenmacher, "The
// power of two choices", 2001). Those that have proven themselves stand in front of those that have not, so that strangers
// get a bounded part of the draws.
type duel struct {
	dense
	pool   *Pool
	proven int
}

func (d *duel) add(e *entry) {
	d.dense.add(e)
	if e.record.proven() {
		d.swap(len(d.list)-1, d.proven)
		d.proven++
	}
}

func (d *duel) remove(e *entry) {
	d.demote(e)
	d.dense.remove(e)
}

// demote moves e behind those that are proven.
func (d *duel) demote(e *entry) {
	if i := int(e.in(d.set).at); i < d.proven {
		d.proven--
		d.swap(i, d.proven)
	}
}

func (d *duel) swap(i, j int) {
	a, b := d.list[i], d.list[j]
	d.put(i, b)
	d.put(j, a)
}

func (d *duel) touch(e *entry) {
	i := int(e.in(d.set).at)
	if i >= d.proven && e.record.proven() {
		d.swap(i, d.proven)
		d.proven++
	}
	if !e.record.proven() {
		d.demote(e)
	}
}

func (d *duel) pick(f skips) *entry {
	if len(d.list) == 0 {
		return nil
	}
	low, high := d.side()
	if first := d.fight(f, low, high); first != nil {
		return first
	}
	return d.scan(f)
}

// side is the bounds of those to draw from. While strangers are the fewer they get 2 to 10 % of the draws; where nearly
// all are strangers they have to be used.
func (d *duel) side() (low, high int) {
	strangers := len(d.list) - d.proven
	if strangers == 0 || d.proven == 0 {
		return 0, len(d.list)
	}
	part := float64(strangers) / float64(len(d.list))
	share := 0.02 + 0.16*part
	if part > 0.5 {
		share = 0.1 + 1.8*(part-0.5)
	}
	if rand.Float64() < share {
		return d.proven, len(d.list)
	}
	return 0, d.proven
}

func (d *duel) fight(f skips, low, high int) (best *entry) {
	among := d.list[low:high]
	for range draws / 2 {
		// Both are read from memory at once.
		a, b := among[rand.IntN(len(among))], among[rand.IntN(len(among))]
		switch skipA, skipB := f.skip(a), f.skip(b); {
		case !skipA && !skipB && a != b:
			if b.cost(d.pool.pace) < a.cost(d.pool.pace) {
				return b
			}
			return a
		case !skipA:
			best = a
		case !skipB:
			best = b
		}
		if best != nil && len(among) == 1 {
			return best
		}
	}
	return best
}
