package fetch_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// hedged is a job for slow.test with more members.
func hedged(hedge string, more string) string {
	return fmt.Sprintf(`{"url":"http://slow.test/","retry":{"hedge":%s}%s}`, hedge, more)
}

// takes are the times to the first byte of p0, p1, … at slow.test; everything else takes 100 ms.
func takes(t *testing.T, times ...time.Duration) *bay {
	t.Helper()
	return &bay{T: t, first: func(proxy, host string) time.Duration {
		for i, d := range times {
			if host == "slow.test" && proxy == fmt.Sprint("p", i) {
				return d
			}
		}
		return 100 * time.Millisecond
	}}
}

func TestAHedgeBringsTheResultOfASlowAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever)
		b.open(2, nil)
		defer b.close()
		result, took := b.do(hedged("0.5", ""))
		if result.Outcome != jobs.Succeeded || took != 600*time.Millisecond || result.AttemptCount != 2 || result.Proxy != "p1" {
			t.Errorf("%s in %s after %d attempts, the last one through %s; want a success in 600 ms at the second one, through p1", result.Outcome, took, result.AttemptCount, result.Proxy)
		}
		if a := result.Attempts[0]; a.Attempt != 1 || !a.Hedge || a.Fault != jobs.FaultNone || a.Proxy != "p0" {
			t.Errorf("the attempt that lost: %+v, want the first one, nobody's fault", a)
		}
		if a := result.Attempts[1]; a.Attempt != 2 || a.Hedge || a.Status != 200 {
			t.Errorf("the attempt that won: %+v", a)
		}
		if won, lost, failed := b.f.Hedges(); won != 1 || lost != 0 || failed != 0 {
			t.Errorf("%d hedges won, %d lost, %d failed, want one that won", won, lost, failed)
		}
	})
}

func TestAnInformationalAnswerKeepsNoHedgeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever)
		b.hints = func(string) time.Duration { return 10 * time.Millisecond }
		b.open(2, nil)
		defer b.close()
		result, took := b.do(hedged("0.5", ""))
		if result.Outcome != jobs.Succeeded || took > time.Second || result.AttemptCount != 2 || result.Proxy != "p1" {
			t.Errorf("%s in %s after %d attempts, the last one through %s; want a success within 1 s at the hedge, through p1", result.Outcome, took, result.AttemptCount, result.Proxy)
		}
	})
}

func TestAHedgeThatIsSlowerLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, time.Second, forever)
		b.open(2, nil)
		defer b.close()
		result, took := b.do(hedged("0.5", ""))
		if result.Outcome != jobs.Succeeded || took != time.Second || result.AttemptCount != 2 || result.Proxy != "p0" {
			t.Errorf("%s in %s after %d attempts, through %s; want a success in 1 s through p0", result.Outcome, took, result.AttemptCount, result.Proxy)
		}
		if a := result.Attempts; a[0].Hedge || !a[1].Hedge || a[1].Proxy != "p1" || a[1].Attempt != 2 {
			t.Errorf("attempts %+v, want that the second one lost", a)
		}
	})
}

