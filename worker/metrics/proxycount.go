package metrics

import (
	"cmp"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// maxProxySeries bounds the proxies that are counted by name. They cost memory even if no page ever asks for them.
const maxProxySeries = 20_000

// proxyCounters counts attempts by proxy, for pages with ?proxies. The zero value is ready.
type proxyCounters struct {
	mu   sync.RWMutex // guards byID; the counters themselves are atomic
	byID map[string]*proxyCounter
}

// proxyCounter counts the attempts through one proxy. latency is a moving mean, in nanoseconds.
type proxyCounter struct{ attempts, failures, bytes, latency atomic.Int64 }

// addDuration moves the mean an eighth of the way to d. If two goroutines call it at the same time, one duration may be lost.
// That is harmless for a mean, so there is no loop around the load and the store.
func (c *proxyCounter) addDuration(d time.Duration) {
	old := c.latency.Load()
	if old == 0 {
		old = int64(d)
	}
	c.latency.Store(old + (int64(d)-old)/8)
}

// count counts an attempt. A direct attempt has no proxy and is not counted here.
func (p *proxyCounters) count(f rollup.AttemptFact) {
	if f.Proxy == "" {
		return
	}
	c := p.counter(f.Proxy)
	c.attempts.Add(1)
	c.failures.Add(int64(boolToInt(f.Fault != jobs.FaultNone)))
	c.bytes.Add(max(f.Bytes, 0))
	c.addDuration(f.Duration)
}

// counter returns the counter of a proxy and makes it if it is missing. Beyond maxProxySeries it returns a counter that
// nobody reads.
func (p *proxyCounters) counter(id string) *proxyCounter {
	p.mu.RLock()
	c := p.byID[id]
	p.mu.RUnlock()
	if c != nil {
		return c
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Another goroutine may have made it between the two locks.
	if c := p.byID[id]; c != nil {
		return c
	}
	if p.byID == nil {
		p.byID = map[string]*proxyCounter{}
	}
	c = &proxyCounter{}
	if len(p.byID) < maxProxySeries {
		p.byID[id] = c
	}
	return c
}

// proxyRow is one proxy of a page. It is a copy, so the page is written without the lock.
type proxyRow struct {
	id, state                 string
	attempts, failures, bytes int64
	latency                   time.Duration
}

// writeProxies writes the metrics of the limit busiest proxies. It does not call sample, which is slower, because a page with
// 20,000 proxies has 100,000 lines.
func (m *Registry) writeProxies(p *page, limit int) {
	if m.gauges.EachProxy == nil {
		return
	}
	rows := m.proxyRows(limit)
	p.out = slices.Grow(p.out, len(rows)*5*64) // five lines of about 64 bytes for each proxy
	column := func(name string, value func(*proxyRow) float64) {
		p.family(name)
		for i := range rows {
			p.out = append(append(p.out, name...), `{proxy="`...)
			p.out = append(appendLabel(p.out, rows[i].id), `"} `...)
			p.out = append(appendValue(p.out, value(&rows[i])), '\n')
		}
	}
	column("gofer_proxy_attempts_total", func(r *proxyRow) float64 { return float64(r.attempts) })
	column("gofer_proxy_failures_total", func(r *proxyRow) float64 { return float64(r.failures) })
	column("gofer_proxy_received_bytes_total", func(r *proxyRow) float64 { return float64(r.bytes) })
	column("gofer_proxy_latency_seconds", func(r *proxyRow) float64 { return r.latency.Seconds() })
	column("gofer_proxy_state", func(r *proxyRow) float64 { return stateNumber(r.state) })
}

// stateNumber returns the number of a breaker's state. The order makes an average or a maximum over proxies meaningful.
func stateNumber(state string) float64 {
	switch state {
	case "closed":
		return 0
	case "half_open":
		return 1
	}
	return 2
}

// proxyRows returns the limit busiest proxies of the pool; in the order of the pool if it has no more than limit proxies, because
// sorting 100,000 proxies is slow.
func (m *Registry) proxyRows(limit int) []proxyRow {
	rows := m.proxies.rows(m.gauges.EachProxy())
	if len(rows) > limit {
		slices.SortFunc(rows, func(a, b proxyRow) int {
			return cmp.Or(cmp.Compare(b.attempts, a.attempts), cmp.Compare(a.id, b.id))
		})
		rows = rows[:limit]
	}
	return rows
}

// rows reads the counters of the pool's proxies, and forgets the counters of proxies that have left the pool. pool must not call
// a method of p, because p is locked meanwhile.
func (p *proxyCounters) rows(pool iter.Seq2[string, string]) []proxyRow {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := make([]proxyRow, 0, len(p.byID))
	found := 0
	for id, state := range pool {
		row := proxyRow{id: id, state: state}
		if c := p.byID[id]; c != nil {
			found++
			row.attempts, row.failures, row.bytes = c.attempts.Load(), c.failures.Load(), c.bytes.Load()
			row.latency = time.Duration(c.latency.Load())
		}
		rows = append(rows, row)
	}
	// A proxy has left the pool. Only then the map is rebuilt.
	if found < len(p.byID) {
		p.keepOnly(rows)
	}
	return rows
}

// keepOnly forgets the counters of proxies that are not in the pool any more. The caller holds the lock.
func (p *proxyCounters) keepOnly(pool []proxyRow) {
	kept := make(map[string]*proxyCounter, len(pool))
	for i := range pool {
		if c := p.byID[pool[i].id]; c != nil {
			kept[pool[i].id] = c
		}
	}
	p.byID = kept
}
