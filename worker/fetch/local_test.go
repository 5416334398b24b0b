package fetch_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// short is a fetcher with five proxies on a host whose dials fail with what lacks returns.
func short(t *testing.T, lacks func(addr string) error) (f *fetch.Fetcher, pool *rotation.Pool, retries *int, done func()) {
	t.Helper()
	var served sync.WaitGroup
	serve := answering("200 OK", &served)
	pool = rotation.New(rotation.Config{Breaker: breaker.Config{FailureThreshold: 1}})
	var list []proxylist.Proxy
	for _, id := range []string{"p0", "p1", "p2", "p3", "p4"} {
		list = append(list, proxylist.Proxy{ID: id, URL: &url.URL{Scheme: "http", Host: id + ".test:80"}})
	}
	pool.Replace(list)
	retries = new(int)
	f = fetch.New(fetch.Config{
		Pool: pool, Policy: jobs.DefaultPolicy, Observer: fetch.Observer{RetryPlanned: func(jobs.RetryEvent) { *retries++ }},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if err := lacks(addr); err != nil {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", err)}
			}
			return serve(ctx, network, addr)
		},
	})
	return f, pool, retries, func() { f.Close(); served.Wait() }
}

func TestWhatThisHostLacksCostsNoAttemptAndOpensNoBreaker(t *testing.T) {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			f, pool, retries, done := short(t, func(string) error {
				if time.Since(began) < time.Minute {
					return lack
				}
				return nil
			})
			defer done()
			r := toTheEnd(t, f, decode(t, `{"url":"http://shop.test/","retry":{"max_attempts":1}}`))
			if r.Outcome != jobs.Succeeded || r.AttemptCount != 1 || time.Since(began) > 70*time.Second || *retries != 0 {
				t.Errorf("%v: %s %s with %d attempts and %d retries after %v, want that it waits without an attempt", lack, r.Outcome, r.Detail, r.AttemptCount, *retries, time.Since(began))
			}
			wantClosed(t, pool, 5)
		})
	}
}

func TestAProxyThatThisHostCannotReachIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, _, done := short(t, func(addr string) error {
			if addr == "p0.test:80" || addr == "p1.test:80" {
				return syscall.EADDRNOTAVAIL
			}
			return nil
		})
		defer done()
		for session := range 10 { // each keeps to one proxy
			began := time.Now()
			r := toTheEnd(t, f, decode(t, fmt.Sprintf(`{"url":"http://shop.test/","proxy":{"session":"%d"},"retry":{"max_attempts":1}}`, session)))
			if r.Outcome != jobs.Succeeded || r.AttemptCount != 1 || time.Since(began) > 0 {
				t.Errorf("%s %s with %d attempts after %v", r.Outcome, r.Detail, r.AttemptCount, time.Since(began))
			}
		}
		wantClosed(t, pool, 5)
	})
}

func TestAJobThatDoesNotWaitIsToldWhatThisHostLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, done := short(t, func(string) error { return syscall.EMFILE })
		defer done()
		r := f.Do(t.Context(), decode(t, `{"url":"http://shop.test/","when_no_proxy":"fail"}`), &jobs.Progress{}).Result
		if r.Error != jobs.ErrNoProxy || r.AttemptCount != 0 || r.Detail != "this worker cannot open a connection: too many open files" {
			t.Errorf("%s, %q after %d attempts", r.Error, r.Detail, r.AttemptCount)
		}
	})
}

// TestWhatThisHostLacksIsCountedOnceARequestWasSent has a job that could otherwise ask a target as often as it likes.
func TestWhatThisHostLacksIsCountedOnceARequestWasSent(t *testing.T) {
	stretch := stretches(t)
	synctest.Test(t, func(t *testing.T) {
		_, _, o := stretch(hopPlan{}, hopPlan{dial: syscall.EMFILE}).run("")
		if o.Result.Error != jobs.ErrAttemptsExhausted || o.Result.AttemptCount != 1 || o.Result.Attempts[0].Fault != jobs.FaultNone {
			t.Errorf("%s after %+v", o.Result.Error, o.Result.Attempts)
		}
	})
}

// TestWhatThisHostLacksIsLoggedOnceAMinute looks at what an operator finds.
func TestWhatThisHostLacksIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		pool := rotation.New(rotation.Config{})
		pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: jobs.DefaultPolicy, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: syscall.EMFILE}
			},
		})
		for range 30 {
			f.Do(t.Context(), decode(t, "http://shop.test/"), &jobs.Progress{})
			time.Sleep(3 * time.Second)
		}
		if n := strings.Count(log.String(), "too many open files"); n != 2 {
			t.Errorf("%d lines within 90 s, want 2: %s", n, log.String())
		}
		f.Close()
	})
}
