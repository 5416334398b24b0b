package fetch_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// asked is a fetcher through a proxy in memory that answers after a while, and who asked when.
func asked(t *testing.T, takes time.Duration, change func(*fetch.Config)) (*watched, *fetch.Fetcher, func()) {
	t.Helper()
	w := &watched{takes: takes, starts: map[string][]time.Time{}, now: map[string]int{}, most: map[string]int{}}
	list, err := proxylist.ParseList(strings.NewReader("http://p1.test:80 id=p1"))
	if err != nil {
		t.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	cfg := fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: w.dial, AttemptTimeout: time.Minute}
	change(&cfg)
	f := fetch.New(cfg)
	return w, f, func() { f.Close(); w.serves.Wait() }
}

// The contract bounds attempts and waits together, and a job waits from the time when a worker takes it.
func TestRetryTimeoutBoundsTheWaitForTheFirstProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fetch.New(fetch.Config{Pool: rotation.New(rotation.Config{}), Policy: jobs.DefaultPolicy, AttemptTimeout: time.Minute})
		defer f.Close()
		began := time.Now()
		r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/","retry":{"timeout":"90s"}}`))
		if waited := time.Since(began); r.Error != jobs.ErrTimedOut || waited != 90*time.Second || r.AttemptCount != 0 || r.Duration != 0 {
			t.Errorf("%s after %v and %d attempts in %v, want it to wait for 90 s and end as timed_out", r.Error, waited, r.AttemptCount, r.Duration)
		}
		if !strings.Contains(r.Detail, "no proxies") {
			t.Errorf("%q does not say what the job waited for", r.Detail)
		}
	})
}

// TestAJobThatWaitedForItsSiteLastIsNotToldOfAProxy: it waited for a proxy before, and its progress still says why.
func TestAJobThatWaitedForItsSiteLastIsNotToldOfAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fetch.New(fetch.Config{Pool: rotation.New(rotation.Config{}), Policy: jobs.DefaultPolicy, AttemptTimeout: time.Minute})
		defer f.Close()
		progress := jobs.Progress{Started: time.Now().Add(-2 * time.Minute), SiteSince: time.Now().Add(-time.Minute), Why: "31 proxies cool down"}
		o := f.Do(t.Context(), decode(t, `{"url":"http://shop.test/","retry":{"timeout":"90s"}}`), &progress)
		if o.Result.Error != jobs.ErrTimedOut || strings.Contains(o.Result.Detail, "prox") {
			t.Errorf("%s: %q, want it timed out and no word of a proxy", o.Result.Error, o.Result.Detail)
		}
	})
}

func TestAJobsOwnTimeDoesNotRunWhileItWaitsForItsFirstTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f, done := asked(t, 10*time.Millisecond, func(c *fetch.Config) { c.HostRate = 1 })
		defer done()
		for i := range 3 {
			if r := toTheEnd(t, f, decode(t, `{"url":"http://www.shop.test/","retry":{"timeout":"500ms"}}`)); r.Outcome != jobs.Succeeded {
				t.Errorf("job %d, which may take half a second: %s %s after %d attempts", i, r.Outcome, r.Error, r.AttemptCount)
			}
		}
	})
}

// late runs n jobs of a site, each of which comes back so much later than it was told.
func late(t *testing.T, f *fetch.Fetcher, n int, by time.Duration) (parked []int) {
	t.Helper()
	var wg sync.WaitGroup
	parked = make([]int, n)
	for i := range n {
		wg.Go(func() {
			job, progress := decode(t, fmt.Sprintf("http://www.shop.test/%d", i)), jobs.Progress{}
			for parked[i] < 100 {
				o := f.Do(t.Context(), job, &progress)
				if o.Kind == jobs.RunFinished {
					return
				}
				parked[i]++
				progress = o.Progress
				time.Sleep(time.Until(o.At) + by)
			}
			t.Errorf("job %d was parked %d times", i, parked[i])
		})
	}
	wg.Wait()
	return parked
}

