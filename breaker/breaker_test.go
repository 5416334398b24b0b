package breaker_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

const (
	window = 10 * time.Second
	rest   = 5 * time.Second
	lease  = 3 * time.Second
)

// plain is a breaker whose every time is exact.
func plain() *breaker.Breaker {
	return breaker.New(breaker.Config{FailureThreshold: 5, Window: window, OpenTimeout: rest, MaxOpenTimeout: 15 * time.Second, Jitter: -1, ProbeLease: lease, DistinctTargets: 1})
}

// fail does n calls that fail at once.
func fail(b *breaker.Breaker, n int) (last breaker.Event) {
	for range n {
		p, _, ok := b.Allow()
		if !ok {
			return last
		}
		last = p.Failure(0, "test")
	}
	return last
}

func wantState(t *testing.T, b *breaker.Breaker, want breaker.State) {
	t.Helper()
	if got := b.Snapshot().State; got != want {
		t.Errorf("state = %s, want %s", got, want)
	}
}

func TestFifthFailureInTheWindowOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		fail(b, 4)
		wantState(t, b, breaker.Closed)
		e := fail(b, 1)
		wantState(t, b, breaker.Open)
		if e.From != breaker.Closed || e.To != breaker.Open || e.Generation != 1 || e.Failures != 5 || !e.NextTest.Equal(time.Now().Add(rest)) {
			t.Errorf("event = %+v", e)
		}
	})
}

func TestWindowRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		time.Sleep(window - time.Second)
		fail(b, 4)
		time.Sleep(time.Second + time.Millisecond) // a burst over the edge of a fixed window
		fail(b, 1)
		wantState(t, b, breaker.Open)

		b = plain()
		fail(b, 4)
		time.Sleep(window) // exactly out of the window
		fail(b, 1)
		wantState(t, b, breaker.Closed)

		b = plain()
		fail(b, 4)
		time.Sleep(window - 1)
		fail(b, 1)
		wantState(t, b, breaker.Open)
	})
}

func TestCallsLongerThanTheWindowCountWhenTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		permits := make([]breaker.Permit, 5)
		for i := range permits {
			permits[i], _, _ = b.Allow()
		}
		time.Sleep(3 * window)
		for i := range permits {
			permits[i].Failure(0, "timeout")
		}
		wantState(t, b, breaker.Open)
	})
}

func TestOpenRefusesExactlyUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		fail(b, 5)
		time.Sleep(rest - 1)
		if _, _, ok := b.Allow(); ok || b.Ready() {
			t.Errorf("a call was let through before the open time was over")
		}
		if got := b.Remaining(); got != 1 {
			t.Errorf("remaining = %v, want 1ns", got)
		}
		time.Sleep(time.Nanosecond)
		if !b.Ready() {
			t.Errorf("a look does not see that the open time is over")
		}
		wantState(t, b, breaker.Open) // the look changed nothing
		p, e, ok := b.Allow()
		if !ok || !p.Probe() || e.To != breaker.HalfOpen {
			t.Errorf("at the end of the open time: %v, %+v", ok, e)
		}
		if _, _, ok := b.Allow(); ok || b.Ready() {
			t.Errorf("a second probe was let through")
		}
		if e := p.Success(); e.To != breaker.Closed {
			t.Errorf("event after a good probe = %+v", e)
		}
	})
}

func TestOpenTimeDoublesToTheCapAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		fail(b, 5)
		for _, want := range []time.Duration{2 * rest, 3 * rest, 3 * rest} {
			time.Sleep(b.Remaining())
			fail(b, 1)
			if got := b.Remaining(); got != want {
				t.Errorf("open time = %v, want %v", got, want)
			}
		}
		time.Sleep(b.Remaining())
		p, _, _ := b.Allow()
		p.Success()
		time.Sleep(10 * window)
		fail(b, 5)
		if got := b.Remaining(); got != rest {
			t.Errorf("open time after a long good time = %v, want %v", got, rest)
		}
	})
}

