package worker_test

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
)

// shortWait is the ack wait of tests that let leases end. A busy machine ends others as well: a test in which none may end, or
// which counts runs, sets longWait, or keptWait if it lasts longer than a lease.
const (
	shortWait = 2 * time.Second
	keptWait  = 8 * time.Second
	longWait  = 20 * time.Second
)

// world is a server with its streams, and a worker of two slots that may be started on it.
type world struct {
	*testing.T
	nats     *testenv.NATS
	nc       *nats.Conn // of the test
	client   *bus.Client
	set      bus.Settings
	drain    time.Duration // the worker's; zero means a second
	queues   []worker.Queue
	slots    int
	foreign  bool        // the worker creates no stream again
	blind    bool        // the worker does not see how streams are
	link     string      // the worker's way to the server; empty is the server's own address
	logged   testenv.Log // by the worker
	worker   *worker.Worker
	stop     func() (took time.Duration) // drains the worker
	restores atomic.Int32                // how often the worker tried to create what is missing
}

func newWorld(t *testing.T, set bus.Settings) *world {
	t.Helper()
	set.AckWait = cmp.Or(set.AckWait, shortWait)
	w := &world{T: t, nats: testenv.StartNATS(t, nil), set: set, drain: time.Second, queues: []worker.Queue{{Name: "default"}}, slots: 2}
	w.nc, w.client = w.connect(w.nats.URL())
	if err := w.client.Ensure(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) connect(url string) (*nats.Conn, *bus.Client) {
	w.Helper()
	nc, err := bus.Connect(w.Context(), bus.Dial{URL: url}, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(nc.Close)
	names, err := jobs.NewNames("")
	if err != nil {
		w.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err != nil {
		w.Fatal(err)
	}
	return nc, client
}

// start runs a worker until the test ends. Of several, w.worker and w.stop are those of the last one.
func (w *world) start(do func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome) {
	w.Helper()
	_, client := w.connect(cmp.Or(w.link, w.nats.URL()))
	set := w.set // which the test may change while the worker runs
	var err error
	w.worker, err = worker.New(worker.Config{
		Client: client, Queues: w.queues, Concurrency: w.slots, AckWait: w.set.AckWait, DrainTimeout: w.drain,
		Log: slog.New(slog.NewTextHandler(&w.logged, nil)), Name: "w1",
		Do: do,
		Restore: func(ctx context.Context) error {
			w.restores.Add(1)
			if w.foreign {
				return nil
			}
			return client.Ensure(ctx, set)
		},
		InspectInterval: 300 * time.Millisecond,
		Inspect: func(ctx context.Context) (bus.Streams, error) {
			if w.blind {
				return bus.Streams{}, nil
			}
			return client.InspectStreams(ctx, set)
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	started := w.worker // the next start replaces w.worker
	running.Go(func() {
		if err := started.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	stop := func() time.Duration {
		begin := time.Now()
		cancel()
		running.Wait()
		return time.Since(begin)
	}
	w.stop = stop
	w.Cleanup(func() {
		stop()
		if w.Failed() {
			w.Logf("the worker said:\n%s", &w.logged)
		}
	})
}

func (w *world) publish(id, payload string) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := js.Publish(w.Context(), "gofer.jobs.default."+id, []byte(payload)); err != nil {
		w.Fatalf("publish %s: %v", id, err)
	}
}

func (w *world) until(what string, holds func() bool) {
	w.Helper()
	testenv.Eventually(w, what, holds)
}

func (w *world) hasResult(id string) func() bool {
	return func() bool {
		_, err := w.client.Result(w.Context(), "default", id)
		return err == nil
	}
}

func (w *world) storable() bool {
	return w.worker.StoreError() == nil
}

func finished(outcome, code string, body []byte) *jobs.RunOutcome {
	return &jobs.RunOutcome{Kind: jobs.RunFinished, Result: jobs.Result{Outcome: outcome, Error: code, Body: body, FinishedAt: time.Now()}}
}

const page = "http://shop.test/"
