package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

const (
	minEvery, maxEvery = 500 * time.Millisecond, time.Hour
	sizePeriod         = 100 * time.Millisecond // how often the size of the terminal is looked at
	firstAnswers       = 5 * time.Second        // how long a printed snapshot waits for the first answers
	missingAfter       = time.Second            // a question that is open for longer is named
	silentFor          = 2 * time.Minute        // how long a worker that no longer answers is listed
	silentAfter        = 5 * time.Second        // one answer of a busy worker may be late
	topSteps           = 2                      // of rollup.ShortStep; the rates are of the newest ones
	topRows            = 2000                   // so many sites, and proxies, are asked of all workers together
)

// topCommand shows how the fleet stands, on one screen that is drawn again and again. Without a screen, or with
// --json, it prints and draws nothing.
func (a *app) topCommand() *cobra.Command {
	every := durationFlag(2 * time.Second)
	cmd := &cobra.Command{
		Use: "top", Short: "Show queues, workers, sites, proxies and rates on one live screen",
		Long: `Draws what the fleet did in the last 10 s, queues by state, workers, sites and proxies; what is in trouble comes first. The keys q and
Ctrl-C end it. What does not answer is named and not waited for: a worker that no longer answers stays listed for 2 minutes. What takes
long is asked for less often, and in a large fleet each worker names only its first sites and proxies.

With --json it prints a snapshot a line, one each interval, until it is interrupted. Without a terminal it prints one screen and ends.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().Var(&every, "every", "time between two screens, from 0.5s to 1h")
	cmd.RunE = func(cmd *cobra.Command, none []string) error {
		if d := time.Duration(every); d < minEvery || d > maxEvery {
			return usage("--every: must be from %s to %s", minEvery, maxEvery)
		}
		return a.verb("top", func(ctx context.Context, s *session, _ []string) error {
			// answers has no buffer, so an answer is kept at most once and in order.
			t := &top{app: a, every: time.Duration(every), answers: make(chan topAnswer), next: map[string]time.Time{}, heard: map[string]bool{}}
			ctx, cancel := context.WithCancel(ctx)
			// Questions end with ctx, which is cancelled first: deferred calls run in reverse.
			defer t.asking.Wait()
			defer cancel()
			t.ask(ctx, s)
			if a.out.hasScreen() && !a.json {
				return t.watch(ctx)
			}
			return t.print(ctx)
		})(cmd, none)
	}
	return cmd
}

// top shows what the fleet answers. Those that ask hand their answers to the one goroutine that uses it. One
// goroutine uses every field but answers and asking.
type top struct {
	app *app
	// every is the time between two drawings or snapshots, and the shortest time between two questions of a kind.
	every   time.Duration
	now     topSnapshot
	asking  sync.WaitGroup
	answers chan topAnswer
	next    map[string]time.Time // when each question was or will be asked next
	heard   map[string]bool      // questions that have ended, and whether one of a kind had an answer
}

// topAnswer is the answer to one question. keep keeps it. With an error other than control.ErrNoWorkers, keep does
// nothing.
type topAnswer struct {
	what string
	keep func()
	err  error
	next time.Time
}

// topSnapshot is the newest that is known of the fleet, as --json prints it. Lists are never nil, so that JSON
// shows [] and not null.
type topSnapshot struct {
	At      time.Time         `json:"at"`
	Rates   topRates          `json:"rates"`
	Queues  []queueRow        `json:"queues"`
	Unread  uint64            `json:"unread"` // waiting jobs that no queue counts yet
	Workers []topWorker       `json:"workers"`
	Sites   []*fleetSite      `json:"sites"`
	Proxies []*fleetBreaker   `json:"proxies"`
	Known   topKnown          `json:"known"`
	Missing map[string]string `json:"missing"` // what has no answer, and why
}

// topKnown are the most sites, and proxies, that one worker knows. They tell how many rows a screen does not show.
type topKnown struct {
	Sites   int `json:"sites"`
	Proxies int `json:"proxies"`
}

// topRates are what ended in the last Seconds. They are sums over all workers that answered, in the newest topSteps
// steps.
type topRates struct {
	Seconds float64        `json:"seconds"`
	Jobs    float64        `json:"jobs_per_second"`
	Failed  float64        `json:"failed_per_second"`
	Retries float64        `json:"retries_per_second"`
	P95     float64        `json:"p95_seconds"`
	Classes rollup.Classes `json:"classes"` // numbers of jobs
}

// topWorker is a worker, and when it answered last. A silent one has not for a while. One that drains is never
// silent: it was expected to go.
type topWorker struct {
	control.Status
	Jobs   float64   `json:"jobs_per_second"`
	Heard  time.Time `json:"answered_at"`
	Silent bool      `json:"silent"`
}

// ask begins to ask. Each worker is asked for as many sites and proxies as the number of workers that answered last allows.
func (t *top) ask(ctx context.Context, s *session) {
	t.now = topSnapshot{Queues: []queueRow{}, Workers: []topWorker{}, Sites: []*fleetSite{}, Proxies: []*fleetBreaker{}, Missing: map[string]string{}}
	// Between 5 and 200 rows of each worker, so that all answers together stay near topRows.
	share := func(workers int) int { return min(max(topRows/max(workers, 1), 5), topRows/10) }
	sites, proxies := share(100), share(100)
	// Each question runs in its own goroutine and touches t only in the function that it returns, which take calls.
	t.poll(ctx, "queues", func() (func(), error) {
		// The error becomes an entry of Missing.
		list, unread, err := askQueues(ctx, s)
		return func() { t.now.Queues, t.now.Unread = append([]queueRow{}, list...), unread }, err
	})
	t.poll(ctx, "workers", func() (func(), error) {
		list, err := askWorkers(ctx, s, control.WorkersRequest{Recent: topSteps})
		return func() { t.keepWorkers(list) }, err
	})
	t.poll(ctx, "sites", func() (func(), error) {
		list, err := askSites(ctx, s, control.SiteRequest{Limit: sites})
		// Only this goroutine uses the number, and the next question has it.
		sites = share(len(list))
		return func() {
			t.now.Sites, t.now.Known.Sites = append([]*fleetSite{}, mergeSites(list)...), 0
			for _, w := range list {
				t.now.Known.Sites = max(t.now.Known.Sites, w.Total)
			}
		}, err
	})
	t.poll(ctx, "proxies", func() (func(), error) {
		list, err := askBreakers(ctx, s, control.BreakersRequest{Limit: proxies})
		proxies = share(len(list))
		return func() {
			t.now.Proxies, t.now.Known.Proxies = append([]*fleetBreaker{}, worstFirst(mergeBreakers(list))...), 0
			for _, w := range list {
				t.now.Known.Proxies = max(t.now.Known.Proxies, w.Total)
			}
		}, err
	})
}

// poll asks a question each interval, but so that it is open for no more than a fifth of the time. That no worker runs is an
// answer. what names the question on the screen and in JSON.
func (t *top) poll(ctx context.Context, what string, ask func() (keep func(), err error)) {
	t.next[what] = time.Now()
	t.asking.Go(func() {
		// A pause of four times the duration of the answer makes it a fifth.
		for pause := time.Duration(0); sleep(ctx, pause); {
			began := time.Now()
			keep, err := ask()
			// What was known stays on the screen while a question fails.
			if err != nil && !errors.Is(err, control.ErrNoWorkers) {
				keep = func() {}
			}
			pause = max(t.every-time.Since(began), 4*time.Since(began))
			select {
			// The time of the next question goes with the answer, so that snapshot can tell a late one.
			case t.answers <- topAnswer{what, keep, err, time.Now().Add(pause)}:
			case <-ctx.Done():
			}
		}
	})
}

// take takes over an answer. Only the goroutine that draws or prints calls it.
func (t *top) take(a topAnswer) {
	a.keep()
	t.next[a.what], t.heard[a.what] = a.next, t.heard[a.what] || a.err == nil || errors.Is(a.err, control.ErrNoWorkers)
	delete(t.now.Missing, a.what)
	if a.err != nil {
		t.now.Missing[a.what] = a.err.Error()
	}
}

// snapshot says when it is made and what has no answer. It returns t.now itself, which the next answer changes.
func (t *top) snapshot() *topSnapshot {
	t.now.At = time.Now().UTC()
	// next is in the future while nobody is asked.
	for what, asked := range t.next {
		if open := t.now.At.Sub(asked); open > missingAfter {
			t.now.Missing[what] = "no answer for " + open.Round(time.Second).String()
		}
	}
	return &t.now
}

// print prints a snapshot, or with --json one each interval. It waits for the first answer to each question, but
// not for long. first is nil once the first snapshot was printed: from then on the ticks decide.
func (t *top) print(ctx context.Context) error {
	tick, first := time.NewTicker(t.every), time.After(firstAnswers)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case a := <-t.answers:
			// An answer alone prints nothing, unless it is the last of the first answers.
			if t.take(a); first == nil || len(t.heard) < len(t.next) {
				continue
			}
		case <-first:
		case <-tick.C:
			if first != nil {
				continue
			}
		}
		first = nil
		if !t.app.json {
			err := t.app.out.print(strings.Join(t.lines(look{width: t.app.out.width(), dense: true}, 0), "\n") + "\n")
			// A script has to notice that it got an empty screen.
			if err == nil && len(t.now.Missing) == len(t.next) {
				err = errors.New("nothing answers: see gofer doctor")
			}
			return err
		}
		if err := t.app.printJSON(t.snapshot()); err != nil {
			return err
		}
	}
}

// watch draws until ctx ends or q is pressed. After each answer it draws, and at each tick, because ages grow without
// an answer.
func (t *top) watch(ctx context.Context) error {
	s, err := t.app.openScreen()
	if err != nil {
		return err
	}
	defer s.close()
	tick, sizes := time.NewTicker(t.every), time.NewTicker(sizePeriod)
	defer tick.Stop()
	defer sizes.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.quit:
			return nil
		case a := <-t.answers:
			t.take(a)
		case <-tick.C: // what is missing grows older
		case <-sizes.C:
			if !s.resized() {
				continue
			}
		}
		if err := s.draw(t.lines); err != nil {
			return err
		}
	}
}
