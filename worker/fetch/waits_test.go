package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// TestStopEndsAWaitAtOnce stops a job at any moment. It ends at that moment, by the cause of the stop, with what it has done
// so far, and every proxy is given back and not blamed for that.
func TestStopEndsAWaitAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, stopEndsAWait) })
}

func stopEndsAWait(t *rapid.T) {
	s := &script{}
	for range 10 {
		s.acts = append(s.acts, act{do: rapid.SampledFrom([]deed{refuses, hangsUp, silent, timedOut, noAnswer}).Draw(t, "act"), after: time.Second})
	}
	policy := drawPolicy(t, 10)
	policy.MaxAttempts, policy.BaseDelay, policy.Timeout = 10, jobs.Duration(2*time.Second), 0
	f, pool := s.fetcher(2, rotation.RoundRobin, policy)
	cause := rapid.SampledFrom([]error{jobs.ErrStopping, jobs.ErrJobCancelled, jobs.ErrLeaseLost}).Draw(t, "cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	var stopped time.Time
	timer := time.AfterFunc(rapid.SampledFrom([]time.Duration{0, 1, 500 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second, time.Minute}).Draw(t, "stop")+oddly, func() {
		stopped = time.Now()
		cancel(cause)
	})
	job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
	if err != nil {
		t.Fatal(err)
	}
	o := f.Do(ctx, job, jobs.Progress{})
	ended := time.Now()
	timer.Stop()
	f.Close()
	s.wg.Wait()
	cancel(nil)
	if !stopped.IsZero() {
		want := map[error]fetch.Kind{jobs.ErrStopping: fetch.Stopped, jobs.ErrJobCancelled: fetch.Finished, jobs.ErrLeaseLost: fetch.Lost}[cause]
		if o.Kind != want || !ended.Equal(stopped) || errors.Is(cause, jobs.ErrStopping) && len(o.Progress.Attempts) != len(s.attempts) {
			t.Fatalf("%v: kind %d %v after the stop, %d of %d attempts kept; want kind %d at once", cause, o.Kind, ended.Sub(stopped), len(o.Progress.Attempts), len(s.attempts), want)
		}
	}
	for _, p := range pool.Status() {
		if p.Inflight != 0 {
			t.Fatalf("%s has %d attempts under way after the job", p.ID, p.Inflight)
		}
	}
}

// TestJobsShareNoBackoff runs jobs side by side that all fail. Each has the waits that it would have alone.
func TestJobsShareNoBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := jobs.DefaultPolicy()
		policy.MaxAttempts, policy.Jitter, policy.RetryStatusCodes = 5, false, []int{500}
		var wg sync.WaitGroup
		var mu sync.Mutex
		waits := map[string][]time.Duration{}
		pool := rotation.New(rotation.Config{})
		pool.Replace([]rotation.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: answering("500 Internal Server Error", &wg), InlineWait: time.Minute,
			OnRetry: func(e jobs.RetryEvent) {
				mu.Lock()
				defer mu.Unlock()
				waits[e.JobID] = append(waits[e.JobID], e.Delay.Std())
			},
		})
		const n = 20
		var running sync.WaitGroup
		for i := range n {
			job, err := jobs.Decode("default", fmt.Sprint(i), []byte("http://shop.test/"))
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { f.Do(t.Context(), job, jobs.Progress{}) })
			time.Sleep(700 * time.Millisecond)
		}
		running.Wait()
		f.Close()
		wg.Wait()
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}
		for id, got := range waits {
			if !slices.Equal(got, want) {
				t.Errorf("job %s waited %v, want %v", id, got, want)
			}
		}
		if len(waits) != n {
			t.Errorf("%d jobs had waits, want all %d", len(waits), n)
		}
	})
}
