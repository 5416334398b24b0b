package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// A site of which a part is down answers 502 there, through every proxy, without a tunnel.
func TestAFailingPartOfASiteOpensNoGoodProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.Random, 20, nil)
		for i := range 10_000 {
			l, _, err := p.Pick(rotation.Need{Host: "shop.test:80"})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			v := rotation.Verdict{Kind: rotation.Relayed}
			if l.ID() == "p7" || i%5 == 0 {
				v = rotation.Verdict{Kind: rotation.Unclear, Answered: true, Reason: "status_5xx"}
			}
			l.Report(v)
		}
		for _, s := range p.Status() {
			if open := s.State != breaker.Closed; open != (s.ID == "p7") {
				t.Errorf("%s, which answers like the others but for p7: %s", s.ID, s.State)
			}
		}
	})
}

// A site of twenty hangs on some of its paths, through every proxy, and answers on the others.
func TestASiteWithAPathThatHangsOpensNoGoodProxy(t *testing.T) {
	for _, share := range sample(0.4, 0.02, 0.1, 0.2) { // of the jobs, of which half hang
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { aPathHangs(t, share) })
		})
	}
}

func aPathHangs(t *testing.T, share float64) {
	t.Helper()
	const n, jobs = 50, 20_000
	p := pool(t, rotation.RoundRobin, n, nil)
	luck := rand.New(rand.NewPCG(1, 2))
	lost, open := 0, 0
	for range jobs {
		time.Sleep(100 * time.Millisecond)
		host, hangs := fmt.Sprintf("site%d.test:443", luck.IntN(20)), false
		if luck.Float64() < share {
			host, hangs = "half.test:443", luck.IntN(2) == 0
		}
		if !fetched(p, host, hangs) && !hangs {
			lost++
		}
		open += n - states(p)[breaker.Closed]
	}
	if part := 100 * float64(open) / n / jobs; lost > 0 || part > 1 {
		t.Errorf("%d jobs for what answers found no proxy, and %.1f %% of the good proxies were not closed; want none, and 1 %% at most", lost, part)
	}
}

// fetched is a job of up to three attempts, which all get no answer if it hangs.
func fetched(p *rotation.Pool, host string, hangs bool) bool {
	var failed []string
	for range 3 {
		l, _, err := p.Pick(rotation.Need{Host: host, Exclude: failed})
		switch {
		case err != nil:
			return false
		case !hangs:
			l.Report(rotation.Verdict{Kind: rotation.Relayed})
			return true
		}
		l.Report(rotation.Verdict{Kind: rotation.Unclear, Reason: "timeout"})
		failed = append(failed, l.ID())
	}
	return false
}

func TestSilenceOfSitesThatAnsweredIsAnOutageAndTheirErrorsAreNot(t *testing.T) {
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const n = 20
			p := pool(t, rotation.RoundRobin, n, nil)
			time.Sleep(time.Second)
			for _, v := range []rotation.Verdict{{Kind: rotation.Relayed}, {Kind: rotation.Unclear, Answered: answered}} {
				for i := range 2 * n {
					if l, _, err := p.Pick(rotation.Need{Host: fmt.Sprintf("site%d.test:443", i)}); err == nil {
						l.Report(v)
					}
				}
			}
			if _, failing := p.Outage(); failing == answered {
				t.Errorf("every site fails, with an answer: %v; the pool is said to fail: %v", answered, failing)
			}
			if got := states(p); got[breaker.Closed] != n {
				t.Errorf("states: %v, want all closed", got)
			}
		})
	}
}

// A proxy that refuses every host it is asked for is found; one that refuses a few is not held to be broken.
func TestAProxyThatRefusesEveryHostIsFoundAndOneThatRefusesSomeIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 3, nil)
		for i := range 60 {
			l, _, err := p.Pick(rotation.Need{Host: fmt.Sprintf("site%d.test:443", i)})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			v := rotation.Verdict{Kind: rotation.Relayed}
			if l.ID() == "p0" || l.ID() == "p1" && i%4 == 0 {
				v = rotation.Verdict{Kind: rotation.Refused, Reason: "proxy_refused"}
			}
			l.Report(v)
		}
		for _, s := range p.Status() {
			if open := s.State != breaker.Closed; open != (s.ID == "p0") {
				t.Errorf("%s is %s, want p0 open and the others closed", s.ID, s.State)
			}
		}
	})
}

