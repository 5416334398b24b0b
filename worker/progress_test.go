package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAJobEndsWhateverItTookAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	var ran atomic.Int32
	w.start(func(_ context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		ran.Add(1)
		o := &jobs.RunOutcome{Kind: jobs.RunFinished, Result: progress.Result(job, time.Now())}
		o.Result.Outcome, o.Result.Error = jobs.Failed, jobs.ErrAttemptsExhausted
		return o
	})
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	taken := []string{
		"", "{", "null", "[]", "{}", "\xff", `{"attempts":[{"attempt":-1}]}`, `{"attempts":[{"attempt":99999999999999999999}]}`, `{"job_seq":-1}`,
		`{"started":"0000-01-01T00:00:00+23:59"}`, `{"started":"9999-12-31T23:59:59-23:59"}`, `{"started":"2200-01-01T00:00:00Z","bytes":-9}`,
		`{"attempts":[{"started_at":"9999-12-31T23:59:59-23:59","duration":1e300}]}`, `{"attempts":[` + strings.Repeat(`{},`, 15000) + `{}]}`,
		`{"attempts":[{"error":"` + strings.Repeat("e", 50<<10) + `"}]}`,
	}
	for i, text := range taken {
		msg := &nats.Msg{Subject: fmt.Sprint("_gofer.due.default.j", i), Data: []byte(page), Header: nats.Header{"Gofer-Progress": {text}}}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range taken {
		w.until(fmt.Sprintf("the job that took %.60q along to end", text), w.gone(fmt.Sprint("j", i)))
	}
	if n := ran.Load(); n < 5 || int(n) == len(taken) {
		t.Errorf("%d of %d jobs are run, want those whose attempts can be read", n, len(taken))
	}
}

// TestAForgedRetryEventCostsAWorkerNothing announces more attempts than a job can have had, and than fit into memory.
func TestAForgedRetryEventCostsAWorkerNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.publish("a", page)
	started := make(chan struct{})
	w.start(func(ctx context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		close(started)
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunStopped, Progress: *progress}
	})
	<-started
	w.stop()
	if err := stream.New(w.client).PublishRetry(t.Context(), jobs.RetryEvent{JobID: "a", Queue: "default", Attempt: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	attempts := make(chan int, 1)
	w.start(func(_ context.Context, _ *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome {
		attempts <- len(progress.Attempts)
		return finished(jobs.Succeeded, "", nil)
	})
	if n := <-attempts; n != 0 {
		t.Errorf("the job is run with %d attempts, want none", n)
	}
}
