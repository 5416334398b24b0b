package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// restIdle is for how long the costs of a worker are counted that has nothing to do.
const restIdle = 30 * time.Second

// fickle is a site that hangs up until it answers, and counts what it is asked.
type fickle struct {
	answers        atomic.Int64 // 1 when it does
	inflight, done atomic.Int64
	ahead          atomic.Int64 // the most requests at once beyond the answers that it has given
}

func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.answers.Load() == 0 {
		panic(http.ErrAbortHandler)
	}
	n := f.inflight.Add(1)
	f.ahead.Store(max(f.ahead.Load(), n-f.done.Load()))
	pass(r.Context(), 20*time.Millisecond)
	_, _ = w.Write(bytes.Repeat([]byte("x"), bodyBytes))
	f.done.Add(1)
	f.inflight.Add(-1)
}

// BenchmarkRestingSite moves b.N jobs of a site that rests aside, lets them wait for half a minute of its rest, and releases
// them when it answers:
//
//	go test -run '^$' -bench RestingSite -benchtime 100000x -timeout 30m ./testenv/bench
func BenchmarkRestingSite(b *testing.B) {
	if b.N == 1 {
		return // a trial of the testing package
	}
	const slots = 64
	site := &fickle{}
	resting := "http://" + serve(b, site) + "/"
	other := "http://" + serve(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })) + "/"
	w := startResting(b, slots)
	w.warm(b, site, resting, other)

	idle := w.spent(b, func() { pass(b.Context(), restIdle) })
	b.ReportMetric(idle.cpu.Seconds()*1000, "empty-cpu-ms")
	b.ReportMetric(float64(idle.requests), "empty-requests")

	began := time.Now()
	aside := w.spent(b, func() {
		publish(b, w.js, "aside", resting, b.N)
		w.await(b, func() (string, bool) {
			queued, waiting := w.messages(b, "GOFER_JOBS"), w.messages(b, "GOFER_RETRIES")
			return fmt.Sprint(queued, " queued, ", waiting, " waiting"), queued == 0 && waiting >= uint64(b.N)
		})
	})
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "aside/s")
	b.ReportMetric(float64(aside.cpu.Microseconds())/float64(b.N), "aside-cpu-µs/job")

	w.awaitRest(b)
	idle = w.spent(b, func() { pass(b.Context(), restIdle) })
	b.ReportMetric(idle.cpu.Seconds()*1000, "waiting-cpu-ms")
	b.ReportMetric(float64(idle.requests), "waiting-requests")

	site.done.Store(0)
	site.ahead.Store(0)
	site.answers.Store(1)
	w.await(b, func() (string, bool) { return "no answer", site.done.Load() > 0 })
	began = time.Now()
	results := w.messages(b, "GOFER_RESULTS")
	released := w.spent(b, func() {
		for _, after := range []time.Duration{time.Second, 5 * time.Second} {
			pass(b.Context(), time.Until(began.Add(after)))
			b.ReportMetric(float64(site.done.Load()), fmt.Sprint("answers-in-", after))
		}
		w.await(b, func() (string, bool) {
			n := w.messages(b, "GOFER_RETRIES")
			return fmt.Sprint(n, " waiting"), n == 0
		})
	})
	b.ReportMetric(float64(w.messages(b, "GOFER_RESULTS")-results)/time.Since(began).Seconds(), "released/s")
	b.ReportMetric(float64(released.cpu.Microseconds())/float64(b.N), "released-cpu-µs/job")
	b.ReportMetric(float64(released.requests)/float64(b.N), "released-requests/job")
	b.ReportMetric(float64(site.ahead.Load()), "ahead") // 1 if each request beyond the first follows an answer
	b.ReportMetric(peakMemory(b, w.cmd.Process.Pid), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// restingWorker is a worker with its server.
type restingWorker struct {
	srv *server.Server
	js  jetstream.JetStream
	cmd *exec.Cmd
}

func startResting(b *testing.B, slots int) *restingWorker {
	b.Helper()
	srv, js := startServer(b)
	ctx, cancel := context.WithCancel(context.Background()) // b.Context ends before the clean-up
	cmd := goferCommand(b)(ctx, work{slots: slots}, srv.ClientURL(), forwardProxies(b, slots))
	cmd.Env = append(cmd.Env, "GOFER_SITE_MAX_WAIT=1h")
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cancel(); _ = cmd.Wait() })
	return &restingWorker{srv, js, cmd}
}

