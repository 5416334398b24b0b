// Package overdue finds waiting jobs that the server has not released at their time, and releases them.
//
// A waiting job is a scheduled message, and the server may lose its timer: the message stays and nothing happens. So one worker
// of the fleet reads each waiting job once, remembers when its time comes, and looks a little later whether the job still
// waits. Among a million waiting jobs whose times are spread over an hour, that costs 1 % of a core of worker and server
// together, and 12 bytes a job. To read all of them, as a new leader does, takes half a minute of a core (testenv/bench).
package overdue

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// rereadEvery is how often all waiting jobs are read again, whatever is known of them; rereadRest is how long after such a
	// reading the next one begins at the earliest.
	rereadEvery = 2 * time.Hour
	rereadRest  = time.Minute
	// refusedRest is how long a Finder rests that lacks a right.
	refusedRest = 10 * time.Minute
	// chunk is how many jobs are asked for, and parallel how many are released, at the same time.
	chunk    = 256
	parallel = 32
	// singles is how many jobs are read one by one before pages are.
	singles = 64
)

// waitingJobs is what a Finder asks of NATS; *stream.Client has it. Tests use another implementation.
type waitingJobs interface {
	WaitingState(ctx context.Context) (bus.WaitingState, error)
	ReadWaiting(ctx context.Context, after uint64, limit int, use func(bus.WaitingJob)) (last uint64, more bool, err error)
	NextWaiting(ctx context.Context, after uint64) (job bus.WaitingJob, found bool, err error)
	StillWaiting(ctx context.Context, seqs []uint64, use func(bus.WaitingJob)) error
	Release(ctx context.Context, job bus.WaitingJob) (released bool, err error)
}

// Config is what a Finder is made of. Released and Log are required.
type Config struct {
	// Released is called with the number of jobs that were released, and must not block.
	Released func(n int)
	Log      *slog.Logger
	// Every is the pause between two passes; zero means 15 s.
	Every time.Duration
	// Grace is how long after its time a job is left to the server; zero means 20 s. That is longer than the clocks of two
	// servers should differ, and than a server needs that has just started.
	Grace time.Duration
}

// Finder finds and releases overdue jobs. Make one with New and run it in one worker of the fleet at a time: two of them are
// harmless, but do everything twice. One goroutine, that of Run, uses its fields.
type Finder struct {
	cfg    Config
	stream waitingJobs
	failed bool // the latest pass did
	known

	released    int // jobs since the last report
	oneReleased bus.Key
}

// known is what a Finder knows of one epoch of the stream. It is replaced as a whole when the epoch changes.
type known struct {
	epoch  string
	readAt time.Time // when the reading of all jobs began
	last   uint64    // the stream's last sequence at the latest pass; younger jobs are not read yet
	after  uint64    // every job up to this sequence was read
	waits  []wait
}

// New makes a Finder.
func New(s waitingJobs, cfg Config) *Finder {
	if cfg.Every == 0 {
		cfg.Every = 15 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 20 * time.Second
	}
	return &Finder{stream: s, cfg: cfg}
}

// Run looks for overdue jobs until ctx ends.
func (f *Finder) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.pass(ctx)
		f.report()
		// Logged once for a series of failures, and not in each pass.
		if err != nil && ctx.Err() == nil && !f.failed {
			f.cfg.Log.Warn("overdue jobs cannot be looked for, trying again", "error", err)
		}
		f.failed = err != nil
		if errors.Is(err, bus.ErrPermission) {
			pause(ctx, refusedRest) // each refusal is an error in the logs of the server
		}
		pause(ctx, f.cfg.Every)
	}
}

// pass releases the overdue jobs that it knows, and reads those that have been scheduled since the pass before.
func (f *Finder) pass(ctx context.Context) error {
	state, err := f.stream.WaitingState(ctx)
	if err != nil {
		return err
	}
	if f.mustReread(state) {
		f.known = known{epoch: state.Epoch, readAt: time.Now(), last: state.LastSeq}
	}
	// By the clock of the server that releases the jobs.
	passed := state.Now.Add(-f.cfg.Grace)
	err = errors.Join(f.check(ctx, passed), f.read(ctx, passed))
	f.last = state.LastSeq
	return err
}

// mustReread reports whether what is known may be void. It also bounds the memory that cancelled jobs take, which are known
// until their time has come.
func (f *Finder) mustReread(state bus.WaitingState) bool {
	// Nothing was read yet.
	if f.readAt.IsZero() {
		return true
	}
	void := state.Epoch != f.epoch || state.LastSeq < f.last || uint64(len(f.waits)) > 2*state.Messages+1<<16
	age := time.Since(f.readAt)
	return void && age >= rereadRest || age >= rereadEvery
}

// check looks which of the jobs whose time has passed still wait, and releases these.
func (f *Finder) check(ctx context.Context, passed time.Time) error {
	due := f.takePassed(passed)
	for len(due) > 0 {
		// Jobs are taken off the list only after their answers have come, so an error loses none.
		n := min(chunk, len(due))
		overdue, err := f.stillWaiting(ctx, due[:n], passed)
		if err == nil {
			due = due[n:]
			err = f.release(ctx, overdue)
		}
		if err != nil {
			f.waits = append(f.waits, due...) // the next pass tries again
			return err
		}
	}
	return nil
}

