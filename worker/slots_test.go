package worker

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// crowd is a set of consumers with work for the slots, in virtual time.
type crowd struct {
	slots     *slots
	consumers []*consumerSlots
	backlog   []int           // jobs left in each consumer; -1 is a backlog without end
	busy      []time.Duration // slot time used by each consumer
	pulls     []int           // made by each consumer
	job       func() time.Duration
	jobOf     func(consumer int) time.Duration // instead of job, if it is there
	rtt       time.Duration                    // of a pull; zero means 1 ms
	mu        sync.Mutex
}

// run pulls for every consumer until ctx ends and all jobs are done.
func (c *crowd) run(ctx context.Context) {
	var pulls, work sync.WaitGroup
	for i, share := range c.consumers {
		pulls.Go(func() {
			for {
				g, ok := c.slots.waitForGrant(ctx, share)
				if !ok {
					return
				}
				got, more := c.pull(i, g)
				unused := max(0, g.slots()-got)
				if g.wait > 0 && got > 0 && !c.slots.acquire(share) {
					c.handBack(i)
					got, more = 0, true
				}
				for range got {
					work.Go(func() {
						defer c.slots.release(share)
						took := c.takes(i)
						time.Sleep(took)
						c.mu.Lock()
						defer c.mu.Unlock()
						c.busy[i] += took
					})
				}
				c.slots.endPull(share, unused, more)
			}
		})
	}
	pulls.Wait()
	work.Wait()
}

// takes is how long the consumer's next job takes.
func (c *crowd) takes(consumer int) time.Duration {
	if c.jobOf != nil {
		return c.jobOf(consumer)
	}
	return c.job()
}

// pull takes a round trip, or up to as long as the g may wait when there is nothing.
func (c *crowd) pull(i int, g grant) (got int, more bool) {
	time.Sleep(max(c.rtt, time.Millisecond))
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		got, more = c.take(i, g.n)
		if time.Since(begin) == 0 {
			c.pulls[i]++
		}
		c.mu.Unlock()
		if got > 0 || time.Since(begin) >= g.wait {
			return got, more
		}
	}
}

func (c *crowd) take(i, n int) (got int, more bool) {
	if c.backlog[i] < 0 {
		return n, true
	}
	got = min(n, c.backlog[i])
	c.backlog[i] -= got
	return got, c.backlog[i] > 0
}

func (c *crowd) handBack(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backlog[i] >= 0 {
		c.backlog[i]++
	}
}

func newCrowd(total int, job func() time.Duration) *crowd {
	s := newSlots(total)
	s.idlePoll = 10 * time.Second // minutes of jobs take long in virtual time, too
	return &crowd{slots: s, job: job}
}

func (c *crowd) queue(weight int, backlogs ...int) {
	c.consumers = append(c.consumers, c.slots.add(weight, len(backlogs))...)
	c.backlog = append(c.backlog, backlogs...)
	c.busy, c.pulls = make([]time.Duration, len(c.consumers)), make([]int, len(c.consumers))
}

// part is the consumers' part of all slot time.
func (c *crowd) part(consumers ...int) float64 {
	var own, all time.Duration
	for _, d := range c.busy {
		all += d
	}
	for _, i := range consumers {
		own += c.busy[i]
	}
	return float64(own) / float64(all)
}

// varied returns job durations between 20 and 180 ms, the same ones in each run of a test.
func varied() func() time.Duration {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 1))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return 20*time.Millisecond + time.Duration(random.Int64N(int64(160*time.Millisecond)))
	}
}

func TestQueuesShareSlotsByWeight(t *testing.T) {
	t.Parallel()
	for _, total := range []int{1, 2, 10, 64} { // with 4 slots each queue keeps one: see TestEachQueueKeepsASlot
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(total, varied())
			c.queue(6, -1, 0)
			c.queue(3, -1, 0)
			c.queue(1, -1, 0)
			// As many jobs with few slots as with many, so that the luck of their durations weighs little.
			ctx, cancel := context.WithTimeout(t.Context(), 64*time.Minute/time.Duration(total))
			defer cancel()
			c.run(ctx)
			for i, want := range []float64{0.6, 0.3, 0.1} {
				if got := c.part(2*i, 2*i+1); math.Abs(got-want) > want/10 {
					t.Errorf("%d slots: part of queue %d = %.3f, want %.2f within 10 %%", total, i, got, want)
				}
			}
		})
	}
}

func TestRetryStormLeavesHalfToFreshJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(16, varied())
		c.queue(1, -1, -1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.run(ctx)
		if got := c.part(0); math.Abs(got-0.5) > 0.05 {
			t.Errorf("part of the fresh jobs = %.3f, want 0.5", got)
		}
	})
}

func TestALoneQueueGetsAllSlotsButOneForEachOtherQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(8, func() time.Duration { return time.Second })
		c.queue(1, -1, 0)
		c.queue(9, 0, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.run(ctx)
		// Seven slots for a minute, less what the poll of its other consumer takes.
		if got := c.busy[0]; got < 7*57*time.Second || got > 7*time.Minute {
			t.Errorf("slot time of the only busy consumer = %v, want at least 95 %% of 7 min and no more", got)
		}
	})
}

func TestIdleQueueIsServedAtOnceWhenWorkComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(4, func() time.Duration { return 10 * time.Millisecond })
		c.queue(1, -1)
		c.queue(1, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		time.AfterFunc(3*time.Second, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.backlog[1] = 1
		})
		var waited time.Duration
		c.job = func() time.Duration {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.backlog[1] == 0 && waited == 0 && time.Since(started(ctx)) > 3*time.Second {
				waited = time.Since(started(ctx)) - 3*time.Second
			}
			return 10 * time.Millisecond
		}
		c.run(ctx)
		if waited == 0 || waited > 220*time.Millisecond {
			t.Errorf("a job of a queue that was idle waited %v, want at most 220ms", waited)
		}
	})
}

// started is when a context with a timeout of 5 s was made.
func started(ctx context.Context) time.Time {
	deadline, _ := ctx.Deadline()
	return deadline.Add(-5 * time.Second)
}

func TestSlotsAreNeverOversold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			total := rapid.IntRange(1, 20).Draw(t, "slots")
			c := newCrowd(total, varied())
			for range rapid.IntRange(1, 6).Draw(t, "queues") {
				c.queue(rapid.IntRange(1, 10).Draw(t, "weight"), rapid.IntRange(-1, 50).Draw(t, "fresh"), rapid.IntRange(0, 20).Draw(t, "due"))
			}
			running := 0
			inner := c.job
			c.job = func() time.Duration {
				c.mu.Lock()
				defer c.mu.Unlock()
				if running = c.slots.busy(); running > total {
					t.Fatalf("%d slots in use, there are %d", running, total)
				}
				return inner()
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			c.run(ctx)
			if got := c.slots.busy(); got != 0 {
				t.Fatalf("slots in use after everything has ended = %d, want 0", got)
			}
			for i, left := range c.backlog {
				if left > 0 && c.busy[i] == 0 {
					t.Fatalf("consumer %d was starved with %d jobs waiting", i, left)
				}
			}
		})
	})
}

func TestLongJobsDoNotTakeTheSlotsOfShortOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(16, nil)
		c.jobOf = func(consumer int) time.Duration {
			return []time.Duration{10 * time.Millisecond, 5 * time.Second}[consumer]
		}
		c.queue(1, -1)
		c.queue(1, -1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		c.run(ctx)
		if got := c.part(0); math.Abs(got-0.5) > 0.1 {
			t.Errorf("part of the short jobs = %.2f, want half of the slots' time", got)
		}
	})
}

func TestAnIdleConsumerIsPolledNowAndThenWhileOthersAreBacklogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(64, varied())
		c.queue(1, -1)
		c.queue(1, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.run(ctx)
		if most := int(time.Minute/pollEvery) + 1; c.pulls[1] > most || c.pulls[1] < most/2 {
			t.Errorf("pulls of the empty consumer in a minute = %d, want at most %d and no fewer than half of it", c.pulls[1], most)
		}
	})
}

func TestEveryIdleConsumerIsPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(1, varied())
		c.queue(1, -1)
		for range 31 {
			c.queue(1, 0)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c.run(ctx)
		for i, n := range c.pulls {
			if n < 3 { // one before it was known that there is work
				t.Errorf("consumer %d was polled %d times in 20 s, want each to have its turn", i, n)
			}
		}
	})
}

func TestAPullHasABound(t *testing.T) {
	t.Parallel()
	s := newSlots(1000)
	l := s.add(1, 1)[0]
	s.endPull(l, 0, true)
	if c, _ := s.waitForGrant(t.Context(), l); c.n != maxPull {
		t.Errorf("a pull of %d, want %d", c.n, maxPull)
	}
}

