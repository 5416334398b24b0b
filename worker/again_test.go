package worker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAJobDeliveredAgainToItsWorkerIsNotRunTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: keptWait})
	acks := make(chan *nats.Msg, 64)
	if _, err := w.nc.ChanSubscribe("$JS.ACK.GOFER_JOBS.>", acks); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	w.start(func(ctx context.Context, _ *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), jobs.ErrJobCancelled) {
			return finished(jobs.Cancelled, jobs.ErrCancelled, nil)
		}
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	})
	w.publish("j1", page)

	// The server takes an ack from anybody: after this one it gives the job out again, as after a crash, to the idle slot.
	heartbeat := <-acks
	if err := w.nc.Publish(heartbeat.Subject, []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	w.until("the second delivery", func() bool { return w.worker.Stats().Redelivered == 1 })
	for range 4 { // beyond the lease that the second delivery began
		<-acks
	}
	if n, s := runs.Load(), w.worker.Stats(); n != 1 || s.LeasesLost != 0 || s.InFlight["default"] != 1 {
		t.Errorf("%d runs, %d leases lost, %d in flight; want the one run to go on", n, s.LeasesLost, s.InFlight["default"])
	}
	if err := client.New(w.client).Cancel(t.Context(), bus.Key{Queue: "default", ID: "j1"}); err != nil {
		t.Fatal(err)
	}
	w.until("the run to be cancelled", func() bool { return w.worker.Stats().InFlight["default"] == 0 })
}

// runsOfOneName has two jobs of one name run at once: one that waited, and one that was published meanwhile. A run ends when it
// is cancelled, or by what it returns: end, for the one that waited by 7, and for the other one by 1.
func (w *world) runsOfOneName() (end map[uint64]chan struct{}, cancelled *atomic.Int32) {
	w.Helper()
	const waited, published = 7, 1
	end, cancelled = map[uint64]chan struct{}{waited: make(chan struct{}), published: make(chan struct{})}, new(atomic.Int32)
	w.start(func(ctx context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		run := uint64(published)
		if progress.JobSeq == waited {
			run = waited
		}
		select {
		case <-end[run]:
		case <-ctx.Done():
			cancelled.Add(1)
		}
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	})
	if _, err := stream.New(w.client).Schedule(w.Context(), "default", "j1", []byte(page), &jobs.Progress{JobSeq: waited}, time.Now()); err != nil {
		w.Fatal(err)
	}
	w.until("the job that waited to run", func() bool { return w.worker.Stats().InFlight["default"] == 1 })
	w.publish("j1", page)
	w.until("both to run", func() bool { return w.worker.Stats().InFlight["default"] == 2 })
	return end, cancelled
}

func TestAllRunsOfANameAreCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	_, cancelled := w.runsOfOneName()
	if err := client.New(w.client).Cancel(t.Context(), bus.Key{Queue: "default", ID: "j1"}); err != nil {
		t.Fatal(err)
	}
	w.until("both to be cancelled", func() bool { return cancelled.Load() == 2 && w.worker.Stats().InFlight["default"] == 0 })
}

func TestTheEndOfOneRunLeavesTheOtherOfItsNameInHand(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]uint64{"the older ends": 7, "the newer ends": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, bus.Settings{})
			end, cancelled := w.runsOfOneName()
			close(end[first])
			w.until("one to end", func() bool { return w.worker.Stats().InFlight["default"] == 1 })
			if err := client.New(w.client).Cancel(t.Context(), bus.Key{Queue: "default", ID: "j1"}); err != nil {
				t.Fatal(err)
			}
			w.until("the other one to be cancelled", func() bool {
				return cancelled.Load() == 1 && w.worker.Stats().InFlight["default"] == 0
			})
		})
	}
}

// The first run does not heed that its lease is lost, as one does that waits for a file or a name server.
func TestARunWhoseLeaseIsLostDoesNotKeepTheNextOneOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	var runs atomic.Int32
	lost, release := make(chan struct{}), make(chan struct{})
	w.start(func(ctx context.Context, _ *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if runs.Add(1) == 1 {
			<-ctx.Done()
			close(lost)
			<-release
			return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
		}
		return finished(jobs.Succeeded, "", nil)
	})
	defer close(release)
	w.publish("j1", page)
	w.until("the job to run", func() bool { return runs.Load() == 1 })
	w.nats.Stop()
	<-lost
	w.nats.Start()
	w.until("the job to end by its second run", w.hasResult("j1"))
}