// takePassed removes the jobs whose time has passed from those that are known. The order of the waits has no
// meaning.
func (f *Finder) takePassed(passed time.Time) (due []wait) {
	limit, kept := uint32(clamp(passed.Unix())), f.waits[:0]
	for _, w := range f.waits {
		if w.at < limit {
			due = append(due, w)
		} else {
			kept = append(kept, w)
		}
	}
	f.waits = kept
	return due
}

// stillWaiting returns those of the jobs that are overdue. A sequence may name another job by now, which is not.
func (f *Finder) stillWaiting(ctx context.Context, due []wait, passed time.Time) (overdue []bus.WaitingJob, err error) {
	seqs := make([]uint64, len(due))
	for i, w := range due {
		seqs[i] = uint64(w.high)<<32 | uint64(w.low)
	}
	err = f.stream.StillWaiting(ctx, seqs, f.sort(passed, &overdue))
	return overdue, err
}

// sort adds a job to overdue if its time has passed, and else remembers it. A job is scheduled again with a later
// time when it is retried.
func (f *Finder) sort(passed time.Time, overdue *[]bus.WaitingJob) func(bus.WaitingJob) {
	return func(job bus.WaitingJob) {
		if job.Until.Before(passed) {
			*overdue = append(*overdue, job)
		} else {
			f.waits = append(f.waits, waitOf(job))
		}
	}
}

// read reads the jobs that the latest pass knew to be there: a few one by one, many page by page. The younger ones are left
// alone, for most of them wait for a few seconds only. Between pages it pauses for as long as a page takes.
func (f *Finder) read(ctx context.Context, passed time.Time) error {
	for n := 0; f.after < f.last && ctx.Err() == nil; n++ {
		began := time.Now()
		readSome := f.readOne
		if n >= singles {
			readSome = f.readPage
		}
		var overdue []bus.WaitingJob
		err := readSome(ctx, f.sort(passed, &overdue))
		if err := errors.Join(err, f.release(ctx, overdue)); err != nil {
			return err
		}
		if n >= singles {
			pause(ctx, min(time.Since(began), time.Second))
		}
	}
	return nil
}

// readOne reads the next job by itself. That is cheapest while few jobs are new.
func (f *Finder) readOne(ctx context.Context, use func(bus.WaitingJob)) error {
	job, found, err := f.stream.NextWaiting(ctx, f.after)
	switch {
	case err != nil:
		return err
	case !found:
		f.after = f.last
	default:
		f.after = job.Seq
		use(job)
	}
	return nil
}

// readPage reads the next page of jobs. An answer without more jobs means that all of them were read.
func (f *Finder) readPage(ctx context.Context, use func(bus.WaitingJob)) error {
	limit := int(min(f.last-f.after, bus.WaitingPageSize))
	after, more, err := f.stream.ReadWaiting(ctx, f.after, limit, use)
	if err == nil && !more {
		after = max(after, f.last)
	}
	f.after = after
	return err
}

// release releases jobs and remembers those for which that fails.
func (f *Finder) release(ctx context.Context, overdue []bus.WaitingJob) error {
	var (
		releasing sync.WaitGroup
		slots     = make(chan struct{}, parallel)
		mu        sync.Mutex // guards err, f.released, f.oneReleased and f.waits
		err       error
	)
	for _, job := range overdue {
		// A full channel bounds the requests that are under way.
		slots <- struct{}{}
		releasing.Go(func() {
			defer func() { <-slots }()
			released, failure := f.stream.Release(ctx, job)
			mu.Lock()
			defer mu.Unlock()
			if failure != nil {
				err = failure
				f.waits = append(f.waits, waitOf(job))
			} else if released {
				f.released++
				f.oneReleased = job.Key
			}
		})
	}
	releasing.Wait()
	return err
}

// report counts the jobs that were released since the last report. One line for all of them, which names one job as
// an example.
func (f *Finder) report() {
	if f.released > 0 {
		one := f.oneReleased
		f.cfg.Log.Warn("the server has not released waiting jobs at their time, they run now", "jobs", f.released, "queue", one.Queue, "job", one.ID)
		f.cfg.Released(f.released)
		f.released = 0
	}
}

// wait is a job that waits: the second in which its time comes, and its sequence in two halves, which keeps a wait at 12 bytes.
// Seconds count from 1970 and end in 2106; later times are looked at then.
type wait struct{ at, high, low uint32 }

// waitOf is what is remembered of a job.
func waitOf(job bus.WaitingJob) wait {
	return wait{at: uint32(clamp(job.Until.Unix())), high: uint32(job.Seq >> 32), low: uint32(job.Seq)}
}

// clamp keeps seconds within 32 bits. Times before 1970 count as passed.
func clamp(seconds int64) int64 { return min(max(seconds, 0), math.MaxUint32) }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
