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
