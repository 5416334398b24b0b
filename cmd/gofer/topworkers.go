package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// topWorker is a worker, and when it answered last. A silent one has not for a while.
type topWorker struct {
	control.Status
	// Jobs is the rate of jobs that ended there within topWindow.
	Jobs float64 `json:"jobs_per_second"`
	// Heard is the time of the last answer by this machine's clock.
	Heard time.Time `json:"answered_at"`
	// Silent is true from silentAfter on. After silentFor the worker is left out.
	Silent bool `json:"silent"`
}

// keepWorkers takes over the states of the workers that have answered, and adds up what these workers did. A worker that has not
// answered keeps its old state for a while, so that an operator sees what is missing and not only a smaller number of workers.
func (t *top) keepWorkers(list []control.Status) {
	var sum rollup.Step
	after, heard := []topWorker{}, map[string]bool{}
	for _, w := range list {
		var own rollup.Step
		for i := range w.Recent {
			own.Merge(&w.Recent[i])
		}
		sum.Merge(&own)
		// The steps are in the sums now. Without them a snapshot stays small.
		w.Recent, heard[w.Worker] = nil, true
		after = append(after, topWorker{Status: w, Jobs: perSecond(own.Jobs()), Heard: time.Now().UTC()})
	}
	// A worker that was draining and no longer answers has ended as it should. Any other one may be in trouble.
	for _, old := range t.now.Workers {
		since := time.Since(old.Heard)
		if heard[old.Worker] || old.Draining || since >= silentFor {
			continue
		}
		// Nobody knows what a silent worker does, so the sums of the screen leave out its rate and its slots.
		if since >= silentAfter {
			old.Silent, old.Ready, old.Jobs, old.InFlight, old.Slots = true, false, 0, nil, 0
		}
		after = append(after, old)
	}
	slices.SortStableFunc(after, func(a, b topWorker) int { return cmp.Or(a.rank()-b.rank(), cmp.Compare(a.Worker, b.Worker)) })
	t.now.Workers = after
	t.now.Rates = topRates{
		Seconds: topWindow.Seconds(), Jobs: perSecond(sum.Jobs()), Failed: perSecond(sum.Failed), Retries: perSecond(sum.Retries),
		P95: sum.Latency.Quantile(0.95).Seconds(), Classes: sum.Classes,
	}
	t.answered, t.silence = list, nil
	t.workers.Store(int64(len(list)))
	markServed(t.now.Queues, list, nil)
}

// rank orders workers: those that need attention first. The index of the first true element: 0 is the worst.
func (w *topWorker) rank() int {
	return slices.Index([]bool{w.Silent, !w.Ready && !w.Draining, w.Draining, true}, true)
}

// state is how the worker stands, in words.
func (w *topWorker) state() string {
	if w.Silent {
		return "no answer for " + time.Since(w.Heard).Round(time.Second).String()
	}
	return stateOf(w.Status)
}

// workerTable has the columns of gofer workers, without version and queues, and with a rate.
func (t *top) workerTable() (header table.Row, rows []table.Row) {
	for _, w := range t.now.Workers {
		rows = append(rows, table.Row{
			w.Worker, age(w.StartedAt), fmt.Sprintf("%d/%d", w.Running(), w.Slots), fmt.Sprintf("%.1f", w.Jobs), countsText(w.Proxies), w.state(),
		})
	}
	return table.Row{"worker", "up", "slots", "jobs/s", "proxies", "state"}, rows
}
