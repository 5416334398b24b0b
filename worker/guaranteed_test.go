package worker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// rivals are two queues on 64 slots in virtual time: one of weight 1 whose jobs do not run out, and one of weight 6 whose jobs
// take a second. The share of the second is 54.9 slots. It keeps one slot, and a quarter of its share of the others.
type rivals struct {
	*crowd
	begin time.Time
	ends  []time.Duration // when the jobs of the second queue ended
}

const quarter = 14

// run runs both queues for d. Slow is how long a job of the first queue takes, and feed is called in the background.
func (r *rivals) run(t *testing.T, d, slow time.Duration, feed func()) {
	t.Helper()
	r.crowd = newCrowd(64, nil)
	r.queue(1, -1)
	r.queue(6, 0)
	r.jobOf = func(consumer int) time.Duration {
		if consumer == 0 {
			return slow
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ends = append(r.ends, time.Since(r.begin)+time.Second)
		return time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	r.begin = time.Now()
	var feeding sync.WaitGroup
	feeding.Go(feed)
	r.crowd.run(ctx)
	feeding.Wait()
}

// add gives the second queue n jobs.
func (r *rivals) add(n int) { r.set(1, n) }

func (r *rivals) set(queue, backlog int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backlog[queue] = backlog
}

// endedWithin is how many jobs of the second queue ended between two times.
func (r *rivals) endedWithin(from, to time.Duration) (n int) {
	for _, end := range r.ends {
		if from < end && end <= to {
			n++
		}
	}
	return n
}

func TestAQueueHasASlotAtOnceAndItsQuarterOnceSlowJobsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rivals
		r.run(t, 10*time.Minute, 31*time.Second, func() {
			time.Sleep(5 * time.Minute) // the first queue has borrowed all slots but one
			r.add(10_000)
		})
		if n := r.endedWithin(5*time.Minute, 5*time.Minute+1300*time.Millisecond); n != 1 {
			t.Errorf("%d jobs ended in the first 1.3 s, want the one of the slot that the queue keeps", n)
		}
		if n := r.endedWithin(5*time.Minute+35*time.Second, 5*time.Minute+45*time.Second); n < 9*quarter {
			t.Errorf("%d jobs ended in the ten seconds after the first 35 s, want at least %d", n, 9*quarter)
		}
	})
}

func TestAQueueThatHadWorkKeepsAQuarterOfItsShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rivals
		r.run(t, 20*time.Minute, 10*time.Hour, func() {
			r.set(0, 0)
			r.add(1)
			time.Sleep(time.Minute)
			r.set(0, -1)
			time.Sleep(8 * time.Minute)
			r.add(100)
		})
		if n := r.endedWithin(9*time.Minute, 9*time.Minute+1500*time.Millisecond); n != quarter {
			t.Errorf("%d jobs ran at once beside jobs that never end, want the %d slots that the queue keeps", n, quarter)
		}
	})
}

func TestAQueueWithoutWorkKeepsOneSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r rivals
		r.run(t, 20*time.Minute, 10*time.Hour, func() {
			r.add(1)
			time.Sleep(11 * time.Minute)
			r.add(5)
		})
		if n := r.endedWithin(11*time.Minute, 11*time.Minute+1300*time.Millisecond); n != 1 {
			t.Errorf("%d jobs ran at once beside jobs that never end, want one", n)
		}
	})
}

func TestEachQueueKeepsASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(4, func() time.Duration { return time.Second })
		c.queue(6, -1)
		c.queue(3, -1)
		c.queue(1, -1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		c.run(ctx)
		if part := c.part(2); part < 0.24 {
			t.Errorf("part of the queue of weight 1 = %.3f, want the slot that it keeps of four", part)
		}
	})
}

// TestJobsThatComeOneByOneDoNotTakeAKeptSlot has consumers that are never backlogged, so that no fetch holds a slot.
func TestJobsThatComeOneByOneDoNotTakeAKeptSlot(t *testing.T) {
	t.Parallel()
	s := newSlots(3)
	first, second := s.add(1, 1)[0], s.add(1, 1)[0]
	for i, want := range []bool{true, true, false} {
		if got := s.acquire(first); got != want {
			t.Errorf("slot %d of the first queue: %v, want %v", i+1, got, want)
		}
	}
	if !s.acquire(second) {
		t.Error("the second queue gets no slot, want the one that it keeps")
	}
}

// TestEachQueueHasItsSlotAlthoughAnotherWantsItsQuarter has a queue that borrowed what the second one keeps only now, since it
// has work. What is free belongs to the second and the third.
func TestEachQueueHasItsSlotAlthoughAnotherWantsItsQuarter(t *testing.T) {
	s := newSlots(10)
	borrower, heavy, third := s.add(1, 1)[0], s.add(100, 1)[0], s.add(1, 1)[0]
	for s.acquire(borrower) {
	}
	s.endPull(heavy, 0, true)
	s.setIdle(heavy)
	if !s.acquire(third) {
		t.Error("the third queue gets no slot, want the one that it keeps")
	}
}

func TestQueuesNeverKeepMoreThanAllSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSlots(rapid.IntRange(1, 100).Draw(t, "slots"))
		for range rapid.IntRange(1, 32).Draw(t, "queues") {
			c := s.add(rapid.IntRange(1, 1000).Draw(t, "weight"), 1)[0]
			c.queue.worked = time.Now()
		}
		guaranteed := 0
		for _, queue := range s.queues {
			guaranteed += s.guaranteed(queue, time.Now())
		}
		if guaranteed > s.total {
			t.Fatalf("%d slots are guaranteed of %d", guaranteed, s.total)
		}
	})
}
