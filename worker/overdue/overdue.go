// Package overdue finds waiting jobs that the server has not released at their time, and releases them.
//
// A waiting job is a scheduled message. The server may lose its timer: then the message stays and nothing happens. So one worker
// of the fleet reads each waiting job once, remembers when its time comes, and checks a little later whether the job still
// waits. With a million waiting jobs whose times are spread over an hour, this takes 1 % of a core of worker and server
// together, and 12 bytes a job. A new leader reads all of them, which takes half a minute of a core (testenv/bench).
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
	// rereadEvery is how often all waiting jobs are read again, whatever is known of them. rereadPause is the shortest time
	// between two such readings.
	rereadEvery = 2 * time.Hour
	rereadPause = time.Minute
	// refusedPause is the pause of a Finder that lacks a right.
	refusedPause = 10 * time.Minute
	// chunk is how many jobs one request asks for. parallel is how many jobs are released at the same time.
	chunk    = 256
	parallel = 32
	// singles is how many jobs a pass reads one by one before it reads pages.
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

// Config configures a Finder. Released and Log are required.
type Config struct {
	// Released is called with the number of jobs that were released, and must not block.
	Released func(n int)
	Log      *slog.Logger
	// Every is the pause between two passes; zero means 15 s.
	Every time.Duration
	// Grace is how long after its time a job is left to the server; zero means 20 s. That is longer than the clocks of two
	// servers should differ, and longer than a server needs to release jobs after its start.
	Grace time.Duration
}

// Finder finds and releases overdue jobs. Make one with New and run it in one worker of the fleet at a time: two are harmless,
// but do everything twice. Only the goroutine of Run uses its fields.
type Finder struct {
	cfg    Config
	stream waitingJobs
	failed bool // whether the latest pass has failed
	known

	released    int // jobs since the last report
	oneReleased bus.Key
}

// known is what a Finder knows of one epoch of the stream. It is replaced as a whole when the epoch changes.
type known struct {
	epoch  string
	readAt time.Time // when the latest reading of all jobs began
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
		// A series of failures is logged once.
		if err != nil && ctx.Err() == nil && !f.failed {
			f.cfg.Log.Warn("overdue jobs cannot be looked for, trying again", "error", err)
		}
		f.failed = err != nil
		if errors.Is(err, bus.ErrPermission) {
			sleep(ctx, refusedPause) // each refusal is an error in the logs of the server
		}
		sleep(ctx, f.cfg.Every)
	}
}

// pass releases the known jobs that are overdue, and reads the jobs that the pass before left because they were new.
func (f *Finder) pass(ctx context.Context) error {
	state, err := f.stream.WaitingState(ctx)
	if err != nil {
		return err
	}
	if f.mustReread(state) {
		f.known = known{epoch: state.Epoch, readAt: time.Now(), last: state.LastSeq}
	}
	// The clock is that of the server, because the server decides when a job's time has come.
	passed := state.Now.Add(-f.cfg.Grace)
	err = errors.Join(f.check(ctx, passed), f.read(ctx, passed))
	f.last = state.LastSeq
	return err
}

// mustReread reports whether all jobs have to be read again: what is known may be about another stream, or mostly about cancelled
// jobs. The latter bounds the memory: nobody reports a cancelled job to a Finder.
func (f *Finder) mustReread(state bus.WaitingState) bool {
	if f.readAt.IsZero() {
		return true
	}
	isOutdated := state.Epoch != f.epoch || state.LastSeq < f.last || uint64(len(f.waits)) > 2*state.Messages+1<<16
	age := time.Since(f.readAt)
	return isOutdated && age >= rereadPause || age >= rereadEvery
}

// check releases the known jobs whose time has passed and that still wait.
func (f *Finder) check(ctx context.Context, passed time.Time) error {
	due := f.takePassed(passed)
	for len(due) > 0 {
		// A chunk is dropped only after its answer has come, so an error loses no job.
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

// takePassed removes the jobs whose time has passed from the known ones, and returns them.
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

// stillWaiting returns the jobs that are overdue. A sequence may belong to another job by now, which need not be overdue.
func (f *Finder) stillWaiting(ctx context.Context, due []wait, passed time.Time) (overdue []bus.WaitingJob, err error) {
	seqs := make([]uint64, len(due))
	for i, w := range due {
		seqs[i] = uint64(w.high)<<32 | uint64(w.low)
	}
	err = f.stream.StillWaiting(ctx, seqs, f.collect(passed, &overdue))
	return overdue, err
}

// collect returns a function that adds a job to overdue if its time has passed, and else remembers it.
func (f *Finder) collect(passed time.Time, overdue *[]bus.WaitingJob) func(bus.WaitingJob) {
	return func(job bus.WaitingJob) {
		if job.Until.Before(passed) {
			*overdue = append(*overdue, job)
		} else {
			f.waits = append(f.waits, waitOf(job))
		}
	}
}

// read reads the jobs up to the last sequence of the pass before: the first ones one by one, more of them page by page. It leaves
// younger jobs, because most of them wait for a few seconds only. Between pages it pauses for as long as a page takes.
func (f *Finder) read(ctx context.Context, passed time.Time) error {
	for n := 0; f.after < f.last && ctx.Err() == nil; n++ {
		began := time.Now()
		readSome := f.readOne
		if n >= singles {
			readSome = f.readPage
		}
		var overdue []bus.WaitingJob
		err := readSome(ctx, f.collect(passed, &overdue))
		if err := errors.Join(err, f.release(ctx, overdue)); err != nil {
			return err
		}
		if n >= singles {
			sleep(ctx, min(time.Since(began), time.Second))
		}
	}
	return nil
}

// readOne reads the next job alone, which is cheapest if few jobs are new.
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

// release releases jobs, and remembers the jobs that it could not release.
func (f *Finder) release(ctx context.Context, overdue []bus.WaitingJob) error {
	var (
		releasing sync.WaitGroup
		slots     = make(chan struct{}, parallel)
		mu        sync.Mutex // guards err, f.released, f.oneReleased and f.waits
		err       error
	)
	for _, job := range overdue {
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

// report logs and counts the jobs that were released since the last report. It logs one line, which names one job as an example.
func (f *Finder) report() {
	if f.released > 0 {
		one := f.oneReleased
		f.cfg.Log.Warn("the server has not released waiting jobs at their time, they run now", "jobs", f.released, "queue", one.Queue, "job", one.ID)
		f.cfg.Released(f.released)
		f.released = 0
	}
}

// wait is a job that waits: the second in which its time comes, and its sequence in two halves, which keeps a wait at 12 bytes.
// Seconds count from 1970 and end in 2106. A later time is clamped.
type wait struct{ at, high, low uint32 }

// waitOf returns what is remembered of a job.
func waitOf(job bus.WaitingJob) wait {
	return wait{at: uint32(clamp(job.Until.Unix())), high: uint32(job.Seq >> 32), low: uint32(job.Seq)}
}

// clamp keeps seconds within 32 bits. Times before 1970 count as passed.
func clamp(seconds int64) int64 { return min(max(seconds, 0), math.MaxUint32) }

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