// A crawl meets each site once, and some are dead: nothing is known of a site beforehand, and the proxies that are dead, too,
// fail at ever new ones.
func TestACrawlOfManyDeadSitesOpensTheDeadProxiesOnly(t *testing.T) {
	for _, attempts := range sample(3, 1, 2, 5) {
		for _, share := range sample(0.3, 0.02, 0.1) { // of the sites
			t.Run(fmt.Sprintf("%d attempts, %.0f %% dead", attempts, 100*share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crawlsDeadSites(t, attempts, share) })
			})
		}
	}
}

func crawlsDeadSites(t *testing.T, attempts int, share float64) {
	t.Helper()
	const n, dead, jobs, looks = 40, 4, 40_000, 400
	p := pool(t, rotation.RoundRobin, n, nil)
	deadProxy := map[string]bool{"p0": true, "p1": true, "p2": true, "p3": true}
	luck := rand.New(rand.NewPCG(uint64(attempts), uint64(1000*share)))
	wrong, found := 0, 0
	for i := range jobs {
		time.Sleep(25 * time.Millisecond)
		host, answers := fmt.Sprintf("site%d.test:443", i), luck.Float64() >= share
		var failed []string
		for delivered := false; !delivered && len(failed) < attempts; {
			l := take(t, p, rotation.Need{Host: host, Exclude: failed})
			failed = append(failed, l.ID())
			delivered = answers && !deadProxy[l.ID()]
			end(l, delivered)
		}
		if i%(jobs/looks) > 0 {
			continue
		}
		for _, s := range p.Status() {
			switch open := s.State != breaker.Closed; {
			case open && deadProxy[s.ID]:
				found++
			case open:
				wrong++
			}
		}
	}
	if part := float64(wrong) / looks / (n - dead); part > 0.01 {
		t.Errorf("good proxies were not closed %.2f %% of the time, want 1 %% at most", 100*part)
	}
	if part := float64(found) / looks / dead; part < 0.95 {
		t.Errorf("dead proxies were closed %.1f %% of the time, want 5 %% at most", 100*(1-part))
	}
}

// end says whether an attempt got an answer.
func end(l *rotation.Lease, answer bool) []rotation.Event {
	if answer {
		return l.Report(rotation.Verdict{Kind: rotation.Relayed, Proven: true})
	}
	return l.Report(rotation.Verdict{Kind: rotation.Unclear, Reason: "timeout"})
}

// takeFrom picks until it is that proxy's turn. A job that names its proxy is no evidence.
func takeFrom(t *testing.T, p *rotation.Pool, id, host string) *rotation.Lease {
	t.Helper()
	for range 1000 {
		l := take(t, p, rotation.Need{Host: host})
		if l.ID() == id {
			return l
		}
		l.Release()
	}
	t.Fatalf("it is never the turn of %s", id)
	return nil
}

// twoInFive is a pool in which two in five attempts deliver.
func twoInFive(t *testing.T) (p *rotation.Pool, fail func(id string) breaker.State) {
	t.Helper()
	p = pool(t, rotation.RoundRobin, 10, nil)
	site := 0
	at := func(id string, answer bool) {
		site++
		end(takeFrom(t, p, id, fmt.Sprintf("site%d.test:443", site)), answer)
		time.Sleep(time.Second)
	}
	for i := range 100 {
		at("p1", i%5 == 1 || i%5 == 3)
	}
	return p, func(id string) breaker.State {
		at(id, false)
		s, _ := p.StatusOf(id)
		return s.State
	}
}

func TestAProxyThatWasResetIsJudgedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, fail := twoInFive(t)
		var took [2]int
		for round := range took {
			for state := breaker.Closed; state == breaker.Closed; took[round]++ {
				state = fail("p0")
			}
			p.Reset("p0")
		}
		// Of the first 16 in a row each may be bad luck where every second attempt fails.
		if took[0] < 16 || took[0] > 30 || took[1] != took[0] {
			t.Errorf("opened after %v failures at sites that nobody knows, want 16 to 30, and as many both times", took)
		}
	})
}

func TestTheThirdTestThatFailsOpensABreakerWhereMostSitesAreDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, fail := twoInFive(t)
		p.ForceOpen("p0", time.Second, "test")
		for round := range 3 {
			s, _ := p.StatusOf("p0")
			time.Sleep(time.Until(s.NextTest))
			for test := range 3 {
				want := breaker.HalfOpen
				if test == 2 {
					want = breaker.Open
				}
				if got := fail("p0"); got != want {
					t.Fatalf("round %d, after test %d: %s, want %s", round, test, got, want)
				}
			}
		}
	})
}
