package overdue_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/overdue"
	"github.com/gofer-mq/gofer/worker/stream"
)

// jobStream lists jobs by the time since its start, and notes which are released.
type jobStream struct {
	start     time.Time
	until     map[uint64]time.Duration // how long a job is listed if nobody releases it
	released  map[uint64]int
	forbidden int // tries to release job 3, which nobody may remove
	refuse    int // so many releases of job 2 fail
}

func (s *jobStream) Stranded(context.Context, string, int) (out []stream.StrandedJob, err error) {
	for seq, until := range s.until {
		if s.released[seq] == 0 && time.Since(s.start) < until {
			out = append(out, stream.StrandedJob{Key: bus.Key{Queue: "default", ID: "j"}, Seq: seq})
		}
	}
	return out, nil
}

func (s *jobStream) ReleaseStranded(_ context.Context, job stream.StrandedJob) error {
	if job.Seq == 2 && s.refuse > 0 {
		s.refuse--
		return errors.New("no answer")
	}
	if job.Seq == 3 {
		s.forbidden++
		return bus.ErrPermission
	}
	s.released[job.Seq]++
	return nil
}

func TestAJobIsStrandedIfTwoPassesFindItAndIsReleasedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Job 1 was acked a moment before the first pass. The first release of job 2 fails. Job 3 cannot be removed.
		s := &jobStream{
			start: time.Now(), until: map[uint64]time.Duration{1: time.Second, 2: time.Hour, 3: time.Hour}, released: map[uint64]int{}, refuse: 1,
		}
		counted := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		overdue.RunStranded(ctx, s, overdue.StrandedConfig{
			Queues: []string{"default"}, Released: func(n int) { counted += n }, Log: slog.New(slog.DiscardHandler),
		})
		if s.released[1] != 0 || s.released[2] != 1 || counted != 1 || s.forbidden != 1 {
			t.Errorf("released %v, counted %d, job 3 tried %d times; want only job 2 released, and each once", s.released, counted, s.forbidden)
		}
	})
}
