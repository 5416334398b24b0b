package breaker_test

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
)

func TestOpenTimesOfARowStayBetweenTheDoublingAndItsJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			jitter := rapid.Float64Range(0.01, 2).Draw(t, "jitter")
			most := rapid.SampledFrom([]time.Duration{1, rest, 3 * rest, 8 * rest, time.Hour}).Draw(t, "most")
			b := breaker.New(breaker.Config{OpenTimeout: rest, MaxOpenTimeout: most, Jitter: jitter, DistinctTargets: 1})
			fail(b, 5)
			want := rest
			for k := range 12 {
				if got := b.Remaining(); got < want || float64(got) > float64(want)*(1+jitter) {
					t.Fatalf("opening %d with jitter %v: got %v, want from %v", k+1, jitter, got, want)
				}
				want = max(rest, min(2*want, most))
				time.Sleep(b.Remaining())
				fail(b, 1)
			}
		})
	})
}

func TestJitterSpreadsOpenTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := breaker.NewGroup(breaker.Config{OpenTimeout: rest, Jitter: 1, DistinctTargets: 1})
		early, late := 0, 0
		for range 1000 {
			b := group.New()
			fail(b, 5)
			if b.Remaining() < rest+rest/2 {
				early++
			} else {
				late++
			}
		}
		if early < 350 || late < 350 {
			t.Errorf("open times: got %d in the lower half of the jitter and %d in the upper, want about as many", early, late)
		}
	})
}

// TestEachWindowClosedTakesOneDoublingBack opens three times in a row and then stays closed for a while.
func TestEachWindowClosedTakesOneDoublingBack(t *testing.T) {
	for _, c := range []struct{ closed, want time.Duration }{
		{0, 8 * rest}, {window - 1, 8 * rest}, {window, 4 * rest}, {2*window - 1, 4 * rest}, {2 * window, 2 * rest}, {3 * window, rest}, {30 * window, rest},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Window: window, OpenTimeout: rest, MaxOpenTimeout: time.Hour, Jitter: -1, DistinctTargets: 1})
			fail(b, 5)
			for range 2 {
				time.Sleep(b.Remaining())
				fail(b, 1)
			}
			time.Sleep(b.Remaining())
			p, _, _ := b.Allow()
			p.Success()
			time.Sleep(c.closed)
			fail(b, 5)
			if got := b.Remaining(); got != c.want {
				t.Errorf("open time after %v closed: got %v, want %v", c.closed, got, c.want)
			}
		})
	}
}

func TestEndlessTimesDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const century = 80 * 365 * 24 * time.Hour
		b := breaker.New(breaker.Config{OpenTimeout: century, MaxOpenTimeout: math.MaxInt64, Jitter: -1, DistinctTargets: 1})
		b.Trip(0, "test")
		if got := b.Remaining(); got != century {
			t.Errorf("open time: got %v, want %v", got, century)
		}
		time.Sleep(century)
		fail(b, 1)
		if got := b.Remaining(); got != 2*century {
			t.Errorf("second open time: got %v, want %v", got, 2*century)
		}
		b.Trip(math.MaxInt64, "test")
		if b.Ready() || b.Remaining() < 2*century {
			t.Errorf("an endless rest: got %v to wait, want centuries", b.Remaining())
		}
		if _, _, ok := b.Allow(); ok {
			t.Error("an endless rest let a call through")
		}
	})
}

// TestTimesAreMonotonic holds that the times which are told carry the reading of the monotonic clock, so that they were not
// taken from the wall clock and a step of it changes no difference between them.
func TestTimesAreMonotonic(t *testing.T) {
	b := plain()
	e := b.Trip(time.Minute, "test")
	s := b.Snapshot()
	for name, at := range map[string]time.Time{"At": e.At, "NextTest": e.NextTest, "the snapshot's NextTest": s.NextTest, "LastChange": s.LastChange} {
		if !strings.Contains(at.String(), "m=") {
			t.Errorf("%s: got %v, want a monotonic reading", name, at)
		}
	}
	if got := e.NextTest.Sub(e.At); got != time.Minute {
		t.Errorf("open time: got %v, want a minute", got)
	}
}
