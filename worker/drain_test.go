package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestADrainEndsThoughAJobDoesNot has a run that looks at no context. Its job goes back before the drain is over.
func TestADrainEndsThoughAJobDoesNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{AckWait: longWait})
	w.drain = 8 * time.Second // half a second of it is left for the hand-back
	w.publish("a", page)
	started, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		close(started)
		<-release
		return finished(jobs.Succeeded, "", nil)
	})
	<-started
	drained := w.worker
	if took := w.stop(); took > w.drain+10*time.Second {
		t.Errorf("the drain took %s, want %s", took, w.drain)
	}
	if s := drained.Stats(); s.HandedBack == 0 {
		t.Error("the job was not handed back")
	}
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	w.until("another worker to end the job", w.hasResult("a"))
}

// TestADrainEndsThoughTheServerDoesNotAnswer takes the server away while a job runs.
func TestADrainEndsThoughTheServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, bus.Settings{})
	w.publish("a", page)
	started := make(chan struct{})
	w.start(func(ctx context.Context, _ *jobs.Job, _ *jobs.Progress) *jobs.RunOutcome {
		close(started)
		<-ctx.Done()
		return &jobs.RunOutcome{Kind: jobs.RunStopped}
	})
	<-started
	w.nats.Stop()
	if took := w.stop(); took > w.drain+10*time.Second {
		t.Errorf("the drain took %s, want %s", took, w.drain)
	}
}
