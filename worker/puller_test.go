package worker

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/gofer-mq/gofer/jobs/bus"
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
			if c.wait <= 0 {
				t.Errorf("the other consumer may pull %+v, want it to wait for work", c)
			}
		default:
			t.Fatal("the other consumer gets nothing, though all slots are free")
		}
	})
}

// TestOneCauseOfAllConsumersIsSaidOnce: a worker of 32 queues has 64 of them.
func TestOneCauseOfAllConsumersIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := &Worker{}
	for _, err := range []error{
		fmt.Errorf("look for consumer a: %w: start it", bus.ErrNoLeader), nil, fmt.Errorf("look for consumer b: %w: start it", bus.ErrNoLeader),
		errors.New("look for consumer c: it was edited"), errors.New("look for consumer d: it was edited"), fmt.Errorf("look for consumer e: %w: start it", bus.ErrNoLeader),
	} {
		p := &puller{worker: w}
		p.lastError.set(err)
		w.pullers = append(w.pullers, p)
	}
	want := "look for consumer a: " + bus.ErrNoLeader.Error() + ": start it\nlook for consumer c: it was edited\nlook for consumer d: it was edited\nthe same holds for 2 more of its consumers"
	if err := w.PullError(); err == nil || err.Error() != want || !errors.Is(err, bus.ErrNoLeader) {
		t.Errorf("got %v, want %s", err, want)
	}
}
