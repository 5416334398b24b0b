package worker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

func TestLanesGoOnWhenADroughtIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, lanes = 2, 64
		w := &Worker{idle: rate.NewLimiter(slots, slots)}
		for range 100 {
			w.drought.note(true)
		}
		begin := time.Now()
		var wg sync.WaitGroup
		for range lanes {
			wg.Go(func() { w.holdBack(t.Context()) })
		}
		for range 100 {
			w.drought.note(false)
		}
		wg.Wait()
		if held := time.Since(begin); held > time.Second {
			t.Errorf("%d lanes of %d slots were held back for %v by a drought that was over at once", lanes, slots, held)
		}
	})
}

func TestADroughtHoldsTheLanesToOneJobASlotAndSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, lanes = 4, 20
		w := &Worker{idle: rate.NewLimiter(slots, slots)}
		for range 100 {
			w.drought.note(true)
		}
		var mu sync.Mutex
		passed := 0
		var wg sync.WaitGroup
		for range lanes {
			wg.Go(func() {
				for begin := time.Now(); time.Since(begin) < 10*time.Second; {
					w.holdBack(t.Context())
					w.drought.note(true)
					mu.Lock()
					passed++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if passed > 10*slots+slots+lanes || passed < 9*slots {
			t.Errorf("%d jobs in 10 s of drought, want about %d", passed, 10*slots)
		}
	})
}

// TestRestingLaneHoldsUpNoOther has a lane that had work left when it was told to take none, and another one of its queue.
func TestRestingLaneHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4)
		lanes := s.add(1, 2)
		for range 2 {
			c, _ := s.take(t.Context(), lanes[0])
			s.pulled(lanes[0], c.held(), true)
		}
		c, _ := s.take(t.Context(), lanes[1]) // a look, which finds nothing
		s.pulled(lanes[1], c.held(), false)
		s.rest(lanes[0])
		granted := make(chan claim, 1)
		go func() {
			c, _ := s.take(t.Context(), lanes[1])
			granted <- c
		}()
		synctest.Wait()
		select {
		case c := <-granted:
			if c.wait != idleWait {
				t.Errorf("the other lane may pull %+v, want it to wait for work", c)
			}
		default:
			t.Fatal("the other lane gets nothing, though all slots are free")
		}
	})
}
