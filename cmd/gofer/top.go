package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

const (
	minEvery, maxEvery = 500 * time.Millisecond, time.Hour
	sizePeriod         = 100 * time.Millisecond // between two looks at the size of the terminal
	firstAnswers       = 5 * time.Second        // how long a printed snapshot waits for the first answers
	missingAfter       = time.Second            // a question that is open for longer is named
	silentFor          = 2 * time.Minute        // how long a worker that no longer answers is listed
	silentAfter        = 5 * time.Second        // one answer of a busy worker may be late
	// topSteps is how many steps of a worker's book the rates are over, and topWindow how long these are together: 10 s. One step
	// alone has too few jobs for a rate, and more steps would hide that a fleet has just stopped.
	topSteps  = 2
	topWindow = topSteps * rollup.ShortStep
	// topRows is about how many sites, and how many proxies, the answers of all workers together hold. A large fleet would
	// otherwise answer each interval with megabytes, and a screen has room for some fifty rows.
	topRows = 2000
)

// topCommand shows how the fleet stands, on one screen that is drawn again and again. Without a screen, or with
// --json, it prints and draws nothing.
func (a *app) topCommand() *cobra.Command {
	every := durationFlag(2 * time.Second)
	cmd := &cobra.Command{
		Use: "top", Short: "Show queues, workers, sites, proxies and rates on one live screen",
		Long: `Draws what the fleet did in the last 10 s, queues by state, workers, sites and proxies; what is in trouble comes first. The keys q and
Ctrl-C end it. A question without an answer is named and not waited for. A worker that no longer answers stays listed for 2 minutes.
Slow questions are asked less often, and in a large fleet each worker lists only its first sites and proxies.

With --json it prints a snapshot a line, one each interval, until it is interrupted. Without a terminal it prints one screen and ends.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().Var(&every, "every", "time between two screens, from 0.5s to 1h")
	cmd.RunE = func(cmd *cobra.Command, none []string) error {
		if d := time.Duration(every); d < minEvery || d > maxEvery {
			return usage("--every: must be from %s to %s", minEvery, maxEvery)
		}
		return a.verb("top", func(ctx context.Context, s *session, _ []string) error {
			t := &top{app: a, session: s, every: time.Duration(every), answers: make(chan func()), next: map[string]time.Time{}, heard: map[string]bool{}, silence: errors.New("none has answered yet")}
			ctx, cancel := context.WithCancel(ctx)
			// Deferred calls run in reverse: cancel first ends the questions, and then Wait waits for their goroutines.
			defer t.asking.Wait()
			defer cancel()
			t.ask(ctx)
			return t.run(ctx)
		})(cmd, none)
	}
	return cmd
}

// top shows what the fleet answers. Each question has a goroutine that sends its answer, as a function, to answers. The goroutine
// of run calls that function, and so is the only one that uses the fields; answers, asking and workers are for all of them.
type top struct {
	app     *app
	session *session
	every   time.Duration // between two drawings or snapshots, and at least between two questions of a kind
	now     topSnapshot
	asking  sync.WaitGroup
	answers chan func()          // each call takes over one answer, in the goroutine of run
	next    map[string]time.Time // when each question was or will be asked next
	heard   map[string]bool      // by question that has ended at least once, whether it ever had an answer
	// answered are the workers that answered last; silence is not nil until they have.
	answered []control.Status
	silence  error
	workers  atomic.Int64 // len(answered), for the goroutines that ask
}

// topSnapshot is the newest that is known of the fleet, as --json prints it. Lists are never null.
type topSnapshot struct {
	At      time.Time          `json:"at"`
	Rates   topRates           `json:"rates"`
	Queues  []queueRow         `json:"queues"`
	Unread  uint64             `json:"unread"` // waiting jobs that no queue counts yet
	Workers []topWorker        `json:"workers"`
	Sites   []*admin.FleetSite `json:"sites"`
	Proxies []*fleetBreaker    `json:"proxies"`
	// Known is the largest number of sites, and of proxies, that one worker knows. Sites and Proxies may have fewer, because each
	// answer is limited.
	Known struct {
		Sites   int `json:"sites"`
		Proxies int `json:"proxies"`
	} `json:"known"`
	Missing map[string]string `json:"missing"` // what has no answer, and why
}

// topRates are what ended within topWindow at all workers that answered. The running step of a worker is left out, because it is
// not whole: what ended a moment ago counts up to rollup.ShortStep later.
type topRates struct {
	// Seconds is topWindow, so that a reader of the JSON can turn rates into numbers.
	Seconds float64 `json:"seconds"`
	// Jobs is the rate of jobs that ended, Failed of those that failed, Retries of announced retries.
	Jobs    float64 `json:"jobs_per_second"`
	Failed  float64 `json:"failed_per_second"`
	Retries float64 `json:"retries_per_second"`
	// P95 is over the durations of the ended jobs that made an attempt.
	P95 float64 `json:"p95_seconds"`
	// Classes are numbers of jobs and no rates.
	Classes rollup.Classes `json:"classes"`
}

// ask begins to ask.
func (t *top) ask(ctx context.Context) {
	t.now = topSnapshot{Queues: []queueRow{}, Workers: []topWorker{}, Sites: []*admin.FleetSite{}, Proxies: []*fleetBreaker{}, Missing: map[string]string{}}
	poll(ctx, t, "queues", func(int) (s topSnapshot, err error) {
		s.Queues, s.Unread, err = askQueues(ctx, t.session)
		return s, err
	}, func(s topSnapshot) {
		// Which queues are served follows from the workers' answers, which come by themselves: see keepWorkers.
		t.now.Queues, t.now.Unread = append([]queueRow{}, s.Queues...), s.Unread
		markServed(t.now.Queues, t.answered, t.silence)
	})
	poll(ctx, t, "workers", func(int) ([]control.Status, error) {
		return askWorkers(ctx, t.session, control.WorkersRequest{Recent: topSteps})
	}, t.keepWorkers)
	poll(ctx, t, "sites", func(limit int) ([]admin.WorkerSites, error) {
		return askSites(ctx, t.session, control.SiteRequest{Limit: limit})
	},
		func(list []admin.WorkerSites) { t.now.Sites, t.now.Known.Sites = admin.MergeSites(list) })
	poll(ctx, t, "proxies", func(limit int) ([]workerBreakers, error) {
		return askBreakers(ctx, t.session, control.BreakersRequest{Limit: limit})
	},
		func(list []workerBreakers) {
			t.now.Proxies, t.now.Known.Proxies = mergeBreakers(list)
			worstFirst(t.now.Proxies)
		})
}

// poll asks a question each interval. A slow question is asked less often: it is open for at most a fifth of the time, so that
// top does not keep a busy fleet busy. limit bounds the rows of each worker's answer, so that all answers together have about
// topRows. That no worker runs is an answer. While a question fails, what was known stays. keep runs in the goroutine of run.
func poll[A any](ctx context.Context, t *top, what string, ask func(limit int) (A, error), keep func(A)) {
	// Set before the goroutine starts: from now on the question counts as open.
	t.next[what] = time.Now()
	t.asking.Go(func() {
		for pause := time.Duration(0); sleep(ctx, pause); {
			began := time.Now()
			found, err := ask(min(max(topRows/int(max(t.workers.Load(), 1)), 5), topRows/10))
			// A question that took a second is asked again after four: a fifth of the time is the bound.
			pause = max(t.every-time.Since(began), 4*time.Since(began))
			select {
			case t.answers <- func() { t.take(what, func() { keep(found) }, err, time.Now().Add(pause)) }:
			case <-ctx.Done():
			}
		}
	})
}

// take takes over an answer, or the error of a question. next is when the question will be asked again. An answer of one question
// never waits for another, so a screen may show queues of now and proxies of a minute ago.
func (t *top) take(what string, keep func(), err error, next time.Time) {
	delete(t.now.Missing, what)
	isAnswer := err == nil || errors.Is(err, control.ErrNoWorkers)
	if t.next[what], t.heard[what] = next, t.heard[what] || isAnswer; isAnswer {
		keep()
	}
	if err != nil {
		t.now.Missing[what] = err.Error()
	}
}

// snapshot says when it is made and what has no answer. It returns t.now itself, which the next answer changes.
func (t *top) snapshot() *topSnapshot {
	t.now.At = time.Now().UTC()
	// next lies in the future between two questions, and in the past while a question is open.
	for what, asked := range t.next {
		if open := t.now.At.Sub(asked); open > missingAfter {
			t.now.Missing[what] = "no answer for " + open.Round(time.Second).String()
		}
	}
	return &t.now
}

// run shows what is known until ctx ends or q is pressed. A live screen is drawn after each answer, and at each tick because ages
// grow. A printed snapshot waits for the first answer to each question, at most for firstAnswers. Further ones come with the
// ticks.
func (t *top) run(ctx context.Context) (err error) {
	s, sizes, isLive := &screen{}, time.NewTicker(sizePeriod), t.app.out.hasScreen() && !t.app.json
	if isLive {
		if s, err = t.app.openScreen(); err != nil {
			return err
		}
		defer s.close()
	}
	tick, first := time.NewTicker(t.every), time.After(firstAnswers)
	for isShown := isLive; ; {
		var isDue bool
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.quit:
			return nil
		// An answer changes t.now. A snapshot that is printed waits until each question has ended once.
		case answer := <-t.answers:
			answer()
			isDue = isLive || !isShown && len(t.heard) == len(t.next)
		// A question that hangs must not keep a script waiting: what is known by now is printed.
		case <-first:
			isDue = !isShown
		// Nothing new may have come, but ages and the time of the next test move on.
		case <-tick.C:
			isDue = isShown
		// Not every system sends a signal for a new size, so the size is polled.
		case <-sizes.C:
			isDue = isLive && s.resized()
		}
		if !isDue {
			continue
		}
		isShown = true
		switch {
		case isLive:
			err = s.draw(t.lines)
		case t.app.json:
			err = t.app.printJSON(t.snapshot())
		default:
			err = t.app.out.print(strings.Join(t.lines(look{width: t.app.out.width(), dense: true}, 0), "\n") + "\n")
			// A script has to notice that it got an empty screen.
			if err == nil && len(t.now.Missing) == len(t.next) {
				err = errors.New("nothing answers: see gofer doctor")
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

// perSecond is a number of the last topWindow as a rate.
func perSecond(n int64) float64 { return float64(n) / topWindow.Seconds() }

// lines are what a screen of a height shows; zero means no bound.
func (t *top) lines(l look, height int) []string {
	now := t.snapshot()
	r, slots, running, good := now.Rates, 0, 0, "-"
	for _, w := range now.Workers {
		slots, running = slots+w.Slots, running+w.Running()
	}
	if r.Jobs > 0 {
		// Jobs also counts the jobs that failed without a status, so failures lower the share.
		good = fmt.Sprintf("%.1f %%", 100*perSecond(r.Classes.Status2xx)/r.Jobs)
	}
	lines := []string{
		fmt.Sprintf("gofer top  %s  every %s  workers %d  slots %d/%d", now.At.Local().Format("15:04:05 MST"), t.every, len(now.Workers), running, slots),
		fmt.Sprintf("%.1f jobs/s  2xx %s  %.1f failed/s  %.1f retries/s  p95 %s", r.Jobs, good, r.Failed, r.Retries, shortDuration(time.Duration(r.P95*1e9))),
	}
	if now.Unread > 0 {
		lines = append(lines, fmt.Sprintf("%d waiting jobs are not counted yet", now.Unread))
	}
	// Questions without an answer are named above the panels, because they explain what the panels lack.
	for _, what := range slices.Sorted(maps.Keys(now.Missing)) {
		lines = append(lines, text.Printable("Missing: "+what+": "+now.Missing[what]))
	}
	panels := []panel{
		t.panel("queues", 0)(queueTable(now.Queues)), t.panel("workers", 0)(t.workerTable()),
		t.panel("sites", now.Known.Sites)(siteTable(now.Sites)), t.panel("proxies", now.Known.Proxies)(breakerTable(now.Proxies)),
	}
	// What most jobs wait for stands below the queues.
	for _, q := range now.Queues {
		for _, r := range q.Reasons {
			panels[0].notes = append(panels[0].notes, text.Printable(fmt.Sprintf("queue %s: %s", q.Queue, r)))
		}
	}
	if height > 0 {
		height = max(height-len(lines), 1) // zero would mean no bound
	}
	return append(lines, stack(panels, l, height)...)
}

// panel makes a panel of a table. total is how many rows there are, if that is more than are known.
func (t *top) panel(what string, total int) func(table.Row, []table.Row) panel {
	none := "No " + what + "."
	// An empty list that nobody has answered must not read as a fleet without it.
	if !t.heard[what] {
		none = "No answer yet: " + what + "."
	}
	return func(header table.Row, rows []table.Row) panel {
		return panel{header: header, rows: rows, total: total, none: none}
	}
}
