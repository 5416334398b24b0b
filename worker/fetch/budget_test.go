package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
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
			list, err := rotation.ParseList(strings.NewReader("http://p1.test:80 id=p1\nhttp://p2.test:80 id=p2"))
			if err != nil {
				t.Fatal(err)
			}
			pool.Replace(list)
			policy := jobs.DefaultPolicy()
			policy.MaxAttempts, policy.RetryStatusCodes = 5, []int{500}
			f := fetch.New(fetch.Config{
				Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: answering("500 Internal Server Error", &served),
				RetryBudget: budget, RetryFloor: floor,
				OnAttempt: func(_ string, a jobs.Attempt, _ int64, _ string) {
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
				},
			})
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					job, err := jobs.Decode("default", fmt.Sprint(i), fmt.Appendf(nil, "http://shop.test/%d", i))
					if err != nil {
						t.Error(err)
					}
					if r := toTheEnd(t, f, job); r.Error != jobs.ErrAttemptsExhausted || r.AttemptCount != 5 {
						t.Errorf("budget %v: job %d ended as %s after %d attempts, want that it had all of them", budget, i, r.Error, r.AttemptCount)
					}
				})
			}
			wg.Wait()
			if retries != 4*n || (f.Held() > 0) != (budget > 0) {
				t.Errorf("budget %v: %d retries, %d held; want %d, and some held if there is a budget", budget, retries, f.Held(), 4*n)
			}
			f.Close()
			served.Wait()
		})
	}
}

// toTheEnd runs a job to its end; as the queue does, it brings it back when its time has come.
func toTheEnd(t *testing.T, f *fetch.Fetcher, job jobs.Job) jobs.Result {
	t.Helper()
	var progress jobs.Progress
	for {
		o := f.Do(t.Context(), job, progress)
		if o.Kind != fetch.Later {
			return o.Result
		}
		progress = o.Progress
		time.Sleep(time.Until(o.At))
	}
}
