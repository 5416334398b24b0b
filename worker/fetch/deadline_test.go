package fetch_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// bare is a fetcher whose pool is empty, and what fills it with a proxy that works.
func bare(t *testing.T) (f *fetch.Fetcher, pool *rotation.Pool, fill, done func()) {
	t.Helper()
	var served sync.WaitGroup
	pool = rotation.New(rotation.Config{})
	f = fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: answering("200 OK", &served)})
	fill = func() { pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}}) }
	return f, pool, fill, func() { f.Close(); served.Wait() }
}

func TestAJobWithoutAProxyExpiresAtItsDeadlineAndNotBefore(t *testing.T) {
	for _, left := range []time.Duration{100 * time.Millisecond, 2 * time.Second, 10 * time.Second, 100 * time.Second} {
		for _, open := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				f, pool, fill, done := bare(t)
				defer done()
				if open {
					fill()
					pool.ForceOpen("p", time.Hour, "test")
				}
				began := time.Now()
				r := toTheEnd(t, f, decode(t, fmt.Sprintf(`{"url":"http://shop.test/","deadline":%q}`, began.Add(left).Format(time.RFC3339Nano))))
				if took := time.Since(began); r.Error != jobs.ErrExpired || took != left || r.AttemptCount != 0 {
					t.Errorf("a pool with a proxy that rests %v: %s after %v and %d attempts, want expired after %v", open, r.Error, took, r.AttemptCount, left)
				}
			})
		}
	}
}

func TestAProxyThatComesBeforeTheDeadlineIsUsed(t *testing.T) {
	for _, left := range []time.Duration{2 * time.Second, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f, pool, fill, done := bare(t)
			defer done()
			pool.Replace([]proxylist.Proxy{{ID: "rests", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
			pool.ForceOpen("rests", time.Hour, "test")
			time.AfterFunc(left*3/4, fill)
			r := toTheEnd(t, f, decode(t, fmt.Sprintf(`{"url":"http://shop.test/","deadline":%q}`, time.Now().Add(left).Format(time.RFC3339Nano))))
			if r.Outcome != jobs.Succeeded {
				t.Errorf("a proxy came after three quarters of %v: %s", left, r.Error)
			}
		})
	}
}

func TestAJobThatMayNotStartBeforeItsDeadlineExpiresThen(t *testing.T) {
	for _, left := range []time.Duration{time.Second, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f, _, fill, done := bare(t)
			defer done()
			fill()
			began := time.Now()
			r := toTheEnd(t, f, decode(t, fmt.Sprintf(`{"url":"http://shop.test/","not_before":%q,"deadline":%q}`,
				began.Add(time.Hour).Format(time.RFC3339Nano), began.Add(left).Format(time.RFC3339Nano))))
			if took := time.Since(began); r.Error != jobs.ErrExpired || took != left {
				t.Errorf("%s after %v, want expired after %v", r.Error, took, left)
			}
		})
	}
}

// Only a wait that is too short for the server's schedule holds a slot.
func TestAJobWaitsForItsTimeWithoutASlot(t *testing.T) {
	for left, want := range map[time.Duration]jobs.RunKind{
		500 * time.Millisecond: jobs.RunFinished, 501 * time.Millisecond: jobs.RunScheduled, 2 * time.Second: jobs.RunScheduled, time.Hour: jobs.RunScheduled,
	} {
		synctest.Test(t, func(t *testing.T) {
			f, _, fill, done := bare(t)
			defer done()
			fill()
			at := time.Now().Add(left)
			o := f.Do(t.Context(), decode(t, fmt.Sprintf(`{"url":"http://shop.test/","not_before":%q}`, at.Format(time.RFC3339Nano))), &jobs.Progress{})
			if o.Kind != want || o.Kind == jobs.RunScheduled && !o.At.Equal(at) {
				t.Errorf("a job whose time comes in %v: kind %d at %v, want kind %d", left, o.Kind, o.At, want)
			}
			if early := time.Until(at); o.Kind == jobs.RunFinished && early > 0 {
				t.Errorf("a job ended %v before its time", early)
			}
		})
	}
}

// A dial knows the deadline of its context, and may report it before the context ends.
func TestAJobThatAllowsTooLittleTimeOpensNoBreaker(t *testing.T) {
	for _, bound := range []string{`"timeout":0.02,"retry":{"max_attempts":1}`, `"retry":{"timeout":0.02}`} {
		synctest.Test(t, func(t *testing.T) {
			pool := rotation.New(rotation.Config{})
			pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
			f := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				deadline, _ := ctx.Deadline()
				time.Sleep(time.Until(deadline))
				return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded} // as net.Dialer does
			}})
			defer f.Close()
			for range 20 {
				r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/",`+bound+`}`))
				for _, a := range r.Attempts {
					if a.Fault == jobs.FaultProxy {
						t.Errorf("fault of an attempt of %v = %s (%s)", a.Duration, a.Fault, a.Error)
					}
				}
			}
			if s, _ := pool.StatusOf("p"); s.State != breaker.Closed || s.Failures != 0 {
				t.Errorf("the breaker is %v with %d failures, want none", s.State, s.Failures)
			}
		})
	}
}
