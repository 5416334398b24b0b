package rollup

import (
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// The metrics of an hour. Each but those without a label has a closed list of labels.
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

// Hour is what happened in one hour of UTC. Every number in it is a sum, so hours merge in any order. The zero value
// is an hour in which nothing happened; it may be read by many goroutines as long as none merges into it.
type Hour struct {
	// Start is the hour's first instant, UTC; zero for a total over several hours.
	Start time.Time
	// Latency is over the ended jobs that made an attempt, from the first one to the end.
	Latency Histogram
	// counts is nil until the first fact, since most hours of a young worker are empty.
	counts map[key]int64
}

// Merge adds what o counted; Start stays.
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

// SuccessByAttempt are the succeeded jobs by the number of their last attempt. The map is the caller's.
func (h *Hour) SuccessByAttempt() map[string]int64 { return h.byLabel(metricSuccess) }

// Classes are the ended jobs by the class of their last status. What workers of earlier versions counted has no class.
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

// byLabel returns the counters of a metric by label, in a map of the caller's.
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
	// A job that ended without an attempt, such as an expired one, has no duration that means anything.
	if f.Attempts > 0 {
		h.Latency.Observe(f.Duration)
	}
}

// A retry has no label: what it costs is in the attempts.
func (h *Hour) retry() { h.add(key{metricRetries, ""}, 1) }

func (h *Hour) breaker(e jobs.BreakerEvent) {
	h.add(key{metricBreaker, breakerState(e.ToState)}, 1)
}

// breakerState is the label of a breaker's state.
func breakerState(state string) string { return oneOf([]string{"closed", "open", "half_open"}, state) }

// ratio is a share of 1; zero of nothing. Not NaN, which JSON cannot hold.
func ratio(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// hourOf numbers the hours since 1970, so that a ring of them is indexed by a remainder.
func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// startOf returns the first instant of a numbered hour, in UTC.
func startOf(hour int64) time.Time { return time.Unix(hour*3600, 0).UTC() }