func TestAHedgeHasExceptions(t *testing.T) {
	for name, c := range map[string]struct {
		job     string
		proxies int
		change  func(*fetch.Config, *jobs.Policy)
		hedges  int
	}{
		"none":               {job: hedged("0.5", ""), hedges: 1},
		"HEAD":               {job: hedged("0.5", `,"method":"HEAD"`), hedges: 1},
		"the fleet's policy": {job: "http://slow.test/", change: func(_ *fetch.Config, p *jobs.Policy) { p.Hedge = jobs.AutoDuration(500 * time.Millisecond) }, hedges: 1},
		"off":                {job: hedged(`"off"`, "")},
		"no policy":          {job: "http://slow.test/"},
		"another method":     {job: hedged("0.5", `,"method":"PUT"`)},
		"a session":          {job: hedged("0.5", `,"proxy":{"session":"s"}`)},
		"a named proxy":      {job: hedged("0.5", `,"proxy":{"id":"p0"}`)},
		"one attempt":        {job: `{"url":"http://slow.test/","retry":{"hedge":0.5,"max_attempts":1}}`},
		"one proxy":          {job: hedged("0.5", ""), proxies: 1},
		"an answer in time":  {job: hedged("2", "")},
		"no retry budget":    {job: hedged("0.5", ""), change: func(c *fetch.Config, _ *jobs.Policy) { c.RetryBudget, c.RetryFloor = 0.5, 0.01 }},
		"a busy domain":      {job: hedged("0.5", ""), change: func(c *fetch.Config, _ *jobs.Policy) { c.HostConcurrency = 1 }},
		"a slow domain":      {job: hedged("0.5", ""), change: func(c *fetch.Config, _ *jobs.Policy) { c.HostRate = 0.1 }},
		"no known times":     {job: hedged(`"auto"`, "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := takes(t, 1500*time.Millisecond, 1500*time.Millisecond)
				b.open(2-b2i(c.proxies == 1), c.change)
				defer b.close()
				result, _ := b.do(c.job)
				if result.Outcome != jobs.Succeeded || result.AttemptCount != 1+c.hedges {
					t.Errorf("%s after %d attempts, want a success after %d", result.Outcome, result.AttemptCount, 1+c.hedges)
				}
			})
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAnAnswerThatIsNoResultEndsNoOtherAttempt has two attempts that overlap; p0 answers after 1 s and p1 after 2 s.
func TestAnAnswerThatIsNoResultEndsNoOtherAttempt(t *testing.T) {
	const ok = "200 OK\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		p0, p1   string
		attempts int
		status   int
		failed   bool
	}{
		"503":                   {p0: "503 Busy\r\nContent-Length: 0\r\n\r\n", p1: ok, attempts: 2, status: 200},
		"403":                   {p0: "403 Forbidden\r\nContent-Length: 0\r\n\r\n", p1: ok, attempts: 2, status: 200},
		"403, then 503":         {p0: "403 Forbidden\r\nContent-Length: 0\r\n\r\n", p1: "503 Busy\r\nContent-Length: 0\r\n\r\n", attempts: 2, status: 503, failed: true},
		"403, then none":        {p0: "403 Forbidden\r\nContent-Length: 0\r\n\r\n", p1: "200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut", attempts: 2, status: 403},
		"an answer that is cut": {p0: "200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut", p1: ok, attempts: 2, status: 200},
		"503 twice":             {p0: "503 Busy\r\nContent-Length: 0\r\n\r\n", p1: "503 Busy\r\nContent-Length: 0\r\n\r\n", attempts: 2, status: 503, failed: true},
		"404":                   {p0: "404 Not Found\r\nContent-Length: 0\r\n\r\n", p1: ok, attempts: 2, status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := takes(t, time.Second, 1500*time.Millisecond)
				b.answer = func(proxy, _ string) string {
					if proxy == "p0" {
						return c.p0
					}
					return c.p1
				}
				b.open(2, nil)
				defer b.close()
				result, took := b.do(`{"url":"http://slow.test/","retry":{"hedge":0.5,"max_attempts":2}}`)
				want := 2 * time.Second
				if c.status == 404 {
					want = time.Second
				}
				if (result.Outcome == jobs.Failed) != c.failed || result.Status != c.status || result.AttemptCount != c.attempts || took != want {
					t.Errorf("%s with %d in %s after %d attempts, want %d in %s after %d", result.Outcome, result.Status, took, result.AttemptCount, c.status, want, c.attempts)
				}
			})
		})
	}
}

