package fetch_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// TestNoStopBringsAnAnnouncedAttemptForward stops jobs at any moment, within the announcement of a retry too, and lets another
// worker go on with them. An attempt never begins before the time that was announced for it.
func TestNoStopBringsAnAnnouncedAttemptForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, stopAndGoOn) })
}

func stopAndGoOn(t *rapid.T) {
	s := &script{}
	for range 10 {
		s.acts = append(s.acts, act{
			do:         rapid.SampledFrom([]deed{refuses, timedOut, tooMany, tooMany, busy, silent}).Draw(t, "act"),
			retryAfter: rapid.SampledFrom([]string{"", "1", "2", "3", "120"}).Draw(t, "Retry-After"),
		})
	}
	policy := drawPolicy(t, 10)
	policy.MaxAttempts, policy.Timeout = 10, 0
	f, _ := s.fetcher(2, rotation.RoundRobin, policy)
	var stop context.CancelCauseFunc
	within := rapid.IntRange(0, 9).Draw(t, "stopped within the announcement after attempt")
	s.onRetry = func(e jobs.RetryEvent) {
		time.Sleep(rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond}).Draw(t, "the announcement takes"))
		if e.Attempt == within {
			stop(jobs.ErrStopping)
		}
	}
	var progress jobs.Progress
	job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var ctx context.Context
		ctx, stop = context.WithCancelCause(t.Context())
		timer := time.AfterFunc(rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 1500 * time.Millisecond, time.Minute, time.Hour}).Draw(t, "stop after")+oddly, func() { stop(jobs.ErrStopping) })
		o := f.Do(ctx, &job, &progress)
		timer.Stop()
		stop(nil)
		if o.Kind == jobs.RunFinished {
			break
		}
		progress = o.Progress
		if n := len(s.events); n > 0 && len(progress.Attempts) == s.events[n-1].Attempt && time.Now().Before(s.events[n-1].NextAttemptAt) && o.At.Before(s.events[n-1].NextAttemptAt) {
			t.Fatalf("kind %d until %v, announced for %v", o.Kind, o.At, s.events[n-1].NextAttemptAt)
		}
		time.Sleep(time.Until(o.At))
	}
	for _, e := range s.events {
		for _, a := range s.attempts {
			if a.Attempt == e.Attempt+1 && a.StartedAt.Before(e.NextAttemptAt) {
				t.Fatalf("attempt %d began %v before the announced time", a.Attempt, e.NextAttemptAt.Sub(a.StartedAt))
			}
		}
	}
	f.Close()
	s.wg.Wait()
}

func TestTheWaitRunsFromItsAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := jobs.DefaultPolicy()
		policy.Jitter = false
		s := &script{acts: []act{{do: timedOut}, {do: good}}}
		s.onRetry = func(jobs.RetryEvent) { time.Sleep(700 * time.Millisecond) } // the server is slow to take it
		f, _ := s.fetcher(1, rotation.RoundRobin, policy)
		f.Do(t.Context(), decode(t, "http://shop.test/"), &jobs.Progress{})
		if got, want := s.attempts[1].StartedAt, s.events[0].NextAttemptAt; !got.Equal(want) {
			t.Errorf("the attempt began at %v, announced for %v", got, want)
		}
		f.Close()
		s.wg.Wait()
	})
}

// endsWith is a connection that is read byte by byte, and whose context ends with the last of them.
type endsWith struct {
	net.Conn
	last, seen string
	cancel     context.CancelFunc
}

func (c *endsWith) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(1, len(p))])
	if c.seen += string(p[:n]); strings.HasSuffix(c.seen, c.last) {
		c.cancel()
	}
	return n, err
}

// A context that ends with its exchange may still be about to set a deadline, which would be that of the next exchange.
func TestAConnectionWhoseContextEndedIsNotKept(t *testing.T) {
	for _, stops := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRig(t, func(c *fetch.Config) {
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				last := "page"
				if !stops {
					last = "nothing of the kind"
				}
				return &endsWith{Conn: conn, last: last, cancel: cancel}, err
			}
		})
		r.use("http://" + r.script(func(_ int64, c net.Conn) {
			in := bufio.NewReader(c)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
			_, _ = in.ReadByte()
		}).String() + " id=p")
		r.doWith(ctx, "http://shop.test/", jobs.Progress{})
		if kept := r.f.IdleConns() > 0; kept == stops {
			t.Errorf("the context has ended: %v; the connection is kept: %v", stops, kept)
		}
		cancel()
	}
}
