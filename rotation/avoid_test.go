package rotation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation"
)

func every() []rotation.Strategy {
	return []rotation.Strategy{rotation.RoundRobin, rotation.Random, rotation.Weighted, rotation.LeastUsed, rotation.Performance}
}

func avoid(p *rotation.Pool, id string, d time.Duration) bool {
	return p.Avoid(id, time.Now().Add(d), "w2")
}

func TestAvoidedProxyIsNotPickedUntilItsTimeIsOver(t *testing.T) {
	for _, s := range every() {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, s, 3, nil)
			avoid(p, "p0", time.Minute)
			for _, need := range []rotation.Need{{}, {Session: "a"}, {Session: "b"}, {Session: "c"}, {Session: "d"}, {Exclude: []string{"p1", "p2"}}} {
				if got := picks(t, p, 100, need); got["p0"] != 0 {
					t.Errorf("%s, %+v: picks = %v, want none of p0", s, need, got)
				}
			}
			if st, _ := p.StatusOf("p0"); time.Until(st.AvoidedUntil) != time.Minute || st.AvoidedBy != "w2" || st.State.String() != "closed" {
				t.Errorf("status = %+v, want it closed, and avoided for a minute by the word of w2", st)
			}
			time.Sleep(time.Minute)
			if got := picks(t, p, 300, rotation.Need{}); got["p0"] == 0 {
				t.Errorf("%s: picks after a minute = %v, want p0 among them", s, got)
			}
			if st, _ := p.StatusOf("p0"); !st.AvoidedUntil.IsZero() {
				t.Errorf("avoided until %v after that time, want nothing", st.AvoidedUntil)
			}
		})
	}
}

func TestEndOfAvoidanceIsInForceAtOnce(t *testing.T) {
	for name, end := range map[string]func(p *rotation.Pool){
		"a time that is past": func(p *rotation.Pool) { p.Avoid("p0", time.Time{}, "") },
		"a reset":             func(p *rotation.Pool) { p.Reset("p0") },
	} {
		p := pool(t, rotation.RoundRobin, 2, nil)
		avoid(p, "p0", time.Minute)
		end(p)
		if got := picks(t, p, 10, rotation.Need{}); got["p0"] != 5 {
			t.Errorf("%s: picks = %v, want half of them p0", name, got)
		}
	}
}

func TestAvoidingEveryProxyStopsNobody(t *testing.T) {
	for _, s := range every() {
		p := pool(t, s, 4, func(i int) string { return []string{"region=eu", "region=us tags=a", "region=us", ""}[i] })
		for i := range 4 {
			avoid(p, fmt.Sprint("p", i), time.Hour)
		}
		if !p.Usable() {
			t.Errorf("%s: not usable, want the last resort to count", s)
		}
		if got := picks(t, p, 40, rotation.Need{}); len(got) != 4 {
			t.Errorf("%s: picks = %v, want all four", s, got)
		}
		for want, need := range map[string]rotation.Need{
			"p0": {Region: "eu", RegionStrict: true}, "p1": {Tags: []string{"a"}}, "p3": {ID: "p3"}, "p2": {Exclude: []string{"p0", "p1", "p3"}},
		} {
			if got := picks(t, p, 4, need); got[want] != 4 {
				t.Errorf("%s: %+v: picks = %v, want only %s", s, need, got, want)
			}
		}
		if got := picks(t, p, 20, rotation.Need{Session: "s"}); len(got) != 1 {
			t.Errorf("%s: a session used %v, want one proxy", s, got)
		}
	}
}

func TestAvoidedProxyComesAfterEveryOtherChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 3, func(i int) string { return []string{"region=eu", "region=us", "region=us"}[i] })
		avoid(p, "p0", time.Hour)
		if got := picks(t, p, 10, rotation.Need{Region: "eu"}); got["p0"] != 0 {
			t.Errorf("picks for its region = %v, want another region rather than p0", got)
		}
		p.ForceOpen("p1", time.Minute, "test")
		p.ForceOpen("p2", time.Minute, "test")
		if got := picks(t, p, 10, rotation.Need{}); got["p0"] != 10 {
			t.Errorf("picks while the others are open = %v, want p0", got)
		}
		time.Sleep(time.Minute)
		if got := picks(t, p, 10, rotation.Need{}); got["p0"] != 0 {
			t.Errorf("picks when the others are due for a test = %v, want none of p0", got)
		}
	})
}