// warm makes both sites known, and then lets the first one rest.
func (w *restingWorker) warm(b *testing.B, site *fickle, resting, other string) {
	b.Helper()
	site.answers.Store(1)
	publish(b, w.js, "up", resting, 100)
	publish(b, w.js, "other", other, 1000)
	w.await(b, func() (string, bool) { return "no 1,100 results", w.messages(b, "GOFER_RESULTS") == 1100 })
	site.answers.Store(0)
	publish(b, w.js, "first", resting, 10)
	w.await(b, func() (string, bool) {
		n := w.messages(b, "GOFER_RETRIES")
		return fmt.Sprint(n, " of the first ten jobs wait"), n > 0 && w.messages(b, "GOFER_JOBS") == 0
	})
}

// awaitRest waits until a rest begins that leaves time enough to be measured in: the second one takes two minutes.
func (w *restingWorker) awaitRest(b *testing.B) {
	b.Helper()
	began := time.Now()
	consumer, err := w.js.OrderedConsumer(b.Context(), "GOFER_EVENTS", jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"gofer.events.site.>"}, DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &began,
	})
	if err != nil {
		b.Fatal(err)
	}
	for {
		msg, err := consumer.Next(jetstream.FetchMaxWait(6 * time.Minute))
		if err != nil {
			b.Fatal(err)
		}
		if strings.Contains(string(msg.Data()), `"to_state":"resting"`) {
			w.awaitNoRun(b) // until the job of the failed test waits again
			return
		}
	}
}

// awaitNoRun waits until the worker holds no job that waited before.
func (w *restingWorker) awaitNoRun(b *testing.B) {
	b.Helper()
	stream, err := w.js.Stream(b.Context(), "GOFER_RETRIES")
	if err != nil {
		b.Fatal(err)
	}
	w.await(b, func() (string, bool) {
		held := 0
		consumers := stream.ListConsumers(b.Context())
		for c := range consumers.Info() {
			held += c.NumAckPending + int(c.NumPending)
		}
		if err := consumers.Err(); err != nil {
			b.Fatal(err)
		}
		return fmt.Sprint(held, " held"), held == 0
	})
}

// spent is what a worker used meanwhile: time on the processor, and messages that it sent to the server.
type spent struct {
	cpu      time.Duration
	requests int64
}

func (w *restingWorker) spent(b *testing.B, act func()) spent {
	b.Helper()
	before := w.used(b)
	act()
	after := w.used(b)
	return spent{after.cpu - before.cpu, after.requests - before.requests}
}

func (w *restingWorker) used(b *testing.B) (u spent) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		b.Skip("the time of a process is not known here:", err)
	}
	var user, system int64 // in hundredths of a second
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	_, _ = fmt.Sscan(fields[11], &user)
	_, _ = fmt.Sscan(fields[12], &system)
	u.cpu = time.Duration(user+system) * 10 * time.Millisecond
	connections, err := w.srv.Connz(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range connections.Conns {
		if c.Name != "" { // this process has none
			u.requests += c.InMsgs
		}
	}
	return u
}

func (w *restingWorker) messages(b *testing.B, stream string) uint64 {
	b.Helper()
	s, err := w.js.Stream(b.Context(), stream)
	if err != nil {
		b.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// await polls until something holds, for ten minutes at most: a hundred thousand jobs take longer than testenv.Patience.
func (w *restingWorker) await(b *testing.B, holds func() (state string, ok bool)) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		state, ok := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("too late: ", state)
		}
	}
}
