package totals_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

func TestKilledWorkerLosesAtMostItsLastFiveSeconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			fleet, book := newCounters(), rollup.NewBook()
			fleet.slow = time.Duration(rapid.IntRange(0, 900).Draw(t, "storing takes ms")) * time.Millisecond
			ctx, end := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { newRollups(book, anyway).Run(ctx, context.WithoutCancel(ctx), fleet) })
			killedAt := time.Now().Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "killed after ms")) * time.Millisecond)
			old, proxies := int64(0), rapid.IntRange(1, 300).Draw(t, "proxies")
			for time.Now().Before(killedAt) {
				book.Job(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
				for i := range proxies {
					book.Attempt(rollup.AttemptFact{Proxy: fmt.Sprint("p", i), Status: 200, Bytes: 1})
				}
				if time.Until(killedAt) > 5*time.Second {
					old++
				}
				time.Sleep(250 * time.Millisecond)
			}
			if got := fleet.jobs(t); got < old {
				t.Fatalf("the fleet has %d jobs, want at least the %d that ended more than 5 s before", got, old)
			}
			for _, p := range fleet.book(t).ByProxy(24) {
				if p.TotalAttempts < old || p.Bytes < old {
					t.Fatalf("of proxy %s of %d the fleet has %+v, want at least the %d attempts that ended more than 5 s before", p.ProxyID, proxies, p, old)
				}
			}
			if got := len(fleet.book(t).ByProxy(24)); old > 0 && got != proxies {
				t.Fatalf("the fleet has %d proxies, want %d", got, proxies)
			}
			end()
			running.Wait()
		})
	})
}

func TestDrainedWorkerLosesNothingAndNothingCountsTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			fleet := newCounters()
			fleet.slow = 10 * time.Millisecond
			trouble := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 8).Draw(t, "trouble")
			next := 2
			fleet.fails = func() (bool, bool) {
				if next = 2; len(trouble) > 0 {
					next, trouble = trouble[0], trouble[1:]
				}
				return next > 0, next > 1
			}
			fleet.torn = func() bool { return next == 3 }
			one := rollup.NewBook()
			ctx, end := context.WithCancel(context.Background())
			var running sync.WaitGroup
			for range rapid.IntRange(1, 3).Draw(t, "workers") {
				book := rollup.NewBook()
				running.Go(func() { newRollups(book, anyway).Run(ctx, context.WithoutCancel(ctx), fleet) })
				for range rapid.IntRange(0, 300).Draw(t, "facts") {
					f := rollup.AttemptFact{Proxy: fmt.Sprint("p", rapid.IntRange(1, 200).Draw(t, "proxy")), Status: 200, Duration: time.Second, Bytes: 9, At: time.Now()}
					book.Attempt(f)
					one.Attempt(f)
					if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
						time.Sleep(time.Second)
					}
				}
			}
			end()
			running.Wait()
			next, trouble = 2, nil // of what the last restarts broke, the next worker reads
			ctx, end = context.WithTimeout(context.Background(), 10*time.Second)
			defer end()
			newRollups(rollup.NewBook(), anyway).Run(ctx, context.WithoutCancel(ctx), fleet)
			got, want := fleet.book(t), one
			if got, want := fmt.Sprint(got.Series(24), got.ByProxy(24)), fmt.Sprint(want.Series(24), want.ByProxy(24)); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		})
	})
}

func TestFleetBookIsTheSumOfAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := newCounters()
		fleet.breakers = []jobs.BreakerEvent{{ProxyID: "p1", FromState: "closed", ToState: "open", Timestamp: time.Now()}}
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		own, other := rollup.NewBook(), rollup.NewBook()
		one := newRollups(own, anyway)
		if book, known := one.Fleet(); known || book != own {
			t.Error("before anything was read: got another book than the worker's own")
		}
		running.Go(func() { one.Run(ctx, context.WithoutCancel(ctx), fleet) })
		running.Go(func() { newRollups(other, anyway).Run(ctx, context.WithoutCancel(ctx), fleet) })
		for _, b := range []*rollup.Book{own, other} {
			b.Job(rollup.JobFact{Outcome: jobs.Succeeded})
			b.Attempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		}
		time.Sleep(5 * time.Second)
		book, known := one.Fleet()
		hour := book.Hour(0)
		if proxies := book.ByProxy(24); !known || hour.Jobs() != 2 || len(proxies) != 1 || proxies[0].TotalAttempts != 2 {
			t.Errorf("after 5 s: known %v, %d jobs, proxies %+v; want those of both workers", known, hour.Jobs(), proxies)
		}
		if got := book.BreakerEvents(time.Now().Add(-time.Hour)); len(got) != 1 || hour.BreakerChanges() != 0 {
			t.Errorf("breaker events after several reads: got %+v, counted %d; want it recalled once", got, hour.BreakerChanges())
		}
	})
}

func TestEachFlushIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, book := newCounters(), rollup.NewBook()
		down := true
		fleet.fails = func() (bool, bool) { return !down, !down }
		var told []bool
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			newRollups(book, func(ok bool) { told = append(told, ok) }).Run(ctx, context.WithoutCancel(ctx), fleet)
		})
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		fleet.mu.Lock()
		down = false
		fleet.mu.Unlock()
		time.Sleep(time.Minute)
		end()
		running.Wait()
		if fmt.Sprint(told) != "[false true]" {
			t.Errorf("told %v, want the one that failed and the one that did not, and nothing while nothing happens", told)
		}
	})
}

// TestCountersThatARestartBrokeAreMended has two workers at the time of a restart, which may not mend, and one that comes
// later and may.
func TestCountersThatARestartBrokeAreMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := newCounters()
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		var logs []*lockedBuffer
		start := func() *rollup.Book {
			log, book := new(lockedBuffer), rollup.NewBook()
			logs = append(logs, log)
			r := totals.NewRollups(totals.RollupsConfig{Book: book, Flushed: anyway, Log: slog.New(slog.NewTextHandler(log, nil))})
			running.Go(func() { r.Run(ctx, context.WithoutCancel(ctx), fleet) })
			return book
		}
		count := func(books ...*rollup.Book) {
			for _, b := range books {
				b.Job(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		one, other := start(), start()
		count(one, other)
		fleet.mayMend(fmt.Errorf("mend rollups: %w", bus.ErrPermission))
		fleet.tearNext()
		count(one)
		count(one, other)
		time.Sleep(80 * time.Second)
		synctest.Wait()
		if got := fleet.jobs(t); got > 3 || fleet.mends != 4 {
			t.Errorf("without the permission the fleet has %d jobs after %d tries, want what comes later to wait, and one try of each worker a minute", got, fleet.mends)
		}
		fleet.mayMend(nil)
		count(start())
		if got := fleet.jobs(t); got < 4 {
			t.Errorf("the fleet has %d jobs when a worker came that may mend, want at least the 3 before the refusal and its own", got)
		}
		count(one, other)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fleet.jobs(t); got != 8 || len(fleet.broken) != 1 {
			t.Errorf("the fleet has %d jobs and %v broken, want all 8, and nothing broken but a mark", got, fleet.broken)
		}
		for i, log := range logs {
			refused, mended := strings.Count(log.String(), "may not mend them"), strings.Count(log.String(), "they are mended")
			if wantRefused := 1 - i/2; refused != wantRefused || mended != 1 {
				t.Errorf("worker %d said %d times that it may not mend and %d times that it did, want %d and 1: %s", i, refused, mended, wantRefused, log)
			}
		}
	})
}

func TestDrainWithoutAServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, book := newCounters(), rollup.NewBook()
		fleet.fails = func() (bool, bool) { return false, false }
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newRollups(book, anyway).Run(ctx, context.WithoutCancel(ctx), fleet)
		if took := time.Since(began); took > 9*time.Second || fleet.calls < 5 {
			t.Errorf("gave up after %v and %d tries, want some tries and at most 8 s", took, fleet.calls)
		}
	})
}

// closed are counters behind a connection that is closed for good.
type closed struct{ *counters }

func (closed) AddRollups(context.Context, bus.Increments) error {
	return fmt.Errorf("add up rollups: %w", bus.ErrUnreachable)
}

func TestDrainOnAClosedConnectionEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := rollup.NewBook()
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newRollups(book, anyway).Run(ctx, context.WithoutCancel(ctx), closed{newCounters()})
		if took := time.Since(began); took != 0 {
			t.Errorf("gave up after %v, want at once", took)
		}
	})
}
