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
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// waits runs a job that fails each time and returns what it waited between its attempts.
func waits(t *testing.T, policy jobs.Policy) (out []time.Duration) {
	t.Helper()
	s := &script{acts: slices.Repeat([]act{{do: noAnswer}}, policy.MaxAttempts)}
	f, _ := s.fetcher(1, rotation.RoundRobin, policy)
	defer s.wg.Wait()
	defer f.Close()
	job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
	if err != nil {
		t.Fatal(err)
	}
	if r := toTheEnd(t, f, &job); r.Error != jobs.ErrAttemptsExhausted || r.Status != 502 || r.AttemptCount != policy.MaxAttempts {
		t.Errorf("ended as %s with %d after %d attempts", r.Error, r.Status, r.AttemptCount)
	}
	for _, e := range s.events {
		out = append(out, e.Delay.Std())
	}
	return out
}

func TestWaitsFollowTheStrategy(t *testing.T) {
	for _, c := range []struct {
		strategy   string
		multiplier float64
		cap        time.Duration
		want       []time.Duration // in units of the first wait
	}{
		{jobs.Exponential, 2, time.Minute, []time.Duration{1, 2, 4, 8}},
		{jobs.Exponential, 10, time.Second, []time.Duration{1, 10, 10, 10}},
		{jobs.Exponential, 10, 5 * time.Minute, []time.Duration{1, 10, 100, 1000}},
		{jobs.Linear, 2, time.Minute, []time.Duration{1, 2, 3, 4}},
		{jobs.Fixed, 2, time.Minute, []time.Duration{1, 1, 1, 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := jobs.DefaultPolicy()
			p.MaxAttempts, p.Jitter, p.BaseDelay = 5, false, jobs.Duration(100*time.Millisecond)
			p.BackoffStrategy, p.Multiplier, p.MaxBackoffDelay = c.strategy, c.multiplier, jobs.Duration(c.cap)
			got := waits(t, p)
			for i := range got {
				got[i] /= 100 * time.Millisecond
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s by %v: waits %d, want %d", c.strategy, c.multiplier, got, c.want)
			}
		})
	}
}

func TestFullJitterDrawsEvenlyBelowTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := jobs.DefaultPolicy()
		p.MaxAttempts, p.BackoffStrategy, p.BaseDelay = 10, jobs.Fixed, jobs.Duration(time.Second)
		const n = 100
		tenths, all := map[time.Duration]int{}, 0
		for range n {
			for _, d := range waits(t, p) {
				tenths[d/(100*time.Millisecond)]++
				all++
			}
		}
		for tenth := range time.Duration(10) {
			if got := tenths[tenth]; got < all/20 || got > all/5 {
				t.Errorf("%d of %d waits between %d and %d tenths of the computed one, want about %d", got, all, tenth, tenth+1, all/10)
			}
		}
		if len(tenths) > 10 {
			t.Errorf("waits by tenths: %v, want none at or beyond the computed one", tenths)
		}
	})
}

func TestAnswersOf429SpeakForTheProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := jobs.DefaultPolicy()
		policy.MaxAttempts = 10
		s := &script{acts: slices.Repeat([]act{{do: tooMany}}, policy.MaxAttempts)}
		f, pool := s.fetcher(1, rotation.RoundRobin, policy)
		job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
		if err != nil {
			t.Fatal(err)
		}
		toTheEnd(t, f, &job)
		if p, _ := pool.StatusOf("p0"); p.Failures != 0 || !pool.AnyHealthy() {
			t.Errorf("after ten answers of 429 the proxy has %d failures, delivering %v; want none and true", p.Failures, pool.AnyHealthy())
		}
		f.Close()
		s.wg.Wait()
	})
}

func TestTimeOfAllAttemptsGoesOnWhileTheJobIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := jobs.DefaultPolicy()
		policy.Timeout = jobs.Duration(10 * time.Second)
		s := &script{acts: []act{{do: busy, retryAfter: "3"}, {do: silent}}}
		f, _ := s.fetcher(1, rotation.RoundRobin, policy)
		job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		r := toTheEnd(t, f, &job)
		if took := time.Since(began); r.Error != jobs.ErrTimedOut || r.AttemptCount != 2 || took != 10*time.Second {
			t.Errorf("ended as %q after %d attempts and %v, want timed_out after 2 and 10 s", r.Error, r.AttemptCount, took)
		}
		f.Close()
		s.wg.Wait()
	})
}

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
	o := f.Do(ctx, &job, &jobs.Progress{})
	ended := time.Now()
	timer.Stop()
	f.Close()
	s.wg.Wait()
	cancel(nil)
	if !stopped.IsZero() {
		want := map[error]jobs.RunKind{jobs.ErrStopping: jobs.RunStopped, jobs.ErrJobCancelled: jobs.RunFinished, jobs.ErrLeaseLost: jobs.RunLeaseLost}[cause]
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
		pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: answering("500 Internal Server Error", &wg), InlineWait: time.Minute,
			Observer: fetch.Observer{RetryPlanned: func(e jobs.RetryEvent) {
				mu.Lock()
				defer mu.Unlock()
				waits[e.JobID] = append(waits[e.JobID], e.Delay.Std())
			}},
		})
		const n = 20
		var running sync.WaitGroup
		for i := range n {
			job, err := jobs.Decode("default", fmt.Sprint(i), []byte("http://shop.test/"))
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { f.Do(t.Context(), &job, &jobs.Progress{}) })
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
