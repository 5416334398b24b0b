package metrics

import (
	"bytes"
	"iter"
	"maps"
	"runtime"
	"strconv"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Write returns the page. It names at most that many proxies, the busiest ones; none if proxies is zero. Several goroutines may
// call Write at the same time. The returned slice belongs to the caller.
func (m *Registry) Write(proxies int) []byte {
	began := time.Now()
	var buf bytes.Buffer
	// The duration of the scrape is the last sample, so that it covers all others.
	m.set.WritePrometheus(&buf)
	p := page{families: m.families, out: make([]byte, 0, 2*buf.Len())}
	p.family("gofer_build_info")
	p.sample("gofer_build_info", 1, "version", m.gauges.Version, "revision", m.gauges.Revision, "go_version", runtime.Version())
	p.family("gofer_config_hash_info")
	p.sample("gofer_config_hash_info", 1, "hash", m.gauges.ConfigHash)
	// The two families above are not counters, so the library does not have them.
	p.appendSamples(buf.Bytes())
	m.writeStates(&p)
	m.writeLoop(&p)
	m.writeQueues(&p)
	m.writeFleetJobs(&p)
	m.writeRollups(&p)
	if proxies > 0 {
		m.writeProxies(&p, proxies)
	}
	if m.gauges.Process {
		buf.Reset()
		vm.WriteProcessMetrics(&buf)
		p.out = append(p.out, buf.Bytes()...)
	}
	p.one("gofer_scrape_duration_seconds", time.Since(began).Seconds())
	return p.out
}

// writeStates writes the gauges of the worker's state. A function that is nil leaves its metric out. The order of
// the maps is random; the format allows any order of families.
func (m *Registry) writeStates(p *page) {
	g := &m.gauges
	for name, state := range map[string]func() bool{"gofer_ready": g.Ready, "gofer_draining": g.Draining, "gofer_nats_connected": g.Connected, "gofer_pool_failing": g.InOutage} {
		if state != nil {
			p.one(name, float64(boolToInt(state())))
		}
	}
	for name, number := range map[string]func() int{"gofer_slots": g.Slots, "gofer_idle_connections": g.IdleConns, "gofer_proxies_avoided": g.ProxiesAvoided, "gofer_sites_followed": g.SitesFollowed} {
		if number != nil {
			p.one(name, float64(number()))
		}
	}
	for name, number := range map[string]func() int64{"gofer_retries_held_total": g.DelayedRetries, "gofer_host_waits_total": g.DomainWaits} {
		if number != nil {
			p.one(name, float64(number()))
		}
	}
	if g.Hedges != nil {
		won, lost, failed := g.Hedges()
		p.family("gofer_hedges_total")
		p.sample("gofer_hedges_total", float64(won), "outcome", "won")
		p.sample("gofer_hedges_total", float64(lost), "outcome", "lost")
		p.sample("gofer_hedges_total", float64(failed), "outcome", "failed")
	}
	if g.RTT != nil {
		p.one("gofer_nats_rtt_seconds", g.RTT().Seconds())
	}
	if g.Sites != nil {
		counts := g.Sites()
		p.family("gofer_sites")
		for _, state := range []string{"resting", "returning", "other"} {
			p.sample("gofer_sites", float64(counts[state]), "state", state)
		}
	}
	if g.ProxyStates != nil {
		counts := g.ProxyStates()
		p.family("gofer_proxies")
		for _, state := range states() {
			p.sample("gofer_proxies", float64(counts[state]), "state", state)
		}
	}
}

// writeLoop writes the counters that the loop keeps itself. They are read in one call, so that the samples belong
// to one moment.
func (m *Registry) writeLoop(p *page) {
	if m.gauges.Loop == nil {
		return
	}
	l := m.gauges.Loop()
	p.one("gofer_jobs_parked_total", float64(l.Scheduled))
	p.one("gofer_jobs_overdue_total", float64(l.Overdue))
	p.one("gofer_site_releases_total", float64(l.SiteReleases))
	p.one("gofer_jobs_handed_back_total", float64(l.HandedBack))
	p.one("gofer_leases_lost_total", float64(l.LeasesLost))
	p.one("gofer_duplicate_results_total", float64(l.Duplicates))
}

// writeQueues writes the gauges of the queues that the worker serves, and the sums over all queues.
func (m *Registry) writeQueues(p *page) {
	if m.gauges.InFlight != nil {
		inFlight := m.gauges.InFlight()
		m.byQueue(p, "gofer_jobs_in_flight", maps.Keys(inFlight), func(queue string) int64 { return int64(inFlight[queue]) })
	}
	if m.gauges.Backlog != nil {
		backlog := m.gauges.Backlog()
		m.byQueue(p, "gofer_consumer_pending", maps.Keys(backlog), func(queue string) int64 { return backlog[queue].Pending })
		m.byQueue(p, "gofer_consumer_ack_pending", maps.Keys(backlog), func(queue string) int64 { return backlog[queue].AckPending })
		var all Backlog
		for _, b := range backlog {
			all.Redelivered += b.Redelivered
			all.Waiting += b.Waiting
		}
		p.one("gofer_consumer_redelivered", float64(all.Redelivered))
		p.one("gofer_consumer_waiting", float64(all.Waiting))
	}
}

// byQueue writes a sample for each served queue, and one for all other queues together. A served queue that is not in queues has
// the value zero.
func (m *Registry) byQueue(p *page, name string, queues iter.Seq[string], value func(string) int64) {
	sums := map[string]int64{}
	for queue := range queues {
		// Several queues may share the label of all others.
		sums[m.queue(queue)] += value(queue)
	}
	p.family(name)
	for _, queue := range m.gauges.Queues {
		p.sample(name, float64(sums[queue]), "queue", queue)
	}
}

// writeRollups writes the running and the previous hour. The hour itself is no label, because each hour would add series.
func (m *Registry) writeRollups(p *page) {
	if m.gauges.Book == nil {
		return
	}
	book := m.gauges.Book()
	// Copied once, so the samples of one page belong together.
	hours := [2]rollup.Hour{book.Hour(0), book.Hour(1)}
	each := func(name string, value func(*rollup.Hour) float64) {
		p.family(name)
		for i, period := range periods() {
			p.sample(name, value(&hours[i]), "period", period)
		}
	}
	p.family("gofer_rollup_jobs")
	for i, period := range periods() {
		p.sample("gofer_rollup_jobs", float64(hours[i].Succeeded()), "period", period, "outcome", jobs.Succeeded)
		p.sample("gofer_rollup_jobs", float64(hours[i].Failed()), "period", period, "outcome", jobs.Failed)
		p.sample("gofer_rollup_jobs", float64(hours[i].Cancelled()), "period", period, "outcome", jobs.Cancelled)
	}
	each("gofer_rollup_attempts", func(h *rollup.Hour) float64 { return float64(h.Attempts()) })
	each("gofer_rollup_retries", func(h *rollup.Hour) float64 { return float64(h.Retries()) })
	each("gofer_rollup_bytes", func(h *rollup.Hour) float64 { return float64(h.Bytes()) })
	each("gofer_rollup_breaker_opens", func(h *rollup.Hour) float64 { return float64(h.BreakerOpens()) })
	each("gofer_rollup_success_ratio", (*rollup.Hour).SuccessRate)
	each("gofer_rollup_start_timestamp_seconds", func(h *rollup.Hour) float64 { return float64(h.Start.Unix()) })
	// Not "quantile": that label belongs to summaries.
	p.family("gofer_rollup_job_duration_seconds")
	for i, period := range periods() {
		for _, percent := range []int{50, 95, 99} {
			value := hours[i].Latency.Quantile(float64(percent) / 100).Seconds()
			p.sample("gofer_rollup_job_duration_seconds", value, "period", period, "percentile", strconv.Itoa(percent))
		}
	}
}

// periods are the values of the label period, for the running hour and the one before.
func periods() []string { return []string{"current", "previous"} }
