package metrics

import (
	"slices"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// makeJobs creates every series of jobs at zero. If a series began with its first failure, a rate over the series would not show
// that failure.
func (m *Registry) makeJobs() {
	m.received = m.counters("gofer_jobs_received_total", "queue", m.gauges.Queues)
	m.redelivered = m.counters("gofer_job_redeliveries_total", "queue", m.gauges.Queues)
	m.queueWait = m.histogram("gofer_job_queue_wait_seconds", []float64{0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200})
	m.jobs = map[[2]string]*classCounters{}
	m.durations = map[string]*vm.PrometheusHistogram{}
	for _, outcome := range outcomes() {
		for _, queue := range m.gauges.Queues {
			m.jobs[[2]string{queue, outcome}] = m.byClass("gofer_jobs_total", "queue", queue, "outcome", outcome)
		}
	}
	for _, outcome := range []string{jobs.Succeeded, jobs.Failed} { // the duration of a cancelled job means nothing
		m.durations[outcome] = m.histogram("gofer_job_duration_seconds", seconds(), "outcome", outcome)
	}
	m.deadLetters = m.counters("gofer_dead_jobs_total", "reason", deadReasons())
	m.attemptsPerJob = m.histogram("gofer_attempts_per_job", []float64{0, 1, 2, 3, 5, jobs.MaxMaxAttempts})
}

// makeAttempts creates the series of attempts at zero, for the same reason.
func (m *Registry) makeAttempts() {
	m.attempts = map[string]*classCounters{"none": m.byClass("gofer_attempts_total", "outcome", "answered", "reason", "none")}
	for _, reason := range rollup.Reasons() {
		m.attempts[reason] = m.byClass("gofer_attempts_total", "outcome", "failed", "reason", reason)
	}
	m.attemptTime = map[bool]*vm.PrometheusHistogram{
		true:  m.histogram("gofer_attempt_duration_seconds", seconds(), "outcome", "answered"),
		false: m.histogram("gofer_attempt_duration_seconds", seconds(), "outcome", "failed"),
	}
	m.bytes = m.counter("gofer_response_bytes_total")
	m.size = m.histogram("gofer_response_size_bytes", []float64{1e3, 1e4, 1e5, 1e6, 1e7})
	m.retries = map[[2]string]*vm.Counter{}
	for _, kind := range retryKinds() {
		for _, fault := range faults() {
			m.retries[[2]string{kind, fault}] = m.counter("gofer_retries_total", "kind", kind, "fault", fault)
		}
	}
	m.retryDelay = m.histogram("gofer_retry_delay_seconds", []float64{0.1, 0.5, 1, 5, 30, 120})
	m.makeRotation()
}

// makeRotation creates the series of picks and breakers.
func (m *Registry) makeRotation() {
	m.selections = m.counters("gofer_proxy_selections_total", "strategy", strategies())
	m.siteWaits = m.counters("gofer_site_waits_total", "state", siteStates())
	m.exhausted = m.counters("gofer_proxy_exhausted_total", "reason", exhaustions())
	m.pickTime = m.histogram("gofer_proxy_selection_duration_seconds", []float64{1e-6, 1e-5, 1e-4, 1e-3, 1e-2})
	m.transitions = map[[2]string]*vm.Counter{}
	for _, from := range states() {
		for _, to := range states() {
			if from != to {
				m.transitions[[2]string{from, to}] = m.counter("gofer_breaker_transitions_total", "from", from, "to", to)
			}
		}
	}
}

// makeNATS creates the series of the connection, of acks and of published messages.
func (m *Registry) makeNATS() {
	m.reconnects = m.counter("gofer_nats_reconnects_total")
	m.asyncErrors = m.counters("gofer_nats_async_errors_total", "kind", asyncKinds())
	m.acks = map[string]map[bool]*vm.Counter{}
	for _, kind := range ackKinds() {
		m.acks[kind] = m.byOutcome("gofer_acks_total", "kind", kind)
	}
	m.publishes = map[string]map[bool]*vm.Counter{}
	for _, kind := range publishKinds() {
		m.publishes[kind] = m.byOutcome("gofer_publishes_total", "kind", kind)
	}
	m.publishTime = m.histogram("gofer_publish_duration_seconds", []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2})
	m.flushes = m.byOutcome("gofer_rollup_flushes_total")
}

// counter creates a counter. It panics on a duplicate, because names and labels are constants of this package.
func (m *Registry) counter(name string, labels ...string) *vm.Counter {
	return m.set.NewCounter(name + labelText(labels))
}

// counters creates a counter for each value of one label. The values are a closed list, so the number of series is bounded.
func (m *Registry) counters(name, label string, values []string) map[string]*vm.Counter {
	out := map[string]*vm.Counter{}
	for _, v := range values {
		out[v] = m.counter(name, label, v)
	}
	return out
}

// byOutcome creates two counters, "ok" under true and "failed" under false.
func (m *Registry) byOutcome(name string, labels ...string) map[bool]*vm.Counter {
	return map[bool]*vm.Counter{
		true:  m.counter(name, append(slices.Clone(labels), "outcome", "ok")...),
		false: m.counter(name, append(slices.Clone(labels), "outcome", "failed")...),
	}
}

// histogram creates a histogram whose buckets have these upper bounds, in seconds or bytes. The library adds the bucket +Inf.
func (m *Registry) histogram(name string, bounds []float64, labels ...string) *vm.PrometheusHistogram {
	return m.set.NewPrometheusHistogramExt(name+labelText(labels), bounds)
}
