package rotation_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// attempt is a pick, a hundredth of a second, and its end.
func attempt(p *rotation.Pool, host string, kind func(id string) rotation.Kind) ([]rotation.Event, error) {
	l, events, err := p.Pick(rotation.Need{Host: host})
	if err != nil {
		return events, err
	}
	time.Sleep(10 * time.Millisecond)
	return append(events, l.Report(rotation.Verdict{Kind: kind(l.ID()), Reason: "connect"})...), nil
}

func always(k rotation.Kind) func(string) rotation.Kind {
	return func(string) rotation.Kind { return k }
}

func states(p *rotation.Pool) map[breaker.State]int {
	got := map[breaker.State]int{}
	for _, s := range p.Status() {
		got[s.State]++
	}
	return got
}

func TestPoolIsDeliveringForTenMinutesAfterADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 2, nil)
		end := func(k rotation.Kind) {
			t.Helper()
			if _, err := attempt(p, "a.test:80", always(k)); err != nil {
				t.Fatal(err)
			}
		}
		end(rotation.ProxyFault)
		if p.AnyHealthy() {
			t.Error("delivering before anything was delivered")
		}
		end(rotation.Relayed)
		time.Sleep(10 * time.Minute)
		if !p.AnyHealthy() {
			t.Error("not delivering ten minutes after a delivery")
		}
		time.Sleep(time.Nanosecond)
		end(rotation.ProxyFault)
		if p.AnyHealthy() {
			t.Error("delivering more than ten minutes after the last delivery")
		}
	})
}

func TestWhenTheWholePoolFailsNoProxyIsBlamedAndPicksPause(t *testing.T) {
	for _, n := range []int{5, 50, 500} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, rotation.RoundRobin, n, nil)
			for range 2 * n {
				if _, err := attempt(p, "a.test:80", always(rotation.Relayed)); err != nil {
					t.Fatal(err)
				}
			}
			var events []rotation.Event
			attempts := 0
			for begin := time.Now(); time.Since(begin) < time.Minute; {
				changed, err := attempt(p, fmt.Sprintf("%d.test:80", attempts), always(rotation.ProxyFault))
				events = append(events, changed...)
				if none, ok := errors.AsType[*rotation.NoProxyError](err); ok {
					if none.Reason != rotation.Outage || time.Until(none.RetryAt) > time.Second {
						t.Fatalf("pick while the pool fails: %+v, want the reason failing and a time within a second", none)
					}
					time.Sleep(100 * time.Millisecond)
					continue
				}
				attempts++
			}
			if got := states(p); got[breaker.Closed] != n {
				t.Errorf("%d proxies: states after a minute without a network: %v, want all closed", n, got)
			}
			if attempts > 60+20 {
				t.Errorf("%d proxies: %d attempts in a minute without a network, want about one a second", n, attempts)
			}
			if since, failing := p.Outage(); !failing || time.Since(since) < 50*time.Second || !p.MayBeOutage() {
				t.Errorf("%d proxies: failing since %v: %v", n, since, failing)
			}
			if len(events) != 1 || events[0].ProxyID != "" || events[0].To != breaker.Open {
				t.Fatalf("%d proxies: events %+v, want one of the pool as a whole", n, events)
			}
			time.Sleep(2 * time.Minute)
			if since, failing := p.Outage(); failing {
				t.Errorf("%d proxies: failing since %v is still said when nothing was tried for two minutes", n, since)
			}
			events, err := attempt(p, "a.test:80", always(rotation.Relayed))
			if err != nil || len(events) != 1 || events[0].ProxyID != "" || events[0].To != breaker.Closed {
				t.Errorf("%d proxies: the first delivery: %+v, %v; want the end of it", n, events, err)
			}
			if _, failing := p.Outage(); failing || p.MayBeOutage() {
				t.Errorf("%d proxies: still failing after a delivery", n)
			}
		})
	}
}

func TestProxiesThatNeverWorkedAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 20, nil)
		for range 100 {
			if _, err := attempt(p, "a.test:80", always(rotation.ProxyFault)); err != nil {
				t.Fatal(err)
			}
		}
		if _, failing := p.Outage(); failing || p.MayBeOutage() {
			t.Error("a list of dead proxies counts as an outage")
		}
		if got := states(p); got[breaker.Open] != 20 {
			t.Errorf("states: %v, want all open", got)
		}
	})
}

