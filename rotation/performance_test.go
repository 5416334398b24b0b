package rotation_test

import (
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// shares counts how often each proxy is picked. How an attempt through it ends is told.
func shares(t *testing.T, p *rotation.Pool, picks int, ends func(i int) rotation.Verdict) map[int]int {
	t.Helper()
	got := map[int]int{}
	for range picks {
		l := take(t, p, rotation.Need{})
		i := number(t, l)
		got[i]++
		l.Report(ends(i))
	}
	return got
}

func TestPerformancePrefersTheFastAndTheSuccessful(t *testing.T) {
	for name, worse := range map[string]rotation.Verdict{
		"slow":    {Kind: rotation.Relayed, Latency: 2 * time.Second},
		"refused": {Kind: rotation.PairFault, CoolDown: time.Nanosecond},
	} {
		const n, picks = 10, 10_000
		p := drawPool(rotation.Performance, n, nil)
		ends := func(i int) rotation.Verdict {
			if i < n/2 {
				return worse
			}
			return rotation.Verdict{Kind: rotation.Relayed, Latency: 10 * time.Millisecond}
		}
		shares(t, p, 100*n, ends)
		bad := 0
		for i, times := range shares(t, p, picks, ends) {
			if i < n/2 {
				bad += times
			}
		}
		// Of two that are drawn, both are from the worse half in 2/9 of the cases.
		if bad < picks/6 || bad > picks*2/7 {
			t.Errorf("%s: %d of %d picks took the worse half, want about 2 in 9", name, bad, picks)
		}
	}
}

func TestPerformanceSparesTheBusy(t *testing.T) {
	const n = 10
	p := drawPool(rotation.Performance, n, nil)
	shares(t, p, 100*n, func(int) rotation.Verdict {
		return rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond}
	})
	under := map[string]int{}
	for range 100 * n {
		under[take(t, p, rotation.Need{}).ID()]++
	}
	for id, got := range under {
		if got < 90 || got > 110 {
			t.Errorf("%s has %d attempts under way, want about as many as the others, 100", id, got)
		}
	}
}

// TestStrangersGetABoundedPart: a few proxies that nothing is known of get 2 to 10 % of the picks together; a pool of nothing
// else uses them like any others.
func TestStrangersGetABoundedPart(t *testing.T) {
	for _, c := range []struct{ known, strangers, least, most int }{
		{known: 50, strangers: 1, least: 100, most: 400},
		{known: 20, strangers: 10, least: 500, most: 1000},
		{known: 10, strangers: 10, least: 700, most: 1300},
		{known: 0, strangers: 10, least: 10_000, most: 10_000},
	} {
		p := drawPool(rotation.Performance, c.known, nil)
		good := rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond}
		if c.known > 0 {
			shares(t, p, 100*c.known, func(int) rotation.Verdict { return good })
		}
		p.Replace(drawList(c.known+c.strangers, nil))
		got := 0
		for i, times := range shares(t, p, 10_000, func(i int) rotation.Verdict {
			if i < c.known {
				return good
			}
			return rotation.Verdict{} // says nothing, so it stays a stranger
		}) {
			if i >= c.known {
				got += times
			}
		}
		if got < c.least || got > c.most {
			t.Errorf("%d strangers beside %d: %d of 10,000 picks, want %d to %d", c.strangers, c.known, got, c.least, c.most)
		}
	}
}
