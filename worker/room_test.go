package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/stream"
)

// await waits until c is closed, or ctx ends.
func await(ctx context.Context, c <-chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// TestJobsThatAreStoredAtOnceDropNoWaitingJob lets more jobs be scheduled again at the same moment than the stream has room for.
// The oldest waiting job would be the first that the server drops.
func TestJobsThatAreStoredAtOnceDropNoWaitingJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	const n = 18 // of 150 KiB each: two thirds of the stream
	var taken, due, again atomic.Int32
	turns := map[string]chan struct{}{} // closed when the job may begin to wait
	for i := range n {
		turns[fmt.Sprint("x", i)] = make(chan struct{})
	}
	all := make(chan struct{}) // closed when all but the oldest are due
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, 2*n
	w.start(func(ctx context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		waiting := *progress
		waiting.Why = "once"
		if progress.Why == "" {
			taken.Add(1)
			await(ctx, turns[job.ID])
		}
		switch {
		case progress.Why == "" && job.ID == "x0":
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Hour), Progress: waiting}
		case progress.Why == "":
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(3 * time.Second), Progress: waiting}
		case job.ID == "x0" || again.Load() == n-1:
			return finished(jobs.Succeeded, "", nil)
		}
		if due.Add(1) == n-1 {
			close(all)
		}
		await(ctx, all)
		again.Add(1)
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Second), Progress: waiting}
	})
	payload := `{"url":"` + page + `","method":"POST","body":"` + strings.Repeat("x", 150<<10) + `"}`
	for i := range n {
		w.publish(fmt.Sprint("x", i), payload)
	}
	// A worker that finds the stream half full takes no fresh jobs.
	w.until("the worker to hold all jobs", func() bool { return taken.Load() == n })
	for i := range n {
		close(turns[fmt.Sprint("x", i)])
		w.until("the job to wait", func() bool { fill, err := w.client.Waiting(t.Context()); return err == nil && fill.Msgs == int64(i+1) })
	}
	for i := 1; i < n; i++ {
		w.until("the job to end", w.hasResult(fmt.Sprint("x", i)))
	}
	oldest, found, err := w.client.NextWaiting(t.Context(), 0)
	if err != nil || !found || oldest.ID != "x0" {
		t.Fatalf("waiting is job %q, %t, %v; want the oldest job to wait still", oldest.ID, found, err)
	}
	if released, err := stream.New(w.client).Release(t.Context(), oldest); err != nil || !released {
		t.Fatalf("released %t, %v", released, err)
	}
	w.untilEnded("default", n)
}

// TestSmallJobsThatBeginToWaitAtOnceAreAllStored fills 64 slots with jobs of 60 bytes that begin to wait at the same moment. All
// of them together take a few hundredths of the stream.
func TestSmallJobsThatBeginToWaitAtOnceAreAllStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	const n = 64
	var running, forgotten atomic.Int32
	all := make(chan struct{})
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, n
	w.start(func(ctx context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if progress.Why != "" {
			return finished(jobs.Succeeded, "", nil)
		}
		switch at := running.Add(1); {
		case at == n:
			close(all)
		case at > n:
			forgotten.Add(1)
		}
		await(ctx, all)
		waiting := *progress
		waiting.Why = "once"
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Second), Progress: waiting}
	})
	for i := range n {
		w.publish(fmt.Sprint("x", i), `{"url":"`+page+`"}`)
	}
	w.untilEnded("default", n)
	if got := forgotten.Load(); got != 0 {
		t.Errorf("%d runs of jobs whose progress was not kept, want 0", got)
	}
}

func TestJobsThatBeginToWaitAtOnceShareOneQuestionAboutTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: time.Minute})
	const n = 200
	var running atomic.Int32
	all := make(chan struct{})
	w.slots = n
	w.start(func(ctx context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if progress.Why != "" {
			return finished(jobs.Succeeded, "", nil)
		}
		if running.Add(1) == n {
			close(all)
		}
		await(ctx, all)
		waiting := *progress
		waiting.Why = "once"
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Second), Progress: waiting}
	})
	var asked atomic.Int32
	_, err := w.nc.Subscribe("$JS.API.STREAM.INFO."+w.client.JobStream(true), func(*nats.Msg) { asked.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w.publish(fmt.Sprint("x", i), `{"url":"`+page+`"}`)
	}
	w.untilEnded("default", n)
	if got := asked.Load(); got == 0 || got > n/10 {
		t.Errorf("%d questions for %d jobs, want a few", got, n)
	}
}

// TestJobsThatSeveralWorkersStoreAtOnceDropNoWaitingJob lets four workers, one slot each, schedule a large job at the same
// moment. The stream has room for each of them and not for all. The oldest waiting job would be the first that the server drops.
func TestJobsThatSeveralWorkersStoreAtOnceDropNoWaitingJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	const before, workers = 2, 4
	var held atomic.Int32
	all := make(chan struct{}) // closed when every worker has a job that is to be stored
	run := func(ctx context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if progress.Why != "" {
			return finished(jobs.Succeeded, "", nil)
		}
		waiting := *progress
		waiting.Why = "once"
		if job.ID < fmt.Sprint("x", before) {
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(5 * time.Second), Progress: waiting}
		}
		if held.Add(1) == workers {
			close(all)
		}
		await(ctx, all)
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: time.Now().Add(time.Second), Progress: waiting}
	}
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, 1
	for range workers {
		w.start(run)
	}
	payload := `{"url":"` + page + `","method":"POST","body":"` + strings.Repeat("x", 700<<10) + `"}`
	for i := range before {
		w.publish(fmt.Sprint("x", i), payload)
		w.until("the job to wait", func() bool { fill, err := w.client.Waiting(t.Context()); return err == nil && fill.Msgs == int64(i+1) })
	}
	for i := range workers {
		w.publish(fmt.Sprint("x", before+i), payload)
	}
	w.untilEnded("default", before+workers)
}

