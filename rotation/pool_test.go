package rotation_test

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// pool has n proxies p0, p1, … with more words on their lines.
func pool(tb testing.TB, strategy rotation.Strategy, n int, more func(i int) string) *rotation.Pool {
	tb.Helper()
	p := rotation.New(rotation.Config{Strategy: strategy, Breaker: breaker.Config{Jitter: -1}})
	p.Replace(proxies(tb, n, more))
	return p
}

func proxies(tb testing.TB, n int, more func(i int) string) []proxylist.Proxy {
	tb.Helper()
	list := make([]proxylist.Proxy, n)
	for i := range n {
		line := fmt.Sprintf("http://192.0.2.1:%d id=p%d", 1000+i%60000, i)
		if more != nil {
			line += " " + more(i)
		}
		p, err := proxylist.ParseLine(line)
		if err != nil {
			tb.Fatal(err)
		}
		list[i] = p
	}
	return list
}

// picks counts which proxies n picks take; each is reported as delivered.
func picks(t *testing.T, p *rotation.Pool, n int, need rotation.Need) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		l, _, err := p.Pick(need)
		if err != nil {
			t.Fatalf("pick: %v", err)
		}
		got[l.ID()]++
		l.Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
	}
	return got
}

// spoil opens the breaker of a proxy.
func spoil(p *rotation.Pool, id string) { p.ForceOpen(id, time.Hour, "test") }

func TestStrategiesSpreadAsTheyPromise(t *testing.T) {
	for _, s := range []rotation.Strategy{rotation.RoundRobin, rotation.LeastUsed} {
		for id, n := range picks(t, pool(t, s, 4, nil), 400, rotation.Need{}) {
			if n != 100 {
				t.Errorf("%s: %s was picked %d times of 400, want 100", s, id, n)
			}
		}
	}
	for id, n := range picks(t, pool(t, rotation.Random, 4, nil), 8000, rotation.Need{}) {
		if math.Abs(float64(n)-2000) > 300 {
			t.Errorf("random: %s was picked %d times of 8000", id, n)
		}
	}
	got := picks(t, pool(t, rotation.Weighted, 3, func(i int) string { return fmt.Sprintf("weight=%d", []int{6, 3, 1}[i]) }), 1000, rotation.Need{})
	for id, want := range map[string]int{"p0": 600, "p1": 300, "p2": 100} {
		if math.Abs(float64(got[id]-want)) > 60 {
			t.Errorf("weighted: %s was picked %d times, want about %d", id, got[id], want)
		}
	}
}

func TestOpenProxiesAreNeverPickedAndTheOthersShare(t *testing.T) {
	for _, s := range []rotation.Strategy{rotation.RoundRobin, rotation.Random, rotation.Weighted, rotation.LeastUsed, rotation.Performance} {
		p := pool(t, s, 10, nil)
		for i := range 8 {
			spoil(p, fmt.Sprint("p", i))
		}
		got := picks(t, p, 200, rotation.Need{})
		if got["p8"]+got["p9"] != 200 || got["p8"] == 0 || got["p9"] == 0 {
			t.Errorf("%s: picks = %v, want only p8 and p9, both", s, got)
		}
	}
}

func TestFailedProxiesAreLeftOutWhileAnotherIsLeft(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 3, nil)
	if got := picks(t, p, 50, rotation.Need{Exclude: []string{"p0", "p2"}}); got["p1"] != 50 {
		t.Errorf("picks = %v, want only p1", got)
	}
	if got := picks(t, p, 30, rotation.Need{Exclude: []string{"p0", "p1", "p2"}}); len(got) == 0 {
		t.Errorf("nothing was picked although the wish had to be given up")
	}
}

func TestTagsRegionAndID(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 4, func(i int) string {
		return []string{"tags=a,b region=eu", "tags=a region=us", "tags=b region=us", "region=eu"}[i]
	})
	if got := picks(t, p, 20, rotation.Need{Tags: []string{"a", "b"}}); got["p0"] != 20 {
		t.Errorf("both tags: %v", got)
	}
	if got := picks(t, p, 20, rotation.Need{Region: "us"}); got["p1"]+got["p2"] != 20 {
		t.Errorf("region us: %v", got)
	}
	spoil(p, "p1")
	spoil(p, "p2")
	if got := picks(t, p, 20, rotation.Need{Region: "us"}); got["p0"]+got["p3"] != 20 {
		t.Errorf("region us with both of its proxies open: %v, want the others", got)
	}
	if got := picks(t, p, 5, rotation.Need{ID: "p3"}); got["p3"] != 5 {
		t.Errorf("id p3: %v", got)
	}
	var none *rotation.NoProxyError
	if _, _, err := p.Pick(rotation.Need{Region: "us", RegionStrict: true}); !errors.As(err, &none) || none.Reason != rotation.Unavailable || none.RetryAt.IsZero() {
		t.Errorf("strict region with both proxies open: %v", err)
	}
	for _, need := range []rotation.Need{{Tags: []string{"c"}}, {ID: "p9"}, {Region: "mars", RegionStrict: true}} {
		if _, _, err := p.Pick(need); !errors.As(err, &none) || none.Reason != rotation.Unmatched {
			t.Errorf("%+v: %v, want unmatched", need, err)
		}
	}
	if _, _, err := rotation.New(rotation.Config{}).Pick(rotation.Need{}); !errors.As(err, &none) || none.Reason != rotation.Empty {
		t.Errorf("empty pool: %v", err)
	}
}