func TestSlotsThatAreGrantedInTheMomentOfTheEndComeBack(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSlots(3)
	l := s.add(1, 1)[0]
	for range 100 { // half of the time the grant is seen first
		s.endPull(l, 0, true)
		if c, ok := s.waitForGrant(ctx, l); ok {
			s.endPull(l, c.slots(), true)
		}
		if busy := s.busy(); busy != 0 {
			t.Fatalf("%d slots are taken after a take that ended, want none", busy)
		}
	}
}

func TestIdleConsumersWaitForWorkWithoutASlot(t *testing.T) {
	t.Parallel()
	s := newSlots(4)
	consumers := s.add(1, 2)
	for _, more := range []bool{true, false} {
		for _, l := range consumers {
			s.endPull(l, 0, more)
		}
	}
	for _, l := range consumers {
		if c, ok := s.waitForGrant(t.Context(), l); !ok || c.wait <= 0 || c.wait > idlePoll || c.slots() != 0 {
			t.Errorf("g %+v, want one that waits without a slot", c)
		}
	}
}

// TestPollsLeaveTheSlotsToTheBackloggedQueue has a far server: a poll costs as long as the way there and back.
func TestPollsLeaveTheSlotsToTheBackloggedQueue(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ slots, queues int }{{1, 2}, {2, 8}, {4, 32}, {16, 32}} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(size.slots, varied())
			c.rtt = 20 * time.Millisecond
			c.queue(1, -1, 0)
			for range size.queues - 1 {
				c.queue(1, 0, 0)
			}
			const length = 10 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), length)
			defer cancel()
			c.run(ctx)
			// Its own pulls take a fifth of a slot's time.
			if part := float64(c.busy[0]) / float64(length) / float64(size.slots); part < 0.6 {
				t.Errorf("%d slots, %d queues: the only busy one uses %.0f %% of the slots, want at least 60 %%", size.slots, size.queues, 100*part)
			}
		})
	}
}

// TestAnIdleWorkerTakesAJobAtOnce has more consumers than slots, each waiting for work.
func TestAnIdleWorkerTakesAJobAtOnce(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ slots, queues int }{{1, 1}, {2, 8}, {4, 32}} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(size.slots, func() time.Duration { return time.Millisecond })
			for range size.queues {
				c.queue(1, 0, 0)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var worst time.Duration
			var feeding sync.WaitGroup
			feeding.Go(func() {
				for n := range 100 {
					worst = max(worst, c.feed(n*7%len(c.consumers)))
					time.Sleep(time.Duration(n%13) * 31 * time.Millisecond)
				}
				cancel()
			})
			c.run(ctx)
			feeding.Wait()
			if worst > 10*time.Millisecond {
				t.Errorf("%d slots, %d queues: a job waited %v, want no more than the way to the server takes", size.slots, size.queues, worst)
			}
		})
	}
}

// feed gives a consumer a job and returns how long it took until that was taken.
func (c *crowd) feed(i int) time.Duration {
	c.mu.Lock()
	c.backlog[i] = 1
	c.mu.Unlock()
	begin := time.Now()
	for gone := false; !gone; {
		time.Sleep(time.Millisecond)
		c.mu.Lock()
		gone = c.backlog[i] == 0
		c.mu.Unlock()
	}
	return time.Since(begin)
}

// busy returns how many slots are in use, those of fetches included.
func (s *slots) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - s.free
}

// TestPollsHoldAtMostAnEighthOfTheSlots has polls that a silent server does not answer, and a consumer that hands back what it
// is granted.
func TestPollsHoldAtMostAnEighthOfTheSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(32)
		consumers := s.add(1, 32)
		busy := consumers[0]
		s.endPull(busy, 0, true)
		time.Sleep(2 * pollEvery)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var polls atomic.Int32
		for _, c := range consumers[1:] {
			go func() {
				if _, ok := s.waitForGrant(ctx, c); ok && ctx.Err() == nil {
					polls.Add(1)
				}
			}()
		}
		for range 100 {
			synctest.Wait()
			g, ok := s.waitForGrant(ctx, busy)
			if !ok {
				break
			}
			s.endPull(busy, g.slots(), true)
		}
		if got := polls.Load(); got != 4 {
			t.Errorf("%d polls of idle consumers hold one of 32 slots each, want 4", got)
		}
	})
}
