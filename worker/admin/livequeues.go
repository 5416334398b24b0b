package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// countedQueue is the part of a counted queue that the page shows. It is decoded from the answer of the API rather than from
// a type of worker/waiting, which this package may not import.
type countedQueue struct {
	Queue         string             `json:"queue"`
	Served        bool               `json:"served"`
	PausedUntil   time.Time          `json:"paused_until"`
	Queued        uint64             `json:"queued"`
	Running       uint64             `json:"running"`
	Pulls         int                `json:"pulls"`
	Delayed       uint64             `json:"delayed"`
	Retrying      uint64             `json:"retrying"`
	NoProxy       uint64             `json:"no_proxy"`
	SiteDown      uint64             `json:"site_down"`
	OldestSeconds map[string]float64 `json:"oldest_seconds"`
	Reasons       []struct {
		State  string `json:"state"`
		Site   string `json:"site"`
		Jobs   uint64 `json:"jobs"`
		Detail string `json:"detail"`
	} `json:"reasons"`
}

// askQueues returns the queues of GET /api/v1/queues.
func (a *admin) askQueues(ctx context.Context) ([]Queue, error) {
	answer, err := a.Operator.Queues(ctx)
	if err != nil {
		return nil, err
	}
	// The value goes through JSON once each fleetPeriod; the answer's fields are the documented ones.
	data, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	var list struct {
		Queues []countedQueue `json:"queues"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	out := make([]Queue, len(list.Queues))
	for i, c := range list.Queues {
		out[i] = c.view()
	}
	return out, nil
}

// view returns the queue as the page has it. Waiting has an entry for each state, also for zero, so that the page need not know
// the states.
func (c *countedQueue) view() Queue {
	q := Queue{
		Queue: c.Queue, Paused: !c.PausedUntil.IsZero(), Queued: c.Queued, Running: c.Running, Served: c.Served, isPulled: c.Pulls > 0, Reasons: []string{},
		Waiting: map[string]uint64{jobs.StateDelayed: c.Delayed, jobs.StateRetrying: c.Retrying, jobs.StateNoProxy: c.NoProxy, jobs.StateSiteDown: c.SiteDown},
	}
	for _, s := range c.OldestSeconds {
		q.OldestSeconds = max(q.OldestSeconds, int64(s)/5*5) // finer steps would make each event repeat the queues
	}
	for _, r := range c.Reasons {
		what := "a proxy"
		if r.Site != "" {
			what += " at " + r.Site
		}
		if r.State == jobs.StateSiteDown {
			what = "the site " + cmp.Or(r.Site, "of several jobs")
		}
		text := countOf(int(r.Jobs), "job waits", "jobs wait") + " for " + what
		if r.Detail != "" {
			text += ": " + shorten(r.Detail)
		}
		if r.State == jobs.StateNoProxy {
			text += ": " + jobs.NoProxyRemedy
		}
		q.Reasons = append(q.Reasons, text)
	}
	return q
}

// markServed notes which queues a worker serves, as far as the workers have answered: it asks for jobs, or answers and names the
// queue. What the server knows of a killed worker's jobs is older. It returns a copy, because all pages share the list.
func (k workersKnown) markServed(queues []Queue) []Queue {
	named := map[string]bool{}
	for _, w := range k {
		for _, queue := range w.Queues {
			named[queue] = named[queue] || !w.Silent && !w.Draining
		}
	}
	out := slices.Clone(queues)
	for i := range out {
		out[i].Served = out[i].isPulled || named[out[i].Queue]
	}
	return out
}

// queuesNow returns the queues as the fleet has counted them, or else as far as this worker knows them, by name.
func (a *admin) queuesNow(ctx context.Context) []Queue {
	if list, known, err := a.view.queues.get(ctx); known && err == nil && list != nil {
		return list
	}
	out := []Queue{}
	g := a.Metrics.Gauges()
	if g.Backlog == nil {
		return out
	}
	// The backlog is what this worker's own consumers show. Waiting stays nil then, which the page shows as
	// unknown.
	for name, b := range g.Backlog() {
		out = append(out, Queue{
			Queue: name, Paused: b.Paused, Queued: uint64(max(0, b.Pending)), Running: uint64(max(0, b.AckPending)), Served: true, isPulled: true, Reasons: []string{},
		})
	}
	slices.SortFunc(out, func(a, b Queue) int { return cmp.Compare(a.Queue, b.Queue) })
	return out
}
