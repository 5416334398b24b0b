package rollup

import (
	"cmp"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// proxyHours is for how long proxies are told apart.
	proxyHours = 24
	// maxNamed is how many proxies an hour names; the others share one row.
	maxNamed = 1000
	// maxTracks bounds the proxies of a running hour: only at its end is it known which were the busiest.
	maxTracks = 10_000
)

// The fields of proxyCounts.
const (
	proxyAttempts = iota
	proxySucceeded
	proxyFailed
	proxyOpens
	proxyBytes
	proxyLatency // µs, over all attempts
	proxyFields
)

// proxyCounts are the sums of one proxy.
type proxyCounts [proxyFields]int64

func (c *proxyCounts) merge(o *proxyCounts) {
	for i, n := range o {
		c[i] += n
	}
}

func (c *proxyCounts) attempt(f AttemptFact) {
	c[proxyAttempts]++
	c[proxyBytes] += f.Bytes
	c[proxyLatency] += max(f.Duration.Microseconds(), 0)
	switch {
	case f.Fault != jobs.FaultNone:
		c[proxyFailed]++
	case f.Status != 0: // also when the body was too large for the job: the proxy delivered
		c[proxySucceeded]++
	}
}

// cell is one hour of one proxy.
type cell struct {
	hour   int64
	counts proxyCounts
}

// table holds the cells of every proxy, newest last.
type table struct {
	rows    map[string][]cell
	current int64 // the newest hour seen
}

// at is the proxy's cell of that hour. When there are too many proxies it is that of Other.
func (t *table) at(id string, hour int64) *proxyCounts {
	row, known := t.rows[id]
	if !known && len(t.rows) >= maxTracks {
		id, row = Other, t.rows[Other]
	}
	i := len(row) - 1
	for i >= 0 && row[i].hour > hour {
		i--
	}
	if i < 0 || row[i].hour != hour {
		i++
		row = slices.Insert(row, i, cell{hour: hour})
		t.rows[id] = row
	}
	return &row[i].counts
}

// roll forgets what is older than proxyHours and, when hours have ended, folds all but their busiest proxies. It
// reports whether an hour has ended.
func (t *table) roll(now int64, fold bool) bool {
	if now <= t.current {
		return false
	}
	t.current = now
	for id, row := range t.rows {
		t.keep(id, row, func(c cell) bool { return c.hour > now-proxyHours })
	}
	for hour := now - proxyHours + 1; fold && hour < now; hour++ {
		t.fold(hour)
	}
	return true
}

func (t *table) fold(hour int64) {
	named := t.busiest(hour)
	if named == nil {
		return
	}
	rest := proxyCounts{}
	for id, row := range t.rows {
		if named[id] {
			continue
		}
		t.keep(id, row, func(c cell) bool {
			if c.hour == hour {
				rest.merge(&c.counts)
			}
			return c.hour != hour
		})
	}
	t.at(Other, hour).merge(&rest)
}

func (t *table) keep(id string, row []cell, keep func(cell) bool) {
	row = slices.DeleteFunc(row, func(c cell) bool { return !keep(c) })
	if len(row) == 0 {
		delete(t.rows, id)
		return
	}
	t.rows[id] = row
}

// busiest names the proxies with the most attempts of an hour, nil when there are few enough to name all. Equal ones
// are told apart by id, so that workers that share a pool evenly come to the same names.
func (t *table) busiest(hour int64) map[string]bool {
	var of []ranked
	for id, row := range t.rows {
		for _, c := range row {
			if c.hour == hour && id != Other {
				of = append(of, ranked{id, c.counts[proxyAttempts]})
			}
		}
	}
	if len(of) <= maxNamed {
		return nil
	}
	slices.SortFunc(of, ranked.compare)
	named := make(map[string]bool, maxNamed)
	for _, r := range of[:maxNamed] {
		named[r.id] = true
	}
	return named
}

// names tells which proxies keep their name in an hour. One that has no cell of its own was folded, or came when there
// were too many.
func (t *table) names(hour int64) func(id string) bool {
	if busiest := t.busiest(hour); busiest != nil {
		return func(id string) bool { return busiest[id] }
	}
	return func(id string) bool {
		return slices.ContainsFunc(t.rows[id], func(c cell) bool { return c.hour == hour })
	}
}

type ranked struct {
	id       string
	attempts int64
}

func (a ranked) compare(b ranked) int {
	return cmp.Or(cmp.Compare(b.attempts, a.attempts), cmp.Compare(a.id, b.id))
}

// totals sums the hours from first to last, both included.
func (t *table) totals(first, last int64) map[string]proxyCounts {
	out := make(map[string]proxyCounts, len(t.rows))
	for id, row := range t.rows {
		var sum proxyCounts
		found := false
		for i := range row {
			if row[i].hour >= first && row[i].hour <= last {
				sum.merge(&row[i].counts)
				found = true
			}
		}
		if found {
			out[id] = sum
		}
	}
	return out
}
