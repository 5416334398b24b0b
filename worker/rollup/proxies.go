package rollup

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// ProxyHours is for how many hours a Book distinguishes proxies, the running one included.
	ProxyHours = 24
	// maxNamed is how many proxies an hour names; the others share one row.
	maxNamed = 1000
	// maxTracks bounds the proxies of a running hour: only at its end is it known which were the busiest.
	maxTracks = 10_000
	// everyProxy stands where an id does, for all proxies together. No proxy can have that id.
	everyProxy = "~"
)

// The fields of proxyCounts.
const (
	proxyAttempts = iota
	proxySucceeded
	proxyFailed
	proxyOpens
	proxyBytes
	proxyLatency // µs, over all attempts
	proxyClass   // the first of five: attempts by class of their status, from none and 2xx to 5xx
	proxyFields  = proxyClass + 5
)

// proxyCounts are the sums of one proxy.
type proxyCounts [proxyFields]int64

// countAttempt returns what one attempt adds to the sums of its proxy. An attempt with neither an answer nor a fault
// counts as neither success nor failure.
func countAttempt(f AttemptFact) (c proxyCounts) {
	c[proxyAttempts] = 1
	c[proxyBytes] = f.Bytes
	c[proxyLatency] = max(f.Duration.Microseconds(), 0)
	if f.Status >= 200 && f.Status <= 599 {
		c[proxyClass+f.Status/100-1] = 1
	} else {
		c[proxyClass] = 1
	}
	switch {
	case f.Fault != jobs.FaultNone:
		c[proxyFailed] = 1
	case f.Status != 0: // also when the body was too large for the job: the proxy delivered
		c[proxySucceeded] = 1
	}
	return c
}

// merge adds the sums of o.
func (c *proxyCounts) merge(o *proxyCounts) {
	for i, n := range o {
		c[i] += n
	}
}

// subtract takes the sums of o away.
func (c *proxyCounts) subtract(o *proxyCounts) {
	for i, n := range o {
		c[i] -= n
	}
}

// cell is one hour of one proxy. A proxy that did nothing in an hour has no cell.
type cell struct {
	hour   int64
	counts proxyCounts
}

// row holds the hours of one proxy, newest last, and their total, so that a query of the day need not add them up.
type row struct {
	id string
	// total is the sum of cells, which has one cell an hour.
	total proxyCounts
	cells []cell
}

// add adds to an hour and to the total.
func (r *row) add(hour int64, c *proxyCounts) {
	r.at(hour).merge(c)
	r.total.merge(c)
}

// set replaces the sums of an hour.
func (r *row) set(hour int64, c *proxyCounts) {
	held := r.at(hour)
	r.total.subtract(held)
	r.total.merge(c)
	*held = *c
}

// at returns the sums of an hour and makes its cell if there is none. Cells stay ordered by hour.
func (r *row) at(hour int64) *proxyCounts {
	// From the end, because facts are mostly of the newest hour.
	i := len(r.cells) - 1
	for i >= 0 && r.cells[i].hour > hour {
		i--
	}
	if i < 0 || r.cells[i].hour != hour {
		i++
		r.cells = slices.Insert(r.cells, i, cell{hour: hour})
	}
	return &r.cells[i].counts
}

// find is the cell of that hour, nil if there is none.
func (r *row) find(hour int64) *proxyCounts {
	for i := len(r.cells) - 1; i >= 0 && r.cells[i].hour >= hour; i-- {
		if r.cells[i].hour == hour {
			return &r.cells[i].counts
		}
	}
	return nil
}

// keep drops the hours for which keep returns false.
func (r *row) keep(keep func(hour int64) bool) {
	r.cells = slices.DeleteFunc(r.cells, func(c cell) bool {
		if keep(c.hour) {
			return false
		}
		r.total.subtract(&c.counts)
		return true
	})
}

// since sums the hours from first on.
func (r *row) since(first int64) proxyCounts {
	if first == math.MinInt64 || len(r.cells) == 0 || r.cells[0].hour >= first {
		return r.total
	}
	var sum proxyCounts
	for i := len(r.cells) - 1; r.cells[i].hour >= first; i-- {
		sum.merge(&r.cells[i].counts)
	}
	return sum
}

// table holds a row for each proxy that it names, and one for all proxies, named or not: what the rest did is what is
// left of that, however many there are.
type table struct {
	rows    map[string]*row
	order   []*row // the same by id, so that to rank them compares no ids
	every   row
	current int64 // the hour of the clock at the latest call of roll
	// floor is what the last of the busiest had the last time that those of the day were ranked. As long as enough proxies
	// have as many attempts, none with fewer is among the busiest: few are left to rank.
	floor int64
}

// put replaces the counts of an hour. Proxies that s does not name lose their cell of this hour.
func (t *table) put(hour int64, s *Sum) {
	t.keep(func(id string, h int64) bool { return h != hour || s.rows[id] != nil })
	// Sorted, so that with too many proxies every worker leaves out the same ones.
	for _, id := range slices.Sorted(maps.Keys(s.rows)) {
		if r := t.row(id); r != nil {
			r.set(hour, s.rows[id])
		}
	}
	if s.every != (proxyCounts{}) {
		t.every.set(hour, &s.every)
	}
}

