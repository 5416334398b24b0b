package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/time/rate"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// slowLink relays connections to the server, with so many bytes a second on the way there and back.
func (w *world) slowLink(there, back int) (to string) {
	w.Helper()
	server, err := url.Parse(w.nats.URL())
	if err != nil {
		w.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var relaying sync.WaitGroup
	relaying.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server.Host)
			if err != nil {
				_ = c.Close()
				continue
			}
			closeBoth := func() { _ = c.Close(); _ = up.Close() }
			context.AfterFunc(ctx, closeBoth)
			relaying.Go(func() { defer closeBoth(); relay(ctx, c, up, back) })
			relaying.Go(func() { defer closeBoth(); relay(ctx, up, c, there) })
		}
	})
	w.Cleanup(func() { _ = l.Close(); stop(); relaying.Wait() })
	return "nats://" + l.Addr().String()
}

// fast is no limit for a test.
const fast = 1 << 40

func relay(ctx context.Context, to io.Writer, from io.Reader, perSecond int) {
	const piece = 16 << 10
	pace, buf := rate.NewLimiter(rate.Limit(perSecond), piece), make([]byte, piece)
	for {
		n, err := from.Read(buf)
		if n > 0 && pace.WaitN(ctx, n) == nil {
			_, _ = to.Write(buf[:n])
		}
		if err != nil || ctx.Err() != nil {
			return
		}
	}
}

// TestLargeJobsArriveThroughASlowLink has jobs that each take longer than a silent server is waited for. Two of them take less
// time than nats.go waits for the answer to a ping.
func TestLargeJobsArriveThroughASlowLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.link, w.drain = w.slowLink(fast, 1<<18), 2*longWait
	const n = 4
	for i := range n {
		w.publish(fmt.Sprint("x", i), `{"url":"`+page+`","method":"POST","body":"`+strings.Repeat("x", 600<<10)+`"}`)
	}
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.untilEnded("default", n)
}

// TestALargeBodyIsStoredThroughASlowLink takes longer for a body than any other step may, and than the lease of a worker that
// sends no heartbeats.
func TestALargeBodyIsStoredThroughASlowLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait / 2})
	w.link = w.slowLink(1<<19, fast)
	var runs atomic.Int32
	body := bytes.Repeat([]byte("b"), 6<<20)
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		return finished(jobs.Succeeded, "", body)
	})
	w.publish("a", page)
	w.until("the job to end", w.gone("a"))
	r, err := w.client.Result(t.Context(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := client.New(w.client).Body(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v; want the body", len(got), err)
	}
	if s := w.worker.Stats(); runs.Load() != 1 || s.LeasesLost != 0 {
		t.Errorf("%d runs, %d leases lost; want one run", runs.Load(), s.LeasesLost)
	}
}
