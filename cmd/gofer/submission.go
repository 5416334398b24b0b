package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/config"
)

// submission is one call of gofer submit. Up to five goroutines share it: one reads lines and publishes jobs, one receives the
// acks, one waits for results, one draws the progress bar, and one asks why no job ends. Only a goroutine that holds mu prints,
// so that lines never mix with the bar. A job enters origins before it is published. Its ack moves it to open, and its result
// takes it out.
type submission struct {
	app       *app
	session   *session
	flags     submitFlags
	notBefore time.Time
	unit      string // "line" or "URL": what holds a job
	single    bool   // there is one URL, so no output has to name the job
	bar       *progressbar.ProgressBar
	line      barLine // of the bar; mu guards both

	mu         sync.Mutex              // guards the fields below, and is held while an outcome or a message is written
	accepted   int                     // jobs
	queues     map[string]bool         // of the accepted jobs, the first maxHinted
	open       map[client.Key]ackFacts // accepted jobs whose results are waited for
	unanswered []ackFacts              // jobs without an answer when the submission ended: perhaps accepted
	invalid    int                     // lines that are no job
	refused    int                     // jobs that the server did not take
	failed     int                     // jobs that did not succeed, or whose body could not be kept
	unwanted   int                     // jobs whose answer is neither 2xx nor 3xx, with --fail
	ended      map[string]int          // jobs whose outcome has come, by class, "failed" or "cancelled"
	attempts   int                     // of the ended jobs
	began      time.Time
	origins    map[int]origin // of each job on its way to the server, by its index
}

// origin is where a job was read. number is that of the line or of the argument, from 1.
type origin struct {
	number int
	url    string
}

// ackFacts is an accepted job in JSON. Line is the number of the line or of the argument, from 1.
type ackFacts struct {
	client.Ack
	Line int    `json:"line"`
	URL  string `json:"url"`
}

// run publishes every job and, with --wait, waits for the results. If something ends it early, run names the accepted jobs,
// because they go on.
func (s *submission) run(ctx context.Context, source io.Reader) error {
	s.open, s.origins, s.ended, s.queues, s.began = map[client.Key]ackFacts{}, map[int]origin{}, map[string]int{}, map[string]bool{}, time.Now()
	// With --wait a result is waited for while later lines are still read: a file may have millions, and an input may never end.
	act := s.publish
	if s.flags.wait {
		act = s.publishAndWait
	}
	s.line.to = raw{s.app.err}
	// Before the job is published: afterwards it could be the job itself that waits.
	s.warnOfWaiting(ctx)
	// The total is unknown: lines are counted only as they are read.
	s.bar = s.app.newBar(&s.line, !s.single, -1)
	stop := s.draw(ctx)
	// act returns when all goroutines that it has started have ended, so no lock is needed below.
	err := act(ctx, source)
	// The bar is removed before anything else is printed.
	stop()
	if err != nil {
		return errors.Join(s.explainEnd(ctx, err), s.printOpen())
	}
	s.printSummary()
	return s.exitError()
}

// explainEnd returns err, and for an interruption or a lost connection what it means for the jobs.
func (s *submission) explainEnd(ctx context.Context, err error) error {
	switch {
	// With several jobs the user has to know where to go on: acks are counted, and later lines were not read.
	case ctx.Err() == nil && isConnectionLost(err) && !s.single:
		return fmt.Errorf("%w: jobs accepted: %d; later ones were not submitted", err, s.accepted)
	// Without an interruption the error speaks for itself.
	case ctx.Err() == nil:
		return err
	case s.flags.wait:
		return fmt.Errorf("%w: the accepted jobs go on, see gofer results", errInterrupted)
	}
	return fmt.Errorf("%w: jobs accepted: %d; later ones were not submitted", errInterrupted, s.accepted)
}

// sourceName is where the lines come from, in words.
func (s *submission) sourceName() string {
	if s.flags.file == "" || s.flags.file == "-" {
		return "standard input"
	}
	return s.flags.file
}

// publish submits the jobs of all lines and prints the id of each. It ends when an id cannot be printed: a job whose id
// nobody learns is of no use.
func (s *submission) publish(ctx context.Context, source io.Reader) error {
	// The cause ends the submission with the error of the print.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := s.submit(ctx, source, func(ack ackFacts) {
		if err := s.printAck(ack); err != nil {
			stop(err)
		}
	})
	if err == nil {
		s.warnOfQueues(ctx)
	}
	return err
}

// publishAndWait submits the jobs of all lines and prints the outcome of each as it comes, while it reads more lines.
// --wait-timeout runs from the end of the input. The first error of submitting or waiting ends both.
func (s *submission) publishAndWait(ctx context.Context, source io.Reader) error {
	ctx, stop := context.WithCancelCause(ctx)
	// Without a buffer, the input is read no faster than the waiter takes the keys.
	keys := make(chan client.Key)
	var submitErr error
	var beside sync.WaitGroup
	beside.Go(func() {
		submitErr = s.submitForWaiter(ctx, source, keys)
		if submitErr != nil {
			// A failed submission ends the wait as well.
			stop(submitErr)
		}
		// await returns when keys is closed and the last result has come.
		close(keys)
		// The clock starts here, at the end of the input: a slow producer of lines must not use up the time for results.
		if limit := s.flags.timeout; limit > 0 && sleep(ctx, limit) {
			stop(fmt.Errorf("no result within %s: the jobs go on; gofer doctor says what keeps them, gofer results lists those that end", limit))
		}
	})
	beside.Go(func() { s.hintWhileSilent(ctx, s.hint) })
	err := s.await(ctx, keys)
	// stop ends both goroutines. After Wait, nobody writes submitErr any more.
	stop(nil)
	beside.Wait()
	return cmp.Or(err, submitErr)
}

