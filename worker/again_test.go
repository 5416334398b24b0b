package worker_test

import (
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

const shortWait = 2 * time.Second

// start runs a worker of two slots until the test ends.
func start(t *testing.T, nc *nats.Conn, do func(context.Context, jobs.Job) worker.Outcome) (*worker.Worker, *bus.Client) {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(nc, names)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Ensure(t.Context(), bus.Settings{AckWait: shortWait}); err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(worker.Config{
		Client: client, Queues: []worker.Queue{{Name: "default"}}, Concurrency: 2, AckWait: shortWait, DrainTimeout: time.Second,
		Log: slog.New(slog.DiscardHandler), Name: "w1",
		Do: func(ctx context.Context, job jobs.Job, _ jobs.Progress) worker.Outcome { return do(ctx, job) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w, client
}

func publish(t *testing.T, nc *nats.Conn, id string) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "gofer.jobs.default."+id, []byte("http://shop.test/")); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s in vain for %s", what)
		}
	}
}

func TestAJobDeliveredAgainToItsWorkerIsNotRunTwice(t *testing.T) {
	nc := testenv.StartNATS(t, nil).Connect()
	acks := make(chan *nats.Msg, 64)
	if _, err := nc.ChanSubscribe("$JS.ACK.GOFER_JOBS.>", acks); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	w, client := start(t, nc, func(ctx context.Context, _ jobs.Job) worker.Outcome {
		runs.Add(1)
		<-ctx.Done()
		if context.Cause(ctx) == jobs.ErrJobCancelled {
			return worker.Outcome{Result: jobs.Result{Outcome: jobs.Cancelled, Error: jobs.ErrCancelled, FinishedAt: time.Now()}}
		}
		return worker.Outcome{Kind: worker.Lost}
	})
	publish(t, nc, "j1")

	// The server takes an ack from anybody: after this one it gives the job out again, as after a crash, to the idle slot.
	heartbeat := <-acks
	if err := nc.Publish(heartbeat.Subject, []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	until(t, "the second delivery", func() bool { return w.Stats().Redelivered == 1 })
	for range 5 { // beyond the lease that the second delivery began
		<-acks
	}
	if n, s := runs.Load(), w.Stats(); n != 1 || s.Lost != 0 || s.InFlight["default"] != 1 {
		t.Errorf("%d runs, %d leases lost, %d in flight; want the one run to go on", n, s.Lost, s.InFlight["default"])
	}
	if err := client.Cancel(t.Context(), bus.Key{Queue: "default", ID: "j1"}, "test"); err != nil {
		t.Fatal(err)
	}
	until(t, "the run to be cancelled", func() bool { return w.Stats().InFlight["default"] == 0 })
}
