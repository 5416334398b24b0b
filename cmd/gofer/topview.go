package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// keepWorkers takes over how the workers stand, those included that no longer answer, and adds up what they did.
// The workers that answered come with new facts; one that did not keeps its old ones for a while.
func (t *top) keepWorkers(list []control.Status) {
	var sum rollup.Step
	after, heard := []topWorker{}, map[string]bool{}
	for _, w := range list {
		var own rollup.Step
		for i := range w.Recent {
			own.Merge(&w.Recent[i])
		}
		sum.Merge(&own)
		// The steps were added up; without them a snapshot stays small.
		w.Recent, heard[w.Worker] = nil, true
		after = append(after, topWorker{Status: w, Jobs: perSecond(own.Jobs()), Heard: time.Now().UTC()})
	}
	// A worker that drained and is gone has ended as it should; any other one may be in trouble.
	for _, old := range t.now.Workers {
		since := time.Since(old.Heard)
		if heard[old.Worker] || old.Draining || since >= silentFor {
			continue
		}
		// A silent worker has no rate and no slots that anybody could use, so the sums of the screen leave it out.
		if since >= silentAfter {
			old.Silent, old.Ready, old.Jobs, old.InFlight, old.Slots = true, false, 0, nil, 0
		}
		after = append(after, old)
	}
	// Stable, so that workers of one name do not change places from one drawing to the next.
	slices.SortStableFunc(after, func(a, b topWorker) int { return cmp.Or(a.rank()-b.rank(), cmp.Compare(a.Worker, b.Worker)) })
	t.now.Workers = after
	t.now.Rates = topRates{
		Seconds: (topSteps * rollup.ShortStep).Seconds(), Jobs: perSecond(sum.Jobs()), Failed: perSecond(sum.Failed), Retries: perSecond(sum.Retries),
		P95: sum.Latency.Quantile(0.95).Seconds(), Classes: sum.Classes,
	}
}

// perSecond is a number of the last topSteps as a rate.
func perSecond(n int64) float64 { return float64(n) / (topSteps * rollup.ShortStep).Seconds() }

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

// lines are what a screen of a height shows; zero means no bound. It reads t.now, so it is called by the goroutine
// that takes the answers.
func (t *top) lines(l look, height int) []string {
	now := t.snapshot()
	r, slots, running, good := now.Rates, 0, 0, "-"
	for _, w := range now.Workers {
		// Silent workers count with zero: see keepWorkers.
		slots, running = slots+w.Slots, running+w.Running()
	}
	if r.Jobs > 0 {
		// Jobs includes those that failed without a status.
		good = fmt.Sprintf("%.1f %%", 100*perSecond(r.Classes.Status2xx)/r.Jobs)
	}
	lines := []string{
		fmt.Sprintf("gofer top  %s  every %s  workers %d  slots %d/%d", now.At.Local().Format("15:04:05 MST"), t.every, len(now.Workers), running, slots),
		fmt.Sprintf("%.1f jobs/s  2xx %s  %.1f failed/s  %.1f retries/s  p95 %s", r.Jobs, good, r.Failed, r.Retries, brief(time.Duration(r.P95*1e9))),
	}
	if now.Unread > 0 {
		lines = append(lines, fmt.Sprintf("%d waiting jobs are not counted yet", now.Unread))
	}
	// A question without an answer is named on top, where it explains what the panels lack.
	for _, what := range slices.Sorted(maps.Keys(now.Missing)) {
		lines = append(lines, text.Printable("Missing: "+what+": "+now.Missing[what]))
	}
	sites, proxies := panel{none: "No sites.", total: now.Known.Sites}, panel{none: "No proxies.", total: now.Known.Proxies}
	sites.header, sites.rows = siteTable(now.Sites)
	proxies.header, proxies.rows = breakerTable(now.Proxies)
	// At least one line is left for the panels: zero would mean no bound.
	if height > 0 {
		height = max(height-len(lines), 1)
	}
	panels := []panel{t.queuePanel(), t.workerPanel(), sites, proxies}
	for i, what := range []string{"queues", "workers", "sites", "proxies"} {
		// An empty list that nobody has answered must not read as a fleet without it.
		if !t.heard[what] {
			panels[i].none = "No answer yet: " + what + "."
		}
	}
	return append(lines, stack(panels, l, height)...)
}

// queuePanel has the queues, and below them what most of the jobs wait for. Ages grow between two answers, because
// they are counted from the oldest job's time.
func (t *top) queuePanel() panel {
	p := panel{none: "No queues.", header: table.Row{"queue", "queued", "running", "delayed", "retrying", "no proxy", "site down", "oldest", "state"}}
	for _, q := range t.now.Queues {
		age, state := "-", q.state()
		if !q.oldest.IsZero() {
			age = time.Since(q.oldest).Round(time.Second).String()
		}
		// There is no column for them, because they are rare and bad.
		if q.Overdue > 0 {
			state = fmt.Sprintf("%d overdue, %s", q.Overdue, state)
		}
		p.rows = append(p.rows, table.Row{q.Queue, q.Queued + q.Due, q.Running, q.Delayed, q.Retrying, q.NoProxy, q.SiteDown, age, state})
		for _, r := range q.Reasons {
			p.notes = append(p.notes, text.Printable(fmt.Sprintf("queue %s: %s", q.Queue, r)))
		}
	}
	return p
}

// workerPanel has the workers, those that need attention first. The columns are those of gofer workers, without the
// version and the queues, and with a rate.
func (t *top) workerPanel() panel {
	p := panel{none: "No workers.", header: table.Row{"worker", "up", "slots", "jobs/s", "proxies", "state"}}
	for _, w := range t.now.Workers {
		p.rows = append(p.rows, table.Row{
			w.Worker, time.Since(w.StartedAt).Round(time.Second), fmt.Sprintf("%d/%d", w.Running(), w.Slots), fmt.Sprintf("%.1f", w.Jobs), counts(w.Proxies), w.state(),
		})
	}
	return p
}
