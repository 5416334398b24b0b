package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// memory dials proxies in memory that answer a request with the status that is returned for its host and the proxy's; none
// refuses the connection.
func memory(wg *sync.WaitGroup, status func(proxy, host string) string) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		proxy, _, _ := strings.Cut(addr, ".")
		if status(proxy, "") == "" {
			return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("refused")}
		}
		client, server := net.Pipe()
		wg.Go(func() {
			defer func() { _ = server.Close() }()
			for in := bufio.NewReader(server); ; {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if _, err := io.WriteString(server, "HTTP/1.1 "+status(proxy, req.URL.Hostname())+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		})
		return client, nil
	}
}

// crowd is a fetcher with n proxies in memory, and a pool in which each of them has worked.
func crowd(t *testing.T, n int, status func(proxy, host string) string) (*fetch.Fetcher, *rotation.Pool, func()) {
	t.Helper()
	var served sync.WaitGroup
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "http://p%d.test:80 id=p%d\n", i, i)
	}
	list, err := rotation.ParseList(strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	f := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: memory(&served, status)})
	for range 5 * n {
		if r := toTheEnd(t, f, decode(t, `http://good.test/`)); r.Outcome != jobs.Succeeded {
			t.Fatalf("a job while all is well: %+v", r)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f, pool, func() { f.Close(); served.Wait() }
}

func decode(t *testing.T, payload string) jobs.Job {
	t.Helper()
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// The end of a crawl: what is left are sites that no longer exist, and the proxies say so by 502.
func TestJobsForDeadSitesComeToAnEndThoughNothingElseIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, done := crowd(t, 20, func(_, host string) string {
			if strings.HasPrefix(host, "dead") {
				return "502 Bad Gateway"
			}
			return "200 OK"
		})
		defer done()
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				r := toTheEnd(t, f, decode(t, fmt.Sprintf("http://dead%d.test/", i)))
				if r.Error != jobs.ErrAttemptsExhausted || time.Since(begin) > 10*time.Minute {
					t.Errorf("a job for a dead site: %s after %d attempts and %v, want that it had its attempts within minutes", r.Error, r.AttemptCount, time.Since(begin))
				}
			})
		}
		wg.Wait()
	})
}

// Three of many proxies die. A job that does not wait for a proxy meets them one after the other.
func TestAJobThatDoesNotWaitHasItsAttemptsWhileOthersMayDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		f, pool, done := crowd(t, 20, func(proxy, _ string) string {
			if dead.Load() && slices.Contains([]string{"p0", "p1", "p2"}, proxy) {
				return ""
			}
			return "200 OK"
		})
		defer done()
		time.Sleep(2 * time.Minute) // no connection is left that waits for a next attempt
		dead.Store(true)
		for range 20 {
			r := toTheEnd(t, f, decode(t, `{"url":"http://good.test/","when_no_proxy":"fail","retry":{"max_attempts":6}}`))
			if r.Outcome != jobs.Succeeded {
				t.Errorf("a job while 3 of 20 proxies are dead: %s %s, %s after %d attempts", r.Outcome, r.Error, r.Detail, r.AttemptCount)
			}
		}
		if _, failing := pool.Failing(); failing {
			t.Error("the pool is said to fail")
		}
	})
}

// A site that no proxy can reach, through proxies that say so as tinyproxy does.
func TestADeadSiteOpensNoProxyThatAnswers500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, done := crowd(t, 10, func(_, host string) string {
			if host == "dead.test" {
				return "500 Unable to connect"
			}
			return "200 OK"
		})
		defer done()
		for range 30 {
			toTheEnd(t, f, decode(t, "https://dead.test/"))
		}
		for _, s := range pool.Status() {
			if s.State != breaker.Closed {
				t.Errorf("%s is %s because of one dead site", s.ID, s.State)
			}
		}
		if _, failing := pool.Failing(); failing {
			t.Error("the pool is said to fail because of one dead site")
		}
	})
}
