package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/overdue"
	"github.com/gofer-mq/gofer/worker/stream"
)

// TestCostOfLookingForOverdueJobs measures what it costs to look for overdue jobs among those that wait, worker and server
// together. OVERDUE is their number. Their times are spread over an hour, so that in each second the server releases some, and
// the test parks as many anew:
//
//	OVERDUE=1000000 go test -count=1 -timeout 30m -run OverdueJobs -v ./testenv/bench
func TestCostOfLookingForOverdueJobs(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("OVERDUE"))
	if err != nil {
		t.Skip("skipped: set OVERDUE to a number of waiting jobs")
	}
	const span, window = time.Hour, 2 * time.Minute
	c := waitingStream(t)
	luck := rand.New(rand.NewPCG(1, 0))
	after := func() time.Time { return time.Now().Add(window + time.Duration(luck.Int64N(int64(span)))) }
	began := time.Now()
	c.park(t, 0, n, after)
	t.Logf("%d jobs parked in %s", n, time.Since(began).Round(time.Second))
	var refill sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	refill.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for rate := n / int(span/time.Second); ctx.Err() == nil; <-tick.C {
			c.park(t, n, n+rate, after)
			n += rate
		}
	})
	share := func(spent time.Duration) float64 { return 100 * spent.Seconds() / window.Seconds() }
	pass(t.Context(), window)
	without := cpuOf(func() { pass(t.Context(), window) })
	var finding sync.WaitGroup
	finding.Go(func() {
		overdue.New(stream.New(c.Client), overdue.Config{Released: func(n int) { t.Errorf("%d jobs are overdue", n) }, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
	})
	first := cpuOf(func() { pass(t.Context(), window) })
	with := cpuOf(func() { pass(t.Context(), window) })
	t.Logf("reading all jobs once: %.1f s of a core", (first - without).Seconds())
	t.Logf("without looking: %.2f %% of a core; with: %.2f %%; looking costs %.2f %%", share(without), share(with), share(with-without))
	stop()
	refill.Wait()
	finding.Wait()
}

// cpuOf is the time that this process, with the server in it, spends on the processor while act runs.
func cpuOf(act func()) time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for oneself
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	act()
	return used() - before
}

// waitingJobs is an installation that jobs are parked in.
type waitingJobs struct {
	*bus.Client
	js jetstream.JetStream
}

func waitingStream(t *testing.T) *waitingJobs {
	t.Helper()
	nc := testenv.StartNATS(t, nil).Connect()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err == nil {
		err = client.Ensure(t.Context(), bus.Settings{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return &waitingJobs{client, client.JetStream()}
}

// park parks jobs with 300 bytes and one attempt each.
func (w *waitingJobs) park(t *testing.T, from, to int, at func() time.Time) {
	t.Helper()
	body := make([]byte, 300)
	progress := jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1", Status: 503, Fault: jobs.FaultTarget, Error: "503 Service Unavailable"}}}
	var parking sync.WaitGroup
	next := make(chan int)
	times := make([]time.Time, to-from)
	for i := range times {
		times[i] = at()
	}
	for range 64 {
		parking.Go(func() {
			for i := range next {
				if _, err := stream.New(w.Client).Schedule(t.Context(), "default", fmt.Sprintf("%026d", i), body, &progress, times[i-from]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		next <- i
	}
	close(next)
	parking.Wait()
}
