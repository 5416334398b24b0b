package rotation_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation"
)

func TestManyRestsThatEndAtOnceAreAllOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		p := pool(t, rotation.RoundRobin, n, nil)
		for range n {
			l, _, err := p.Pick(rotation.Need{Host: "a.test:80"})
			if err != nil {
				t.Fatal(err)
			}
			l.Report(rotation.Verdict{Kind: rotation.PairFault, CoolDown: time.Minute})
		}
		time.Sleep(time.Minute)
		// The one whose rest began last stands at the end of the line.
		if _, _, err := p.Pick(rotation.Need{Host: "a.test:80", ID: fmt.Sprint("p", n-1)}); err != nil {
			t.Errorf("pick after every rest: %v, want the proxy", err)
		}
	})
}

func TestManyThatComeBackAtOnceAreAllOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		p := pool(t, rotation.RoundRobin, n, func(i int) string { return map[bool]string{true: "tags=last"}[i == n-1] })
		need := rotation.Need{Tags: []string{"last"}}
		take(t, p, need).Release()
		for i := range n {
			p.ForceOpen(fmt.Sprint("p", i), time.Minute-time.Duration(n-i), "test") // the last one at last
		}
		time.Sleep(time.Minute)
		if err := refusal(p, need); err != nil {
			t.Errorf("pick when all of them are due: %v, want the one with the tag", err)
		}
	})
}

// TestRestsEndInTheirOrder lets each proxy rest for a time of its own. Then, moment by moment, the host gets those back whose
// rest is over, and no others.
func TestRestsEndInTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, restsEndInTheirOrder) })
}

func restsEndInTheirOrder(t *rapid.T) {
	long := rapid.SliceOfN(rapid.IntRange(1, 20), 1, 80).Draw(t, "rests, in seconds")
	p := drawPool(rapid.SampledFrom(strategies()).Draw(t, "strategy"), len(long), nil)
	for i, seconds := range long {
		need := rotation.Need{ID: fmt.Sprint("p", i), Host: "a.test:80"}
		take(t, p, need).Report(rotation.Verdict{Kind: rotation.Relayed, CoolDown: time.Duration(seconds) * time.Second})
	}
	for now := 1; now <= 20; now++ {
		time.Sleep(time.Second)
		for i, seconds := range long {
			need := rotation.Need{ID: fmt.Sprint("p", i), Host: "a.test:80"}
			if err := refusal(p, need); (err == nil) != (seconds <= now) {
				t.Fatalf("p%d, which rests for %d s, after %d s: %v", i, seconds, now, err)
			}
		}
	}
}

func TestLongestOfARestCounts(t *testing.T) {
	for _, minutes := range [][]time.Duration{{3, 1, 2}, {1, 3, 2}, {1, 2, 3}, {3, 3, 1}} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, rotation.RoundRobin, 1, nil)
			need := rotation.Need{Host: "a.test:80"}
			var leases []*rotation.Lease
			for range minutes {
				leases = append(leases, take(t, p, need))
			}
			for i, l := range leases {
				l.Report(rotation.Verdict{Kind: rotation.Relayed, CoolDown: minutes[i] * time.Minute})
			}
			for left := 3 * time.Minute; left > 0; left -= time.Minute {
				none, ok := errors.AsType[*rotation.NoProxyError](refusal(p, need))
				if !ok || time.Until(none.RetryAt) != left {
					t.Errorf("rests of %d minutes: %+v, want a refusal for %v", minutes, none, left)
				}
				time.Sleep(time.Minute)
			}
			if err := refusal(p, need); err != nil {
				t.Errorf("rests of %d minutes: %v after the longest", minutes, err)
			}
		})
	}
}

func TestLateTripOfARestedProxyIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 1, nil)
		early, _, _ := p.Pick(rotation.Need{})
		late, _, _ := p.Pick(rotation.Need{})
		early.Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Minute})
		time.Sleep(time.Minute)
		if !p.Usable() {
			t.Fatal("after its rest the proxy cannot be used")
		}
		late.Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Minute})
		if p.Usable() {
			t.Error("the late trip is not seen: the proxy is called usable")
		}
		none, ok := errors.AsType[*rotation.NoProxyError](refusal(p, rotation.Need{}))
		if !ok || time.Until(none.RetryAt) != time.Minute {
			t.Errorf("pick: %+v, want a refusal for a minute", none)
		}
	})
}

func TestStrictRegionWithoutARegionDemandsNothing(t *testing.T) {
	p := pool(t, rotation.RoundRobin, 1, func(int) string { return "region=eu max_inflight=1" })
	if _, _, err := p.Pick(rotation.Need{RegionStrict: true}); err != nil {
		t.Fatalf("pick: %v, want a proxy", err)
	}
	none, ok := errors.AsType[*rotation.NoProxyError](refusal(p, rotation.Need{RegionStrict: true}))
	if !ok || none.Reason != rotation.Unavailable {
		t.Errorf("pick while it is busy: %+v, want resting", none)
	}
}

func refusal(p *rotation.Pool, need rotation.Need) error {
	_, _, err := p.Pick(need)
	return err
}

// Of every need that is another's no longer, a place in its set would stay with each proxy.
func TestMemoryDoesNotGrowWithTheFilters(t *testing.T) {
	tags := few(40, 20)
	all := make([]string, tags)
	for i := range all {
		all[i] = fmt.Sprint("t", i)
	}
	p := pool(t, rotation.RoundRobin, 300, func(int) string { return "tags=" + strings.Join(all, ",") })
	ask := func(from, to int) {
		for i := range all[from:to] {
			for j := range all {
				take(t, p, rotation.Need{Tags: []string{all[from+i], all[j]}}).Release()
			}
		}
	}
	ask(0, 10) // more than there are sets for
	before := heap()
	ask(10, tags)
	if more := heap() - before; more > 4<<20 {
		t.Errorf("%d needs took %d KiB of memory, want what %d took", tags*tags, more>>10, 10*tags)
	}
	runtime.KeepAlive(p)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMoreFiltersThanAreKeptStillFindTheRightProxies(t *testing.T) {
	const n = 400
	p := pool(t, rotation.RoundRobin, 2*n, func(i int) string { return fmt.Sprint("tags=t", i/2) })
	for round := range 4 {
		for i := range n {
			p.Reset(fmt.Sprint("p", 2*i+round%2))
			spoil(p, fmt.Sprint("p", 2*i+1-round%2))
		}
		for i := range n {
			need := rotation.Need{Tags: []string{fmt.Sprint("t", i)}}
			if got, want := take(t, p, need).ID(), fmt.Sprint("p", 2*i+round%2); got != want {
				t.Fatalf("round %d, tag t%d: got %s, want %s, the one that is closed", round, i, got, want)
			}
		}
	}
}

// A pool at its limits works, and a worker with such a pool is ready.
func TestAPoolWhoseProxiesAreAllFullOrAheadOfTheirRateIsUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []string{"max_inflight=1", "rate=0.1"} {
			p := pool(t, rotation.RoundRobin, 2, func(int) string { return limit })
			for range 2 {
				lease, _, err := p.Pick(rotation.Need{})
				if err != nil {
					t.Fatal(err)
				}
				defer lease.Release()
			}
			if refusal(p, rotation.Need{}) == nil {
				t.Fatalf("%s: a third pick found a proxy", limit)
			}
			if !p.Usable() {
				t.Errorf("%s: a pool whose proxies all work is called unusable", limit)
			}
		}
	})
}
