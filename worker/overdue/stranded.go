package overdue

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// jobStream is what the search for stranded jobs asks of NATS; *stream.Client has it.
type jobStream interface {
	StateOf(ctx context.Context, kind string) (bus.State, error)
	Stranded(ctx context.Context, queue string, limit int) ([]stream.StrandedJob, error)
	ReleaseStranded(ctx context.Context, job stream.StrandedJob) error
}

// StrandedConfig configures RunStranded. Queues, Released and Log are required.
type StrandedConfig struct {
	Queues []string
	// Released is called with the number of jobs that were released, and must not block.
	Released func(n int)
	Log      *slog.Logger
	// Every is the pause between two passes; zero means 10 s. A job is released in the second pass that finds it. While the stream
	// is empty and nothing comes, the pause is three times as long.
	Every time.Duration
}

// unchangedPause is the pause between two passes while the stream of jobs does not change.
const unchangedPause = time.Minute

// RunStranded finds and releases the stranded jobs of queues until ctx ends. A stranded job is in the stream although the
// server counts it as acked. Several workers may run RunStranded at once: the first one releases a job. A pass over an empty
// stream is one request, however many queues there are.
func RunStranded(ctx context.Context, s jobStream, cfg StrandedConfig) {
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	// found has the jobs that the pass before found, by queue. kept is for releaseAgain.
	found, kept := map[string]map[uint64]bool{}, map[uint64]bool{}
	var last bus.State
	var lookedAt time.Time
	var wait time.Duration
	for ; ctx.Err() == nil; sleep(ctx, wait) {
		state, err := s.StateOf(ctx, "JOBS")
		wait = cfg.Every
		if err == nil && state.Messages == 0 {
			if state == last {
				wait *= 3
			}
			last = state
			clear(found)
			continue
		}
		// A job that was found once has to be found again before it is released.
		anyFound := slices.ContainsFunc(slices.Collect(maps.Values(found)), func(jobs map[uint64]bool) bool { return len(jobs) > 0 })
		if err == nil && state == last && !anyFound && time.Since(lookedAt) < unchangedPause {
			continue
		}
		last, lookedAt = state, time.Now()
		for _, queue := range cfg.Queues {
			list, err := s.Stranded(ctx, queue, chunk)
			if err != nil {
				continue // the worker itself reports what is wrong with the stream, and nothing is lost
			}
			found[queue] = releaseAgain(ctx, s, cfg, list, found[queue], kept)
		}
	}
}

// releaseAgain releases the listed jobs that the pass before had found, and returns what this pass has found. One pass is not
// enough: a job whose ack has come a moment ago is listed as well. releaseAgain adds to kept the released jobs that it may not
// remove from the stream, at most chunk for each queue.
func releaseAgain(ctx context.Context, s jobStream, cfg StrandedConfig, list []stream.StrandedJob, before, kept map[uint64]bool) map[uint64]bool {
	found, released := map[uint64]bool{}, 0
	for _, job := range list {
		found[job.Seq] = true
		if !before[job.Seq] || kept[job.Seq] {
			continue
		}
		err := s.ReleaseStranded(ctx, job)
		switch {
		case err == nil:
			released++
		case errors.Is(err, bus.ErrPermission):
			// The job runs, but stays listed. Released in each pass, it would be fetched for ever.
			kept[job.Seq] = true
			cfg.Log.Error("a stranded job cannot be read or removed from the job stream: give the worker's NATS user the rights of deploy/nats/server.conf",
				"queue", job.Queue, "job", job.ID, "error", err)
		default:
			cfg.Log.Warn("a stranded job is not released yet", "queue", job.Queue, "job", job.ID, "error", err)
		}
	}
	if released > 0 {
		cfg.Log.Warn("jobs were stranded: the server had lost them and their acks did not hold; they run now", "jobs", released)
		cfg.Released(released)
	}
	return found
}
