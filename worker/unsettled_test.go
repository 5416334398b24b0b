package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// change edits a stream as an owner may do.
func (w *world) change(stream string, edit func(*jetstream.StreamConfig)) {
	w.Helper()
	s, err := w.client.JetStream().Stream(w.Context(), stream)
	if err != nil {
		w.Fatal(err)
	}
	config := s.CachedInfo().Config
	edit(&config)
	if _, err := w.client.JetStream().UpdateStream(w.Context(), config); err != nil {
		w.Fatal(err)
	}
}

// gone reports whether a job is in no stream but that of the results.
func (w *world) gone(id string) func() bool {
	return func() bool {
		found, err := client.New(w.client).Find(w.Context(), client.Key{Queue: "default", ID: id})
		return err == nil && len(found) == 1 && found[0].Place == client.Finished && w.worker.Stats().InFlight["default"] == 0
	}
}

func TestAJobThatCannotBeStoredWhileItWaitsFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.blind = true
	w.change("GOFER_RETRIES", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 })
	var runs atomic.Int32
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Hour), Progress: jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}}
	})
	w.publish("a", page)
	w.until("the job to end", w.gone("a"))
	r, err := w.client.Result(t.Context(), "default", "a")
	if err != nil || r.Outcome != jobs.Failed || r.Error != jobs.ErrPermanent || !strings.Contains(r.Detail, "message size exceeds maximum") || len(r.Attempts) != 1 {
		t.Errorf("got %+v, %v; want it failed with the server's reason and its attempt", r, err)
	}
	if runs.Load() != 1 {
		t.Errorf("%d runs, want 1", runs.Load())
	}
}

// TestAWaitingJobGoesOnWithoutWhatOnlyPeopleRead has a stream that takes the attempts of a waiting job, and not their texts.
func TestAWaitingJobGoesOnWithoutWhatOnlyPeopleRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.blind = true
	w.change("GOFER_RETRIES", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1500 })
	w.start(func(_ context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if len(progress.Attempts) == 0 {
			tried := []jobs.Attempt{{Attempt: 1, Proxy: "p1", Status: 503, Error: strings.Repeat("e", 2000)}}
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now(), Progress: jobs.Progress{Attempts: tried}}
		}
		o := finished(jobs.Failed, jobs.ErrPermanent, nil)
		o.Result.Attempts = progress.Attempts
		return o
	})
	w.publish("a", page)
	w.until("the job to end", w.gone("a"))
	r, err := w.client.Result(t.Context(), "default", "a")
	if err != nil || len(r.Attempts) != 1 || r.Attempts[0].Proxy != "p1" || r.Attempts[0].Status != 503 || r.Attempts[0].Error != "" {
		t.Errorf("got %+v, %v; want the attempt without its text", r.Attempts, err)
	}
}

func TestAJobEndsWithoutADeadLetterThatCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.change("GOFER_DEAD", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 })
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Failed, jobs.ErrPermanent, nil)
	})
	w.publish("a", page)
	w.until("the job to end", w.gone("a"))
}

// TestAFailedJobWaitsInItsQueueForRoomForItsDeadLetter: it holds no slot, is not lost, and the reason is named. The consumer is
// deleted at the end, so that its jobs are delivered before their pause is over.
func TestAFailedJobWaitsInItsQueueForRoomForItsDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.change("GOFER_DEAD", func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardNew, 1 })
	do := func(_ context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if strings.HasPrefix(job.ID, "bad") {
			return finished(jobs.Failed, jobs.ErrPermanent, nil)
		}
		return finished(jobs.Succeeded, "", nil)
	}
	w.start(do)
	// More of them than the worker has slots.
	bad := []string{"bad1", "bad2", "bad3", "bad4", "bad5"}
	for _, id := range bad {
		w.publish(id, page)
		w.until("its result", w.hasResult(id))
	}
	w.publish("good", page)
	w.until("the good job to end", w.gone("good"))
	if got := w.queued(); got != uint64(len(bad)) {
		t.Errorf("%d jobs are in the queue, want the %d that failed", got, len(bad))
	}
	if err := w.worker.StoreError(); !errors.Is(err, bus.ErrDeadLettersFull) {
		t.Errorf("got %v, want that dead letters are full", err)
	}
	if n := w.worker.Stats().DeadLetters; n != 0 {
		t.Errorf("%d dead letters are counted, and none is stored", n)
	}
	w.change("GOFER_DEAD", func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardOld, -1 })
	if err := w.client.JetStream().DeleteConsumer(t.Context(), "GOFER_JOBS", "worker-default"); err != nil {
		t.Fatal(err)
	}
	for _, id := range bad {
		w.until("its dead letter", func() bool {
			_, err := client.New(w.client).DeadLetter(t.Context(), client.Key{Queue: "default", ID: id})
			return err == nil
		})
		w.until("the job to end", w.gone(id))
	}
}

