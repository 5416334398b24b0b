package admin

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/worker/rollup"
)

// Worker is the state of a worker, as a row of the dashboard. A worker's own answer, with all of its fields, is
// control.Status: this package does not import worker/control, and adds what only a page needs.
type Worker struct {
	Worker    string    `json:"worker"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	Slots     int       `json:"slots"`
	InFlight  int       `json:"in_flight"`
	Draining  bool      `json:"draining"`
	Ready     bool      `json:"ready"`
	Reasons   []string  `json:"reasons"`
	// Proxies counts proxies by the state of the breaker; Queues are the queues that the worker serves.
	Proxies map[string]int `json:"proxies"`
	Queues  []string       `json:"queues"`
	// Silent is true if the worker answered before, and did not answer the latest question.
	Silent bool `json:"silent"`

	// Recent and Minutes have the jobs that ended in this worker lately, in steps of rollup.ShortStep and rollup.LongStep.
	Recent  []rollup.Step `json:"-"`
	Minutes []rollup.Step `json:"-"`
}

// Series has steps of one width as columns, empty steps included. Each event repeats them, and columns have a third of the bytes
// of a list of objects.
type Series struct {
	// Start is when the first step begins, in seconds since 1970, and Step its width in seconds.
	Start int64 `json:"start"`
	Step  int64 `json:"step"`
	// Jobs are the ended jobs of each step by class: 2xx, 3xx, 4xx, 5xx, none.
	Jobs [][5]int64 `json:"jobs"`
	// P95 is the 95th percentile of the durations of each step, in ms; zero for a step in which no job ended.
	P95 []int64 `json:"p95"`
	// TotalP95 is the 95th percentile of all steps together, in ms.
	TotalP95 int64 `json:"total_p95"`
	Failed   int64 `json:"failed"`
	Retries  int64 `json:"retries"`
}

const (
	// fleetPeriod is how often the fleet is asked while a page is open.
	fleetPeriod = 5 * time.Second
	// silentFor is how long a worker that no longer answers is listed. It is long enough to see which worker
	// was killed, and short enough that a page does not fill with names of containers that were replaced.
	silentFor = 2 * time.Minute
)

// known is a worker, and the time of its latest answer.
type known struct {
	Worker
	// heard is the time of the latest answer, by the clock of this worker.
	heard time.Time
	// recent and minutes have the steps of all answers, by start, because only the first question asks for all steps.
	recent, minutes map[int64]rollup.Step
}

// workersKnown are the workers that answered, by name. Only one question is open at a time, so only one
// goroutine changes it. A value is never changed after it was published, for pages read it without a lock.
// askFleet makes a new one.
type workersKnown map[string]known

// askFleet asks all workers. The first question asks for the steps of the whole hour, a later one for the newer steps only.
func (a *admin) askFleet(ctx context.Context, before workersKnown) (workersKnown, error) {
	// The step that has not ended yet is left out, hence the minus one.
	recent, minutes := rollup.ShortSteps-1, rollup.LongSteps-1
	for _, w := range before {
		if time.Since(w.heard) < 3*fleetPeriod { // so the last question was not long ago
			// Four short steps and two long ones cover a question that came late, by up to three periods.
			recent, minutes = 4, 2
			break
		}
	}
	list, err := a.Fleet(ctx, recent, minutes)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	after := workersKnown{}
	var missed bool
	for _, w := range list {
		old := before[w.Worker]
		// A worker that was missing from earlier answers, or that is new, has only sent its latest steps.
		missed = missed || recent == 4 && now.Sub(old.heard) > 3*fleetPeriod
		after[w.Worker] = old.hear(w, now)
	}
	if missed { // a worker that is new in the list has sent only a part
		// An error is ignored here: the first answers are good, and the next question asks again.
		if list, err = a.Fleet(ctx, rollup.ShortSteps-1, rollup.LongSteps-1); err == nil {
			for _, w := range list {
				after[w.Worker] = after[w.Worker].hear(w, now)
			}
		}
	}
	for name, old := range before {
		// A worker that was draining has ended as it should, so it is not missed.
		if _, answered := after[name]; !answered && now.Sub(old.heard) < silentFor && !old.Draining {
			old.Silent, old.Ready = true, false
			after[name] = old
		}
	}
	return after, nil
}

// hear returns the state of a worker after an answer. k is the zero value at the first answer.
func (k known) hear(w Worker, now time.Time) known {
	next := known{Worker: w, heard: now}
	next.recent = joinSteps(k.recent, w.Recent, now, rollup.ShortStep*rollup.ShortSteps)
	next.minutes = joinSteps(k.minutes, w.Minutes, now, rollup.LongStep*rollup.LongSteps)
	// The steps are in the maps now; keeping the slices would hold them twice.
	next.Recent, next.Minutes = nil, nil
	return next
}

// joinSteps adds newer steps to older ones, and leaves out those that are too old. It does not change old,
// which a page may be reading.
func joinSteps(old map[int64]rollup.Step, steps []rollup.Step, now time.Time, keep time.Duration) map[int64]rollup.Step {
	out := make(map[int64]rollup.Step, len(old)+len(steps))
	oldest := now.Add(-keep).Unix()
	for at, s := range old {
		if at >= oldest {
			out[at] = s
		}
	}
	for _, s := range steps {
		// Steps are keyed by their start, so a repeated one replaces the older form of itself. A worker whose
		// clock runs ahead cannot add steps of the future.
		if s.At >= oldest && s.At <= now.Unix() {
			out[s.At] = s
		}
	}
	return out
}

// workersNow are the workers of the fleet, or this worker alone while the fleet has not answered.
func (a *admin) workersNow(ctx context.Context, ready bool, checks []Check) workersKnown {
	workers, _, _ := a.view.workers.get(ctx)
	if len(workers) == 0 {
		// The snapshot has a fleet of one worker, so that the page always has the same form.
		workers = workersKnown{a.Worker: known{}.hear(a.self(ready, checks), time.Now())}
	}
	return workers
}

// rows returns all workers in the order of the page.
func (k workersKnown) rows() []Worker {
	rows := make([]Worker, 0, len(k))
	for _, w := range k {
		rows = append(rows, w.Worker)
	}
	slices.SortFunc(rows, func(a, b Worker) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Worker, b.Worker))
	})
	return rows
}

// addWorkers adds the first of the workers, and the sums over the watched one or all.
func (a *admin) addWorkers(ctx context.Context, s *Snapshot) {
	// Asked before the workers are read: an answer that comes in between is in the snapshot or in the next early one.
	_, known, err := a.view.workers.get(ctx)
	s.isPartial = a.Fleet != nil && !known
	workers := a.workersNow(ctx, s.Ready, s.Checks)
	if known && err == nil {
		s.Queues = workers.markServed(s.Queues)
	}
	end := workers.answered()
	recent, minutes := newSteps(end, rollup.ShortStep, rollup.ShortSteps-1), newSteps(end, rollup.LongStep, rollup.LongSteps-1)
	for _, w := range workers {
		// All workers are listed; the sums are those of the watched one, or of all.
		if s.Watched != "" && s.Watched != w.Worker.Worker {
			continue
		}
		// The running jobs of a silent worker are unknown. The jobs that it ended before still count.
		if !w.Silent {
			s.InFlight, s.Slots = s.InFlight+w.InFlight, s.Slots+w.Slots
		}
		recent.add(w.recent)
		minutes.add(w.minutes)
	}
	s.Recent, s.Minutes, s.WorkerCount = recent.series(), minutes.series(), len(workers)
	s.Workers = rowsOf(page{limit: maxWorkers}, workers.rows())
}

// rank orders workers: those that need attention first.
func rank(w Worker) int {
	switch {
	case w.Silent:
		return 0
	case !w.Ready && !w.Draining:
		return 1
	case w.Draining:
		return 2
	}
	return 3
}

// self returns this worker as a fleet of one. It fills only the fields that this process knows without NATS.
func (a *admin) self(ready bool, checks []Check) Worker {
	w := Worker{
		Worker: a.Worker, Version: a.Version, Ready: ready, Reasons: []string{}, Proxies: map[string]int{}, Queues: []string{},
		Recent: a.Book.Steps(rollup.ShortStep, rollup.ShortSteps-1), Minutes: a.Book.Steps(rollup.LongStep, rollup.LongSteps-1),
	}
	for _, c := range checks {
		if !c.OK {
			w.Reasons = append(w.Reasons, c.Name+": "+c.Detail)
		}
	}
	g := a.Metrics.Gauges()
	if g.Slots != nil {
		w.Slots = g.Slots()
	}
	if g.InFlight != nil {
		for queue, n := range g.InFlight() {
			w.InFlight, w.Queues = w.InFlight+n, append(w.Queues, queue)
		}
	}
	slices.Sort(w.Queues)
	return w
}

// stepSum adds up the steps of several workers. All steps have the same width, and index i stands for the time
// from start+i*width on.
type stepSum struct {
	start, width int64
	steps        []rollup.Step
}

// answered returns the time up to which the steps of the workers are known, because a step that they have not sent yet would look
// like a drop of the rate. It is at most three periods ago, so that the old rates of a fleet that no longer answers do not look
// current.
func (k workersKnown) answered() time.Time {
	end := time.Now().Add(-3 * fleetPeriod)
	for _, w := range k {
		// The second allows for clocks that differ: a step is complete by its worker's.
		if heard := w.heard.Add(-time.Second); heard.After(end) {
			end = heard
		}
	}
	return end
}

// newSteps covers the newest count complete steps up to end.
func newSteps(end time.Time, width time.Duration, count int) *stepSum {
	w := int64(width / time.Second)
	last := end.Unix() / w * w
	return &stepSum{start: last - int64(count)*w, width: w, steps: make([]rollup.Step, count)}
}

func (t *stepSum) add(steps map[int64]rollup.Step) {
	// Histograms are merged in order of time, so that the result does not depend on the order of the map.
	for _, at := range slices.Sorted(maps.Keys(steps)) {
		if i := (at - t.start) / t.width; at >= t.start && i < int64(len(t.steps)) {
			s := steps[at]
			t.steps[i].Merge(&s)
		}
	}
}

// The 95th percentile is taken from the merged histogram: a mean of the workers' percentiles would be wrong.
func (t *stepSum) series() Series {
	out := Series{Start: t.start, Step: t.width, Jobs: make([][5]int64, len(t.steps)), P95: make([]int64, len(t.steps))}
	var all rollup.Step
	for i := range t.steps {
		s := &t.steps[i]
		all.Merge(s)
		c := s.Classes
		out.Jobs[i] = [5]int64{c.Status2xx, c.Status3xx, c.Status4xx, c.Status5xx, c.None}
		out.P95[i] = s.Latency.Quantile(0.95).Milliseconds()
	}
	out.TotalP95, out.Failed, out.Retries = all.Latency.Quantile(0.95).Milliseconds(), all.Failed, all.Retries
	return out
}
