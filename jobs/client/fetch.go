package client

import (
	"context"
	"iter"
	"sync"

	"github.com/gofer-mq/gofer/jobs"
)

// Fetch submits a job and waits for its result. A job that failed is no error: check Result.OK or Outcome. A large response body
// is kept outside of the result, whose Body is empty and whose Object is set then: the method Body reads either.
//
// Errors: those of Submit, and ctx's cause if ctx ends before the result is stored. In that case the job goes on; the Result
// names it by queue and id, so that the caller may Wait for it again or Cancel it. Give ctx an end: a job in a queue that no
// worker serves waits for one.
func (c *Client) Fetch(ctx context.Context, job jobs.Job) (jobs.Result, error) {
	ack, err := c.Submit(ctx, job)
	if err != nil {
		// The id is in the ack even if the answer was lost.
		return named(job, ack.Key), err
	}
	result, err := c.Wait(ctx, ack.Key)
	if err != nil {
		return named(job, ack.Key), err
	}
	return result, nil
}

// named returns a Result that only names its job, for a job whose result has not come.
func named(job jobs.Job, key Key) jobs.Result {
	return jobs.Result{Queue: key.Queue, ID: key.ID, URL: job.URL, Meta: job.Meta}
}

// maxOpen bounds the open jobs of one FetchAll: more than a hundred workers run at once by default, and few enough for
// the memory of a small program.
const maxOpen = 10_000

// FetchAll submits the jobs of source and yields the result of each as it comes, in any order. It has at most 10,000 jobs
// under way, and takes the next one from source when a result was yielded.
//
// A large response body is read as after Fetch. Each job taken from source is yielded once: with its result, or with an error and
// a Result that has the job's queue, id, URL and meta only. A refused job, such as one whose id is queued already, does not end
// the iteration. When ctx ends, FetchAll takes no more jobs and yields the open ones with ctx's cause; accepted jobs go on. A
// loop that is broken off leaves its open jobs in the same way, without yielding them.
//
// source runs in a goroutine of its own, and FetchAll waits for it: a source that blocks has to watch ctx itself.
func (c *Client) FetchAll(ctx context.Context, source iter.Seq[jobs.Job]) iter.Seq2[jobs.Result, error] {
	return func(yield func(jobs.Result, error) bool) {
		err := c.ready()
		if err == nil && source == nil {
			err = errNoSource
		}
		if err != nil {
			// Each loop over the iterator yields at least the error, so a mistake cannot pass as an empty
			// result.
			yield(jobs.Result{}, err)
			return
		}
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		f := &fetchAll{
			// The channels have no buffers, so the two goroutines advance with the loop.
			client: c, stop: stop, keys: make(chan Key), ends: make(chan end), left: make(chan struct{}),
			slots: make(chan struct{}, maxOpen), open: map[Key]jobs.Result{},
		}
		f.run(ctx, source, yield)
	}
}

// end is what became of one job.
type end struct {
	result jobs.Result
	err    error
}

// fetchAll is one loop over FetchAll. Two goroutines, which submit and wait, send each job's end to the loop.
type fetchAll struct {
	client *Client
	stop   context.CancelCauseFunc
	keys   chan Key      // of accepted jobs, on their way to the waiter
	ends   chan end      // of jobs, on their way to the loop
	left   chan struct{} // closed when the loop was broken off: ends are not received any more
	slots  chan struct{} // holds one element for each job that was taken and not yielded

	mu   sync.Mutex
	open map[Key]jobs.Result // guarded by mu: accepted jobs without a result, as named has them
}

// run yields until every job that was taken has been yielded, or until the loop is broken off. It returns when both
// goroutines have ended.
func (f *fetchAll) run(ctx context.Context, source iter.Seq[jobs.Job], yield func(jobs.Result, error) bool) {
	var beside sync.WaitGroup
	beside.Go(func() {
		defer close(f.keys)
		// The error is ignored: each job's error went to the loop, and the loop checks ctx itself. Zero means the
		// default window.
		_ = f.client.SubmitMany(ctx, f.bounded(ctx, source), 0, func(job jobs.Job, ack Ack, err error) { f.submitted(ctx, job, ack, err) })
	})
	beside.Go(func() {
		// WaitEach ends when keys is closed and every result has come.
		if err := f.client.WaitEach(ctx, f.keys, f.came); err != nil {
			f.stop(err)
		}
	})
	// It closes ends only after both senders have ended.
	go func() {
		beside.Wait()
		close(f.ends)
	}()
	defer func() { // also when the loop's body panics
		f.stop(nil)
		close(f.left)
		for range f.ends { // until both goroutines have ended
		}
	}()
	for e := range f.ends {
		if !yield(e.result, e.err) {
			return
		}
		select {
		// A slot is freed for each yielded job, so at most maxOpen are open.
		case <-f.slots:
		default: // a job that was taken as ctx ended has no slot
		}
	}
	// What ctx has left open: the jobs were accepted and go on.
	for _, job := range f.open { // both goroutines have ended
		if !yield(job, context.Cause(ctx)) {
			return
		}
	}
}

// bounded yields the jobs of source, each once there is a slot for it.
func (f *fetchAll) bounded(ctx context.Context, source iter.Seq[jobs.Job]) iter.Seq[jobs.Job] {
	return func(yield func(jobs.Job) bool) {
		for job := range source {
			select {
			case f.slots <- struct{}{}:
			case <-ctx.Done(): // the job was taken, so SubmitMany has to report it
			}
			if !yield(job) {
				return
			}
		}
	}
}

// submitted hands an accepted job to the waiter, and the error of a refused job to the loop. SubmitMany calls it for each
// job.
func (f *fetchAll) submitted(ctx context.Context, job jobs.Job, ack Ack, err error) {
	if err != nil {
		f.send(end{named(job, ack.Key), err})
		return
	}
	f.mu.Lock()
	// Before the key is handed on, since its result may come at once.
	f.open[ack.Key] = named(job, ack.Key)
	f.mu.Unlock()
	select {
	case f.keys <- ack.Key:
	case <-ctx.Done(): // the job stays open
	}
}

// came hands a result to the loop. WaitEach calls it once for each key.
func (f *fetchAll) came(r jobs.Result) error {
	f.mu.Lock()
	delete(f.open, Key{Queue: r.Queue, ID: r.ID})
	f.mu.Unlock()
	f.send(end{r, nil})
	return nil
}

// send gives an end to the loop, unless the loop was broken off.
func (f *fetchAll) send(e end) {
	select {
	case f.ends <- e:
	case <-f.left:
	}
}
