package breaker_test

import (
	"runtime"
	"testing"

	"github.com/gofer-mq/gofer/breaker"
)

func TestNothingIsAllocatedHoweverLongABreakerLives(t *testing.T) {
	b := breaker.New(breaker.Config{FailureThreshold: 3, OpenTimeout: 1, MaxOpenTimeout: 1, Probes: 3, Jitter: -1})
	before := runtime.NumGoroutine()
	changes := 0
	got := testing.AllocsPerRun(1000, func() {
		for i := range 20 {
			p, e, ok := b.Allow()
			if e.Changed() {
				changes++
			}
			if !ok {
				continue
			}
			if e := settled(&p, i); e.Changed() {
				changes++
			}
			b.State()
			b.Snapshot()
		}
	})
	if got != 0 || changes < 1000 {
		t.Errorf("20 calls: got %v allocations and %d changes of state in all, want none and thousands", got, changes)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("goroutines: got %d, want no more than the %d from before", after, before)
	}
}

func settled(p *breaker.Permit, i int) breaker.Event {
	if i < 10 {
		return p.Failure(uint64(i), "test")
	}
	return p.Success()
}

// most is the bytes that a breaker by the default configuration may take.
const most = 320

func TestBreakersAreSmall(t *testing.T) {
	group := breaker.NewGroup(breaker.Config{})
	breakers := make([]*breaker.Breaker, 10_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range breakers {
		breakers[i] = group.New()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	got := (after.HeapAlloc - before.HeapAlloc) / uint64(len(breakers))
	if got > most {
		t.Errorf("bytes a breaker: got %d, want at most %d", got, most)
	}
	t.Logf("%d bytes a breaker", got)
	runtime.KeepAlive(breakers)
}
