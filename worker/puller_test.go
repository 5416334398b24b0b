package worker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

func TestPullersAreNotThrottledWhenProxiesAreBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const slots, consumers = 2, 64
		w := &Worker{pullLimiter: rate.NewLimiter(slots, slots)}
		for range 100 {
			w.proxyShortage.add(true)
		}
		begin := time.Now()
		var wg sync.WaitGroup
		for range consumers {
			wg.Go(func() { w.throttle(t.Context()) })
		}
		for range 100 {
			w.proxyShortage.add(false)
		}
		wg.Wait()
		if held := time.Since(begin); held > time.Second {
			t.Errorf("%d consumers of %d slots were throttled for %v by a shortage that was over at once", consumers, slots, held)
		}
	})
}

func TestPullersWithoutProxiesTakeOneJobASlotAndSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const slots, consumers = 4, 20
		w := &Worker{pullLimiter: rate.NewLimiter(slots, slots)}
		for range 100 {
			w.proxyShortage.add(true)
		}
		var mu sync.Mutex
		passed := 0
		var wg sync.WaitGroup
		for range consumers {
			wg.Go(func() {
				for begin := time.Now(); time.Since(begin) < 10*time.Second; {
					w.throttle(t.Context())
					w.proxyShortage.add(true)
					mu.Lock()
					passed++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if passed > 10*slots+slots+consumers || passed < 9*slots {
			t.Errorf("%d jobs in 10 s without a proxy, want about %d", passed, 10*slots)
		}
	})
}

// TestAConsumerThatIsSetIdleDelaysNoOther has a consumer that had work left when it was told to take none, and another one of its
// queue.
func TestAConsumerThatIsSetIdleDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4)
		consumers := s.add(1, 2)
		for range 2 {
			c, _ := s.waitForGrant(t.Context(), consumers[0])
			s.endPull(consumers[0], c.slots(), true)
		}
		c, _ := s.waitForGrant(t.Context(), consumers[1]) // a poll, which finds nothing
		s.endPull(consumers[1], c.slots(), false)
		s.setIdle(consumers[0])
		granted := make(chan grant, 1)
		go func() {
			c, _ := s.waitForGrant(t.Context(), consumers[1])
			granted <- c
		}()
		synctest.Wait()
		select {
		case c := <-granted:
			if c.wait != idlePoll {
				t.Errorf("the other consumer may pull %+v, want it to wait for work", c)
			}
		default:
			t.Fatal("the other consumer gets nothing, though all slots are free")
		}
	})
}