// row is the proxy's row, nil when there are too many.
func (t *table) row(id string) *row {
	r := t.rows[id]
	if r == nil && len(t.rows) < maxTracks {
		r = &row{id: id}
		t.rows[id] = r
		at, _ := slices.BinarySearchFunc(t.order, id, func(r *row, id string) int { return cmp.Compare(r.id, id) })
		t.order = slices.Insert(t.order, at, r)
	}
	return r
}

// roll forgets what is older than ProxyHours and, when hours have ended, folds all but their busiest proxies. It
// reports whether the hour is another one. That may be an earlier one: then the clock stood ahead, and what it counted
// there is forgotten.
func (t *table) roll(now int64, fold bool) bool {
	if now == t.current {
		return false
	}
	t.current = now
	t.keep(func(_ string, hour int64) bool { return hour > now-ProxyHours && hour <= now+aheadHours })
	for hour := now - ProxyHours + 1; fold && hour < now; hour++ {
		t.fold(hour)
	}
	return true
}

// fold keeps only the busiest proxies of an hour by name. What the others did stays in the sum of all.
func (t *table) fold(hour int64) {
	if named := t.busiest(hour); named != nil {
		t.keep(func(id string, h int64) bool { return h != hour || named[id] || id == everyProxy })
	}
}

// keep drops the cells for which keep returns false, and the rows without a cell.
func (t *table) keep(keep func(id string, hour int64) bool) {
	t.every.keep(func(hour int64) bool { return keep(everyProxy, hour) })
	t.order = slices.DeleteFunc(t.order, func(r *row) bool {
		r.keep(func(hour int64) bool { return keep(r.id, hour) })
		if len(r.cells) > 0 {
			return false
		}
		delete(t.rows, r.id)
		return true
	})
}

// busiest names the proxies with the most attempts of an hour, nil when there are few enough to name all.
func (t *table) busiest(hour int64) map[string]bool {
	var list ranking
	seen := 0
	for at, r := range t.order {
		if c := r.find(hour); c != nil {
			list.offer(at, c[proxyAttempts])
			seen++
		}
	}
	if seen <= maxNamed {
		return nil
	}
	named := make(map[string]bool, maxNamed)
	for _, rank := range list.cut() {
		named[t.order[rank.at].id] = true
	}
	return named
}

// proxySum is what one proxy did.
type proxySum struct {
	id     string
	counts proxyCounts
}

// since returns what the busiest proxies did from an hour on; rest is what the others did.
func (t *table) since(first int64) (busiest []proxySum, rest proxyCounts) {
	var ranks []rank
	if first <= t.current-ProxyHours+1 {
		first = math.MinInt64 // all that is kept
		if ranks = t.rank(first, t.floor); len(ranks) < maxNamed {
			ranks = t.rank(first, 0)
		}
		// A floor that was too high is forgotten; the next ranking finds it again.
		t.floor = 0
		if len(ranks) == maxNamed {
			t.floor = ranks[maxNamed-1].attempts
		}
	} else {
		ranks = t.rank(first, 0)
	}
	busiest, rest = make([]proxySum, 0, len(ranks)), t.every.since(first)
	for _, rank := range ranks {
		r := t.order[rank.at]
		sum := r.since(first)
		busiest = append(busiest, proxySum{r.id, sum})
		rest.subtract(&sum)
	}
	for i, n := range rest {
		rest[i] = max(n, 0) // a part may hold rows without their sum if somebody else wrote it
	}
	return busiest, rest
}

// rank is the order of the busiest proxies from an hour on that have at least so many attempts.
func (t *table) rank(first, least int64) []rank {
	list := ranking{list: make([]rank, 0, min(len(t.order), 2*maxNamed))}
	for at, r := range t.order {
		if sum := r.since(first); sum[proxyAttempts] >= least && sum != (proxyCounts{}) {
			list.offer(at, sum[proxyAttempts])
		}
	}
	return list.cut()
}

// ranking finds the busiest of the proxies that it is offered in the order of their ids. Equal ones stay in that order, so
// that workers that share a pool evenly come to the same names.
type ranking struct {
	list []rank
	full bool // the first maxNamed of the list are in order, and there is no place for what is behind them
}

// rank is a place in the order of ids, and the attempts that decide.
type rank struct {
	at       int
	attempts int64
}

// offer adds a candidate. Twice maxNamed candidates are cut to the best, so the cost of ranking stays linear.
func (l *ranking) offer(at int, attempts int64) {
	// Candidates come in the order of their ids, so an equal one has a later id and loses.
	if l.full && attempts <= l.list[maxNamed-1].attempts {
		return
	}
	if l.list = append(l.list, rank{at, attempts}); len(l.list) == 2*maxNamed {
		l.list, l.full = l.cut(), true
	}
}

// cut is the maxNamed busiest, in order.
func (l *ranking) cut() []rank {
	slices.SortFunc(l.list, func(a, b rank) int {
		if a.attempts != b.attempts {
			return cmp.Compare(b.attempts, a.attempts)
		}
		return cmp.Compare(a.at, b.at)
	})
	return l.list[:min(maxNamed, len(l.list))]
}
