package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker"
)

// TestMissingStreamsAreRecreatedAgainAndAgainButNotAtEachCall has many callers that miss a stream, for a minute.
func TestMissingStreamsAreRecreatedAgainAndAgainButNotAtEachCall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want int // tries in a minute
	}{
		"a success":           {nil, 30},
		"a temporary error":   {errors.New("no leader"), 30},
		"a permanent refusal": {bus.ErrConfig, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				w, err := worker.New(worker.Config{
					Queues:  []worker.Queue{{Name: "default"}},
					Do:      func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome { return &jobs.RunOutcome{} },
					Restore: func(context.Context) error { tries++; return c.err },
					Log:     slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(100 * time.Millisecond) {
					w.Restore(t.Context())
				}
				if tries != c.want {
					t.Errorf("%d tries in a minute, want %d", tries, c.want)
				}
			})
		})
	}
}
