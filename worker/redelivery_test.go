package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// remakeJobs deletes the stream of jobs and, when the worker has noticed, creates it again as another tool would. It has the same
// sequences and takes an ack meant for the one before.
func (w *world) remakeJobs(noticed func() bool) {
	w.Helper()
	before, err := w.client.StreamInfo(w.Context(), "GOFER_JOBS")
	if err != nil {
		w.Fatal(err)
	}
	if err := w.client.JetStream().DeleteStream(w.Context(), "GOFER_JOBS"); err != nil {
		w.Fatal(err)
	}
	w.until("the worker to miss its stream", noticed)
	before.Config.FirstSeq = before.State.FirstSeq
	if _, err := w.client.JetStream().CreateStream(w.Context(), before.Config); err != nil {
		w.Fatal(err)
	}
	if err := w.client.Ensure(w.Context(), w.set); err != nil {
		w.Fatal(err)
	}
}

func (w *world) queued() uint64 {
	w.Helper()
	s, err := w.client.JetStream().Stream(w.Context(), "GOFER_JOBS")
	if err != nil {
		w.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestAJobOfADeletedStreamRemovesNoneFromTheNextOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.foreign = true
	running, release := make(chan string, 8), make(chan struct{})
	w.start(func(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		running <- job.ID
		if job.ID == "old" {
			<-release
			return finished(jobs.Succeeded, "", nil)
		}
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	})
	w.publish("old", page)
	<-running
	w.remakeJobs(func() bool { // by a fetch, or by an inspection of the streams, whichever comes first
		log := w.logged.String()
		return strings.Contains(log, "cannot be pulled") || strings.Contains(log, "streams are not as gofer needs them")
	})
	w.publish("new", page)
	if id := <-running; id != "new" { // in the other slot
		t.Fatalf("job %s runs, want the new one", id)
	}
	close(release)
	w.until("the old job to be done with", func() bool { return w.worker.Stats().InFlight["default"] == 1 })
	if got := w.queued(); got != 1 {
		t.Errorf("jobs in the new stream after the end of the old one = %d, want the new one to be still there", got)
	}
}

// All slots are taken, so no pull tells the worker that its consumer is another one.
func TestJobsAreGivenUpWhenTheirStreamIsAnotherOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.foreign = true
	var begun, lost sync.WaitGroup
	begun.Add(2)
	lost.Add(2)
	causes := make(chan error, 8)
	w.start(func(ctx context.Context, job *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		if job.ID == "old1" || job.ID == "old2" {
			begun.Done()
			<-ctx.Done()
			causes <- context.Cause(ctx)
		}
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	})
	w.publish("old1", page)
	w.publish("old2", page)
	begun.Wait()
	w.remakeJobs(func() bool { return true })
	w.publish("new1", page) // has the sequence that the first one had
	for range 2 {
		if cause := <-causes; !errors.Is(cause, jobs.ErrLeaseLost) {
			t.Errorf("the job ended for %v, want its lease to be lost", cause)
		}
	}
}

// taken is a job that a worker took, announced retries for, and died with.
func (w *world) taken(id string, announced ...jobs.RetryEvent) {
	w.Helper()
	w.publish(id, page)
	consumer, err := w.client.EnsureJobConsumer(w.Context(), "default", false)
	if err != nil {
		w.Fatal(err)
	}
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(testenv.Patience))
	if err != nil {
		w.Fatal(err)
	}
	msg, some := <-batch.Messages()
	if !some {
		w.Fatal("the job cannot be taken")
	}
	for _, e := range announced {
		e.JobID, e.Queue, e.Worker, e.At = id, "default", "dead", time.Now()
		if err := stream.New(w.client).PublishRetry(w.Context(), e); err != nil {
			w.Fatal(err)
		}
	}
	if err := w.client.HandBack(w.Context(), msg); err != nil {
		w.Fatal(err)
	}
}

// progressOf runs the worker until it gets the job, and returns what it knows of it.
func (w *world) progressOf(id string) jobs.Progress {
	w.Helper()
	got := make(chan jobs.Progress, 8)
	w.start(func(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if job.ID == id {
			got <- *progress
		}
		return finished(jobs.Succeeded, "", nil)
	})
	select {
	case p := <-got:
		return p
	case <-time.After(testenv.Patience):
		w.Fatalf("job %s was not run", id)
		return jobs.Progress{}
	}
}

func TestTheAttemptsOfAWorkerThatDiedCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.taken("a", jobs.RetryEvent{Attempt: 3, Proxy: "p3", Status: 503, Fault: jobs.FaultTarget, Error: "busy"})
	got := w.progressOf("a").Attempts
	if len(got) != 3 || got[0].Attempt != 1 || got[1].Attempt != 2 || got[1].Proxy != "" || got[1].Error == "" {
		t.Fatalf("attempts %+v, want three, of which the first two are only known to have been made", got)
	}
	if last := got[2]; last.Attempt != 3 || last.Proxy != "p3" || last.Status != 503 || last.Fault != jobs.FaultTarget || last.Error != "busy" {
		t.Errorf("last attempt %+v, want the announced one", last)
	}
}

func TestTheAttemptsOfAnEarlierJobOfTheNameDoNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	if err := stream.New(w.client).PublishRetry(t.Context(), jobs.RetryEvent{JobID: "a", Queue: "default", Attempt: 2, Worker: "dead"}); err != nil {
		t.Fatal(err)
	}
	w.taken("a")
	if got := w.progressOf("a").Attempts; len(got) != 0 {
		t.Errorf("attempts %+v, want none", got)
	}
}

// The job waited with two attempts; the event of the second one is older than the end of the wait.
func TestAttemptsThatAJobCarriesAreNotCountedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	carried := jobs.Progress{JobSeq: 7, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}, {Attempt: 2, Proxy: "p2"}}}
	if _, err := stream.New(w.client).Schedule(t.Context(), "default", "a", []byte(page), &carried, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.until("the job to be due", func() bool {
		found, err := client.New(w.client).Find(t.Context(), client.Key{Queue: "default", ID: "a"})
		return err == nil && len(found) == 1 && found[0].Place == client.Due
	})
	if err := stream.New(w.client).PublishRetry(t.Context(), jobs.RetryEvent{JobID: "a", Queue: "default", Attempt: 2, Proxy: "p2"}); err != nil {
		t.Fatal(err)
	}
	if got := w.progressOf("a"); len(got.Attempts) != 2 || got.JobSeq != 7 {
		t.Errorf("%d attempts of job %d, want the two that it carries, of job 7", len(got.Attempts), got.JobSeq)
	}
}
