package worker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
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