// TestJobsOfManyWorkersThatBeginToWaitAtOnceAreAllStored lets many workers, one slot each, store small jobs all the time. They
// refuse one another, and there is room for all of them.
func TestJobsOfManyWorkersThatBeginToWaitAtOnceAreAllStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 16 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	const n, workers = 640, 64
	var ran sync.Map // ids of jobs that have run
	var forgotten atomic.Int32
	for i := range n {
		w.publish(fmt.Sprint("x", i), `{"url":"`+page+`"}`)
	}
	due := time.Now().Add(4 * time.Second)
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, 1
	for range workers {
		w.start(func(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
			if progress.Why != "" {
				return finished(jobs.Succeeded, "", nil)
			}
			if _, again := ran.LoadOrStore(job.ID, true); again {
				forgotten.Add(1)
			}
			waiting := *progress
			waiting.Why = "once"
			return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: due, Progress: waiting}
		})
	}
	w.untilEnded("default", n)
	if got := forgotten.Load(); got != 0 {
		t.Errorf("%d runs of jobs whose progress was not kept, want 0", got)
	}
}

// TestLargeJobsOfOneWorkerThatBeginToWaitAtOnceDropNoWaitingJob lets all slots of a worker store large jobs at the same moment.
// The stream has more room than the guard demands, and less than all of them take.
func TestLargeJobsOfOneWorkerThatBeginToWaitAtOnceDropNoWaitingJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 96 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	retries, err := w.client.JetStream().Stream(t.Context(), "GOFER_RETRIES")
	if err != nil {
		t.Fatal(err)
	}
	limited := retries.CachedInfo().Config
	limited.MaxBytes = 72 << 20
	if _, err := w.client.JetStream().UpdateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	const n = 110
	begin := time.Now()
	// The oldest waiting job would be the first that the server drops.
	small := []byte(`{"url":"` + page + `"}`)
	if _, err := stream.New(w.client).Schedule(t.Context(), "default", fmt.Sprint("x", n), small, &jobs.Progress{}, begin.Add(8*time.Second)); err != nil {
		t.Fatal(err)
	}
	var held atomic.Int32
	all := make(chan struct{}) // closed when the worker has all jobs
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, n
	w.start(func(ctx context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if progress.Why != "" || job.ID == fmt.Sprint("x", n) {
			return finished(jobs.Succeeded, "", nil)
		}
		if held.Add(1) == n {
			close(all)
		}
		await(ctx, all)
		waiting := *progress
		waiting.Why = "once"
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: begin.Add(6 * time.Second), Progress: waiting}
	})
	payload := `{"url":"` + page + `","method":"POST","body":"` + strings.Repeat("x", 700<<10) + `"}`
	for i := range n {
		w.publish(fmt.Sprint("x", i), payload)
	}
	w.untilEnded("default", n+1)
}

// TestADueJobDropsNoWaitingJob lets jobs that are scheduled again grow, by what is known of them, before a large waiting job
// becomes due. The server stores that one a second time before it removes the waiting one. The oldest waiting job would be
// dropped for it.
func TestADueJobDropsNoWaitingJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{JobsMaxBytes: 4 << 20, ResultsMaxBytes: 32 << 20, AckWait: longWait})
	const waiting, growing = 4, 26
	small, large := `{"url":"`+page+`"}`, `{"url":"`+page+`","method":"POST","body":"`+strings.Repeat("x", 700<<10)+`"}`
	begin := time.Now()
	for i, job := range []struct {
		payload string
		at      time.Duration
	}{{small, 9 * time.Second}, {large, 6 * time.Second}, {large, 9 * time.Second}, {large, 9 * time.Second}} {
		_, err := stream.New(w.client).Schedule(t.Context(), "default", fmt.Sprint("x", i), []byte(job.payload), &jobs.Progress{}, begin.Add(job.at))
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range growing {
		if _, err := stream.New(w.client).Schedule(t.Context(), "default", fmt.Sprint("x", waiting+i), []byte(small), &jobs.Progress{}, begin); err != nil {
			t.Fatal(err)
		}
	}
	var again sync.Map // ids of jobs that have grown
	w.queues, w.slots = []worker.Queue{{Name: "default"}}, waiting+growing
	w.start(func(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if _, grown := again.LoadOrStore(job.ID, true); grown || time.Since(begin) > 5*time.Second {
			return finished(jobs.Succeeded, "", nil)
		}
		larger := *progress
		larger.Why = strings.Repeat("x", 56<<10)
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: begin.Add(9 * time.Second), Progress: larger}
	})
	w.untilEnded("default", waiting+growing)
}

// TestNoWaitingJobIsDroppedForALimitThatTheWorkerHasNotSeen sets the limit between two inspections: a worker without work makes
// one a minute.
func TestNoWaitingJobIsDroppedForALimitThatTheWorkerHasNotSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	const n = 12
	w.blind, w.slots = true, 4
	due := time.Now().Add(4 * time.Second)
	w.start(func(_ context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		if progress.Why != "" || time.Now().After(due) {
			return finished(jobs.Succeeded, "", nil)
		}
		waiting := *progress
		waiting.Why = "once"
		return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: due, Progress: waiting}
	})
	retries, err := w.client.JetStream().Stream(t.Context(), "GOFER_RETRIES")
	if err != nil {
		t.Fatal(err)
	}
	limited := retries.CachedInfo().Config
	limited.MaxMsgs = n / 2
	if _, err := w.client.JetStream().UpdateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w.publish(fmt.Sprint("x", i), page)
	}
	w.untilEnded("default", n)
}