func TestADuplicateEndsThoughItsEventIsRefusedForGood(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"sealed": func(c *jetstream.StreamConfig) { c.Sealed = true },
		// Somebody who wants to keep the oldest events makes the stream refuse the newest.
		"full": func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardNew, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, bus.Settings{AckWait: longWait})
			w.change("GOFER_EVENTS", change)
			var runs atomic.Int32
			w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
				runs.Add(1)
				return finished(jobs.Succeeded, "", nil)
			})
			for range 2 {
				w.publish("a", page)
				w.until("the job to end", w.gone("a"))
			}
			if s := w.worker.Stats(); runs.Load() != 2 || s.Duplicates != 1 {
				t.Errorf("%d runs, %d duplicates; want 2 and 1", runs.Load(), s.Duplicates)
			}
		})
	}
}

func TestAJobWhoseResultIsRefusedForGoodIsHeldAndShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	var runs atomic.Int32
	sealed := make(chan struct{})
	w.start(func(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		if job.ID == "a" {
			await(ctx, sealed)
		}
		return finished(jobs.Succeeded, "", nil)
	})
	w.publish("before", page)
	w.until("the first job to end", w.gone("before"))
	w.publish("a", page)
	w.until("the job to run", func() bool { return runs.Load() == 2 }) // a worker that finds the stream sealed takes no job at all
	w.change("GOFER_RESULTS", func(c *jetstream.StreamConfig) { c.Sealed = true })
	close(sealed)
	w.until("the job to be held", func() bool { return len(w.worker.Unsettled()) == 1 })
	held := w.worker.Unsettled()[0]
	if held.Queue != "default" || held.ID != "a" || held.Step != "store result" || !held.Permanent || !strings.Contains(held.Reason, "sealed stream") || held.Since.IsZero() {
		t.Errorf("got %+v, want the job with the server's reason", held)
	}
	if err := w.worker.StoreError(); err == nil || err.Error() != held.Reason {
		t.Errorf("storable: got %v; want the same reason", err)
	}
	if err := w.client.JetStream().DeleteStream(t.Context(), "GOFER_RESULTS"); err != nil {
		t.Fatal(err)
	}
	w.until("the job to end", func() bool { return w.hasResult("a")() && len(w.worker.Unsettled()) == 0 && w.storable() })
	if runs.Load() != 2 {
		t.Errorf("%d runs, want one of each job", runs.Load())
	}
}

func TestNoMoreJobsAreTakenThatWouldBeHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: keptWait})
	taken, sealed := make(chan struct{}), make(chan struct{})
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		close(taken)
		<-sealed
		return finished(jobs.Succeeded, "", nil)
	})
	w.publish("a", page)
	<-taken // a worker that finds the stream sealed takes no job at all
	w.change("GOFER_RESULTS", func(c *jetstream.StreamConfig) { c.Sealed = true })
	close(sealed)
	w.until("the job to be held", func() bool { return len(w.worker.Unsettled()) == 1 })
	w.until("the open pulls to end", func() bool {
		c, err := w.client.JetStream().Consumer(t.Context(), "GOFER_JOBS", "worker-default")
		return err == nil && c.CachedInfo().NumWaiting == 0
	})
	for _, id := range []string{"b", "c", "d", "e"} {
		w.publish(id, page)
	}
	w.until("heartbeats to have kept the job", func() bool { return time.Since(w.worker.Unsettled()[0].Since) > 3*keptWait/2 })
	if s := w.worker.Stats(); s.Taken != 1 || s.LeasesLost != 0 {
		t.Errorf("%d jobs are taken, %d leases lost; want 1 and none", s.Taken, s.LeasesLost)
	}
}
