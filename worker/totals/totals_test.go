package totals_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

// workers run until the end of a test.
type workers struct {
	ctx     context.Context
	running sync.WaitGroup
	end     func()
}

func newWorkers() *workers {
	w := &workers{}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx, w.end = ctx, func() { cancel(); w.running.Wait() }
	return w
}

// start runs a worker that counts in book.
func (w *workers) start(t *totals.Totals, m *memory) *totals.Totals {
	w.running.Go(func() { t.Run(w.ctx, context.WithoutCancel(w.ctx), m) })
	return t
}

func TestKilledWorkerLosesAtMostItsLastFiveSeconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
			stored.slow = time.Duration(rapid.IntRange(0, 450).Draw(t, "storing takes ms")) * time.Millisecond
			w.start(newTotals(book, anyway), stored)
			killedAt := time.Now().Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "killed after ms")) * time.Millisecond)
			old, proxies := int64(0), rapid.IntRange(1, 100).Draw(t, "proxies")
			for time.Now().Before(killedAt) {
				book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
				for i := range proxies {
					book.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprint("p", i), Status: 200, Bytes: 1})
				}
				if time.Until(killedAt) > 5*time.Second {
					old++
				}
				time.Sleep(250 * time.Millisecond)
			}
			if got := stored.jobs(t); got < old {
				t.Fatalf("the fleet has %d jobs, want at least the %d that ended more than 5 s before", got, old)
			}
			list := stored.book(t).ByProxy(24)
			for _, p := range list {
				if p.TotalAttempts < old || p.Bytes < old {
					t.Fatalf("of proxy %s of %d the fleet has %+v, want at least the %d attempts that ended more than 5 s before", p.ProxyID, proxies, p, old)
				}
			}
			if old > 0 && len(list) != proxies {
				t.Fatalf("the fleet has %d proxies, want %d", len(list), proxies)
			}
			w.end()
		})
	})
}

func TestDrainedWorkerLosesNothingAndNothingCountsTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			stored := newMemory()
			stored.slow = 10 * time.Millisecond
			trouble := rapid.SliceOfN(rapid.IntRange(0, 2), 0, 8).Draw(t, "trouble")
			stored.fails = func() (bool, bool) {
				next := 2
				if len(trouble) > 0 {
					next, trouble = trouble[0], trouble[1:]
				}
				return next > 0, next > 1
			}
			behind := rapid.SliceOfN(rapid.Bool(), 0, 8).Draw(t, "replicas are behind")
			stored.behind = func() (is bool) {
				if len(behind) > 0 {
					is, behind = behind[0], behind[1:]
				}
				return is
			}
			one, w := rollup.NewBook(), newWorkers()
			for range rapid.IntRange(1, 3).Draw(t, "workers") {
				book := rollup.NewBook()
				w.start(newTotals(book, anyway), stored)
				for range rapid.IntRange(0, 300).Draw(t, "facts") {
					f := rollup.AttemptFact{Proxy: fmt.Sprint("p", rapid.IntRange(1, 200).Draw(t, "proxy")), Status: 200, Duration: time.Second, Bytes: 9, At: time.Now()}
					book.AddAttempt(f)
					one.AddAttempt(f)
					if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
						time.Sleep(time.Second)
					}
				}
			}
			w.end()
			got, want := stored.book(t), one
			if got, want := fmt.Sprint(got.Series(24), got.ByProxy(24)), fmt.Sprint(want.Series(24), want.ByProxy(24)); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		})
	})
}

func TestFleetBookIsTheSumOfAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, w := newMemory(), newWorkers()
		defer w.end()
		stored.replaceEvents(`{"proxy_id":"p1","from_state":"closed","to_state":"open"}`, `nonsense`, `{"proxy_id":"p.1"}`)
		own, other := rollup.NewBook(), rollup.NewBook()
		one := newTotals(own, anyway)
		if book, known := one.Fleet(t.Context()); known || book != own {
			t.Error("before anything was read: got another book than the worker's own")
		}
		w.start(one, stored)
		w.start(newTotals(other, anyway), stored)
		for _, b := range []*rollup.Book{own, other} {
			b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
			b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		}
		time.Sleep(5 * time.Second)
		book, known := one.FleetByProxy(t.Context())
		hour := book.Hour(0)
		if proxies := book.ByProxy(24); !known || hour.Jobs() != 2 || len(proxies) != 1 || proxies[0].TotalAttempts != 2 {
			t.Errorf("after 5 s: known %v, %d jobs, proxies %+v; want those of both workers", known, hour.Jobs(), proxies)
		}
		time.Sleep(10 * time.Second)
		if got := book.BreakerEvents(time.Now().Add(-time.Hour)); len(got) != 1 || hour.BreakerChanges() != 0 {
			t.Errorf("breaker events after several reads: got %+v, counted %d; want it recalled once", got, hour.BreakerChanges())
		}
	})
}

