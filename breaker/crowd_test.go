package breaker_test

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// crowd is how many goroutines use the breakers of a group at once.
const crowd = 10_000

// everybody runs do in a crowd and waits for its end.
func everybody(do func(i int)) {
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func TestCrowdsTotalsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const breakers = 4
		group := breaker.NewGroup(breaker.Config{FailureThreshold: crowd / 4 / breakers, OpenTimeout: rest, Jitter: -1, DistinctTargets: 1})
		guards := make([]*breaker.Breaker, breakers)
		for i := range guards {
			guards[i] = group.New()
		}
		var openings atomic.Int64
		everybody(func(i int) {
			// Once the last failure has opened a breaker, what comes after it is refused; no failure is left then.
			p, _, _ := guards[i/4%breakers].Allow()
			defer p.Release()
			switch i % 4 {
			case 0:
				if e := p.Failure(0, "crowd"); e.Changed() {
					openings.Add(1)
					if e.Failures != crowd/4/breakers {
						t.Errorf("failures at the opening: got %d, want each of the %d", e.Failures, crowd/4/breakers)
					}
				}
			case 1:
				p.Success()
			case 2:
				runtime.Goexit()
			}
		})
		if got := openings.Load(); got != breakers {
			t.Errorf("openings: got %d, want one a breaker, by the last of its failures", got)
		}
		for i, b := range guards {
			if s := b.Snapshot(); s.State != breaker.Open || s.Generation != 1 {
				t.Errorf("breaker %d: got %+v, want it opened once", i, s)
			}
		}
	})
}

func TestCrowdsLateResultsAreVoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		permits := make([]breaker.Permit, crowd)
		for i := range permits {
			permits[i], _, _ = b.Allow()
		}
		fail(b, 5)
		time.Sleep(rest)
		probe, _, _ := b.Allow()
		before := b.Snapshot()
		everybody(func(i int) {
			settle := []func() breaker.Event{permits[i].Success, func() breaker.Event { return permits[i].Failure(0, "late") }}[i%2]
			if e := settle(); e.Changed() {
				t.Errorf("a late result changed the state: %+v", e)
			}
		})
		if after := b.Snapshot(); after != before {
			t.Errorf("after %d late results: got %+v, want %+v", crowd, after, before)
		}
		if e := probe.Success(); e.To != breaker.Closed || e.Generation != before.Generation+1 {
			t.Errorf("the probe's own result: got %+v, want it to close", e)
		}
	})
}

func TestCrowdAtTheEndOfAnOpenTimeGetsTheProbesAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const probes = 7
		b := breaker.New(breaker.Config{OpenTimeout: rest, Jitter: -1, DistinctTargets: 1, Probes: probes})
		fail(b, 5)
		time.Sleep(rest)
		var admitted, steps atomic.Int64
		everybody(func(int) {
			_, e, ok := b.Allow()
			if ok {
				admitted.Add(1)
			}
			if e.Changed() {
				steps.Add(1)
			}
		})
		if admitted.Load() != probes || steps.Load() != 1 {
			t.Errorf("at the end of the open time: got %d calls through and %d steps to half-open, want %d and 1", admitted.Load(), steps.Load(), probes)
		}
	})
}

// TestCrowdNeverExceedsTheProbes keeps the breakers half-open: no probe fails and no number of successes is enough.
func TestCrowdNeverExceedsTheProbes(t *testing.T) {
	const breakers, probes = 3, 2
	group := breaker.NewGroup(breaker.Config{OpenTimeout: 1, MaxOpenTimeout: 1, Jitter: -1, Probes: probes, Successes: crowd * crowd})
	var guards [breakers]*breaker.Breaker
	var probing, admitted [breakers]atomic.Int64
	for i := range guards {
		guards[i] = group.New()
		guards[i].Trip(1, "test")
	}
	everybody(func(i int) {
		p, _, ok := guards[i%breakers].Allow()
		if !ok {
			return
		}
		defer p.Release()
		if n := probing[i%breakers].Add(1); n > probes {
			t.Errorf("probes under way at once: got %d, want at most %d", n, probes)
		}
		admitted[i%breakers].Add(1)
		runtime.Gosched()
		probing[i%breakers].Add(-1)
		if i%2 == 0 {
			p.Success()
		}
	})
	for i, b := range guards {
		if admitted[i].Load() <= probes {
			t.Errorf("breaker %d: got %d probes in all, want the places taken again and again", i, admitted[i].Load())
		}
		wantPlaces(t, b, probes)
	}
}

// wantPlaces takes every place of a half-open breaker.
func wantPlaces(t *testing.T, b *breaker.Breaker, want int) {
	t.Helper()
	got := 0
	for range 2 * want {
		if _, _, ok := b.Allow(); ok {
			got++
		}
	}
	if got != want {
		t.Errorf("places for probes after everybody has gone: got %d, want %d", got, want)
	}
}

// story is what a breaker told of itself.
type story struct {
	mu     sync.Mutex
	events []breaker.Event
}

func (s *story) tell(e breaker.Event) {
	if !e.Changed() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// call is one call, and what is told of it.
func (s *story) call(b *breaker.Breaker, i int) {
	p, e, ok := b.Allow()
	s.tell(e)
	if !ok {
		return
	}
	defer p.Release()
	switch i % 5 {
	case 0:
		s.tell(p.Success())
	case 1, 2, 3:
		s.tell(p.Failure(uint64(i), "crowd"))
	}
}

// TestCrowdsEventsTellTheStory uses the real clock and an open time that is over at once, so that the breakers open and close
// as fast as they can.
func TestCrowdsEventsTellTheStory(t *testing.T) {
	const breakers, probes = 3, 2
	group := breaker.NewGroup(breaker.Config{FailureThreshold: 2, OpenTimeout: 1, MaxOpenTimeout: 1, Jitter: -1, Probes: probes})
	var guards [breakers]*breaker.Breaker
	var stories [breakers]story
	for i := range guards {
		guards[i] = group.New()
	}
	everybody(func(i int) {
		for j := range 3 * breakers {
			stories[(i+j)%breakers].call(guards[(i+j)%breakers], i/3+j)
		}
	})
	for i := range guards {
		stories[i].check(t, guards[i])
		guards[i].Reset("test")
		guards[i].Trip(1, "test")
		wantPlaces(t, guards[i], probes)
	}
}

// check wants the events to lead from closed to where the breaker is, without a gap.
func (s *story) check(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	slices.SortFunc(s.events, func(a, b breaker.Event) int { return int(a.Generation) - int(b.Generation) })
	state := breaker.Closed
	for i, e := range s.events {
		if e.Generation != uint64(i+1) || e.From != state {
			t.Fatalf("event %d: got %+v, want generation %d from %s", i, e, i+1, state)
		}
		state = e.To
	}
	if got := b.Snapshot(); got.State != state || got.Generation != uint64(len(s.events)) || len(s.events) < 100 {
		t.Errorf("state: got %+v, want %s after %d events, hundreds of them", got, state, len(s.events))
	}
}