func TestAvoidedProxyIsNotTestedWhileAnotherWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 2, nil)
		p.ForceOpen("p0", time.Minute, "test")
		avoid(p, "p0", time.Hour)
		time.Sleep(time.Minute)
		if got := picks(t, p, 100, rotation.Need{}); got["p0"] != 0 {
			t.Errorf("picks = %v, want no test of p0", got)
		}
		avoid(p, "p0", 0)
		if got := picks(t, p, 100, rotation.Need{}); got["p0"] == 0 {
			t.Errorf("picks after that = %v, want p0 tested", got)
		}
	})
}

func TestUnknownProxyIsNotAvoided(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, nil)
	if avoid(p, "p7", time.Hour) || !avoid(p, "p0", time.Hour) {
		t.Error("want false for the unknown one and true for the other")
	}
}

func TestPicksFollowWhateverIsAvoidedAndTested(t *testing.T) {
	const n = 6
	list := proxies(t, n, nil)
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			p := rotation.New(rotation.Config{Strategy: rapid.SampledFrom(every()).Draw(t, "strategy")})
			p.Replace(list)
			for range rapid.IntRange(1, 60).Draw(t, "steps") {
				id := fmt.Sprint("p", rapid.IntRange(0, n-1).Draw(t, "proxy"))
				switch d := time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second; rapid.IntRange(0, 3).Draw(t, "act") {
				case 0:
					avoid(p, id, d)
				case 1:
					p.ForceOpen(id, d+1, "test")
				case 2:
					time.Sleep(d)
				case 3:
					l, _, err := p.Pick(rotation.Need{})
					if err != nil {
						continue
					}
					kind := rapid.SampledFrom([]rotation.Kind{rotation.Relayed, rotation.ProxyFault}).Draw(t, "kind")
					l.Report(rotation.Verdict{Kind: kind, Reason: "test"})
				}
				mustPickRightly(t, p)
			}
		})
	})
}

// mustPickRightly compares a pick with what the status of every proxy says.
func mustPickRightly(t *rapid.T, p *rotation.Pool) {
	var free, last int
	for _, s := range p.Status() {
		switch {
		case s.NextTest.After(time.Now()):
		case s.AvoidedUntil.IsZero():
			free++
		default:
			last++
		}
	}
	l, _, err := p.Pick(rotation.Need{})
	if (err == nil) != (free+last > 0) {
		t.Fatalf("pick = %v with %d proxies free and %d avoided", err, free, last)
	}
	if err != nil {
		return
	}
	defer l.Release()
	if s, _ := p.StatusOf(l.ID()); free > 0 && !s.AvoidedUntil.IsZero() {
		t.Fatalf("picked %s, which is avoided, with %d others free", l.ID(), free)
	}
}

func TestSessionThatMovedStaysThereWhenEveryProxyIsAvoided(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 6, nil)
	for i := range 10 {
		need := rotation.Need{Session: fmt.Sprint("s", i)}
		home := only(t, picks(t, p, 1, need))
		spoil(p, home)
		moved := only(t, picks(t, p, 1, need))
		p.Reset(home)
		for j := range 6 {
			avoid(p, fmt.Sprint("p", j), time.Hour)
		}
		if got := only(t, picks(t, p, 5, need)); got != moved {
			t.Errorf("the session went to %s, want %s as before", got, moved)
		}
		for j := range 6 {
			p.Reset(fmt.Sprint("p", j))
		}
	}
}

// only is the one proxy that was picked.
func only(t *testing.T, picked map[string]int) string {
	t.Helper()
	if len(picked) != 1 {
		t.Fatalf("picked %v, want one proxy", picked)
	}
	for id := range picked {
		return id
	}
	return ""
}