// TestLostAnswerCountsOnce loses the answer to what was stored, and asks a replica that does not have it yet.
func TestLostAnswerCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
		var behind, answers atomic.Bool
		behind.Store(true)
		stored.behind = behind.Load
		stored.fails = func() (bool, bool) { return true, answers.Load() }
		w.start(newTotals(book, anyway), stored)
		book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
		time.Sleep(5 * time.Second)
		answers.Store(true)
		book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
		time.Sleep(10 * time.Second)
		behind.Store(false)
		time.Sleep(5 * time.Second)
		w.end()
		if got := stored.jobs(t); got != 2 || len(stored.parts) != 1 {
			t.Errorf("got %d jobs in %d parts, want two in one", got, len(stored.parts))
		}
	})
}

func TestReplicaThatIsBehindTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
		defer w.end()
		fleet := w.start(newTotals(book, anyway), stored)
		book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		time.Sleep(10 * time.Second)
		fleet.FleetByProxy(t.Context())
		stored.mu.Lock()
		stored.behind = func() bool { return true }
		stored.mu.Unlock()
		for range 5 {
			time.Sleep(5 * time.Second)
			b, _ := fleet.FleetByProxy(t.Context())
			total := b.Total(24)
			if got := total.Attempts(); got != 1 || len(b.ByProxy(24)) != 1 {
				t.Fatalf("got %d attempts and %d proxies from a replica that has none yet, want what was known", got, len(b.ByProxy(24)))
			}
		}
	})
}

// TestQueriesShareWhatWasRead has a page that asks a hundred times a second.
func TestQueriesShareWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, w := newMemory(), newWorkers()
		defer w.end()
		fleet := w.start(newTotals(rollup.NewBook(), anyway), stored)
		time.Sleep(2 * time.Minute)
		before := stored.readsSoFar()
		for range 1000 {
			fleet.FleetByProxy(t.Context())
			time.Sleep(10 * time.Millisecond)
		}
		// 10 of the totals, 3 of the proxies.
		if reads := stored.readsSoFar() - before; reads < 12 || reads > 14 {
			t.Errorf("10 s of queries: got %d reads, want about 13", reads)
		}
	})
}

func TestEndedHourIsReadWithoutAQuery(t *testing.T) {
	t.Run("of one stream", func(t *testing.T) { endedHour(t, false) })
	t.Run("of a stream that was made again", func(t *testing.T) { endedHour(t, true) })
}

func endedHour(t *testing.T, remade bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
		defer w.end()
		stored.seq = 1_000_000
		fleet := w.start(newTotals(rollup.NewBook(), anyway), stored)
		w.start(newTotals(book, anyway), stored)
		count := func() { book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200}) }
		if remade {
			count()
			time.Sleep(5 * time.Second)
			fleet.FleetByProxy(t.Context())
			stored.remake()
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour - 8*time.Second)))
		count()
		time.Sleep(5 * time.Second)
		fleet.FleetByProxy(t.Context())
		count() // the last version of the part is stored in the next hour
		count()
		time.Sleep(2 * time.Hour)
		b, _ := fleet.Fleet(t.Context())
		if got, proxies := b.Series(3)[0].Attempts, b.ByProxy(24); got != 3 || len(proxies) != 1 || proxies[0].TotalAttempts != 3 {
			t.Errorf("got %d attempts and the proxies %+v of an hour that nobody asked for, want 3", got, proxies)
		}
	})
}

// TestDeletedPartsAreNotCounted deletes the stream under a worker that counts on and one that counts nothing.
func TestDeletedPartsAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, busy, w := newMemory(), rollup.NewBook(), newWorkers()
		defer w.end()
		fleets := []*totals.Totals{w.start(newTotals(busy, anyway), stored), w.start(newTotals(rollup.NewBook(), anyway), stored)}
		count := func(n int, proxy string) {
			for range n {
				busy.AddAttempt(rollup.AttemptFact{Proxy: proxy, Status: 200})
			}
			time.Sleep(10 * time.Second)
		}
		count(5, "p1")
		for round := range 2 {
			stored.remake()
			count(2, "p2")
			for i, f := range fleets {
				book, known := f.FleetByProxy(t.Context())
				hour, proxies := book.Hour(0), book.ByProxy(24)
				if !known || hour.Attempts() != 2 || len(proxies) != 1 || proxies[0].ProxyID != "p2" {
					t.Errorf("round %d, worker %d: known %v, %d attempts, proxies %+v, want the 2 of the new stream", round, i, known, hour.Attempts(), proxies)
				}
			}
		}
	})
}

