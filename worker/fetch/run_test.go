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
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

func TestProxyTakenAheadIsGivenBackWhenTheJobStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := newRig(t, func(c *fetch.Config) { c.Observer.RetryPlanned = func(jobs.RetryEvent) { cancel(jobs.ErrStopping) } })
	r.use(r.proxy(testenv.Refusing, nil).URL("http")+" id=a", r.proxy(testenv.Refusing, nil).URL("http")+" id=b")
	if o := r.doWith(ctx, "http://shop.test/ok", jobs.Progress{}); o.Kind != jobs.RunStopped || len(o.Progress.Attempts) != 1 {
		t.Errorf("kind %d with %d attempts, want it to stop with the one it made", o.Kind, len(o.Progress.Attempts))
	}
	for _, s := range r.pool.Status() {
		if s.Inflight != 0 {
			t.Errorf("%s: %d in flight", s.ID, s.Inflight)
		}
	}
}

func TestManyJobsShareAPoolThatChanges(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxIdle, c.IdlePerKey, c.IdleTimeout = 8, 2, 50*time.Millisecond })
	modes := []testenv.Mode{testenv.Good, testenv.Good, testenv.Refusing, testenv.Slow, testenv.Banned, testenv.Cutting}
	var lines []string
	for i := range 12 {
		scheme := []string{"http", "socks5"}[i%2]
		lines = append(lines, fmt.Sprintf("%s id=p%d", r.proxy(modes[i%len(modes)], nil).URL(scheme), i))
	}
	r.use(lines...)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			target := []string{"http://shop.test/gzip", "https://example.com/br"}[i%2]
			for range 10 {
				o := r.do(`{"url":"` + target + `","timeout":2,"retry":{"max_attempts":4},"ban":{"statuses":[403]}}`)
				if o.Kind == jobs.RunFinished && o.Result.Outcome == jobs.Succeeded && !strings.HasPrefix(string(o.Result.Body), "encoded as ") {
					t.Errorf("%s answered %q", target, o.Result.Body)
				}
				if idle := r.f.IdleConns(); idle > 8 {
					t.Errorf("%d idle connections, want at most 8", idle)
				}
			}
		})
	}
	for n := range 20 {
		r.use(lines[n%6:]...)
	}
	wg.Wait()
	for _, s := range r.pool.Status() {
		if s.Inflight != 0 {
			t.Errorf("%s: %d in flight after all jobs", s.ID, s.Inflight)
		}
	}
}

func TestDenyListAndRulesKnowOddSpellings(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.Denied = func(host string) bool { return host == "198.51.100.7" } })
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	for _, host := range []string{
		"0xc6336407", "198.51.25607", "0306.063.0144.07", "[::ffff:198.51.100.7]", // the one on the list
		// And its other forms.
		"[64:ff9b::c633:6407]", "[2002:c633:6407::1]", "[::198.51.100.7]", "[2606:4700::5efe:198.51.100.7]", "198.51.100.7.",
		"010.0.0.1", "0127.0.0.1", // ten and 127 where a resolver reads decimals
		"[::ffff:0:7f00:1]", "[64:ff9b:1::1]", "[fec0::1]", "192.0.0.192",
	} {
		if o := r.do("http://" + host + "/ok"); o.Result.Error != jobs.ErrTargetDenied || o.Result.AttemptCount != 0 {
			t.Errorf("%s = %s %s after %d attempts, want %s", host, o.Result.Outcome, o.Result.Error, o.Result.AttemptCount, jobs.ErrTargetDenied)
		}
	}
}

func TestAnswerThatHasBegunIsNotAskedForAgain(t *testing.T) {
	r := newRig(t, nil)
	var requests atomic.Int64
	addr := r.script(func(_ int64, c net.Conn) {
		in := bufio.NewReader(c)
		for _, answer := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nConte"} {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			requests.Add(1)
			_, _ = io.WriteString(c, answer)
		}
	})
	r.use("http://" + addr.String() + " id=p")
	wantBody(t, r.do("http://shop.test/"), "ok")
	if a, reason := r.judged("http://shop.test/"); a.Fault != jobs.FaultUnclear || reason != "truncated" || requests.Load() != 2 {
		t.Errorf("fault %q, reason %q after %d requests, want the second one to fail alone", a.Fault, reason, requests.Load())
	}
}

func TestNothingIsSaidOnceTheLeaseIsLost(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := newRig(t, func(c *fetch.Config) {
		c.Observer.AttemptEnded = func(*jobs.Attempt, int64, string) { cancel(jobs.ErrLeaseLost) }
	})
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	if o := r.doWith(ctx, "http://shop.test/ok", jobs.Progress{}); o.Kind != jobs.RunLeaseLost || o.Result.Outcome != "" {
		t.Errorf("kind %d, %s: want it lost although the answer is there", o.Kind, o.Result.Outcome)
	}
}

func TestPanicWithinAnExchangeLeavesNothingBehind(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) {
		c.Denied = func(host string) bool {
			if host == "boom.test" {
				panic("in the middle of an exchange")
			}
			return false
		}
	})
	p := r.proxy(testenv.Good, nil)
	r.use(p.URL("http") + " id=p")
	if o := r.do("http://shop.test/redirect-to?url=http://boom.test/"); o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Failed {
		t.Errorf("kind %d, %s, want a failed job", o.Kind, o.Result.Outcome)
	}
	if s, _ := r.pool.StatusOf("p"); s.Inflight != 0 || r.f.IdleConns() != 0 {
		t.Errorf("%d in flight, %d idle connections, want none", s.Inflight, r.f.IdleConns())
	}
}

func TestAttemptEndsTheWaitForAProxy(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	waited := jobs.Progress{WaitingSince: time.Now().Add(-time.Hour)}
	o := r.doWith(t.Context(), `{"url":"http://shop.test/status/503","retry":{"base_delay":20}}`, waited)
	if o.Kind != jobs.RunScheduled || !o.Progress.WaitingSince.IsZero() {
		t.Errorf("kind %d, waiting since %v, want it to wait for its retry only", o.Kind, o.Progress.WaitingSince)
	}
}
