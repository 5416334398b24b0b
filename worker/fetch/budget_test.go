package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// answering dials a proxy in memory that answers everything with a status.
func answering(status string, wg *sync.WaitGroup) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		wg.Go(func() {
			defer func() { _ = server.Close() }()
			for in := bufio.NewReader(server); ; {
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				if _, err := io.WriteString(server, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		})
		return client, nil
	}
}

// A site that answers everything with 500 is asked by many jobs at once, each of which would be tried five times.
func TestRetriesKeepToTheirBudgetAndEachHasItsTurn(t *testing.T) {
	for _, budget := range []float64{0.1, 1, -1} {
		synctest.Test(t, func(t *testing.T) {
			const n, floor = 400, 10.0
			var served sync.WaitGroup
			begin := time.Now()
			var mu sync.Mutex
			first, retries := 0, 0
			pool := rotation.New(rotation.Config{})
			list, err := proxylist.ParseList(strings.NewReader("http://p1.test:80 id=p1\nhttp://p2.test:80 id=p2"))
			if err != nil {
				t.Fatal(err)
			}
			pool.Replace(list)
			policy := jobs.DefaultPolicy()
			policy.MaxAttempts, policy.RetryStatusCodes = 5, []int{500}
			f := fetch.New(fetch.Config{
				Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: answering("500 Internal Server Error", &served),
				RetryBudget: budget, RetryFloor: floor,
				Observer: fetch.Observer{AttemptEnded: func(a *jobs.Attempt, _ int64, _ string) {
					mu.Lock()
					defer mu.Unlock()
					if a.Attempt == 1 {
						first++
						return
					}
					retries++
					most := budget*float64(first) + floor*(time.Since(begin).Seconds()+10)
					if budget > 0 && float64(retries) > most {
						t.Errorf("budget %v: %d retries for %d first attempts after %v, want at most %.1f", budget, retries, first, time.Since(begin), most)
					}
				}},
			})
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					job, err := jobs.Decode("default", fmt.Sprint(i), fmt.Appendf(nil, "http://shop.test/%d", i))
					if err != nil {
						t.Error(err)
					}
					if r := toTheEnd(t, f, &job); r.Error != jobs.ErrAttemptsExhausted || r.AttemptCount != 5 {
						t.Errorf("budget %v: job %d ended as %s after %d attempts, want that it had all of them", budget, i, r.Error, r.AttemptCount)
					}
				})
			}
			wg.Wait()
			if retries != 4*n || (f.DelayedRetries() > 0) != (budget > 0) {
				t.Errorf("budget %v: %d retries, %d held; want %d, and some held if there is a budget", budget, retries, f.DelayedRetries(), 4*n)
			}
			f.Close()
			served.Wait()
		})
	}
}

// failing is a fetcher all of whose attempts end with 500, and what its jobs wait between two of them.
func failing(t *testing.T, floor float64) (run func(payload string), waits func() []time.Duration, f *fetch.Fetcher) {
	t.Helper()
	var served sync.WaitGroup
	var mu sync.Mutex
	var seen []time.Duration
	pool := rotation.New(rotation.Config{})
	pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts, policy.Jitter, policy.RetryStatusCodes = 2, false, []int{500}
	f = fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: answering("500 Internal Server Error", &served), RetryBudget: 1e-9, RetryFloor: floor,
		Observer: fetch.Observer{RetryPlanned: func(e jobs.RetryEvent) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, e.Delay.Std())
		}},
	})
	t.Cleanup(func() {
		f.Close()
		served.Wait()
	})
	run = func(payload string) {
		job, err := jobs.Decode("default", "j", []byte(payload))
		if err != nil {
			t.Error(err)
		}
		toTheEnd(t, f, &job)
	}
	waits = func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
	return run, waits, f
}

func TestRetriesThatAreNotMadeUseUpNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, waits, f := failing(t, 1)
		for range 100 {
			run(`{"url":"http://shop.test/","retry":{"timeout":0.5}}`)
		}
		if got := waits(); len(got) != 0 || f.DelayedRetries() != 0 {
			t.Fatalf("waits %v, %d held; want none, for no job has the time", got, f.DelayedRetries())
		}
		run(`{"url":"http://shop.test/"}`)
		if got := waits(); len(got) != 1 || got[0] != time.Second {
			t.Errorf("waits %v, want the policy's second", got)
		}
	})
}

func TestDebtOfRetriesIsPaidWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, waits, _ := failing(t, 1)
		const n = 300
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { run(`{"url":"http://shop.test/"}`) })
		}
		wg.Wait()
		if got := waits(); len(got) != n || slices.Max(got) != time.Minute {
			t.Fatalf("%d waits, %v at most; want %d, a minute at most", len(got), slices.Max(got), n)
		}
		time.Sleep(time.Minute)
		run(`{"url":"http://shop.test/"}`)
		if last := waits()[n]; last != time.Second {
			t.Errorf("after a quiet minute a retry waits %v, want the policy's second", last)
		}
	})
}

// TestAFailoverCostsAThirdOfARetry has a budget of ten retries, and jobs whose first proxy takes no connection.
func TestAFailoverCostsAThirdOfARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served sync.WaitGroup
		serve := answering("200 OK", &served)
		var delays []time.Duration
		dials := 0 // of a job
		pool := rotation.New(rotation.Config{})
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: jobs.DefaultPolicy, RetryBudget: 1e-9, RetryFloor: 1, InlineWait: time.Hour,
			Observer: fetch.Observer{RetryPlanned: func(e jobs.RetryEvent) { delays = append(delays, e.Delay.Std()) }},
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials++; dials == 1 {
					return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
				}
				return serve(ctx, network, addr)
			},
		})
		for i := 0; len(delays) == 0 || delays[len(delays)-1] == 0; i++ {
			// Proxies that nobody knows, and of which nothing is known.
			dials = 0
			pool.Replace([]proxylist.Proxy{
				{ID: fmt.Sprint("a", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("a%d.test:80", i)}},
				{ID: fmt.Sprint("b", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("b%d.test:80", i)}},
			})
			if o := f.Do(t.Context(), decode(t, "http://shop.test/"), &jobs.Progress{}); o.Result.Outcome != jobs.Succeeded || i > 1000 {
				t.Fatalf("job %d: %s %s", i, o.Result.Error, o.Result.Detail)
			}
		}
		if free := len(delays) - 1; free < 29 || free > 30 {
			t.Errorf("%d failovers at once, want the 30 that ten retries are worth", free)
		}
		f.Close()
		served.Wait()
	})
}

// toTheEnd runs a job to its end; as the queue does, it brings it back when its time has come.
func toTheEnd(t *testing.T, f *fetch.Fetcher, job *jobs.Job) jobs.Result {
	t.Helper()
	var progress jobs.Progress
	for {
		o := f.Do(t.Context(), job, &progress)
		if o.Kind != jobs.RunScheduled {
			return o.Result
		}
		progress = o.Progress
		time.Sleep(time.Until(o.At))
	}
}
