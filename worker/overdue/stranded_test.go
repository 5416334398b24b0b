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

	state func() bus.State
	asked int // for the state
	lists int
}

func (s *jobStream) StateOf(context.Context, string) (bus.State, error) {
	s.asked++
	return s.state(), nil
}

func (s *jobStream) Stranded(context.Context, string, int) (out []stream.StrandedJob, err error) {
	s.lists++
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
			state: func() bus.State { return bus.State{Messages: 3} },
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

// TestAStreamThatDoesNotChangeCostsOneQuestion counts the questions for 32 queues in ten minutes.
func TestAStreamThatDoesNotChangeCostsOneQuestion(t *testing.T) {
	for name, c := range map[string]struct {
		state              func() bus.State
		asked, least, most int
	}{
		"an empty stream":                {func() bus.State { return bus.State{LastSeq: 7} }, 21, 0, 0},
		"jobs that end at once":          {func() bus.State { return bus.State{LastSeq: uint64(time.Now().Unix())} }, 60, 0, 0},
		"jobs of a queue that is paused": {func() bus.State { return bus.State{Messages: 5, LastSeq: 7} }, 60, 9 * 32, 11 * 32},
		"jobs that come and go":          {func() bus.State { return bus.State{Messages: 5, LastSeq: uint64(time.Now().Unix())} }, 60, 60 * 32, 60 * 32},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &jobStream{state: c.state}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Second)
				defer cancel()
				overdue.RunStranded(ctx, s, overdue.StrandedConfig{Queues: make([]string, 32), Released: func(int) {}, Log: slog.New(slog.DiscardHandler)})
				if s.asked != c.asked || s.lists < c.least || s.lists > c.most {
					t.Errorf("the stream is asked for %d times and the queues %d times, want %d and %d to %d", s.asked, s.lists, c.asked, c.least, c.most)
				}
			})
		})
	}
}
