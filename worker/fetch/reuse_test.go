package fetch_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/worker/fetch"
)

// The server answers the first request of each connection by the rule of the case, and every later one as if a peer had sent
// bytes that belong to no request. Only a connection whose exchange surely ended may meet that.
func TestAConnectionIsReusedOnlyAfterAnExchangeThatSurelyEnded(t *testing.T) {
	const withBody = `,"body":"GET http://shop.test/evil HTTP/1.1\r\nHost: shop.test\r\n\r\n"`
	for _, c := range []struct {
		name, job, answer string
		reused            bool
	}{
		{"GET", `"method":"GET"`, "200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"GET in chunks", `"method":"GET"`, "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		{"PUT with a body", `"method":"PUT"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"POST with a body", `"method":"POST"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"DELETE without a body", `"method":"DELETE"`, "200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"204", `"method":"GET"`, "204 No Content\r\n\r\n", true},
		{"304", `"method":"GET"`, "304 Not Modified\r\n\r\n", true},
		{"HEAD", `"method":"HEAD"`, "200 OK\r\nContent-Length: 44\r\n\r\n", false},
		{"HEAD of nothing", `"method":"HEAD"`, "200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"HEAD in chunks", `"method":"HEAD"`, "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false},
		{"GET with a body", `"method":"GET"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"GET with a body, redirected", `"method":"GET","follow_redirects":0` + withBody, "302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", false},
		{"DELETE with a body", `"method":"DELETE"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"OPTIONS with a body", `"method":"OPTIONS"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"an unknown method with a body", `"method":"FIND"` + withBody, "200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"204 that announces a body", `"method":"GET"`, "204 No Content\r\nContent-Length: 6\r\n\r\n", false},
		{"304 that announces a body", `"method":"GET"`, "304 Not Modified\r\nContent-Length: 6\r\n\r\n", false},
		{"304 in chunks", `"method":"GET"`, "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false},
	} {
		r := newRig(t, nil)
		addr := r.script(func(_ int64, conn net.Conn) {
			in := bufio.NewReader(conn)
			for n := 0; ; n++ {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				switch {
				case n > 0:
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign")
				case req.URL.Path == "/own":
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")
				default:
					_, _ = io.WriteString(conn, "HTTP/1.1 "+c.answer)
				}
			}
		})
		r.use("http://" + addr.String() + " id=p")
		first := r.do(fmt.Sprintf(`{"url":"http://shop.test/first",%s}`, c.job))
		next := r.do("http://shop.test/own")
		if got := string(next.Result.Body) == "foreign"; first.Result.Outcome != "succeeded" || got != c.reused {
			t.Errorf("%s: %s %s; its connection is used again: %v, want %v", c.name, first.Result.Outcome, first.Result.Error, got, c.reused)
		}
	}
}

func TestIdleConnectionsFollowTheConcurrency(t *testing.T) {
	for _, c := range []struct{ concurrency, jobs, idle int }{{0, 40, 16}, {8, 40, 16}, {40, 40, 40}} {
		r := newRig(t, func(cfg *fetch.Config) { cfg.Concurrency = c.concurrency })
		var together sync.WaitGroup
		together.Add(c.jobs)
		addr := r.script(func(_ int64, conn net.Conn) {
			in := bufio.NewReader(conn)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			together.Done()
			together.Wait()
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			_, _ = http.ReadRequest(in)
		})
		r.use("http://" + addr.String() + " id=p")
		var done sync.WaitGroup
		for range c.jobs {
			done.Go(func() { wantBody(t, r.do("http://shop.test/"), "ok") })
		}
		done.Wait()
		if got := r.f.IdleConns(); got != c.idle {
			t.Errorf("concurrency %d: %d idle connections after %d jobs at once, want %d", c.concurrency, got, c.jobs, c.idle)
		}
	}
}
