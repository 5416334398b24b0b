package metrics

import (
	"net/http"
	"slices"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
)

// classCounters are the counters of a metric that differ only in the label class. Most combinations of an outcome and a class
// never occur, so a counter is made when it is first needed. The most frequent one is made at once, so that a rate shows its
// first event. Any number of goroutines may use it.
type classCounters struct {
	set    *vm.Set
	name   string
	labels []string // without class
	// counters has one place for each class: no status, 2xx, 3xx, 4xx, 5xx. A place is set once and never changed.
	counters [5]atomic.Pointer[vm.Counter]
}

// byClass makes the counters of a name. The most frequent class of a success is 2xx, of any other outcome no status.
func (m *Registry) byClass(name string, labels ...string) *classCounters {
	c := &classCounters{set: m.set, name: name, labels: labels}
	if slices.Contains(labels, jobs.Succeeded) || slices.Contains(labels, "answered") {
		c.counter(http.StatusOK)
	} else {
		c.counter(0)
	}
	return c
}

// inc counts something that ended with a status; zero stands for none.
func (c *classCounters) inc(status int) { c.counter(status).Inc() }

// counter returns the counter of a status, and makes it if it is missing.
func (c *classCounters) counter(status int) *vm.Counter {
	// Classes run from 2xx to 5xx, so their places are 1 to 4.
	at := &c.counters[0] // no status, or an unknown one
	if status >= 200 && status <= 599 {
		at = &c.counters[status/100-1]
	}
	counter := at.Load()
	// GetOrCreateCounter returns one counter for each name, so two goroutines that come here at once get the same counter.
	if counter == nil {
		counter = c.set.GetOrCreateCounter(c.name + labelText(append(slices.Clone(c.labels), "class", jobs.StatusClass(status))))
		at.Store(counter)
	}
	return counter
}