func TestJobsThatComeLateForTheirTurnsKeepThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f, done := asked(t, 10*time.Millisecond, func(c *fetch.Config) { c.HostRate = 1 })
		defer done()
		// The slots were busy for half a minute: whoever had his turn meanwhile comes now.
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				job, progress := decode(t, fmt.Sprintf("http://www.shop.test/%d", i)), jobs.Progress{}
				for n := 0; ; n++ {
					o := f.Do(t.Context(), job, &progress)
					if o.Kind == jobs.RunFinished {
						return
					}
					if n > 10 {
						t.Errorf("job %d was parked %d times", i, n)
						return
					}
					progress = o.Progress
					time.Sleep(max(time.Until(o.At), time.Until(begin.Add(30*time.Second))))
				}
			})
		}
		wg.Wait()
		starts := w.starts["shop.test"]
		slices.SortFunc(starts, time.Time.Compare)
		for i := range len(starts) - 1 {
			if gap := starts[i+1].Sub(starts[i]); gap < time.Second {
				t.Fatalf("request %d came %v after the one before it, want a second at least", i+1, gap)
			}
		}
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("60 requests took %v, want little more than 90 s", took)
		}
	})
}

func TestJobsThatAlwaysComeLateHaveTheirTurnsYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f, done := asked(t, 10*time.Millisecond, func(c *fetch.Config) { c.HostRate = 1 })
		defer done()
		parked := late(t, f, 300, 90*time.Second)
		if most := slices.Max(parked); most > 10 {
			t.Errorf("a job was parked %d times", most)
		}
	})
}

func TestASlowSiteDoesNotHoldTheSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, f, done := asked(t, 20*time.Second, func(c *fetch.Config) { c.HostConcurrency = 1 })
		defer done()
		var mu sync.Mutex
		var held time.Duration
		var wg sync.WaitGroup
		parked := 0
		const n = 200
		for i := range n {
			wg.Go(func() {
				job, progress := decode(t, fmt.Sprintf("http://www.shop.test/%d", i)), jobs.Progress{}
				for {
					from := time.Now()
					o := f.Do(t.Context(), job, &progress)
					mu.Lock()
					held += time.Since(from)
					if o.Kind == jobs.RunScheduled {
						parked++
					}
					mu.Unlock()
					if o.Kind == jobs.RunFinished {
						return
					}
					progress = o.Progress
					time.Sleep(time.Until(o.At))
				}
			})
		}
		wg.Wait()
		// A slot for the one attempt at a time, and a little for those that look in.
		if took := time.Since(begin); held > 2*took || parked > 10*n || took > 2*n*20*time.Second {
			t.Errorf("%d jobs of a site that is asked one at a time: %v of slots in %v, parked %d times", n, held, took, parked)
		}
	})
}

func TestOneSiteHasOneNameHoweverItIsSpelt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f, done := asked(t, 10*time.Millisecond, func(c *fetch.Config) { c.HostRate = 1 })
		defer done()
		for _, host := range []string{"www.shop.test", "WWW.Shop.TEST", "www.shop.test."} {
			if r := toTheEnd(t, f, decode(t, "http://"+host+"/")); r.Outcome != jobs.Succeeded {
				t.Fatalf("%s: %+v", host, r)
			}
		}
		var starts []time.Time
		for _, some := range w.starts {
			starts = append(starts, some...)
		}
		slices.SortFunc(starts, time.Time.Compare)
		for i := range len(starts) - 1 {
			if gap := starts[i+1].Sub(starts[i]); gap < time.Second {
				t.Errorf("request %d came %v after the one before it, want a second", i+1, gap)
			}
		}
	})
}

func TestAJobThatFoundNoProxyKeepsItsTurnAndTakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pool *rotation.Pool
		_, f, done := asked(t, 10*time.Millisecond, func(c *fetch.Config) { c.HostRate, pool = 0.01, c.Pool })
		defer done()
		pool.ForceOpen("p1", 5*time.Second, "test")
		begin := time.Now()
		for i, most := range []time.Duration{10 * time.Second, 120 * time.Second} {
			if r := toTheEnd(t, f, decode(t, "http://www.shop.test/")); r.Outcome != jobs.Succeeded || time.Since(begin) > most {
				t.Errorf("job %d, for which there was no proxy for 5 s: %s %s after %v, want success within %v", i, r.Outcome, r.Error, time.Since(begin), most)
			}
		}
		if took := time.Since(begin); took < 100*time.Second {
			t.Errorf("two attempts at a site within %v, want 100 s between them", took)
		}
	})
}