// submitForWaiter submits the jobs of all lines, and sends the key of each accepted job to keys.
func (s *submission) submitForWaiter(ctx context.Context, source io.Reader, keys chan<- client.Key) error {
	return s.submit(ctx, source, func(ack ackFacts) {
		select {
		case keys <- ack.Key:
		case <-ctx.Done():
		}
	})
}

// submit submits the jobs of all lines, and calls use, perhaps from several goroutines, for each accepted job. It reports a
// line that is no job, or whose job is refused, and goes on. A lost connection ends it, because each further window of jobs
// would wait as long.
func (s *submission) submit(ctx context.Context, source io.Reader, use func(ackFacts)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var readErr error
	// Only the requests are timed: a slow reader of the output is no silence of the server.
	watched := client.WatchSubmits(ctx, func() func() { return s.session.noteSilence(s.printNote) })
	err := s.session.client.SubmitMany(watched, s.jobs(source, &readErr), 0, func(_ jobs.Job, ack client.Ack, err error) {
		// The ack has the index even if the server refused the job, so every entry of origins is removed in the end.
		facts := s.untrack(ack)
		switch {
		case err == nil:
			s.accept(facts)
			use(facts)
		// The job was not sent: there is nothing to report, since the end of the submission says so of all later jobs.
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		// The job was sent, and no answer came.
		case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
			s.addUnanswered(facts)
		// The message may have reached the server before the connection broke. Later jobs would wait for 30 s each, so none is sent.
		case isConnectionLost(err):
			s.addUnanswered(facts)
			stop(err)
		// The server has refused this job, such as one whose id is queued. The next one may be accepted.
		default:
			s.reportRefusal(facts, err)
		}
	})
	return cmp.Or(err, readErr)
}

// accept counts a job that the server has.
func (s *submission) accept(ack ackFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	// A file may name thousands of queues, and each hint costs a request.
	if len(s.queues) < maxHinted {
		s.queues[ack.Queue] = true
	}
	if s.flags.wait {
		s.open[ack.Key] = ack
	}
}

// addUnanswered notes a job whose answer did not come before the submission ended: the server may have it.
func (s *submission) addUnanswered(ack ackFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unanswered = append(s.unanswered, ack)
}

// reportRefusal reports a job that the server did not take.
func (s *submission) reportRefusal(ack ackFacts, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	// The line is named and not the URL, which may hold secrets.
	s.note("%s %d: %s", s.unit, ack.Line, config.Explain(err))
}

// track records where the job of an index was read, because acks come in another order than lines.
func (s *submission) track(index int, from origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.origins[index] = from
}

// untrack removes an entry, and returns the ack with it.
func (s *submission) untrack(ack client.Ack) ackFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.origins[ack.Index]
	delete(s.origins, ack.Index)
	return ackFacts{Ack: ack, Line: from.number, URL: from.url}
}

// jobs yields the job of each line. It reports and counts lines that hold no job. After the sequence, *readErr is the error
// of reading; nil at the end of the input. The sequence can be used once.
func (s *submission) jobs(source io.Reader, readErr *error) iter.Seq[jobs.Job] {
	stop := errors.New("enough") // ends eachLine if the loop over the sequence ends
	index := 0
	return func(yield func(jobs.Job) bool) {
		err := eachLine(source, func(number int, line []byte) error {
			job, err := parseLine(line, &s.flags, s.notBefore)
			if err == nil {
				err = checkJob(job)
			}
			// A bad line does not end the input: a file of a million URLs may have a few.
			if err != nil {
				s.invalid++
				s.printNote(fmt.Sprintf("%s %d: %v", s.unit, number, err))
				return nil
			}
			// Before yield, because another goroutine may get the ack at once.
			s.track(index, origin{number: number, url: job.URL})
			index++
			if !yield(job) {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) {
			*readErr = err
		}
	}
}

// printJobs prints the job of each line and publishes nothing.
func (s *submission) printJobs(source io.Reader) error {
	s.origins = map[int]origin{}
	var readErr, printErr error
	for job := range s.jobs(source, &readErr) {
		s.accepted++ // for exitError
		if printErr = s.app.printJob(job); printErr != nil {
			break
		}
	}
	return cmp.Or(printErr, readErr, s.exitError())
}

// checkJob refuses a job that cannot be published. A job without an id gets one later, and is checked with another one.
func checkJob(job jobs.Job) error {
	job.Queue = cmp.Or(job.Queue, jobs.DefaultQueue)
	job.ID = cmp.Or(job.ID, "unnamed")
	_, err := job.Encode() // which applies all checks
	return err
}

// printNote prints a line to standard error. It must not name a URL, which may hold secrets. The caller does not hold mu.
func (s *submission) printNote(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("%s", text)
}

// note prints a line to standard error, above the bar. The caller holds mu.
func (s *submission) note(format string, args ...any) {
	_ = s.printAbove(s.app.err, func() error { s.app.note(format, args...); return nil })
}

// printAck prints the id of an accepted job, and of several jobs also the number of the line and the URL: acks come in any
// order.
func (s *submission) printAck(ack ackFacts) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printAbove(s.app.out, func() error {
		switch {
		case s.app.json:
			return s.app.printJSON(ack)
		case s.single:
			return s.app.out.fields(ack.ID)
		}
		return s.app.out.fields(ack.ID, strconv.Itoa(ack.Line), ack.URL)
	})
}
