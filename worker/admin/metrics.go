package admin

import (
	"iter"
	"slices"

	"github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Gauges are what a metrics page reads at the moment it is asked for. A function that is nil leaves its metric out;
// none may block, for it delays the whole page.
type Gauges struct {
	Version string
	// Queues are those that the worker serves, at most 32; any other one is counted as "other", together with one that
	// bears this name.
	Queues []string
	// InFlight is the number of running jobs by queue, Slots how many there may be.
	InFlight func() map[string]int
	Slots    func() int
	// Ready, Draining and Connected (to NATS) are states.
	Ready, Draining, Connected func() bool
	// Loop reads the counters of the worker's loop.
	Loop func() Loop
	// ProxyStates counts the pool by breaker state, EachProxy walks it: id and state. The second one is asked only for
	// a page with ?proxies.
	ProxyStates func() map[string]int
	EachProxy   func() iter.Seq2[string, string]
	// ProxiesAvoided counts those that other workers found dead.
	ProxiesAvoided func() int
	// PoolFailing reports whether the pool fails as a whole.
	PoolFailing func() bool
	// HostWaits is how many times a job had to wait for its turn at a site.
	HostWaits func() int64
	// RetriesHeld is how many retries waited longer because the retry budget was used up.
	RetriesHeld func() int64
	// IdleConns is the number of open connections that wait for a next attempt.
	IdleConns func() int
	// Backlog is what the streams hold by queue, as last heard: it must not ask the server.
	Backlog func() map[string]Backlog
	// Book is where the rollup gauges are read.
	Book *rollup.Book
	// Process adds the metrics of the Go runtime and of the process.
	Process bool
}

// Loop are the counters of the worker's loop since its start.
type Loop struct{ Received, Redelivered, Parked, HandedBack, Lost, Duplicates, Dead int64 }

// Backlog is what a queue's consumers hold: jobs that nobody has taken, and jobs that workers hold.
type Backlog struct {
	Pending    int64 `json:"pending"`
	AckPending int64 `json:"ack_pending"`
}

// Metrics counts what happens and writes it as a Prometheus page. Make one with NewMetrics; it may be shared by any
// number of goroutines. Labels come from closed lists, so the page keeps its size whatever jobs say.
type Metrics struct {
	gauges   Gauges
	families map[string]Family
	set      *metrics.Set
	proxies  proxyCounters

	jobs        map[[2]string]*metrics.Counter // queue, outcome
	errors      map[string]*metrics.Counter
	durations   map[string]*metrics.PrometheusHistogram
	perJob      *metrics.PrometheusHistogram
	attempts    map[string]*metrics.Counter // by reason, "none" when there is an answer
	attemptTime map[bool]*metrics.PrometheusHistogram
	received    *metrics.Counter
	retries     map[string]*metrics.Counter
	retryDelay  *metrics.PrometheusHistogram
	transitions map[[2]string]*metrics.Counter
	reconnects  *metrics.Counter
	asyncErrors map[string]*metrics.Counter
	heartbeats  map[bool]*metrics.Counter
	publishes   map[[2]string]*metrics.Counter
	flushes     map[bool]*metrics.Counter
}

// NewMetrics makes the counters, all at zero, so that a rate is right from the first event on.
func NewMetrics(g Gauges) *Metrics {
	m := &Metrics{gauges: g, families: map[string]Family{}, set: metrics.NewSet()}
	for _, f := range Families() {
		m.families[f.Name] = f
	}
	m.gauges.Queues = queueLabels(g.Queues)
	m.makeJobs()
	m.makeAttempts()
	m.makeNATS()
	return m
}

func (m *Metrics) makeJobs() {
	m.jobs = map[[2]string]*metrics.Counter{}
	m.durations = map[string]*metrics.PrometheusHistogram{}
	for _, outcome := range outcomes() {
		for _, queue := range m.gauges.Queues {
			m.jobs[[2]string{queue, outcome}] = m.counter("gofer_jobs_total", "queue", queue, "outcome", outcome)
		}
		m.durations[outcome] = m.histogram("gofer_job_duration_seconds", seconds(), "outcome", outcome)
	}
	m.errors = m.counters("gofer_job_errors_total", "error", rollup.JobErrors())
	m.perJob = m.histogram("gofer_attempts_per_job", metrics.LinearBuckets(0, 1, jobs.MaxMaxAttempts+1))
}

func (m *Metrics) makeAttempts() {
	m.attempts = map[string]*metrics.Counter{"none": m.counter("gofer_attempts_total", "outcome", "answered", "reason", "none")}
	for _, reason := range rollup.Reasons() {
		m.attempts[reason] = m.counter("gofer_attempts_total", "outcome", "failed", "reason", reason)
	}
	m.attemptTime = map[bool]*metrics.PrometheusHistogram{
		true:  m.histogram("gofer_attempt_duration_seconds", seconds(), "outcome", "answered"),
		false: m.histogram("gofer_attempt_duration_seconds", seconds(), "outcome", "failed"),
	}
	m.received = m.counter("gofer_received_bytes_total")
	m.retries = m.counters("gofer_retries_total", "kind", []string{jobs.RetryInline, jobs.RetryScheduled, rollup.Other})
	m.retryDelay = m.histogram("gofer_retry_delay_seconds", seconds())
	m.transitions = map[[2]string]*metrics.Counter{}
	for _, from := range states() {
		for _, to := range states() {
			if from != to {
				m.transitions[[2]string{from, to}] = m.counter("gofer_breaker_transitions_total", "from", from, "to", to)
			}
		}
	}
}

func (m *Metrics) makeNATS() {
	m.reconnects = m.counter("gofer_nats_reconnects_total")
	m.asyncErrors = m.counters("gofer_nats_async_errors_total", "kind", asyncKinds())
	m.heartbeats = m.byOutcome("gofer_heartbeats_total")
	m.flushes = m.byOutcome("gofer_rollup_flushes_total")
	m.publishes = map[[2]string]*metrics.Counter{}
	for _, kind := range publishKinds() {
		for _, outcome := range []string{"ok", "failed"} {
			m.publishes[[2]string{kind, outcome}] = m.counter("gofer_publishes_total", "kind", kind, "outcome", outcome)
		}
	}
}

// Attempt counts an attempt that ended.
func (m *Metrics) Attempt(f rollup.AttemptFact) {
	reason := f.Reason
	if reason == "" && f.Fault == jobs.FaultNone {
		reason = "none"
	}
	pick(m.attempts, reason).Inc()
	m.attemptTime[reason == "none"].Update(f.Duration.Seconds())
	m.received.AddInt64(max(f.Bytes, 0))
	m.proxies.attempt(f)
}

// Job counts a job whose result was stored.
func (m *Metrics) Job(f rollup.JobFact) {
	outcome := f.Outcome
	if !slices.Contains(outcomes(), outcome) {
		outcome = jobs.Failed
	}
	m.jobs[[2]string{m.queue(f.Queue), outcome}].Inc()
	m.durations[outcome].Update(f.Duration.Seconds())
	m.perJob.Update(float64(f.Attempts))
	if outcome != jobs.Succeeded {
		pick(m.errors, f.Error).Inc()
	}
}

// Retry counts an announced retry.
func (m *Metrics) Retry(e jobs.RetryEvent) {
	pick(m.retries, e.Kind).Inc()
	m.retryDelay.Update(e.Delay.Seconds())
}

// Breaker counts a breaker that changed its state.
func (m *Metrics) Breaker(e jobs.BreakerEvent) {
	if c := m.transitions[[2]string{e.FromState, e.ToState}]; c != nil {
		c.Inc()
	}
}

// Reconnected counts that the connection to NATS was made again.
func (m *Metrics) Reconnected() { m.reconnects.Inc() }

// AsyncError counts an error that NATS reported outside a call: "permission", "slow_consumer"; anything else is "other".
func (m *Metrics) AsyncError(kind string) { pick(m.asyncErrors, kind).Inc() }

// Heartbeat counts a lease renewal that was confirmed, or was not.
func (m *Metrics) Heartbeat(ok bool) { m.heartbeats[ok].Inc() }

// Flushed counts a flush of the rollups.
func (m *Metrics) Flushed(ok bool) { m.flushes[ok].Inc() }

// Published counts a message: "result", "retry", "dead", "event", "rollup"; anything else is "other".
func (m *Metrics) Published(kind string, ok bool) {
	if !slices.Contains(publishKinds(), kind) {
		kind = rollup.Other
	}
	m.publishes[[2]string{kind, map[bool]string{true: "ok", false: "failed"}[ok]}].Inc()
}

// queueLabels are the queues served, at most 32, and the one label for all others, which is a valid name of a queue, too.
func queueLabels(served []string) []string {
	labels := []string{rollup.Other}
	for _, queue := range served[:min(len(served), 32)] {
		if !slices.Contains(labels, queue) {
			labels = append(labels, queue)
		}
	}
	return labels
}

func (m *Metrics) queue(name string) string {
	if slices.Contains(m.gauges.Queues, name) {
		return name
	}
	return rollup.Other
}

func (m *Metrics) counter(name string, labels ...string) *metrics.Counter {
	return m.set.NewCounter(name + labelText(labels))
}

func (m *Metrics) counters(name, label string, values []string) map[string]*metrics.Counter {
	out := map[string]*metrics.Counter{}
	for _, v := range values {
		out[v] = m.counter(name, label, v)
	}
	return out
}

func (m *Metrics) byOutcome(name string) map[bool]*metrics.Counter {
	return map[bool]*metrics.Counter{true: m.counter(name, "outcome", "ok"), false: m.counter(name, "outcome", "failed")}
}

func (m *Metrics) histogram(name string, bounds []float64, labels ...string) *metrics.PrometheusHistogram {
	return m.set.NewPrometheusHistogramExt(name+labelText(labels), bounds)
}

func labelText(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	text := []byte{'{'}
	for i := 0; i < len(labels); i += 2 {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, labels[i]+"=\""...)
		text = append(appendLabel(text, labels[i+1]), '"')
	}
	return string(append(text, '}'))
}

func pick[V any](list map[string]V, label string) V {
	if v, ok := list[label]; ok {
		return v
	}
	return list[rollup.Other]
}

// seconds are the buckets of every duration: a proxied fetch takes from some tens of milliseconds to minutes.
func seconds() []float64 {
	return []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
}

func outcomes() []string   { return []string{jobs.Succeeded, jobs.Failed, jobs.Cancelled} }
func states() []string     { return []string{"closed", "half_open", "open"} }
func asyncKinds() []string { return []string{"permission", "slow_consumer", rollup.Other} }
func publishKinds() []string {
	return []string{"result", "retry", "dead", "event", "rollup", rollup.Other}
}
