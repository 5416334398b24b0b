package rotation_test

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// drawPool is a pool of so many proxies of a strategy.
func drawPool(s rotation.Strategy, n int, change func(i int, p *proxylist.Proxy)) *rotation.Pool {
	p := rotation.New(rotation.Config{Strategy: s, Breaker: judge(), SessionTTL: sessionTTL})
	p.Replace(drawList(n, change))
	return p
}

func drawList(n int, change func(i int, p *proxylist.Proxy)) []proxylist.Proxy {
	list := make([]proxylist.Proxy, n)
	for i := range list {
		list[i] = proxylist.Proxy{ID: fmt.Sprint("p", i), URL: address(i)}
		if change != nil {
			change(i, &list[i])
		}
	}
	return list
}

func address(i int) *url.URL { return &url.URL{Scheme: "http", Host: fmt.Sprintf("192.0.2.%d:80", i)} }

// number is the i that the proxy of a lease was made with.
func number(t rapid.TB, l *rotation.Lease) int {
	i, err := strconv.Atoi(l.ID()[1:])
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// take picks one that there has to be.
func take(t rapid.TB, p *rotation.Pool, need rotation.Need) *rotation.Lease {
	t.Helper()
	l, _, err := p.Pick(need)
	if err != nil {
		t.Fatalf("pick: %v, want a proxy", err)
	}
	return &l
}

// TestWeightsAreExactOverACycle holds the weighted strategy to its word: in as many picks as the weights are together, each
// proxy is picked as often as it weighs.
func TestWeightsAreExactOverACycle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.SampledFrom([]int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 100, 1000}), 1, 30).Draw(t, "weights")
		cycle := 0
		p := drawPool(rotation.Weighted, len(weights), func(i int, p *proxylist.Proxy) {
			p.Weight = weights[i]
			cycle += weights[i]
		})
		for turn := range 2 {
			got := make([]int, len(weights))
			for range cycle {
				l := take(t, p, rotation.Need{})
				got[number(t, l)]++
				l.Release()
			}
			if !slices.Equal(got, weights) {
				t.Fatalf("cycle %d: got %v picks, want as the weights %v", turn, got, weights)
			}
		}
	})
}

// TestWeightsStayWhereTheyBelong takes proxies out and puts them back, so that others take their places.
func TestWeightsStayWhereTheyBelong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(4, 7), 3, 12).Draw(t, "weights")
		p := drawPool(rotation.Weighted, len(weights), func(i int, p *proxylist.Proxy) { p.Weight = weights[i] })
		cycle := 0
		for i, weight := range weights {
			if rapid.Bool().Draw(t, "goes for a while") {
				spoil(p, fmt.Sprint("p", i))
				p.Reset(fmt.Sprint("p", i))
			}
			cycle += weight
		}
		// Each comes back with nothing to its credit, so a cycle may be off by one.
		got := make([]int, len(weights))
		for range 10 * cycle {
			l := take(t, p, rotation.Need{})
			got[number(t, l)]++
			l.Release()
		}
		for i, weight := range weights {
			if off := got[i] - 10*weight; off < -1 || off > 1 {
				t.Fatalf("got %v picks in ten cycles, want ten times the weights %v", got, weights)
			}
		}
	})
}

// TestTurnsGoRoundAndLoadsStayLevel: one after the other never meets a proxy again before it has met all others, and the
// least used never differ by more than one attempt under way.
func TestTurnsGoRoundAndLoadsStayLevel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "proxies")
		s := rapid.SampledFrom([]rotation.Strategy{rotation.RoundRobin, rotation.LeastUsed}).Draw(t, "strategy")
		p := drawPool(s, n, nil)
		for range 3 {
			met := map[string]bool{}
			for range n {
				met[take(t, p, rotation.Need{}).ID()] = true
			}
			if len(met) != n {
				t.Fatalf("%s: %d picks met %d proxies, want each", s, n, len(met))
			}
		}
	})
}

// TestRatesHold lets a crowd ask for one proxy again and again. Between any two attempts there is at least the time that the
// rate asks for all between them, less a tenth of a second if that is more than one; and whoever asks when it was told to gets
// the whole rate.
func TestRatesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, ratesHold) })
}

func ratesHold(t *rapid.T) {
	rate := rapid.SampledFrom([]float64{0.5, 2, 9.9, 10, 10.1, 20, 64, 300}).Draw(t, "rate")
	interval := time.Duration(float64(time.Second) / rate)
	ahead := 100 * time.Millisecond
	if interval >= ahead {
		ahead = 0
	}
	p := drawPool(rotation.RoundRobin, 1, func(_ int, p *proxylist.Proxy) { p.Rate = rate })
	began := time.Now()
	var starts []time.Duration
	pauses := rapid.SampledFrom([]time.Duration{0, 0, 1, time.Millisecond, ahead, interval - 1, interval, interval + 1, 3 * interval})
	ask := func() (soonest time.Time) {
		l, _, err := p.Pick(rotation.Need{})
		if none, refused := errors.AsType[*rotation.NoProxyError](err); refused {
			return none.RetryAt
		}
		starts = append(starts, time.Since(began))
		l.Release()
		return time.Now()
	}
	for range rapid.IntRange(0, 60).Draw(t, "asks") {
		ask()
		time.Sleep(pauses.Draw(t, "pause"))
	}
	for i, from := range starts {
		for j, to := range starts[i:] {
			if least := time.Duration(j)*interval - ahead; to-from < least {
				t.Fatalf("rate %v: %d attempts within %v, want %v at least", rate, j+1, to-from, least)
			}
		}
	}
	until, before := time.Now().Add(10*time.Second), len(starts)
	for time.Now().Before(until) {
		time.Sleep(time.Until(ask()))
	}
	if got, want := len(starts)-before, int(10*time.Second/interval)-1; got < want {
		t.Fatalf("rate %v: %d attempts in ten seconds, want %d at least", rate, got, want)
	}
}

