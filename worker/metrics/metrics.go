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

// Gauges are the functions that a metrics page reads when it is written. If a function is nil, its metric is left out. No
// function may block, because it would delay the whole page. The goroutine that writes the page calls the functions, so they must
// be safe for concurrent use.
type Gauges struct {
	// Version and Revision are those of the program, ConfigHash distinguishes configurations.
	Version, Revision, ConfigHash string
	// Queues are those that the worker serves, at most 32. All other queues are counted as "other", and so is a queue of this
	// name.
	Queues []string
	// InFlight is the number of running jobs by queue, Slots how many there may be.
	InFlight func() map[string]int
	Slots    func() int
	// Ready, Draining and Connected (to NATS) are states.
	Ready, Draining, Connected func() bool
	// Loop reads the counters of the worker's loop.
	Loop func() Loop
	// ProxyStates counts the proxies of the pool by breaker state. EachProxy yields the id and the state of each proxy; only a
	// page with ?proxies calls it.
	ProxyStates func() map[string]int
	EachProxy   func() iter.Seq2[string, string]
	// ProxiesAvoided counts the proxies that other workers found dead.
	ProxiesAvoided func() int
	// Sites counts the sites that the worker remembers by state: "resting", "returning" or "other". SitesFollowed counts the
	// sites that rest because of a finding of another worker.
	Sites         func() map[string]int
	SitesFollowed func() int
	// InOutage reports whether the pool has an outage.
	InOutage func() bool
	// DomainWaits counts how often a job had to wait because of the rate or concurrency limit of a domain.
	DomainWaits func() int64
	// Hedges counts the hedges that brought the job's result, that lost against the slow attempt, and that failed like it.
	Hedges func() (won, lost, failed int64)
	// DelayedRetries counts the retries that waited longer because the retry budget was used up.
	DelayedRetries func() int64
	// IdleConns is the number of idle connections that a later attempt may use.
	IdleConns func() int
	// Backlog returns the last known state of the consumers by queue. It must not ask the server.
	Backlog func() map[string]Backlog
	// FleetJobs returns the job counts of the fleet by queue that were shared last; nil if no worker shares them.
	FleetJobs func() map[string]FleetJobs
	// RTT is the latest measurement of the round-trip time to the server; zero before the first one.
	RTT func() time.Duration
	// Book returns the book of the rollup gauges. It has the same hours that the API shows by default.
	Book func() *rollup.Book
	// Process adds the metrics of the Go runtime and of the process.
	Process bool
}

// Loop has the counters of the worker's loop since its start. Overdue counts the jobs that the worker released because the server
// had not released them at their time, SiteReleases the jobs that it released for a site.
type Loop struct{ Scheduled, HandedBack, LeasesLost, Duplicates, Overdue, SiteReleases int64 }

// Backlog is the state of a queue's consumers: Pending counts the jobs that no worker has taken, AckPending the jobs that workers
// hold. JetStream delivers no jobs of a paused queue.
type Backlog struct {
	Pending    int64 `json:"pending"`
	AckPending int64 `json:"ack_pending"`
	Paused     bool  `json:"paused"`
	// Redelivered counts the jobs of AckPending that were delivered more than once. Waiting is the number of open pulls.
	Redelivered int64 `json:"-"`
	Waiting     int64 `json:"-"`
}

// FleetJobs has the jobs of one queue of the fleet: their number by state, the age of the oldest one by state in seconds, and the
// number of overdue jobs.
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

	// Counters of jobs. Keys are the values of the labels; "other" stands for all values without a key of their own.
	received       map[string]*vm.Counter // by queue, redeliveries included
	redelivered    map[string]*vm.Counter // by queue
	queueWait      *vm.PrometheusHistogram
	jobs           map[[2]string]*classCounters // queue, outcome
	deadLetters    map[string]*vm.Counter       // by error code
	durations      map[string]*vm.PrometheusHistogram
	attemptsPerJob *vm.PrometheusHistogram
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

// CountTaken counts a job that the worker received after a wait. isRedelivered means that the job was delivered before. Then the
// wait is not measured, because it would include the first run.
func (m *Registry) CountTaken(queue string, waited time.Duration, isRedelivered bool) {
	queue = m.queue(queue)
	m.received[queue].Inc()
	if isRedelivered {
		m.redelivered[queue].Inc()
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

// CountAttempt counts an attempt that ended. A counter never decreases, so a negative number of bytes counts as zero.
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
	// Cancelled jobs have no histogram.
	if d := m.durations[outcome]; d != nil {
		d.Update(f.Duration.Seconds())
	}
	m.attemptsPerJob.Update(float64(f.Attempts))
}

// CountDeadLetter counts a dead letter by the job's error code.
func (m *Registry) CountDeadLetter(reason string) { pick(m.deadLetters, reason).Inc() }

// CountRetry counts an announced retry.
func (m *Registry) CountRetry(e jobs.RetryEvent) {
	kind, fault := e.Kind, string(e.Fault)
	// A kind that this version does not know counts as scheduled, because the labels are a closed list.
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