func TestLateAnswersOfAnEarlierGenerationChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		early := make([]breaker.Permit, 8)
		for i := range early {
			early[i], _, _ = b.Allow()
		}
		fail(b, 5)
		time.Sleep(rest)
		probe, _, _ := b.Allow()
		if e := early[0].Success(); e.Changed() {
			t.Errorf("a late success closed the breaker: %+v", e)
		}
		for i := range 5 {
			if e := early[i+1].Failure(0, "late"); e.Changed() {
				t.Errorf("a late failure opened the breaker: %+v", e)
			}
		}
		if _, _, ok := b.Allow(); ok {
			t.Errorf("late answers made room for a second probe")
		}
		probe.Success()
		wantState(t, b, breaker.Closed)
	})
}

func TestLostProbeGivesItsPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		fail(b, 5)
		time.Sleep(rest)
		lost, _, _ := b.Allow()
		time.Sleep(lease - 1)
		if _, _, ok := b.Allow(); ok {
			t.Errorf("a second probe before the first one's lease was over")
		}
		time.Sleep(time.Nanosecond)
		if !b.Ready() {
			t.Errorf("a look does not see that the lease is over")
		}
		second, _, ok := b.Allow()
		if !ok {
			t.Fatal("no probe after the lease of the lost one")
		}
		if e := lost.Success(); e.Changed() {
			t.Errorf("the lost probe's answer counted: %+v", e)
		}
		if e := second.Success(); e.To != breaker.Closed || !e.Changed() {
			t.Errorf("event of the second probe = %+v", e)
		}
	})
}

func TestPermitSettlesOnceWhateverHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		p, _, _ := b.Allow()
		for range 5 {
			p.Failure(0, "twice")
		}
		if got := b.Snapshot().Failures; got != 1 {
			t.Errorf("failures of one permit = %d, want 1", got)
		}
		fail(b, 4)
		time.Sleep(rest)
		panicking := func() {
			defer func() { _ = recover() }()
			p, _, _ := b.Allow()
			defer p.Release()
			panic("in a probe")
		}
		panicking()
		done := make(chan struct{})
		go func() {
			defer close(done)
			p, _, _ := b.Allow()
			defer p.Release()
			runtime.Goexit()
		}()
		<-done
		p, _, ok := b.Allow()
		if !ok {
			t.Fatal("a panic or a Goexit in a probe lost its place")
		}
		p.Ignore()
		wantState(t, b, breaker.HalfOpen)
		if !b.Ready() {
			t.Errorf("an ignored probe kept its place")
		}
	})
}

func TestOneTargetAloneDoesNotOpenWhenTwoAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{})
		for range 20 {
			p, _, _ := b.Allow()
			p.Failure(77, "unclear")
		}
		wantState(t, b, breaker.Closed)
		p, _, _ := b.Allow()
		p.Failure(78, "unclear")
		wantState(t, b, breaker.Open)
	})
}

func TestTripOpensAndResetCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := plain()
		if e := b.Trip(time.Minute, "credentials"); e.To != breaker.Open || b.Remaining() != time.Minute {
			t.Errorf("trip: got %+v, remaining %v, want open for a minute", e, b.Remaining())
		}
		if e := b.Trip(time.Second, "again"); e.Changed() || b.Remaining() != time.Minute {
			t.Errorf("a shorter trip: got %+v, remaining %v, want no change", e, b.Remaining())
		}
		if e := b.Reset("by hand"); e.To != breaker.Closed || !b.Ready() {
			t.Errorf("reset: got %+v, want closed", e)
		}
	})
}

func ExampleBreaker() {
	b := breaker.New(breaker.Config{FailureThreshold: 2, DistinctTargets: 1})
	for range 2 {
		permit, _, ok := b.Allow()
		if !ok {
			break
		}
		event := permit.Failure(0, "connection refused")
		fmt.Println(event.Changed(), event.To)
	}
	fmt.Println(b.Ready())
	// Output:
	// false closed
	// true open
	// false
}

func BenchmarkBreaker(b *testing.B) {
	br := breaker.New(breaker.Config{})
	b.Run("gofer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, _, _ := br.Allow()
			p.Success()
		}
	})
	b.Run("gofer-parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p, _, _ := br.Allow()
				p.Success()
			}
		})
	})
}
