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
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// memory dials proxies in memory that answer a request with the status that is returned for its host and the proxy's. None
// refuses the connection where there is no host yet, and else hangs up, or says by SOCKS that something failed.
func memory(wg *sync.WaitGroup, status func(proxy, host string) string) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, _, addr string) (net.Conn, error) {
		proxy, _, _ := strings.Cut(addr, ".")
		if status(proxy, "") == "" {
			return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("refused")}
		}
		client, server := net.Pipe()
		wg.Go(func() {
			defer func() { _ = server.Close() }()
			in := bufio.NewReader(server)
			if first, err := in.Peek(1); err != nil || first[0] == 5 && !socks(server, in, func(host string) bool { return status(proxy, host) != "" }) {
				return
			}
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				answer := status(proxy, req.Host)
				if host, _, err := net.SplitHostPort(req.Host); err == nil {
					answer = status(proxy, host)
				}
				if answer == "" {
					return
				}
				if _, err := io.WriteString(server, "HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		})
		return client, nil
	}
}

// socks opens a tunnel (RFC 1928) to a host that is known, and reports whether it did.
func socks(c net.Conn, in io.Reader, known func(host string) bool) bool {
	head := make([]byte, 5)
	if _, err := io.ReadFull(in, head[:3]); err != nil {
		return false
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return false
	}
	if _, err := io.ReadFull(in, head); err != nil {
		return false
	}
	name := make([]byte, head[4]+2)
	if _, err := io.ReadFull(in, name); err != nil {
		return false
	}
	reply := byte(1)
	if known(string(name[:head[4]])) {
		reply = 0
	}
	_, err := c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
	return err == nil && reply == 0
}

// crowd is a fetcher with n proxies in memory, and a pool in which each of them has worked.
func crowd(t *testing.T, n int, status func(proxy, host string) string) (*fetch.Fetcher, *rotation.Pool, func()) {
	t.Helper()
	return crowdOf(t, "http", n, status)
}

func crowdOf(t *testing.T, scheme string, n int, status func(proxy, host string) string) (*fetch.Fetcher, *rotation.Pool, func()) {
	t.Helper()
	var served sync.WaitGroup
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%s://p%d.test:80 id=p%d\n", scheme, i, i)
	}
	list, err := proxylist.ParseList(strings.NewReader(lines.String()))
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

func decode(t *testing.T, payload string) *jobs.Job {
	t.Helper()
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return &job
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
		if _, failing := pool.Outage(); failing {
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
		if _, failing := pool.Outage(); failing {
			t.Error("the pool is said to fail because of one dead site")
		}
	})
}

// A site that no proxy can reach, and how proxies say so.
func TestADeadSiteOpensNoProxyHoweverTheySaySo(t *testing.T) {
	for name, c := range map[string]struct{ proxies, url, says string }{
		"404 to CONNECT, as privoxy":         {"http", "https://dead.test/", "404 No such domain"},
		"hanging up over CONNECT":            {"http", "https://dead.test/", ""},
		"hanging up over a plain request":    {"http", "http://dead.test/", ""},
		"a general failure, as microsocks":   {"socks5", "http://dead.test/", ""},
		"a Proxy-Status of the site's own":   {"http", "http://dead.test/", "503 Busy\r\nProxy-Status: cdn.example; error=connection_limit_reached"},
		"an X-Squid-Error of the site's own": {"http", "http://dead.test/", "503 Busy\r\nX-Squid-Error: ERR_CANNOT_FORWARD 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, pool, done := crowdOf(t, c.proxies, 6, func(_, host string) string {
					if host == "dead.test" {
						return c.says
					}
					return "200 OK"
				})
				defer done()
				for range 40 {
					toTheEnd(t, f, decode(t, `{"url":"`+c.url+`","retry":{"max_attempts":1}}`))
					toTheEnd(t, f, decode(t, "http://good.test/"))
				}
				wantClosed(t, pool, 6)
			})
		})
	}
}

// wantClosed wants n proxies in the pool, all of them closed.
func wantClosed(t *testing.T, pool *rotation.Pool, n int) {
	t.Helper()
	closed := 0
	for _, s := range pool.Status() {
		if s.State == breaker.Closed {
			closed++
		}
	}
	if closed != n {
		t.Errorf("%d of %d proxies are closed, want all of them", closed, n)
	}
}

func TestAProxyThatHangsUpOnEverythingOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		f, pool, done := crowd(t, 3, func(proxy, host string) string {
			if broken.Load() && proxy == "p0" && host != "" {
				return ""
			}
			return "200 OK"
		})
		defer done()
		broken.Store(true)
		for range 60 {
			toTheEnd(t, f, decode(t, "http://good.test/"))
		}
		if s, _ := pool.StatusOf("p0"); s.State != breaker.Open {
			t.Errorf("it is %s with %d failures", s.State, s.Failures)
		}
	})
}