// TestDeletedPartsOfOlderHoursAreNotCounted purges what was counted in four hours, all of it or one of the hours, while nobody
// counts.
func TestDeletedPartsOfOlderHoursAreNotCounted(t *testing.T) {
	for _, c := range []struct {
		purged string
		want   int64
	}{{".rollups.", 0}, {".rollups.2000010101.", 3}, {".totals.", 0}} {
		t.Run(c.purged, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
				defer w.end()
				fleet := w.start(newTotals(book, anyway), stored)
				for range 4 {
					book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
					time.Sleep(time.Hour)
				}
				stored.purge(c.purged)
				time.Sleep(35 * time.Second)
				b, _ := fleet.FleetByProxy(t.Context())
				total := b.Total(24)
				if got := total.Attempts(); got != c.want {
					t.Errorf("after a purge: got %d attempts, want %d", got, c.want)
				}
			})
		})
	}
}

func TestPartsOfProxiesExpireBeforeThoseOfTheTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
		w.start(newTotals(book, anyway), stored)
		book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		time.Sleep(5 * time.Second)
		w.end()
		for subject, keep := range stored.kept {
			if want := map[bool]time.Duration{true: 25 * time.Hour}[strings.Contains(subject, ".proxies.")]; keep != want {
				t.Errorf("%s is kept for %v, want %v", subject, keep, want)
			}
		}
		if len(stored.kept) != 2 {
			t.Errorf("got %d parts, want two", len(stored.kept))
		}
	})
}

// TestEventsOfANewStreamAreRead deletes the stream of events alone.
func TestEventsOfANewStreamAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		event := func(proxy string) string {
			data, _ := json.Marshal(jobs.BreakerEvent{ProxyID: proxy, FromState: "closed", ToState: "open", Timestamp: time.Now()})
			return string(data)
		}
		stored, w := newMemory(), newWorkers()
		defer w.end()
		stored.replaceEvents(event("old"), event("old"))
		fleet := w.start(newTotals(rollup.NewBook(), anyway), stored)
		time.Sleep(10 * time.Second)
		stored.replaceEvents(event("new"))
		time.Sleep(5 * time.Second)
		book, _ := fleet.Fleet(t.Context())
		if got := book.BreakerEvents(time.Time{}); len(got) != 1 || got[0].ProxyID != "new" {
			t.Errorf("events: got %+v, want that of the new stream", got)
		}
	})
}

func TestEachFlushIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, book, w := newMemory(), rollup.NewBook(), newWorkers()
		down := true
		stored.fails = func() (bool, bool) { return !down, !down }
		var reported []bool
		w.start(newTotals(book, func(ok bool) { reported = append(reported, ok) }), stored)
		book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		stored.mu.Lock()
		down = false
		stored.mu.Unlock()
		time.Sleep(time.Minute)
		w.end()
		if fmt.Sprint(reported) != "[false true]" {
			t.Errorf("reported %v, want the one that failed and the one that did not, and nothing while nothing happens", reported)
		}
	})
}

func TestWhatCannotBeReadIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, w, log := newMemory(), newWorkers(), new(testenv.Log)
		stored.unread = errors.New("no permission")
		own := rollup.NewBook()
		fleet := w.start(totals.New(totals.Config{Book: own, Flushed: anyway, Log: slog.New(slog.NewTextHandler(log, nil))}), stored)
		time.Sleep(time.Minute)
		if book, known := fleet.Fleet(t.Context()); known || book != own {
			t.Error("got a book of the fleet that nobody could read")
		}
		w.end()
		if got := strings.Count(log.String(), "cannot be read"); got != 1 {
			t.Errorf("logged %d times that nothing can be read, want once:\n%s", got, log)
		}
	})
}

func TestDrainWithoutAServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, book := newMemory(), rollup.NewBook()
		stored.fails = func() (bool, bool) { return false, false }
		book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newTotals(book, anyway).Run(ctx, context.WithoutCancel(ctx), stored)
		if took := time.Since(began); took > 9*time.Second || stored.calls < 5 {
			t.Errorf("gave up after %v and %d tries, want some tries and at most 8 s", took, stored.calls)
		}
	})
}

// closed is a store behind a connection that is closed for good.
type closed struct{ *memory }

func (closed) Replace(context.Context, string, string, []byte, uint64, time.Duration) (uint64, error) {
	return 0, fmt.Errorf("store a part: %w", bus.ErrUnreachable)
}

func TestDrainOnAClosedConnectionEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := rollup.NewBook()
		book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newTotals(book, anyway).Run(ctx, context.WithoutCancel(ctx), closed{newMemory()})
		if took := time.Since(began); took != 0 {
			t.Errorf("gave up after %v, want at once", took)
		}
	})
}
