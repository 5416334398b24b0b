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

// labelText writes labels, names and values in turn, as a metric's name has them; empty without labels. An odd last
// name is a mistake of the program and panics.
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

// pick returns the element of a label, or that of the common label "other" if the list has no such label. So list
// must have "other", or hold every label that can come.
func pick[V any](list map[string]V, label string) V {
	if v, ok := list[label]; ok {
		return v
	}
	return list[rollup.Other]
}

// seconds are the buckets of attempts and jobs: a proxied fetch takes from a tenth of a second to minutes. Each bucket is
// a series of every histogram, and a page with 32 queues has to stay below 1,300 of them.
func seconds() []float64 { return []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300} }

// outcomes, states and the lists below are the values that labels may have. They are closed, so the number of series is
// known.
func outcomes() []string { return []string{jobs.Succeeded, jobs.Failed, jobs.Cancelled} }

func states() []string { return []string{"closed", "half_open", "open"} }

// siteStates are the states of a site in which a job waits for it.
func siteStates() []string { return []string{"new", "resting", "testing", "returning"} }

// asyncKinds are the errors that NATS reports outside a call.
func asyncKinds() []string { return []string{"permission", "slow_consumer", rollup.Other} }

// ackKinds are the messages of a worker about a job that it holds.
func ackKinds() []string { return []string{"heartbeat", "ack", "hand_back"} }

// retryKinds tell where a retry waits: in the worker, or in the stream.
func retryKinds() []string { return []string{jobs.RetryInline, jobs.RetryScheduled} }

// faults are those that a retry may be due to; any other one counts as "other".
func faults() []string {
	return []string{string(jobs.FaultProxy), string(jobs.FaultTarget), string(jobs.FaultPair), string(jobs.FaultUnclear), rollup.Other}
}

// deadReasons are the codes of jobs that failed: a cancelled one gets no dead letter.
func deadReasons() []string {
	return slices.DeleteFunc(rollup.JobErrors(), func(code string) bool { return code == jobs.ErrCancelled })
}

// strategies are all that a fleet may switch to while the worker runs, not the current one alone.
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
