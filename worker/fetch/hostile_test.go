package fetch_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// saying is a fetcher through a proxy in memory that answers each connection's request by a text, and hangs up an hour later.
func saying(text string) (f *fetch.Fetcher, done func()) {
	var served sync.WaitGroup
	pool := rotation.New(rotation.Config{})
	pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
	f = fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		served.Go(func() {
			defer func() { _ = server.Close() }()
			if _, err := http.ReadRequest(bufio.NewReader(server)); err != nil {
				return
			}
			_, _ = io.WriteString(server, text)
			time.Sleep(time.Hour)
		})
		return client, nil
	}})
	return f, func() { f.Close(); served.Wait() }
}

func TestATargetThatSwitchesProtocolsHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, done := saying("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		defer done()
		began := time.Now()
		r := toTheEnd(t, f, decode(t, `{"url":"http://switch.test/","timeout":5,"retry":{"max_attempts":1}}`))
		if took := time.Since(began); took > 5*time.Second || r.Error != jobs.ErrAttemptsExhausted || r.Attempts[0].Fault != jobs.FaultUnclear {
			t.Errorf("ended as %q after %v, %+v; want an attempt without an answer within its timeout of 5 s", r.Error, took, r.Attempts)
		}
	})
}

func TestAStatusBelow200IsNoAnswer(t *testing.T) {
	for _, status := range []string{"000", "099"} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 "+status+" odd\r\nContent-Length: 2\r\n\r\nok") + " id=p")
		if a, reason := r.judged("http://shop.test/"); a.Fault != jobs.FaultUnclear || reason != "proxy_protocol" {
			t.Errorf("%s: fault %q, reason %q (%s)", status, a.Fault, reason, a.Error)
		}
	}
}
