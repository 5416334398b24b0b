package rollup

import (
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// The metrics of an hour. attempts, retries, bytes and the two of latency have no label; every other one has a closed list of
// labels.
const (
	metricAttempts        = "attempts"   // every attempt
	metricRetries         = "retries"    // announced retries
	metricBytes           = "bytes"      // received over proxies and directly
	metricJob             = "job"        // ended jobs by code
	metricClass           = "class"      // ended jobs by the class of their last status
	metricSuccess         = "success_at" // succeeded jobs by the number of their last attempt
	metricFailure         = "failure"    // failed attempts by reason
	metricPolicy          = "policy"     // ended jobs by policy
	metricPolicySucceeded = "policy_ok"  // succeeded jobs by policy
	metricBreaker         = "breaker"    // breaker changes by the state that was entered
	metricLatency         = "latency"    // ended jobs by bucket of their duration, see Histogram
	metricLatencySum      = "latency_sum"
)

// key names one counter of an hour.
type key struct{ metric, label string }

// Hour has the sums of one hour of UTC. Every number in it is a sum, so hours can be merged in any order. The zero value is an
// hour in which nothing happened. Any number of goroutines may read an Hour while none merges into it.
type Hour struct {
	// Start is the hour's first instant, UTC; zero for a total over several hours.
	Start time.Time
	// Latency has the durations of ended jobs that made an attempt, from the first attempt to the end.
	Latency Histogram
	// counts is nil until the first fact, because most hours are empty in a worker that has just started.
	counts map[key]int64
}

// Merge adds the counts of o. Start stays.
func (h *Hour) Merge(o *Hour) {
	for k, n := range o.counts {
		h.add(k, n)
	}
	h.Latency.Merge(&o.Latency)
}

// Attempts is the number of attempts.
func (h *Hour) Attempts() int64 { return h.counts[key{metricAttempts, ""}] }

// Retries is the number of announced retries.
func (h *Hour) Retries() int64 { return h.counts[key{metricRetries, ""}] }

// Bytes is how many bytes were received.
func (h *Hour) Bytes() int64 { return h.counts[key{metricBytes, ""}] }

// BreakerOpens is how often a breaker opened.
func (h *Hour) BreakerOpens() int64 { return h.counts[key{metricBreaker, "open"}] }

// BreakerChanges is how often a breaker changed its state.
func (h *Hour) BreakerChanges() int64 { return h.total(metricBreaker) }

// Jobs is the number of ended jobs.
func (h *Hour) Jobs() int64 { return h.total(metricJob) }

// Succeeded is the number of ended jobs that succeeded.
func (h *Hour) Succeeded() int64 { return h.counts[key{metricJob, jobs.Succeeded}] }

// Cancelled is the number of ended jobs that were cancelled.
func (h *Hour) Cancelled() int64 { return h.counts[key{metricJob, jobs.ErrCancelled}] }

// Failed is the number of ended jobs that failed.
func (h *Hour) Failed() int64 { return h.Jobs() - h.Succeeded() - h.Cancelled() }

// SuccessRate is the share of ended jobs that succeeded, zero when none ended.
func (h *Hour) SuccessRate() float64 { return ratio(h.Succeeded(), h.Jobs()) }

// SuccessByAttempt returns the succeeded jobs by the number of their last attempt. The map belongs to the caller.
func (h *Hour) SuccessByAttempt() map[string]int64 { return h.byLabel(metricSuccess) }

// Classes returns the ended jobs by the class of their last status. Counts of workers of earlier versions have no class.
func (h *Hour) Classes() Classes {
	of := func(class string) int64 { return h.counts[key{metricClass, class}] }
	return Classes{of(jobs.Class2xx), of(jobs.Class3xx), of(jobs.Class4xx), of(jobs.Class5xx), of(jobs.ClassNone)}
}

// add adds to a counter. Counters at zero are not stored. n is below zero only while a sum is subtracted.
func (h *Hour) add(k key, n int64) {
	if n == 0 {
		return
	}
	if h.counts == nil {
		h.counts = map[key]int64{}
	}
	h.counts[k] += n
}

// total adds up the counters of a metric over its labels.
func (h *Hour) total(metric string) (n int64) {
	for k, v := range h.counts {
		if k.metric == metric {
			n += v
		}
	}
	return n
}

// byLabel returns the counters of a metric by label. The map belongs to the caller.
func (h *Hour) byLabel(metric string) map[string]int64 {
	out := map[string]int64{}
	for k, v := range h.counts {
		if k.metric == metric {
			out[k.label] = v
		}
	}
	return out
}

// attempt adds an attempt to the sums of the hour; job, retry and breaker do so for the other facts.
func (h *Hour) attempt(f AttemptFact) {
	h.add(key{metricAttempts, ""}, 1)
	h.add(key{metricBytes, ""}, f.Bytes)
	if f.failed() {
		h.add(key{metricFailure, oneOf(Reasons(), f.Reason)}, 1)
	}
}

func (h *Hour) job(f JobFact) {
	code, policy := f.code(), policyLabel(f.Policy)
	h.add(key{metricJob, code}, 1)
	h.add(key{metricClass, jobs.StatusClass(f.Status)}, 1)
	h.add(key{metricPolicy, policy}, 1)
	if code == jobs.Succeeded {
		h.add(key{metricPolicySucceeded, policy}, 1)
		h.add(key{metricSuccess, attemptLabel(f.Attempts)}, 1)
	}
	// The duration of a job that ended without an attempt, such as an expired job, means nothing.
	if f.Attempts > 0 {
		h.Latency.Observe(f.Duration)
	}
}

// retry has no label: its bytes and time count with the attempt that follows.
func (h *Hour) retry() { h.add(key{metricRetries, ""}, 1) }

func (h *Hour) breaker(e jobs.BreakerEvent) {
	h.add(key{metricBreaker, breakerState(e.ToState)}, 1)
}

// breakerState returns the label of a breaker's state.
func breakerState(state string) string { return oneOf([]string{"closed", "open", "half_open"}, state) }

// ratio returns part / whole; zero if whole is zero, because JSON has no NaN.
func ratio(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// hourOf returns the number of an hour since 1970. A ring of hours uses its remainder as the index.
func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// startOf returns the first instant of a numbered hour, in UTC.
func startOf(hour int64) time.Time { return time.Unix(hour*3600, 0).UTC() }
