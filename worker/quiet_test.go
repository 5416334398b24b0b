package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestIdlePollsAreSpreadOverTheirRound has as many consumers as a worker may have. All of them begin to poll in the same moment.
func TestIdlePollsAreSpreadOverTheirRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4)
		for range MaxQueues {
			s.add(1, 2)
		}
		var ends []time.Time
		for _, c := range s.consumers {
			g, ok := s.waitForGrant(t.Context(), c)
			if !ok || g.wait <= 0 || g.wait > idlePoll {
				t.Fatalf("the first poll waits %s, want at most %s", g.wait, idlePoll)
			}
			ends = append(ends, time.Now().Add(g.wait))
		}
		// As many polls end in each quarter of a round.
		quarters := map[time.Duration]int{}
		for _, end := range ends {
			quarters[(time.Until(end)-1)/(idlePoll/4)]++
		}
		if want := fmt.Sprint(map[time.Duration]int{0: 16, 1: 16, 2: 16, 3: 16}); fmt.Sprint(quarters) != want {
			t.Errorf("polls that end in each quarter of a round: got %v, want %v", quarters, want)
		}
		// A poll that found a job late is followed by a shorter one, and then by whole rounds.
		c := s.consumers[5]
		time.Sleep(time.Until(ends[5]) + 7*time.Second)
		for i, want := range []time.Duration{idlePoll - 7*time.Second, idlePoll, idlePoll} {
			s.endPull(c, 0, false)
			g, _ := s.waitForGrant(t.Context(), c)
			if g.wait != want {
				t.Errorf("poll %d waits %s, want %s", i+2, g.wait, want)
			}
			time.Sleep(g.wait)
		}
	})
}

// TestAQueueIsQuietWithoutWork: a job that runs, one that has run, and jobs that wait for a slot are work.
func TestAQueueIsQuietWithoutWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		busy, idle := s.add(1, 1)[0], s.add(1, 1)[0]
		check := func(when string, of, all time.Duration) {
			t.Helper()
			if got := s.consumerQuietFor(busy); got != of {
				t.Errorf("%s: the queue is quiet for %s, want %s", when, got, of)
			}
			if got := s.quietFor(); got != all {
				t.Errorf("%s: the worker is quiet for %s, want %s", when, got, all)
			}
		}
		time.Sleep(time.Minute)
		check("before the first job", time.Minute, time.Minute)
		s.endPull(busy, 0, true)
		time.Sleep(time.Second)
		check("jobs wait for a slot", 0, 0)
		g, _ := s.waitForGrant(t.Context(), busy)
		s.endPull(busy, g.slots()-1, false)
		time.Sleep(time.Second)
		check("a job runs", 0, 0)
		s.release(busy)
		time.Sleep(time.Second)
		check("the job has ended", time.Second, time.Second)
		s.endPull(idle, 0, true)
		check("another queue has work", time.Second, 0)
	})
}

// TestOnlyAQuietWorkerLeavesOutInspections: the first one is made at once, and one a second while there is work.
func TestOnlyAQuietWorkerLeavesOutInspections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &Worker{cfg: Config{InspectInterval: time.Second}}
		var isQuiet atomic.Bool
		var inspected []time.Duration // since the start
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		go w.watch(ctx, isQuiet.Load, 3, func(context.Context) { inspected = append(inspected, time.Since(begin)) })
		time.Sleep(2500 * time.Millisecond)
		isQuiet.Store(true)
		time.Sleep(10 * time.Second)
		isQuiet.Store(false)
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		if got, want := fmt.Sprint(inspected), "[0s 1s 2s 6s 10s 13s 14s]"; got != want {
			t.Errorf("inspected after %s, want %s", got, want)
		}
	})
}

// TestAWorkerThatTakesNoJobsBecauseOfAFaultIsNotQuiet: it has to see soon that somebody has repaired it.
func TestAWorkerThatTakesNoJobsBecauseOfAFaultIsNotQuiet(t *testing.T) {
	t.Parallel()
	full := bus.ErrResultsFull
	for name, breakIt := range map[string]func(*Worker){
		"no fault":             func(*Worker) {},
		"the results are full": func(w *Worker) { w.resultsFull.Store(&full) },
		"a stream is edited": func(w *Worker) {
			w.streams.latest.Store(&bus.Streams{Differences: []bus.Difference{{Use: bus.Unusable}}})
		},
		"a consumer is not pulled": func(w *Worker) { w.pullers[0].lastError.set(bus.ErrNotAnswered) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &Worker{cfg: Config{InspectInterval: time.Second}, slots: newSlots(1)}
			w.pullers = []*puller{{worker: w, slots: w.slots.add(1, 1)[0]}}
			time.Sleep(time.Minute)
			breakIt(w)
			if got, want := w.isQuiet(), name == "no fault"; got != want {
				t.Errorf("%s: the worker is quiet: %t, want %t", name, got, want)
			}
		})
	}
}