func TestAPoolThatWasAlwaysBadIsNotInOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Every fourth attempt delivers, whoever makes it: ten faults in a row are nothing new here.
		p := rotation.New(rotation.Config{Breaker: breaker.Config{FailureThreshold: 1000}})
		p.Replace(proxies(t, 40, nil))
		for i := range 4000 {
			kind := rotation.ProxyFault
			if i%40 < 10 {
				kind = rotation.Relayed
			}
			events, err := attempt(p, "a.test:80", always(kind))
			if err != nil || len(events) > 0 {
				t.Fatalf("attempt %d: %v %v", i, events, err)
			}
		}
	})
}

func TestAFewProxiesThatDieAreTheirOwnFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 20, nil)
		for range 100 {
			if _, err := attempt(p, "a.test:80", always(rotation.Relayed)); err != nil {
				t.Fatal(err)
			}
		}
		dead := map[string]bool{"p3": true, "p4": true, "p5": true, "p6": true}
		for range 400 {
			_, err := attempt(p, "a.test:80", func(id string) rotation.Kind {
				if dead[id] {
					return rotation.ProxyFault
				}
				return rotation.Relayed
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := states(p); got[breaker.Open] != 4 || got[breaker.Closed] != 16 {
			t.Errorf("states: %v, want the four dead ones open", got)
		}
	})
}

func TestAPoolThatOftenFailsIsNotInOutageAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10
		p := pool(t, rotation.RoundRobin, n, nil)
		for round := range 20 {
			// All of them fail, then all of them deliver: as often as not, so ten failures in a row are no wonder.
			for i := range n {
				kind := []rotation.Kind{rotation.ProxyFault, rotation.Relayed}[round%2]
				take(t, p, rotation.Need{ID: fmt.Sprint("p", i)}).Report(rotation.Verdict{Kind: kind, Reason: "connect"})
			}
			if _, failing := p.Outage(); failing {
				t.Fatalf("round %d: bad luck is taken for a failure of the pool", round)
			}
			time.Sleep(15 * time.Second)
		}
	})
}

func TestManyFailuresOfOneProxyAreItsOwnFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 20, nil)
		for range 200 {
			if _, err := attempt(p, "a.test:80", always(rotation.Relayed)); err != nil {
				t.Fatal(err)
			}
		}
		var leases []*rotation.Lease
		for range 50 {
			leases = append(leases, take(t, p, rotation.Need{ID: "p0"}))
		}
		for _, l := range leases {
			l.Report(rotation.Verdict{Kind: rotation.ProxyFault, Reason: "connect"})
		}
		if _, failing := p.Outage(); failing {
			t.Error("50 failures of one proxy are taken for a failure of the pool")
		}
		if got := states(p); got[breaker.Open] != 1 || got[breaker.Closed] != 19 {
			t.Errorf("states: %v, want one open", got)
		}
	})
}

// failing brings a pool that works into an outage.
func failing(t *testing.T, n int) *rotation.Pool {
	t.Helper()
	p := pool(t, rotation.RoundRobin, n, nil)
	for _, kind := range []rotation.Kind{rotation.Relayed, rotation.ProxyFault} {
		for range 2 * n {
			if _, failing := p.Outage(); failing {
				return p
			}
			if _, err := attempt(p, "a.test:80", always(kind)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatal("no outage")
	return nil
}

func TestJobsThatFindNoProxyDoNotTakeTheTestOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := failing(t, 20)
		p.ForceOpen("p3", time.Hour, "test")
		time.Sleep(time.Second)
		for range 10 {
			_, _, err := p.Pick(rotation.Need{Host: "a.test:80", ID: "p3"})
			if _, ok := errors.AsType[*rotation.NoProxyError](err); !ok {
				t.Fatalf("pick of a proxy that rests: %v", err)
			}
			l, _, err := p.Pick(rotation.Need{Host: "a.test:80"})
			if err != nil {
				t.Fatalf("the test of this second: %v", err)
			}
			l.Report(rotation.Verdict{Kind: rotation.ProxyFault})
			time.Sleep(time.Second)
		}
	})
}

