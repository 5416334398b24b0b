// Package metrics counts what a worker does and writes it as a page in the Prometheus text format. Package admin serves the page
// at GET /metrics.
package metrics

import (
	"errors"
	"iter"
	"slices"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Gauges are what a metrics page reads at the moment it is asked for. A function that is nil leaves its metric out;
// none may block, for it delays the whole page. They are called by the goroutine that writes the page, so they must
// be safe beside the worker's own goroutines.
type Gauges struct {
	// Version and Revision are those of the program, ConfigHash distinguishes configurations.
	Version, Revision, ConfigHash string
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
	// Sites counts the sites that the worker remembers by state, one of "resting", "returning" and "other". SitesFollowed counts
	// those that rest because other workers found them silent.
	Sites         func() map[string]int
	SitesFollowed func() int
	// InOutage reports whether the pool fails as a whole.
	InOutage func() bool
	// DomainWaits is how many times a job had to wait for its turn at a site.
	DomainWaits func() int64
	// Hedges is how many attempts began beside a slow one, and brought the job's result, or lost, or failed like that one.
	Hedges func() (won, lost, failed int64)
	// DelayedRetries is how many retries waited longer because the retry budget was used up.
	DelayedRetries func() int64
	// IdleConns is the number of open connections that wait for a next attempt.
	IdleConns func() int
	// Backlog is what the streams hold by queue, as last heard: it must not ask the server.
	Backlog func() map[string]Backlog
	// FleetJobs is what the queues of the fleet hold, as shared last; nil while nobody shares it.
	FleetJobs func() map[string]FleetJobs
	// RTT is the round-trip time to the server, as it was measured last; zero before the first measurement.
	RTT func() time.Duration
	// Book is where the rollup gauges are read: the same hours that the API shows by default.
	Book func() *rollup.Book
	// Process adds the metrics of the Go runtime and of the process.
	Process bool
}

// Loop are the counters of the worker's loop since its start. Overdue are the waiting jobs that it released because the server
// had not, SiteReleases those that it released for a site.
type Loop struct{ Scheduled, HandedBack, LeasesLost, Duplicates, Overdue, SiteReleases int64 }

// Backlog is what a queue's consumers hold: jobs that nobody has taken, and jobs that workers hold. No worker gets jobs of
// a paused queue.
type Backlog struct {
	Pending    int64 `json:"pending"`
	AckPending int64 `json:"ack_pending"`
	Paused     bool  `json:"paused"`
	// Redelivered counts those of AckPending that were delivered more than once. Waiting is the number of open pulls.
	Redelivered int64 `json:"-"`
	Waiting     int64 `json:"-"`
}

// FleetJobs is what a queue of the fleet holds: jobs by state, how old the oldest one is by state, in seconds, and how many of
// those that wait are overdue.
type FleetJobs struct {
	Jobs    map[string]uint64
	Oldest  map[string]float64
	Overdue uint64
}

// Registry counts what happens and writes it as a Prometheus page. Make one with New; it may be shared by any
// number of goroutines. Labels come from closed lists, so the page keeps its size whatever jobs say.
type Registry struct {
	gauges Gauges
	// The maps are filled by New and only read later, so they need no lock. The counters in them are atomic.
	families map[string]Family
	set      *vm.Set
	proxies  proxyCounters

	// Counters of jobs. Keys are the labels, and "other" stands for the rest.
	taken     map[string]*vm.Counter
	again     map[string]*vm.Counter
	queueWait *vm.PrometheusHistogram
	jobs      map[[2]string]*classCounters // queue, outcome
	dead      map[string]*vm.Counter
	durations map[string]*vm.PrometheusHistogram
	perJob    *vm.PrometheusHistogram
	// Counters of attempts, picks and retries.
	attempts    map[string]*classCounters // by reason, "none" when there is an answer
	attemptTime map[bool]*vm.PrometheusHistogram
	bytes       *vm.Counter
	size        *vm.PrometheusHistogram
	selections  map[string]*vm.Counter
	exhausted   map[string]*vm.Counter
	siteWaits   map[string]*vm.Counter
	pickTime    *vm.PrometheusHistogram
	retries     map[[2]string]*vm.Counter // kind, fault
	retryDelay  *vm.PrometheusHistogram
	transitions map[[2]string]*vm.Counter
	// Counters of the connection to NATS. The maps from bool hold the confirmed ones under true.
	reconnects  *vm.Counter
	asyncErrors map[string]*vm.Counter
	acks        map[string]map[bool]*vm.Counter
	publishes   map[string]map[bool]*vm.Counter
	publishTime *vm.PrometheusHistogram
	flushes     map[bool]*vm.Counter
}

// New makes the counters, all at zero, so that a rate is right from the first event on.
func New(g Gauges) *Registry {
	m := &Registry{gauges: g, families: map[string]Family{}, set: vm.NewSet()}
	for _, f := range Families() {
		m.families[f.Name] = f
	}
	m.gauges.Queues = queueLabels(g.Queues)
	m.makeJobs()
	m.makeAttempts()
	m.makeNATS()
	return m
}

// Gauges returns the functions that the page reads. Nobody may change them, since pages are written at any time.
func (m *Registry) Gauges() *Gauges { return &m.gauges }

// CountTaken counts a job that was taken after a wait. again means that it was taken before. Then the wait is not measured,
// because it would include the first run.
func (m *Registry) CountTaken(queue string, waited time.Duration, again bool) {
	queue = m.queue(queue)
	m.taken[queue].Inc()
	if again {
		m.again[queue].Inc()
		return
	}
	m.queueWait.Update(waited.Seconds())
}

// CountPick counts a pick of a proxy, or the reason why the pick found none. The time is measured in both cases.
func (m *Registry) CountPick(strategy rotation.Strategy, took time.Duration, err error) {
	m.pickTime.Update(took.Seconds())
	counter := m.selections[string(strategy)]
	if none, ok := errors.AsType[*rotation.NoProxyError](err); ok {
		counter = m.exhausted[string(none.Reason)]
	}
	if counter != nil {
		counter.Inc()
	}
}

// CountSiteWait counts a job that has to wait for its site, by the state of the site. An unknown state has no
// series and is left out.
func (m *Registry) CountSiteWait(state string) {
	if counter := m.siteWaits[state]; counter != nil {
		counter.Inc()
	}
}

// CountAttempt counts an attempt that ended. A counter never goes down, so bytes below zero count as none.
func (m *Registry) CountAttempt(f rollup.AttemptFact) {
	reason := f.Reason
	if reason == "" && f.Fault == jobs.FaultNone {
		reason = "none"
	}
	pick(m.attempts, reason).inc(f.Status)
	m.attemptTime[reason == "none"].Update(f.Duration.Seconds())
	m.bytes.AddInt64(max(f.Bytes, 0))
	if reason == "none" {
		m.size.Update(float64(f.Bytes))
	}
	m.proxies.count(f)
}

// CountJob counts a job whose result was stored. An outcome of a newer worker counts as failed, since the label's
// values are closed.
func (m *Registry) CountJob(f rollup.JobFact) {
	outcome := f.Outcome
	if !slices.Contains(outcomes(), outcome) {
		outcome = jobs.Failed
	}
	m.jobs[[2]string{m.queue(f.Queue), outcome}].inc(f.Status)
	// A cancelled job has no histogram.
	if d := m.durations[outcome]; d != nil {
		d.Update(f.Duration.Seconds())
	}
	m.perJob.Update(float64(f.Attempts))
}

// CountDeadLetter counts a dead letter by the job's error code.
func (m *Registry) CountDeadLetter(reason string) { pick(m.dead, reason).Inc() }

// CountRetry counts an announced retry.
func (m *Registry) CountRetry(e jobs.RetryEvent) {
	kind, fault := e.Kind, string(e.Fault)
	// What does not wait in the worker waits in the stream, also with a kind that this version does not know.
	if kind != jobs.RetryInline {
		kind = jobs.RetryScheduled
	}
	if !slices.Contains(faults(), fault) {
		fault = rollup.Other
	}
	m.retries[[2]string{kind, fault}].Inc()
	m.retryDelay.Update(e.Delay.Seconds())
}

// CountBreakerChange counts a breaker that changed its state. A change between equal or unknown states has no
// series and is left out.
func (m *Registry) CountBreakerChange(e jobs.BreakerEvent) {
	if c := m.transitions[[2]string{e.FromState, e.ToState}]; c != nil {
		c.Inc()
	}
}

// CountReconnect counts that the connection to NATS was made again.
func (m *Registry) CountReconnect() { m.reconnects.Inc() }

// CountAsyncError counts an error that NATS reported outside a call: "permission", "slow_consumer"; anything else is "other".
func (m *Registry) CountAsyncError(kind string) { pick(m.asyncErrors, kind).Inc() }

// CountAck counts an answer about a job that the server confirmed, or did not: "heartbeat", "ack" or "hand_back".
func (m *Registry) CountAck(kind string, ok bool) {
	if list := m.acks[kind]; list != nil {
		list[ok].Inc()
	}
}

// CountFlush counts a flush of the rollups. ok is false when the server did not confirm it; the same hours are
// flushed again later.
func (m *Registry) CountFlush(ok bool) { m.flushes[ok].Inc() }

// CountPublish counts a message: "result", "retry", "dead", "event", "rollup"; anything else is "other". took is zero if nobody
// has measured it.
func (m *Registry) CountPublish(kind string, ok bool, took time.Duration) {
	pick(m.publishes, kind)[ok].Inc()
	if ok && took > 0 {
		m.publishTime.Update(took.Seconds())
	}
}
