package worker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestAJobDeliveredAgainToItsWorkerIsNotRunTwice(t *testing.T) {
	w := newWorld(t, bus.Settings{})
	acks := make(chan *nats.Msg, 64)
	if _, err := w.nc.ChanSubscribe("$JS.ACK.GOFER_JOBS.>", acks); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	w.start(func(ctx context.Context, _ jobs.Job, _ jobs.Progress) jobs.RunOutcome {
		runs.Add(1)
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), jobs.ErrJobCancelled) {
			return finished(jobs.Cancelled, jobs.ErrCancelled, nil)
		}
		return jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	})
	w.publish("j1", page)

	// The server takes an ack from anybody: after this one it gives the job out again, as after a crash, to the idle slot.
	heartbeat := <-acks
	if err := w.nc.Publish(heartbeat.Subject, []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	w.until("the second delivery", func() bool { return w.worker.Stats().Redelivered == 1 })
	for range 5 { // beyond the lease that the second delivery began
		<-acks
	}
	if n, s := runs.Load(), w.worker.Stats(); n != 1 || s.Lost != 0 || s.InFlight["default"] != 1 {
		t.Errorf("%d runs, %d leases lost, %d in flight; want the one run to go on", n, s.Lost, s.InFlight["default"])
	}
	if err := w.client.Cancel(t.Context(), bus.Key{Queue: "default", ID: "j1"}, "test"); err != nil {
		t.Fatal(err)
	}
	w.until("the run to be cancelled", func() bool { return w.worker.Stats().InFlight["default"] == 0 })
}