func TestANeedThatNoProxyCanMeetIsToldSoDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := failing(t, 20)
		for range 3 {
			_, _, err := p.Pick(rotation.Need{Host: "a.test:80", Tags: []string{"nobody"}})
			none, ok := errors.AsType[*rotation.NoProxyError](err)
			if !ok || none.Reason != rotation.Unmatched {
				t.Errorf("pick of a tag that no proxy has: %+v, want unmatched", err)
			}
		}
	})
}

func TestHalfOfThePoolThatFailsFastIsNotAllOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 10, nil)
		for range 50 {
			if _, err := attempt(p, "a.test:80", always(rotation.Relayed)); err != nil {
				t.Fatal(err)
			}
		}
		var slow []rotation.Lease
		for range 10 {
			l, _, err := p.Pick(rotation.Need{Host: "a.test:80"})
			if err != nil {
				t.Fatal(err)
			}
			if len(l.ID()) == 2 && l.ID() < "p5" {
				l.Report(rotation.Verdict{Kind: rotation.ProxyFault, Reason: "connect"})
			} else {
				slow = append(slow, l)
			}
		}
		if _, failing := p.Outage(); failing {
			t.Error("the pool is said to fail while half of it has yet to answer")
		}
		for _, l := range slow {
			l.Report(rotation.Verdict{Kind: rotation.Relayed})
		}
	})
}

func TestLateResultsOfRemovedProxiesSayNothingOfThePool(t *testing.T) {
	const n = 20
	p := pool(t, rotation.RoundRobin, n, nil)
	for range 5 * n {
		take(t, p, rotation.Need{Host: "a.test:80"}).Report(rotation.Verdict{Kind: rotation.Relayed})
	}
	var leases []*rotation.Lease
	for range 2 * n {
		leases = append(leases, take(t, p, rotation.Need{Host: "a.test:80"}))
	}
	p.Replace(proxies(t, 2*n, nil)[n:]) // the provider died, here is another one
	for i, l := range leases {
		v := []rotation.Verdict{{Kind: rotation.ProxyFault}, {Kind: rotation.Unclear}, {Kind: rotation.ProxyFault, Trip: time.Hour}}[i%3]
		if events := l.Report(v); events != nil {
			t.Errorf("late result %d: got %+v, want nothing said of it", i, events)
		}
	}
	if _, failing := p.Outage(); failing || p.MayBeOutage() {
		t.Error("a pool of which nothing was asked yet is said to fail")
	}
}

func TestAProxyWorksForTenMinutesAfterADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 1, nil)
		works := func() bool {
			l := take(t, p, rotation.Need{})
			defer l.Release()
			return l.Healthy()
		}
		if works() {
			t.Error("it works before it delivered anything")
		}
		take(t, p, rotation.Need{}).Report(rotation.Verdict{Kind: rotation.Relayed})
		for _, c := range []struct {
			later time.Duration
			want  bool
		}{{0, true}, {9*time.Minute + 59*time.Second, true}, {3 * time.Second, false}} {
			time.Sleep(c.later)
			if got := works(); got != c.want {
				t.Errorf("%v later it works: %v", c.later, got)
			}
		}
	})
}

// TestTwoSitesThatFallSilentAreNoOutage: what all proxies meet at two sites may be the fault of these sites. At three it is not.
func TestTwoSitesThatFallSilentAreNoOutage(t *testing.T) {
	for sites, want := range map[int]bool{2: false, 3: true} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, rotation.RoundRobin, 20, nil)
			for i := range 200 {
				if _, err := attempt(p, fmt.Sprintf("%d.test:80", i%10), always(rotation.Relayed)); err != nil {
					t.Fatal(err)
				}
			}
			failing := false
			for i := 0; i < 60 && !failing; i++ {
				if _, err := attempt(p, fmt.Sprintf("%d.test:80", i%sites), always(rotation.Unclear)); err != nil {
					t.Fatal(err)
				}
				_, failing = p.Outage()
			}
			if failing != want {
				t.Errorf("%d of ten sites are silent through 20 proxies: an outage is %v, want %v", sites, failing, want)
			}
		})
	}
}
