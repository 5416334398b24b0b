package rollup

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// ProxyHours is the number of hours for which a Book has the counts of single proxies, the running hour included.
	ProxyHours = 24
	// maxNamed is how many proxies an ended hour names. The others count only in the sum of all proxies.
	maxNamed = 1000
	// maxTracks bounds the proxies of the running hour. It is larger than maxNamed, because the busiest are known only at the end
	// of the hour.
	maxTracks = 10_000
	// everyProxy is used like a proxy id, for the sum of all proxies. No proxy can have this id.
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
	case f.Status != 0: // also if the body was too large for the job, because the proxy relayed the answer
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

// subtract subtracts the sums of o.
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

// row has the hours of one proxy, newest last, and their total. With the total, a query of the whole day adds up nothing.
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
	// The search begins at the end, because most facts are of the newest hour.
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

// find returns the sums of an hour; nil if the proxy did nothing in it.
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

// table has a row for each proxy that it names, and the row every with the sums of all proxies, named or not. The sums of the
// proxies that are not named are every minus the named ones. The lock of the Book guards it.
type table struct {
	rows    map[string]*row
	order   []*row // the same rows, ordered by id, so that a ranking compares positions and no ids
	every   row
	current int64 // the hour of the clock at the latest call of roll
	// floor is the number of attempts of the last of the maxNamed busiest proxies in the latest ranking of the whole day; zero if
	// unknown. If maxNamed proxies have at least floor attempts, no proxy with fewer is among the busiest and need be ranked.
	floor int64
}

// put replaces the counts of an hour. Proxies that s does not name lose their cell of this hour.
func (t *table) put(hour int64, s *Sum) {
	t.keep(func(id string, h int64) bool { return h != hour || s.rows[id] != nil })
	// The order is fixed, so that every worker leaves out the same proxies if there are too many.
	for _, id := range slices.Sorted(maps.Keys(s.rows)) {
		if r := t.row(id); r != nil {
			r.set(hour, s.rows[id])
		}
	}
	if s.every != (proxyCounts{}) {
		t.every.set(hour, &s.every)
	}
}

// row returns the row of a proxy, and makes it if it is missing; nil if the table has maxTracks rows.
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

// roll sets the running hour, and reports whether it has changed. Then it forgets hours older than ProxyHours, and, if isFinal,
// all but the busiest proxies of ended hours. isFinal means that no more counts of ended hours arrive. The new hour may be an
// earlier one, after a wrong clock was corrected: then the hours that are too far ahead are forgotten.
func (t *table) roll(now int64, isFinal bool) bool {
	if now == t.current {
		return false
	}
	t.current = now
	t.keep(func(_ string, hour int64) bool { return hour > now-ProxyHours && hour <= now+aheadHours })
	for hour := now - ProxyHours + 1; isFinal && hour < now; hour++ {
		t.keepBusiest(hour)
	}
	return true
}

// keepBusiest forgets all but the busiest proxies of an hour. The sum of all proxies does not change.
func (t *table) keepBusiest(hour int64) {
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

// busiest returns the ids of the maxNamed proxies with the most attempts of an hour; nil if the hour has no more than maxNamed
// proxies.
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

// proxySum has the sums of one proxy over several hours.
type proxySum struct {
	id     string
	counts proxyCounts
}

// since returns the sums of the busiest proxies from an hour on. rest has the sums of the other proxies.
func (t *table) since(first int64) (busiest []proxySum, rest proxyCounts) {
	var ranks []rank
	if first <= t.current-ProxyHours+1 {
		first = math.MinInt64 // all that is kept
		if ranks = t.rank(first, t.floor); len(ranks) < maxNamed {
			ranks = t.rank(first, 0)
		}
		// A floor that was too high is replaced by that of this ranking.
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
		rest[i] = max(n, 0) // another worker may have stored a malformed part, whose rows exceed its sum
	}
	return busiest, rest
}

// rank returns the busiest proxies from an hour on, in order, of those that have at least so many attempts.
func (t *table) rank(first, least int64) []rank {
	list := ranking{list: make([]rank, 0, min(len(t.order), 2*maxNamed))}
	for at, r := range t.order {
		if sum := r.since(first); sum[proxyAttempts] >= least && sum != (proxyCounts{}) {
			list.offer(at, sum[proxyAttempts])
		}
	}
	return list.cut()
}

// ranking finds the maxNamed busiest proxies. The caller offers the proxies in the order of their ids. Of equally busy proxies
// the first ids win, so that workers that share a pool evenly name the same proxies.
type ranking struct {
	list []rank
	full bool // the first maxNamed elements of list are sorted; a candidate that is not better than the last of them is ignored
}

// rank is the index of a proxy in the order of ids, and its number of attempts.
type rank struct {
	at       int
	attempts int64
}

// offer adds a candidate. When there are twice maxNamed candidates, the worse half is dropped, so the cost of a ranking is linear
// in the number of proxies.
func (l *ranking) offer(at int, attempts int64) {
	// An equally busy candidate has a later id, and loses.
	if l.full && attempts <= l.list[maxNamed-1].attempts {
		return
	}
	if l.list = append(l.list, rank{at, attempts}); len(l.list) == 2*maxNamed {
		l.list, l.full = l.cut(), true
	}
}

// cut sorts the candidates, and returns the maxNamed busiest.
func (l *ranking) cut() []rank {
	slices.SortFunc(l.list, func(a, b rank) int {
		if a.attempts != b.attempts {
			return cmp.Compare(b.attempts, a.attempts)
		}
		return cmp.Compare(a.at, b.at)
	})
	return l.list[:min(maxNamed, len(l.list))]
}
