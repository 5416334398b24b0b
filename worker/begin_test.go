package worker

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// TestAJobWhoseLeaseIsOverIsNotBegun has a worker that was frozen between a fetch and the run of the job.
func TestAJobWhoseLeaseIsOverIsNotBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := false
		w, err := New(Config{
			Queues: []Queue{{Name: "default"}},
			Do: func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
				begun = true
				return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
			},
			Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		delivered := &task{puller: w.pullers[0], lease: newLease(time.Now(), ackWait), queue: "default", id: "a"}
		time.Sleep(ackWait)
		if w.run(t.Context(), t.Context(), delivered) {
			t.Error("the job may be acked, want not")
		}
		if lost := w.Stats().LeasesLost; begun || lost != 1 {
			t.Errorf("begun: %v, leases lost: %d; want a lost lease and no run", begun, lost)
		}
	})
}