// TestALoserIsCancelledBeforeItsBody has a page of 1 MiB. Both attempts get its head at the same time.
func TestALoserIsCancelledBeforeItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, 1001*time.Millisecond, 500*time.Millisecond)
		page := "200 OK\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20)
		b.answer = func(proxy, _ string) string {
			if proxy == "p0" { // the rest never comes
				return strings.Replace(page, "1048576", "2097152", 1)
			}
			return page
		}
		b.pause = map[string]time.Duration{"p1": 100 * time.Millisecond} // the winner's
		b.open(2, nil)
		result, _ := b.do(hedged("0.5", ""))
		b.close()
		if result.Outcome != jobs.Succeeded || len(result.Body) != 1<<20 || result.AttemptCount != 2 {
			t.Errorf("%s with %d bytes after %d attempts", result.Outcome, len(result.Body), result.AttemptCount)
		}
		if most := int64(1<<20 + 16<<10); result.Bytes > most {
			t.Errorf("%d bytes were received, want at most %d: the loser's body is not read", result.Bytes, most)
		}
	})
}

// TestHedgesOfThemselvesAreFourInAHundredAtMost has a site that becomes slower from job to job, so that most jobs take longer
// than 98 of 100 before.
func TestHedgesOfThemselvesAreFourInAHundredAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t)
		var took atomic.Int64
		took.Store(int64(100 * time.Millisecond))
		b.first = func(string, string) time.Duration { return time.Duration(took.Load()) }
		b.open(10, func(_ *fetch.Config, p *jobs.Policy) { p.Hedge = jobs.Auto })
		defer b.close()
		b.acquaint(50)
		hedges := 0
		const n = 250
		for range n {
			took.Store(took.Load() * 102 / 100)
			result, _ := b.do("http://slow.test/")
			hedges += result.AttemptCount - 1
		}
		if most := (n + 50) * 4 / 100; hedges > most || hedges < most/2 {
			t.Errorf("%d hedges of %d jobs, want some, and at most %d", hedges, n+50, most)
		}
	})
}

// TestAProxyThatOnlyLosesIsFound has hedges that save every job from the silent proxy p3.
func TestAProxyThatOnlyLosesIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			switch proxy {
			case "p3":
				return forever
			case "p4":
				return time.Second // it loses always, too, and works
			}
			return 100 * time.Millisecond
		}}
		b.open(10, func(_ *fetch.Config, p *jobs.Policy) { p.Hedge = jobs.AutoDuration(200 * time.Millisecond) })
		defer b.close()
		longest := time.Duration(0)
		for i := range 600 {
			result, took := b.do(fmt.Sprintf("http://site%d.test/", i%19))
			if longest = max(longest, took); result.Outcome != jobs.Succeeded {
				t.Errorf("job %d: %s", i, result.Error)
			}
		}
		if len(b.opened) == 0 || slices.ContainsFunc(b.opened, func(id string) bool { return id != "p3" }) {
			t.Errorf("breakers opened: %q, want that of the silent proxy alone", b.opened)
		}
		if longest > 5*time.Second {
			t.Errorf("a job took %s, want at most the four times of the slowest proxy's 1 s, after which a silent attempt counts", longest)
		}
	})
}

// TestAProxyThatOnlyLosesDoesNotRaiseTheBoundOfItsSites: the hedge has shown that the site is as fast as ever.
func TestAProxyThatOnlyLosesDoesNotRaiseTheBoundOfItsSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			if proxy == "p3" {
				return forever
			}
			return 100 * time.Millisecond
		}}
		b.open(10, func(_ *fetch.Config, p *jobs.Policy) { p.Hedge = jobs.AutoDuration(200 * time.Millisecond) })
		defer b.close()
		b.acquaint(60)
		waited := 0
		for i := range 600 {
			_, took := b.do(fmt.Sprintf("http://site%d.test/", i%4))
			if took > 2500*time.Millisecond {
				t.Errorf("job %d took %s, want at most the learnt bound of 2 s", i, took)
			}
			if took > time.Second {
				waited++
			}
		}
		if waited < 2 {
			t.Errorf("%d jobs waited for the silent proxy, want at least 2", waited)
		}
	})
}

func TestAJobThatStopsStopsBothItsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever, forever)
		b.open(2, nil)
		defer b.close()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(jobs.ErrStopping) })
		job, err := jobs.Decode("default", "j", []byte(hedged("0.5", "")))
		if err != nil {
			t.Fatal(err)
		}
		if o := b.f.Do(ctx, &job, &jobs.Progress{}); o.Kind != jobs.RunStopped || len(o.Progress.Attempts) != 0 {
			t.Errorf("kind %s with %d attempts, want it stopped without one", o.Kind, len(o.Progress.Attempts))
		}
		for _, s := range b.pool.Status() {
			if s.Inflight != 0 {
				t.Errorf("%s: %d in flight", s.ID, s.Inflight)
			}
		}
	})
}

func TestAPanicInAHedgedAttemptEndsItsJobOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, time.Second, forever)
		b.answer = func(string, string) string {
			return "302 Found\r\nLocation: http://boom.test/\r\nContent-Length: 0\r\n\r\n"
		}
		b.open(2, func(c *fetch.Config, _ *jobs.Policy) {
			c.Denied = func(host string) bool {
				if host == "boom.test" {
					panic("in the middle of an exchange")
				}
				return false
			}
		})
		defer b.close()
		if result, _ := b.do(hedged("0.5", "")); result.Error != jobs.ErrPermanent {
			t.Errorf("%s %s, want a failed job", result.Outcome, result.Error)
		}
		for _, s := range b.pool.Status() {
			if s.Inflight != 0 {
				t.Errorf("%s: %d in flight", s.ID, s.Inflight)
			}
		}
	})
}

// TestNoJobMakesMoreAttemptsThanAllowed has a network in which everything goes wrong in turn, and hedges everywhere.
func TestNoJobMakesMoreAttemptsThanAllowed(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			luck := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return luck.IntN(n) }
			b := &bay{T: t, first: func(string, string) time.Duration {
				if draw(5) == 0 {
					return forever
				}
				return time.Duration(draw(1000)) * time.Millisecond
			}}
			b.answer = func(string, string) string {
				return []string{"200 OK", "503 Busy", "403 Forbidden", "429 Slow Down", "502 Bad Gateway"}[draw(5)] + "\r\nContent-Length: 0\r\n\r\n"
			}
			b.dial = func(string) time.Duration { return time.Duration(draw(300)) * time.Millisecond }
			b.open(6, func(_ *fetch.Config, p *jobs.Policy) {
				p.Hedge, p.BaseDelay = jobs.AutoDuration(200*time.Millisecond), jobs.Duration(jobs.MinBaseDelay)
			})
			defer b.close()
			var all sync.WaitGroup
			for worker := range 8 {
				all.Go(func() {
					for i := range 20 {
						most := 1 + (worker+i)%4
						result, _ := b.do(fmt.Sprintf(`{"url":"http://site%d.test/","timeout":5,"when_no_proxy":"fail","retry":{"max_attempts":%d}}`, i%7, most))
						if result.AttemptCount > most || result.AttemptCount != len(result.Attempts) {
							t.Errorf("seed %d: %d attempts, want at most %d", seed, result.AttemptCount, most)
						}
						for k, a := range result.Attempts {
							if a.Attempt != k+1 {
								t.Errorf("seed %d: attempt %d stands at %d", seed, a.Attempt, k+1)
							}
						}
					}
				})
			}
			all.Wait()
			for _, s := range b.pool.Status() {
				if s.Inflight != 0 {
					t.Errorf("seed %d: %s has %d attempts in flight", seed, s.ID, s.Inflight)
				}
			}
		})
	}
}

// TestHedgesDoNotBecomeLater has a site that is silent to one proxy of thirty-one: more attempts are slow than the 98th
// percentile leaves room for, and each of them loses.
func TestHedgesDoNotBecomeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever)
		b.open(31, func(_ *fetch.Config, p *jobs.Policy) { p.Hedge = jobs.Auto })
		defer b.close()
		b.acquaint(100)
		longest, hedges := time.Duration(0), 0
		for i := range 1500 {
			result, took := b.do("http://slow.test/")
			b.do(fmt.Sprintf("http://known%d.test/", i%50))
			if i >= 1000 && result.AttemptCount > 1 {
				longest, hedges = max(longest, took), hedges+1
			}
		}
		if hedges == 0 || longest > 500*time.Millisecond {
			t.Errorf("%d hedges, the longest of their jobs took %s; want some, and all soon after the usual 100 ms", hedges, longest)
		}
	})
}

