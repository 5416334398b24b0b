package rollup

import (
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// Point is one hour of a time series. Latencies are those of ended jobs, from the first attempt to the end.
type Point struct {
	// Timestamp is the hour's start.
	Timestamp time.Time `json:"timestamp"`
	// TotalRequests counts ended jobs, TotalRetries announced retries.
	TotalRequests int64 `json:"total_requests"`
	TotalRetries  int64 `json:"total_retries"`
	// SuccessRate is a share of 1, zero when no job ended.
	SuccessRate  float64       `json:"success_rate"`
	AvgLatency   jobs.Duration `json:"avg_latency"`
	P50          jobs.Duration `json:"p50_latency"`
	P95          jobs.Duration `json:"p95_latency"`
	P99          jobs.Duration `json:"p99_latency"`
	Attempts     int64         `json:"attempts"`
	Bytes        int64         `json:"bytes"`
	BreakerOpens int64         `json:"circuit_breaker_opens"`
	// Classes counts ended jobs by the class of their last status.
	Classes Classes `json:"classes"`
}

// Classes are counts by the class of a status.
type Classes struct {
	Status2xx int64 `json:"2xx"`
	Status3xx int64 `json:"3xx"`
	Status4xx int64 `json:"4xx"`
	Status5xx int64 `json:"5xx"`
	None      int64 `json:"none"` // no status, or any other
}

// Proxy has the sums of one proxy.
type Proxy struct {
	ProxyID string `json:"proxy_id"`
	// TotalAttempts also counts attempts that ended with neither an answer nor a fault, such as cancelled ones.
	TotalAttempts int64 `json:"total_attempts"`
	SuccessCount  int64 `json:"success_count"`
	FailureCount  int64 `json:"failure_count"`
	// AvgLatency is the mean duration of an attempt.
	AvgLatency jobs.Duration `json:"avg_latency"`
	Bytes      int64         `json:"bytes"`
	Opens      int64         `json:"circuit_breaker_opens"`
	// Classes counts attempts by the class of their status.
	Classes Classes `json:"classes"`
}

// Policy has the sums of the jobs of one retry policy. SuccessRate is a share of 1.
type Policy struct {
	TotalRequests int64   `json:"total_requests"`
	SuccessRate   float64 `json:"success_rate"`
}

// Retries has sums over all hours that a book keeps.
type Retries struct {
	TotalRetries     int64            `json:"total_retries"`
	SuccessByAttempt map[string]int64 `json:"success_by_attempt"`
	BreakerEvents    int64            `json:"circuit_breaker_events_count"`
	RetentionHours   int              `json:"retention_hours"`
}

// Hour returns a copy of one hour. back is 0 for the running hour and 1 for the previous one. An hour that is not kept is empty.
func (b *Book) Hour(back int) Hour {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := hourOf(time.Now()) - int64(back)
	h := Hour{Start: startOf(n)}
	if kept := b.kept(n); kept != nil {
		h.Merge(kept)
	}
	return h
}

// Total adds up the newest hours, the running one included. Start of the result is zero.
func (b *Book) Total(hours int) Hour {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum Hour
	for _, n := range newest(hours) {
		if h := b.kept(n); h != nil {
			sum.Merge(h)
		}
	}
	return sum
}

// Series returns one point for each of the newest hours, oldest first; the last one is the running hour.
func (b *Book) Series(hours int) []Point {
	b.mu.Lock()
	defer b.mu.Unlock()
	points := make([]Point, 0, hours)
	// An hour that is not kept has a point of zeros, so that a chart has no gaps.
	for _, n := range newest(hours) {
		h := b.kept(n)
		if h == nil {
			h = &Hour{Start: startOf(n)}
		}
		points = append(points, h.point())
	}
	return points
}

// point returns the hour as one point of a time series.
func (h *Hour) point() Point {
	return Point{
		Timestamp: h.Start, TotalRequests: h.Jobs(), TotalRetries: h.Retries(), SuccessRate: h.SuccessRate(),
		AvgLatency: jobs.Duration(h.Latency.Mean()), P50: jobs.Duration(h.Latency.Quantile(0.5)),
		P95: jobs.Duration(h.Latency.Quantile(0.95)), P99: jobs.Duration(h.Latency.Quantile(0.99)),
		Attempts: h.Attempts(), Bytes: h.Bytes(), BreakerOpens: h.BreakerOpens(), Classes: h.Classes(),
	}
}

// ByProxy returns the sums of each proxy in the newest hours, most attempts first: the busiest 1,000, and Rest for all others if
// they did anything. A book has single proxies for 24 hours. If there are more than 1,000 proxies, the answer for fewer than 24
// hours may be a second old, because adding up and ranking 9,000 proxies takes milliseconds. The sums of 24 hours are ready
// (BenchmarkByProxy).
func (b *Book) ByProxy(hours int) []Proxy {
	b.mu.Lock()
	defer b.mu.Unlock()
	if hours >= ProxyHours {
		return b.byProxy(hours)
	}
	// Only one answer is cached, because pages mostly ask for the same number of hours.
	if a := &b.answer; a.hours != hours || time.Since(a.at) > time.Second || len(b.proxies.rows) <= maxNamed {
		*a = answer{hours: hours, at: time.Now(), proxies: b.byProxy(hours)}
	}
	return slices.Clone(b.answer.proxies)
}

// answer is the latest answer of ByProxy.
type answer struct {
	hours   int
	at      time.Time
	proxies []Proxy
}

// byProxy computes the answer of ByProxy. The caller holds mu.
func (b *Book) byProxy(hours int) []Proxy {
	now := hourOf(time.Now())
	b.roll(now)
	busiest, rest := b.proxies.since(now - int64(hours) + 1)
	out := make([]Proxy, 0, len(busiest)+1)
	for _, r := range busiest {
		out = append(out, r.counts.proxy(r.id))
	}
	if rest != (proxyCounts{}) {
		out = append(out, rest.proxy(Rest))
	}
	return out
}

// proxy returns the sums of a proxy in the form of the API.
func (c *proxyCounts) proxy(id string) Proxy {
	p := Proxy{
		ProxyID: id, TotalAttempts: c[proxyAttempts], SuccessCount: c[proxySucceeded], FailureCount: c[proxyFailed],
		Bytes: c[proxyBytes], Opens: c[proxyOpens], Classes: c.classes(),
	}
	if p.TotalAttempts > 0 {
		p.AvgLatency = jobs.Duration(time.Duration(c[proxyLatency]/p.TotalAttempts) * time.Microsecond)
	}
	return p
}

// classes returns the attempts by class.
func (c *proxyCounts) classes() Classes {
	n := c[proxyClass:]
	return Classes{None: n[0], Status2xx: n[1], Status3xx: n[2], Status4xx: n[3], Status5xx: n[4]}
}

// ByPolicy returns the sums of the jobs that ended in the newest hours, by policy name.
func (b *Book) ByPolicy(hours int) map[string]Policy {
	total := b.Total(hours)
	succeeded := total.byLabel(metricPolicySucceeded)
	out := map[string]Policy{}
	for name, n := range total.byLabel(metricPolicy) {
		out[name] = Policy{TotalRequests: n, SuccessRate: ratio(succeeded[name], n)}
	}
	return out
}

// Retries sums up all hours that are kept.
func (b *Book) Retries() Retries {
	total := b.Total(RetentionHours)
	return Retries{
		TotalRetries: total.Retries(), SuccessByAttempt: total.SuccessByAttempt(),
		BreakerEvents: total.BreakerChanges(), RetentionHours: RetentionHours,
	}
}

// kept returns an hour; nil if the book does not have it.
func (b *Book) kept(hour int64) *Hour {
	h := &b.hours[hour%RetentionHours]
	if hourOf(h.Start) != hour {
		return nil
	}
	return h
}

// newest returns the numbers of the newest hours, oldest first.
func newest(hours int) []int64 {
	now := hourOf(time.Now())
	out := make([]int64, 0, hours)
	for n := now - int64(min(hours, RetentionHours)) + 1; n <= now; n++ {
		out = append(out, n)
	}
	return out
}
