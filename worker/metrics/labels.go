package metrics

import (
	"slices"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// queueLabels are the labels of the queues that are served, at most 32, and the common label of all others. The common label is
// also a valid name of a queue. It comes first, so that it has a place even with 32 queues.
func queueLabels(served []string) []string {
	labels := []string{rollup.Other}
	for _, queue := range served[:min(len(served), 32)] {
		if !slices.Contains(labels, queue) {
			labels = append(labels, queue)
		}
	}
	return labels
}

// queue returns the label of a queue. All queues that this worker does not serve have one label, so that messages cannot add
// series.
func (m *Registry) queue(name string) string {
	if slices.Contains(m.gauges.Queues, name) {
		return name
	}
	return rollup.Other
}

// labelText returns labels in the form that follows a metric's name; empty without labels. labels alternates names and values. An
// odd number of them is a mistake of this package and panics.
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

// pick returns the element of a label, or the element of "other" if list does not have the label. So list must have either
// "other" or every label that can occur.
func pick[V any](list map[string]V, label string) V {
	if v, ok := list[label]; ok {
		return v
	}
	return list[rollup.Other]
}

// seconds returns the upper bounds of the buckets for durations of attempts and jobs: a fetch through a proxy takes from a tenth
// of a second to minutes. Each bucket is a series of every histogram, and a page with 32 queues must stay below 1,300 series.
func seconds() []float64 { return []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300} }

// outcomes, states and the functions below return closed lists of label values, so the number of series is bounded.
func outcomes() []string { return []string{jobs.Succeeded, jobs.Failed, jobs.Cancelled} }

func states() []string { return []string{"closed", "half_open", "open"} }

// siteStates are the states of a site in which a job waits for it.
func siteStates() []string { return []string{"new", "resting", "testing", "returning"} }

// asyncKinds are the errors that NATS reports outside a call.
func asyncKinds() []string { return []string{"permission", "slow_consumer", rollup.Other} }

// ackKinds are the messages of a worker about a job that it holds.
func ackKinds() []string { return []string{"heartbeat", "ack", "hand_back"} }

// retryKinds says where a retry waits: in the worker (inline), or in the stream (scheduled).
func retryKinds() []string { return []string{jobs.RetryInline, jobs.RetryScheduled} }

// faults are the faults that cause retries; an unknown one counts as "other".
func faults() []string {
	return []string{string(jobs.FaultProxy), string(jobs.FaultTarget), string(jobs.FaultPair), string(jobs.FaultUnclear), rollup.Other}
}

// deadReasons are the error codes of failed jobs: a cancelled job leaves no dead letter.
func deadReasons() []string {
	return slices.DeleteFunc(rollup.JobErrors(), func(code string) bool { return code == jobs.ErrCancelled })
}

// strategies are all strategies, because the fleet may change its strategy while the worker runs.
func strategies() (out []string) {
	for _, s := range rotation.Strategies() {
		out = append(out, string(s))
	}
	return out
}

// exhaustions are the reasons for which a pick finds no proxy.
func exhaustions() []string {
	return []string{string(rotation.Empty), string(rotation.Unmatched), string(rotation.Unavailable), string(rotation.Outage)}
}

// publishKinds are the kinds of messages that a worker publishes.
func publishKinds() []string {
	return []string{"result", "retry", "dead", "event", "rollup", rollup.Other}
}