// TestThoseThatMayHaveRecoveredAreTestedSoonAndSeldom: of the picks a tenth to a quarter are tests, as many as those due are of
// all, each of them has its turn, and none is given to a job that has failed before. Without others they are used as they come.
func TestThoseThatMayHaveRecoveredAreTestedSoonAndSeldom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, testedSoonAndSeldom) })
}

func testedSoonAndSeldom(t *rapid.T) {
	due, ready := rapid.IntRange(1, 20).Draw(t, "due"), rapid.IntRange(0, 60).Draw(t, "ready")
	p := drawPool(rapid.SampledFrom(strategies()).Draw(t, "strategy"), due+ready, nil)
	for i := range due {
		p.ForceOpen(fmt.Sprint("p", i), time.Minute, "test")
	}
	time.Sleep(time.Minute)
	every := 1 // how many picks there are to a test
	if ready > 0 {
		every = int(math.Ceil(min(max(4, float64(due+ready)/float64(due)), 10)))
		for range 100 {
			l := take(t, p, rotation.Need{Exclude: []string{"other"}})
			if l.IsProbe() {
				t.Fatalf("a job that has failed before got %s for a test", l.ID())
			}
			l.Release()
		}
	}
	rounds := 2 * due // tests that say nothing mix the turns, but only for a round
	tested, tests := map[string]bool{}, 0
	for range rounds * (every + 1) {
		l := take(t, p, rotation.Need{})
		if l.IsProbe() {
			tested[l.ID()] = true
			tests++
		}
		l.Release()
	}
	if most := rounds*(every+1)/every + 1; len(tested) != due || tests < rounds || tests > most {
		t.Fatalf("%d tests of %d proxies, want %d to %d of each of the %d", tests, len(tested), rounds, most, due)
	}
}

// TestTargetToBlameOpensNoBreaker: however often a target fails, and through however many proxies, while nothing else does.
func TestTargetToBlameOpensNoBreaker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, targetToBlame) })
}

func targetToBlame(t *rapid.T) {
	n := rapid.IntRange(1, 8).Draw(t, "proxies")
	p := drawPool(rapid.SampledFrom(strategies()).Draw(t, "strategy"), n, nil)
	pauses := rapid.SampledFrom([]time.Duration{0, time.Second, 20*time.Second - 1, time.Minute})
	for range rapid.IntRange(1, 100).Draw(t, "attempts") {
		dead := rapid.Bool().Draw(t, "dead")
		need, v := rotation.Need{Host: "good.test:443"}, rotation.Verdict{Kind: rotation.Relayed}
		if dead {
			need.Host, v.Kind, v.Answered = "dead.test:443", rotation.Unclear, rapid.Bool().Draw(t, "answered")
		}
		if events := take(t, p, need).Report(v); len(events) > 0 {
			t.Fatalf("a dead target changed breakers: %+v", events)
		}
		time.Sleep(pauses.Draw(t, "pause"))
	}
	for _, s := range p.Status() {
		if s.State != breaker.Closed {
			t.Fatalf("%s is %s, want closed", s.ID, s.State)
		}
	}
}

// TestAJobThatFailedIsGivenAProxyThatWorks has strangers, proxies that just failed and, one in five, those that just delivered. A
// first attempt goes to any of them, the one after it rather to those that delivered.
func TestAJobThatFailedIsGivenAProxyThatWorks(t *testing.T) {
	const n, picks = 50, 300
	for _, s := range strategies() {
		t.Run(string(s), func(t *testing.T) {
			p := drawPool(s, n, nil)
			works := func(i int) bool { return i%5 == 0 }
			for i := range n {
				if i%5 == 3 {
					continue // a stranger
				}
				l := take(t, p, rotation.Need{ID: fmt.Sprint("p", i)})
				l.Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Second})
				if !works(i) {
					l = take(t, p, rotation.Need{ID: fmt.Sprint("p", i)})
					l.Report(rotation.Verdict{Kind: rotation.ProxyFault})
				}
			}
			share := func(need rotation.Need) (good int) {
				for range picks {
					l := take(t, p, need)
					if works(number(t, l)) {
						good++
					}
					l.Release()
				}
				return good
			}
			if got := share(rotation.Need{Host: "a.test:80"}); got > picks/2 {
				t.Errorf("%d of %d first attempts go to the fifth that delivered, want the others to get their part", got, picks)
			}
			if got := share(rotation.Need{Host: "a.test:80", Exclude: []string{"p0"}}); got < picks*85/100 {
				t.Errorf("%d of %d retries go to the proxies that delivered, want nearly all", got, picks)
			}
		})
	}
}
