package bench_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/waiting"
)

// TestCostOfCountingWaitingJobs measures what it costs to count the waiting jobs of 32 queues every 5 s, worker and server
// together, and how long other requests on the connection of the worker that counts take meanwhile. WAITING is the number of
// jobs. A job is cancelled and another one parked every second.
//
//	WAITING=1000000 go test -count=1 -timeout 30m -run CountingWaitingJobs -v ./testenv/bench
func TestCostOfCountingWaitingJobs(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("WAITING"))
	if err != nil {
		t.Skip("skipped: set WAITING to a number of waiting jobs")
	}
	const window = 2 * time.Minute // a search for what was cancelled is followed by a rest, which is part of its price
	c := waitingStream(t)
	c.parkMany(t, 0, n)
	counter := waiting.NewCounter(c.Client, waiting.Config{})
	count := func() (s waiting.Snapshot) {
		if s, err = counter.Count(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	began, unread := time.Now(), uint64(1)
	slowest := c.slowest(t, func() {
		reading := cpuOf(func() {
			for unread > 0 {
				unread = count().Unread
			}
		})
		t.Logf("reading %d jobs once: %s, %.1f s of a core", n, time.Since(began).Round(time.Millisecond), reading.Seconds())
	})
	t.Logf("slowest of the other requests meanwhile: %s", slowest)
	next := n
	// The counts and the cancels are measured by themselves: only the counts are a cost of every fleet.
	var cancels, cancelled time.Duration
	counting := func(changed bool) (share float64) {
		var spent time.Duration
		tick := time.NewTicker(waiting.Every)
		defer tick.Stop()
		for end := time.Now().Add(window); time.Now().Before(end); <-tick.C {
			cancelled += cpuOf(func() {
				for i := next - n/2; changed && i < next-n/2+5; i++ {
					if err := client.New(c.Client).Cancel(t.Context(), client.Key{Queue: queueAt(i), ID: idAt(i)}); err != nil {
						t.Error(err)
					}
					cancels++
				}
			})
			if changed {
				c.parkMany(t, next, next+5)
				next += 5
			}
			spent += cpuOf(func() { count() })
		}
		return 100 * spent.Seconds() / window.Seconds()
	}
	t.Logf("counting what stays: %.2f %% of a core; while a job a second is cancelled: %.2f %%", counting(false), counting(true))
	t.Logf("a cancel itself costs %s", cancelled/max(1, cancels))
}

func queueAt(i int) string { return fmt.Sprintf("q%02d", i%32) }

func idAt(i int) string { return fmt.Sprintf("j%d", i) }

// parkMany parks jobs in 32 queues and does not wait for each answer.
func (w *waitingJobs) parkMany(t *testing.T, from, to int) {
	t.Helper()
	js, err := jetstream.New(w.Conn(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		progress, err := (&jobs.Progress{JobSeq: uint64(i + 1)}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		msg := &nats.Msg{Subject: w.Names().ScheduledJob(queueAt(i), idAt(i)), Header: nats.Header{jobs.HeaderProgress: {progress}}, Data: []byte("http://shop.test/")}
		bus.Schedule(msg, w.Names().DueJob(queueAt(i), idAt(i)), time.Now().Add(time.Hour+time.Duration(i)*time.Millisecond))
		if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

// slowest is how long the slowest of the round trips to the server takes while act runs.
func (w *waitingJobs) slowest(t *testing.T, act func()) (slowest time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			began := time.Now()
			if err := w.Conn().FlushTimeout(time.Minute); err != nil {
				t.Error(err)
			}
			slowest = max(slowest, time.Since(began))
		}
	}()
	act()
	stop()
	<-done
	return slowest
}
