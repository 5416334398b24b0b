package worker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAWaitCarriesTheAttemptsAndTheSequenceOfTheJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.publish("a", page)
	w.publish("b", page) // so that the sequences of the two streams differ
	stored, err := w.client.LastMessage(t.Context(), "GOFER_JOBS", "gofer.jobs.default.b")
	if err != nil {
		t.Fatal(err)
	}
	tried := jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}
	w.start(func(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if job.ID == "b" && len(progress.Attempts) == 0 {
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now(), Progress: tried}
		}
		o := finished(jobs.Succeeded, "", nil)
		o.Result.AttemptCount = len(progress.Attempts)
		return o
	})
	w.until("the job to end", w.hasResult("b"))
	r, err := w.client.Result(t.Context(), "default", "b")
	if want := stored.Header.Get(jetstream.SequenceHeader); err != nil || fmt.Sprint(r.JobSeq) != want || r.AttemptCount != 1 {
		t.Errorf("got job sequence %d, %d attempts, %v; want sequence %s and the attempt before the wait", r.JobSeq, r.AttemptCount, err, want)
	}
}

func TestAttemptsMadeBeforeADrainAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.drain = 4 * time.Second // a part of it is left for what has to be stored
	w.publish("a", page)
	started := make(chan struct{})
	tried := jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}
	w.start(func(ctx context.Context, _ *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		close(started)
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunStopped, Progress: tried}
	})
	<-started
	w.stop()
	made := make(chan int, 1)
	w.start(func(_ context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		made <- len(progress.Attempts)
		return finished(jobs.Succeeded, "", nil)
	})
	if got := <-made; got != 1 {
		t.Errorf("the next worker knows of %d attempts, want 1", got)
	}
}

// waiting is the time of the one job that waits; zero if none does.
func (w *world) waiting() (until time.Time) {
	w.Helper()
	job, _, err := w.client.NextWaiting(w.Context(), 0)
	if err != nil {
		w.Fatal(err)
	}
	return job.Until
}

func TestStoppedJobWaitsForTheAnnouncedTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.drain = 4 * time.Second // a part of it is left for what has to be stored
	w.publish("a", page)
	started := make(chan struct{})
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	w.start(func(ctx context.Context, _ *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		close(started)
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunStopped, At: at, Progress: jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1}}}}
	})
	<-started
	w.stop()
	if got := w.waiting(); !got.Equal(at) {
		t.Errorf("the job waits until %s, want %s", got, at)
	}
}

// TestAnnouncedTimeOutlivesTheWorker has a worker that announces a retry and dies before it parks the job. An announcement of
// a wait that is too long is somebody else's.
func TestAnnouncedTimeOutlivesTheWorker(t *testing.T) {
	t.Parallel()
	for announced, want := range map[time.Duration]time.Duration{10 * time.Minute: 10 * time.Minute, 24 * time.Hour: 15 * time.Minute} {
		t.Run(announced.String(), func(t *testing.T) {
			w := newWorld(t, bus.Settings{})
			w.publish("a", page)
			consumer, err := w.client.EnsureJobConsumer(t.Context(), "default", false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := consumer.Next(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			e := jobs.RetryEvent{JobID: "a", Queue: "default", Attempt: 1, At: began, NextAttemptAt: began.Add(announced), Kind: jobs.RetryScheduled}
			if err := stream.New(w.client).PublishRetry(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
				t.Error("the job runs before the announced time")
				return finished(jobs.Succeeded, "", nil)
			})
			w.until("the job to be settled", func() bool { return w.hasResult("a")() || !w.waiting().IsZero() })
			if got := w.waiting().Sub(began); got < want || got > want+time.Minute {
				t.Errorf("the job waits for %s, want %s", got, want)
			}
		})
	}
}

// TestALetterThatACrashLeftUnwrittenIsWritten has the result of a worker that died before it wrote the dead letter.
func TestALetterThatACrashLeftUnwrittenIsWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.publish("a", page)
	stream, err := w.client.StreamInfo(t.Context(), "GOFER_JOBS")
	if err != nil {
		t.Fatal(err)
	}
	r := jobs.Result{Queue: "default", ID: "a", Outcome: jobs.Failed, Error: jobs.ErrPermanent, Worker: "dead", JobSeq: stream.State.LastSeq, FinishedAt: time.Now()}
	if _, err := w.client.StoreResult(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.until("the dead letter", func() bool {
		letter, err := client.New(w.client).DeadLetter(t.Context(), bus.Key{Queue: "default", ID: "a"})
		return err == nil && string(letter.Payload) == page
	})
}

func TestAnOutcomeIsStoredAsSoonAsThereIsRoomAndTheJobIsNotRunAgain(t *testing.T) {
	t.Parallel()
	w := newFullWorld(t, longWait)
	var runs atomic.Int32
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		runs.Add(1)
		return fills()
	})
	w.publish("big", page)
	w.until("the results to be full", func() bool { return !w.storable() })
	w.set.ResultsMaxBytes = 1 << 20
	if _, err := w.client.Apply(t.Context(), w.set); err != nil {
		t.Fatal(err)
	}
	w.until("the result", func() bool { return w.hasResult("big")() && w.storable() })
	if s := w.worker.Stats(); runs.Load() != 1 || s.Redelivered != 0 || s.LeasesLost != 0 {
		t.Errorf("%d runs, %d redelivered, %d leases lost; want one run", runs.Load(), s.Redelivered, s.LeasesLost)
	}
}
