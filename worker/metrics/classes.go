package metrics

import (
	"net/http"
	"slices"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/gofer-mq/gofer/jobs"
)

// classCounters are the counters of a metric that differ only in their label class. Most combinations of an outcome and a class
// never come: a counter is made when it is first needed, and the one that comes most often at once, so that its rate is right
// from the first event on. Any number of goroutines may use it.
type classCounters struct {
	set    *vm.Set
	name   string
	labels []string // without class
	// counters has one place for each class: no status, 2xx, 3xx, 4xx, 5xx. A place is set once and never changed.
	counters [5]atomic.Pointer[vm.Counter]
}

// byClass makes the counters of a name. An outcome that is a success mostly has a 2xx, any other one no status.
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

// counter is that of a status. Two goroutines that make it at once get the same one.
func (c *classCounters) counter(status int) *vm.Counter {
	// Classes run from 2xx to 5xx, so their places are 1 to 4.
	at := &c.counters[0] // of no class
	if status >= 200 && status <= 599 {
		at = &c.counters[status/100-1]
	}
	counter := at.Load()
	// GetOrCreateCounter makes one counter for each name, so the race is harmless.
	if counter == nil {
		counter = c.set.GetOrCreateCounter(c.name + labelText(append(slices.Clone(c.labels), "class", jobs.StatusClass(status))))
		at.Store(counter)
	}
	return counter
}
