package breaker_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
)

// TestBreakerDoesWhatTheLawSays drives a breaker and the plain model of its rules side by side, one deed after the other, with
// pauses from the edges of every time. Every answer and, after every deed, every reading has to be the same.
func TestBreakerDoesWhatTheLawSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, sideBySide) })
}

func sideBySide(t *rapid.T) {
	b := &bench{drawn(t), map[int]breaker.Permit{}}
	c := newCourt(b.Breaker)
	var l law
	calls := 0
	do := func(t *rapid.T, d deed) {
		d.now = b.Group().Now()
		next, want := c.step(l, d)
		if got := b.do(d); got != want {
			t.Fatalf("%+v:\n got %+v,\nwant %+v", d, got, want)
		}
		l = next
	}
	settle := func(v verb) func(*rapid.T) {
		return func(t *rapid.T) {
			if len(l.permits) > 0 {
				p := rapid.SampledFrom(l.permits).Draw(t, "permit")
				do(t, deed{do: v, call: p.call, target: rapid.Uint64Range(0, 3).Draw(t, "target")})
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"pause": func(t *rapid.T) { time.Sleep(rapid.SampledFrom(edges()).Draw(t, "pause")) },
		"allow": func(t *rapid.T) {
			calls++
			do(t, deed{do: allow, call: calls})
		},
		"success": settle(success), "failure": settle(failure), "ignore": settle(ignore),
		"failures": func(t *rapid.T) {
			for range b.Group().Config().FailureThreshold {
				calls++
				do(t, deed{do: allow, call: calls})
				do(t, deed{do: failure, call: calls, target: uint64(calls)})
			}
		},
		"command": func(t *rapid.T) {
			v := rapid.SampledFrom([]verb{trip, trip, reset}).Draw(t, "command")
			do(t, deed{do: v, call: -1, rest: rapid.SampledFrom([]time.Duration{-1, 0, 1, rest, 4 * rest}).Draw(t, "rest")})
		},
		"": func(t *rapid.T) {
			for _, v := range []verb{snapshot, ready, remaining} {
				do(t, deed{do: v, call: -1})
			}
		},
	})
	leaveTime(t, b, do)
}

// drawn is a breaker whose every time is exact.
func drawn(t *rapid.T) *breaker.Breaker {
	threshold := rapid.IntRange(1, 5).Draw(t, "threshold")
	return breaker.New(breaker.Config{
		FailureThreshold: threshold, Window: window, OpenTimeout: rest, MaxOpenTimeout: 3 * rest, Jitter: -1, ProbeLease: lease,
		Probes: rapid.IntRange(1, 3).Draw(t, "probes"), Successes: rapid.IntRange(1, 3).Draw(t, "successes"),
		DistinctTargets: rapid.IntRange(1, threshold).Draw(t, "distinct"),
	})
}

// leaveTime is liveness: from wherever the history ended, a call goes through after the longest of the times.
func leaveTime(t *rapid.T, b *bench, do func(*rapid.T, deed)) {
	time.Sleep(slices.Max([]time.Duration{4 * rest, lease, window}))
	if !b.Ready() || b.Remaining() != 0 {
		t.Fatalf("after a long time: got %v to wait, want none", b.Remaining())
	}
	do(t, deed{do: allow, call: 0})
	if len(b.permits) == 0 {
		t.Fatal("after a long time: got no permit, want one")
	}
}