func TestSessionStaysWithItsProxyUntilThatFails(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 20, nil)
	for i := range 10 {
		need := rotation.Need{Session: fmt.Sprint("s", i)}
		got := picks(t, p, 10, need)
		if len(got) != 1 {
			t.Fatalf("one session used %v", got)
		}
		for id := range got {
			spoil(p, id)
			if moved := picks(t, p, 10, need); len(moved) != 1 || moved[id] > 0 {
				t.Errorf("after its proxy failed the session used %v", moved)
			}
			p.Reset(id)
		}
	}
}

func TestInFlightCapHolds(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, func(int) string { return "max_inflight=2" })
	a, _, errA := p.Pick(rotation.Need{})
	_, _, errB := p.Pick(rotation.Need{})
	if _, _, err := p.Pick(rotation.Need{}); errA != nil || errB != nil || err == nil {
		t.Errorf("picks = %v, %v, %v; want two and a refusal", errA, errB, err)
	}
	a.Release()
	if _, _, err := p.Pick(rotation.Need{}); err != nil {
		t.Errorf("pick after one came back: %v", err)
	}
}

func TestCoolDownRestsOnlyThatPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 1, nil)
		l, _, _ := p.Pick(rotation.Need{Host: "a.test:443"})
		l.Report(rotation.Verdict{Kind: rotation.PairFault, CoolDown: time.Minute})
		var none *rotation.NoProxyError
		if _, _, err := p.Pick(rotation.Need{Host: "a.test:443"}); !errors.As(err, &none) || time.Until(none.RetryAt) > time.Minute || time.Until(none.RetryAt) < 50*time.Second {
			t.Errorf("the pair that rests: %v", err)
		}
		if _, _, err := p.Pick(rotation.Need{Host: "a.test:80"}); err != nil {
			t.Errorf("another port of that host: %v", err)
		}
		time.Sleep(time.Minute + time.Second)
		if _, _, err := p.Pick(rotation.Need{Host: "a.test:443"}); err != nil {
			t.Errorf("after its rest: %v", err)
		}
	})
}

func TestOneDeadTargetOpensNoHealthyProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.Random, 50, nil)
		for i := range 20000 {
			time.Sleep(10 * time.Millisecond)
			host := fmt.Sprintf("good%d.test:443", i%20)
			kind := rotation.Relayed
			if i%10 < 3 {
				host, kind = "dead.test:443", rotation.Unclear
			}
			l, _, err := p.Pick(rotation.Need{Host: host})
			if err != nil {
				t.Fatal(err)
			}
			l.Report(rotation.Verdict{Kind: kind, Reason: "timeout"})
		}
		open := 0
		for _, s := range p.Status() {
			if s.State != breaker.Closed {
				open++
			}
		}
		if open > 0 {
			t.Errorf("%d of 50 healthy proxies are open", open)
		}
	})
}

func TestBadProxyOpensInAFleetWithOneTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 10, nil)
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			l, _, err := p.Pick(rotation.Need{Host: "only.test:443"})
			if err != nil {
				t.Fatal(err)
			}
			kind := rotation.Relayed
			if l.ID() == "p3" {
				kind = rotation.Unclear
			}
			l.Report(rotation.Verdict{Kind: kind, Reason: "timeout"})
		}
		if s, _ := p.StatusOf("p3"); s.State != breaker.Open {
			t.Errorf("the only bad proxy is %s, want open", s.State)
		}
	})
}

func TestReplaceKeepsTheStateOfThoseThatStay(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 3, nil)
	spoil(p, "p1")
	c := p.Replace(proxies(t, 5, func(i int) string { return map[bool]string{true: "weight=2", false: ""}[i == 1] })[1:])
	if c.Added != 2 || c.Removed != 1 || c.Changed != 1 {
		t.Errorf("change = %+v, want 2 added, 1 removed, 1 changed", c)
	}
	if s, ok := p.StatusOf("p1"); !ok || s.State != breaker.Open {
		t.Errorf("p1 after the reload = %v, %v; want still open", s.State, ok)
	}
	if _, ok := p.StatusOf("p0"); ok {
		t.Errorf("a removed proxy still has a status")
	}
}

func TestLeaseSettlesOnceAndPanicsLoseNothing(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, func(int) string { return "max_inflight=1" })
	for range 20 {
		func() {
			defer func() { _ = recover() }()
			l, _, err := p.Pick(rotation.Need{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release()
			l.Report(rotation.Verdict{Kind: rotation.Relayed})
			l.Report(rotation.Verdict{Kind: rotation.ProxyFault})
			panic("after the report")
		}()
	}
	if s, _ := p.StatusOf("p0"); s.Inflight != 0 || s.Failures != 0 {
		t.Errorf("in flight %d, failures %d; want none", s.Inflight, s.Failures)
	}
}

func TestPicksAndReloadsFromManyGoroutines(t *testing.T) {
	p := pool(t, rotation.Performance, 50, nil)
	var wg sync.WaitGroup
	for g := range 500 {
		wg.Go(func() {
			for i := range 40 {
				l, _, err := p.Pick(rotation.Need{Host: "a.test:443"})
				if err != nil {
					continue
				}
				kind := rotation.Relayed
				if (g+i)%7 == 0 {
					kind = rotation.ProxyFault
				}
				l.Report(rotation.Verdict{Kind: kind, Latency: time.Millisecond})
			}
		})
	}
	for i := range 20 {
		p.Replace(proxies(t, 30+i, nil))
	}
	wg.Wait()
	for _, s := range p.Status() {
		if s.Inflight != 0 {
			t.Errorf("%s has %d attempts in flight after all have ended", s.ID, s.Inflight)
		}
	}
}