// TestTheWaitThatAnAnswerBesideAHedgeAsksForIsKept: the hedge fails in a way after which another proxy would be tried at once.
func TestTheWaitThatAnAnswerBesideAHedgeAsksForIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			switch {
			case proxy == "p0":
				return 800 * time.Millisecond
			case time.Since(began) < 30*time.Second:
				return forever
			}
			return 100 * time.Millisecond
		}}
		b.answer = func(proxy, _ string) string {
			if proxy == "p0" {
				return "429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
			}
			return "200 OK\r\nContent-Length: 0\r\n\r\n"
		}
		b.open(3, nil)
		defer b.close()
		result, took := b.do(hedged("0.5", `,"first_byte_timeout":"1s"`))
		if result.Outcome != jobs.Succeeded || result.AttemptCount != 3 || took < 60*time.Second {
			t.Errorf("%s in %s after %d attempts, want a success at the third one, a minute later", result.Outcome, took, result.AttemptCount)
		}
	})
}

// TestAnAttemptThatWaitsForTheAnswerOfAnotherBlamesNobody: p1 begins its answer first and never ends it, so that p0's is not
// read.
func TestAnAttemptThatWaitsForTheAnswerOfAnotherBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, time.Second, 100*time.Millisecond)
		b.answer = func(string, string) string { return "200 OK\r\nContent-Length: 2\r\n\r\nok" }
		b.pause = map[string]time.Duration{"p1": time.Minute}
		b.open(2, nil)
		defer b.close()
		result, _ := b.do(hedged("0.5", `,"timeout":"2s"`))
		if a := result.Attempts[0]; a.Proxy != "p0" || a.Fault != jobs.FaultNone || a.Error == "" {
			t.Errorf("the attempt that waited: %+v, want it nobody's fault", a)
		}
	})
}

// TestAResultWaitsSecondsAtMostForAProxyThatOnlyLoses: without a first-byte timeout nothing else ends the attempt before its own
// time.
func TestAResultWaitsSecondsAtMostForAProxyThatOnlyLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			if proxy == "p0" {
				return forever
			}
			return 100 * time.Millisecond
		}}
		b.open(3, nil)
		defer b.close()
		longest, waited := time.Duration(0), 0
		for i := range 60 {
			result, took := b.do(fmt.Sprintf(`{"url":"http://site%d.test/","timeout":"10m","first_byte_timeout":"off","retry":{"hedge":0.2}}`, i%19))
			if longest = max(longest, took); result.Outcome != jobs.Succeeded {
				t.Errorf("job %d: %s", i, result.Error)
			}
			if took > time.Second {
				waited++
			}
		}
		if waited == 0 || longest > 6*time.Second {
			t.Errorf("%d jobs waited for the silent proxy, the longest took %s; want some, and 6 s at most", waited, longest)
		}
	})
}

// TestNoResultWaitsForALearntBoundThatIsLong: the site's times were long once, so its learnt bound is 40 s and more.
func TestNoResultWaitsForALearntBoundThatIsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		usual := 10 * time.Second
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			if proxy == "p0" && usual < time.Second {
				return forever
			}
			return usual
		}}
		b.open(3, nil)
		defer b.close()
		for range 30 {
			b.do(`{"url":"http://slow.test/","retry":{"hedge":"off"}}`)
		}
		usual = 100 * time.Millisecond
		longest, waited := time.Duration(0), 0
		for i := range 30 {
			result, took := b.do(`{"url":"http://slow.test/","timeout":"10m","retry":{"hedge":0.2}}`)
			if longest = max(longest, took); result.Outcome != jobs.Succeeded {
				t.Errorf("job %d: %s", i, result.Error)
			}
			if took > time.Second {
				waited++
			}
		}
		if waited == 0 || longest > 5*time.Second {
			t.Errorf("%d jobs waited for the silent proxy, the longest took %s; want some, and 5 s at most", waited, longest)
		}
	})
}
