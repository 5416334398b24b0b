package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// backlog publishes n jobs.
func (w *world) backlog(n int) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	for i := range n {
		if _, err := js.PublishAsync(fmt.Sprint("gofer.jobs.default.b", i), []byte("http://shop.test/ok")); err != nil {
			w.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patience):
		w.Fatal("the backlog was not accepted")
	}
}

// counter reads a counter of a worker's metrics that has no labels.
func (w *world) counter(addr, name string) (n int) {
	w.Helper()
	_, page := w.get("http://" + addr + "/metrics")
	_, rest, _ := strings.Cut(page, "\n"+name+" ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestABacklogIsNotChurnedWhileNoProxyIsUsable(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	const slots = 10
	w.proxy.Set(testenv.Refusing)
	setenv(t, "GOFER_CONCURRENCY", fmt.Sprint(slots))
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	addr := freeAddr(t)
	setenv(w.T, "GOFER_HTTP_ADDR", addr)
	w.start("worker")
	testenv.Eventually(t, "the worker to begin", func() bool { status, _ := w.get("http://" + addr + "/livez"); return status == 200 })
	w.backlog(2000)
	testenv.Eventually(t, "the worker to find no proxy usable", func() bool { return w.counter(addr, "gofer_jobs_parked_total") > 0 })
	begin, before := time.Now(), w.counter(addr, `gofer_jobs_received_total{queue="default"}`)
	testenv.Eventually(t, "it to take some more", func() bool { return w.counter(addr, `gofer_jobs_received_total{queue="default"}`) > before+8*slots })
	taken, took := w.counter(addr, `gofer_jobs_received_total{queue="default"}`)-before, time.Since(begin)
	// A second's worth is let through at once, each of the two consumers may have a pull under way, and those in hand are there
	// already.
	if most := slots*took.Seconds() + 4*slots; float64(taken) > most {
		t.Errorf("%d jobs were taken in %v while no proxy was usable, want at most %.0f", taken, took, most)
	}
}

func TestDelayedJobRunsNotBeforeItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.worker(freeAddr(t))
	at := time.Now().Add(10 * time.Second)
	for id, flags := range map[string][]string{
		"in": {"--in", "10s"}, "at": {"--at", at.UTC().Format(time.RFC3339Nano)}, "now": nil,
	} {
		if code, _, errOut := gofer(t, "", append([]string{"submit", "--id", id, "http://shop.test/ok"}, flags...)...); code != exitOK {
			t.Fatalf("gofer submit %v: exit %d, %s", flags, code, errOut)
		}
	}
	if r := w.result("now"); r.Outcome != jobs.Succeeded || !r.FinishedAt.Before(at) {
		t.Errorf("a job without a delay ended at %v, after those with one", r.FinishedAt)
	}
	for _, id := range []string{"in", "at"} {
		if r := w.result(id); r.Outcome != jobs.Succeeded || r.FinishedAt.Before(at) {
			t.Errorf("job %s: %s at %v, want success, and not before %v", id, r.Outcome, r.FinishedAt, at)
		}
	}
}
