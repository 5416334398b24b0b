package experiments_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// arm is one way to run the jobs of an experiment. Without breakers nothing is learnt: each job has a pool of its own, the list
// of which begins with the next proxy.
type arm struct {
	bad      float64 // the share of hopeless proxies
	attempts int     // most of a job
	breakers bool
	strategy rotation.Strategy
	timeout  time.Duration // of an attempt
}

func (a arm) with(attempts int, breakers bool) arm {
	a.attempts, a.breakers = attempts, breakers
	return a
}

// tally is what became of an arm's jobs.
type tally struct {
	jobs, succeeded     int
	wasted              int             // attempts that failed through a hopeless proxy
	retried             []time.Duration // how long the jobs took that succeeded after a retry, shortest first
	soon                int             // jobs that succeeded within two retries
	seconds, secondsGot int             // second attempts, and those of them that succeeded
}

// run does so many jobs, twenty a second, in virtual time.
func (a arm) run(t *testing.T, seed uint64, count int) (sum tally) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed, a.bad)
		var mu sync.Mutex
		tried := func(tried jobs.Attempt) {
			mu.Lock()
			defer mu.Unlock()
			sum.attempt(w, tried)
		}
		shared := a.fetcher(w, 0, tried)
		var wg sync.WaitGroup
		for i := range count {
			// No two jobs move at one instant, so nothing is left to the scheduler.
			time.Sleep(time.Duration(w.luck("arrival", i).Int64N(int64(100 * time.Millisecond))))
			wg.Go(func() {
				f := shared
				if !a.breakers {
					f = a.fetcher(w, i, tried)
					defer f.Close()
				}
				result := finish(t, f, job(t, i))
				mu.Lock()
				defer mu.Unlock()
				sum.job(result)
			})
		}
		wg.Wait()
		shared.Close()
		w.wg.Wait()
	})
	slices.Sort(sum.retried)
	return sum
}

func (a arm) fetcher(w *world, first int, tried func(jobs.Attempt)) *fetch.Fetcher {
	// Jitter would be drawn from a source without a seed.
	judge := breaker.Config{Jitter: -1}
	if !a.breakers {
		judge.Window = time.Nanosecond
	}
	pool := rotation.New(rotation.Config{Strategy: a.strategy, Breaker: judge})
	list := w.list()
	first %= len(list)
	pool.Replace(slices.Concat(list[first:], list[:first]))
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts, policy.Jitter = a.attempts, false
	return fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: w.dial, AttemptTimeout: a.timeout, Worker: "w",
		Observer: fetch.Observer{AttemptEnded: func(a *jobs.Attempt, _ int64, _ string) { tried(*a) }},
	})
}

// job is for one of twenty sites.
func job(t *testing.T, i int) *jobs.Job {
	t.Helper()
	job, err := jobs.Decode("default", fmt.Sprint(i), fmt.Appendf(nil, "http://site%d.test/%d", i%20, i))
	if err != nil {
		t.Error(err)
	}
	return &job
}

// finish runs a job to its end; as the queue does, it brings it back when its time has come.
func finish(t *testing.T, f *fetch.Fetcher, job *jobs.Job) jobs.Result {
	t.Helper()
	var progress jobs.Progress
	for {
		switch o := f.Do(t.Context(), job, &progress); o.Kind {
		case jobs.RunFinished:
			return o.Result
		case jobs.RunScheduled:
			progress = o.Progress
			time.Sleep(time.Until(o.At))
		case jobs.RunLeaseLost, jobs.RunStopped:
			t.Errorf("job %s: got the end %d, want a result", job.ID, o.Kind)
			return jobs.Result{}
		}
	}
}

// attempt books one attempt.
func (s *tally) attempt(w *world, a jobs.Attempt) {
	if a.Fault != jobs.FaultNone && w.hopeless(a.Proxy) {
		s.wasted++
	}
}

// job books one job.
func (s *tally) job(r jobs.Result) {
	s.jobs++
	retried, success := r.AttemptCount > 1, r.Outcome == jobs.Succeeded
	if retried {
		s.seconds++
	}
	if !success {
		return
	}
	s.succeeded++
	if r.AttemptCount <= 3 {
		s.soon++
	}
	if r.AttemptCount == 2 {
		s.secondsGot++
	}
	if retried {
		s.retried = append(s.retried, r.Duration)
	}
}

// merge adds another seed's tally.
func (s *tally) merge(o tally) {
	s.jobs += o.jobs
	s.succeeded += o.succeeded
	s.wasted += o.wasted
	s.soon += o.soon
	s.seconds += o.seconds
	s.secondsGot += o.secondsGot
	s.retried = append(s.retried, o.retried...)
	slices.Sort(s.retried)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
