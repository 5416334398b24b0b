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

// submission is one run of gofer submit. With --wait, outcomes are printed while lines are read. One goroutine
// reads lines; answers and results come in others.
type submission struct {
	app     *app
	session *session
	// It is a copy, so check and template have had their say before.
	flags     submitFlags
	notBefore time.Time
	unit      string // what holds a job: a line or a URL
	single    bool   // there is one URL, so nothing has to tell jobs apart
	bar       *progressbar.ProgressBar

	mu       sync.Mutex              // guards the fields below, and is held while an outcome or a message is written
	accepted int                     // jobs
	open     map[client.Key]ackFacts // accepted jobs whose results are waited for
	unsure   []ackFacts              // jobs without an answer when the submission was ended: perhaps accepted
	invalid  int                     // lines that are no job
	refused  int                     // jobs that the server did not take
	failed   int                     // jobs that did not succeed, or whose body could not be kept
	unwanted int                     // jobs whose answer is neither 2xx nor 3xx, with --fail
	ended    map[string]int          // jobs whose outcome has come, by class; failed ones have the class "failed"
	attempts int                     // of those jobs
	began    time.Time
	taken    map[int]origin // of each job on its way to the server, by its index
}

// origin is where a job was read: the line's number, or the argument's.
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

// run publishes every job and, with --wait, waits for the results. Whatever ends it early, the jobs that were accepted
// are named: they go on.
func (s *submission) run(ctx context.Context, source io.Reader) error {
	// Made here, so that --print needs only the map of lines.
	s.open, s.taken, s.ended, s.began = map[client.Key]ackFacts{}, map[int]origin{}, map[string]int{}, time.Now()
	act := s.publish
	if s.flags.wait {
		act = s.publishAndWait
	}
	// The number of lines is not known before they are read.
	s.bar = s.app.progress(!s.single, -1)
	stop := s.draw(ctx)
	// Everything that act starts has ended when it returns.
	err := act(ctx, source)
	// The bar is taken away before anything else is printed.
	stop()
	if err != nil {
		// Both are reported: why it ended, and which jobs go on.
		return errors.Join(s.explainEnd(ctx, err), s.nameOpen())
	}
	s.sumUp()
	return s.verdict()
}

// explainEnd returns err, or what an interruption means for the jobs. The exit code of an interruption is decided
// by its cause, errInterrupted.
func (s *submission) explainEnd(ctx context.Context, err error) error {
	// Without an interruption the error speaks for itself.
	switch {
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

// publish submits the jobs of all lines and prints the id of each. It ends when an id cannot be printed.
func (s *submission) publish(ctx context.Context, source io.Reader) error {
	// The cause ends the submission with the error of the print.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	return s.submit(ctx, source, func(ack ackFacts) {
		if err := s.printAck(ack); err != nil {
			stop(err) // jobs whose ids nobody learns are of no use
		}
	})
}

// publishAndWait submits the jobs of all lines and prints the outcome of each as it comes, while more lines are read. It
// waits for its goroutines before it returns. --wait-timeout runs from the end of the submission. The first error
// of either side ends both.
func (s *submission) publishAndWait(ctx context.Context, source io.Reader) error {
	ctx, stop := context.WithCancelCause(ctx)
	// It is not buffered, so no more than a few keys are on their way, and reading the input keeps pace with
	// the server.
	keys := make(chan client.Key)
	var submitErr error
	var beside sync.WaitGroup
	beside.Go(func() {
		submitErr = s.submitForWaiter(ctx, source, keys)
		if submitErr != nil {
			// A failed submission ends the waiting as well; the jobs that were accepted are named.
			stop(submitErr)
		}
		// Closed in any case: await returns when the last result has come.
		close(keys)
		// The goroutine goes on beside await, and ends with ctx.
		if limit := s.flags.timeout; limit > 0 && sleep(ctx, limit) {
			stop(fmt.Errorf("no result within %s: the jobs go on; gofer doctor says what keeps them, gofer results lists those that end", limit))
		}
	})
	beside.Go(func() {
		if sleep(ctx, hintAfter) {
			s.hint(ctx)
		}
	})
	err := s.await(ctx, keys)
	// Both goroutines end by it. beside.Wait makes submitErr safe to read.
	stop(nil)
	beside.Wait()
	return cmp.Or(err, submitErr)
}

// submitForWaiter submits the jobs of all lines, and sends the key of each accepted job to keys.
func (s *submission) submitForWaiter(ctx context.Context, source io.Reader, keys chan<- client.Key) error {
	err := s.submit(ctx, source, func(ack ackFacts) {
		select {
		// Either the waiter takes the key, or it has gone.
		case keys <- ack.Key:
		case <-ctx.Done():
		}
	})
	return err
}

// submit submits the jobs of all lines, and calls use for each that was accepted. A line that is no job, or that is
// refused, is reported, and the others go on. use may be called from several goroutines.
func (s *submission) submit(ctx context.Context, source io.Reader, use func(ackFacts)) error {
	var readErr error
	err := s.session.client.SubmitMany(ctx, s.jobs(source, &readErr), 0, func(_ jobs.Job, ack client.Ack, err error) {
		// The ack names the index even if the job was refused.
		facts := s.untrack(ack)
		switch {
		case err == nil:
			s.accept(facts)
			use(facts)
		// Jobs that were read and not yet sent when the submission was ended.
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)): // it was not published
		// Sent, and no answer came. They may be stored or not.
		case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
			s.doubt(facts)
		default:
			s.refuse(facts, err)
		}
	})
	return cmp.Or(err, readErr)
}

// accept counts a job that the server has.
func (s *submission) accept(ack ackFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	if s.flags.wait {
		// Only then are results waited for; otherwise the map would grow with the input.
		s.open[ack.Key] = ack
	}
}

// doubt notes a job whose answer did not come before the submission ended: the server may have it.
func (s *submission) doubt(ack ackFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsure = append(s.unsure, ack)
}

// refuse reports a job that the server did not take.
func (s *submission) refuse(ack ackFacts, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	// The line is named and not the URL, which may hold secrets.
	s.app.note("%s %d: %s", s.unit, ack.Line, config.Explain(err))
}

// track records where the job of an index was read, until untrack takes it: acks come in another order than lines. The
// entry is removed by untrack, so the map holds only jobs on their way.
func (s *submission) track(index int, from origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[index] = from
}

// untrack returns what is printed of a job: the ack and where the job was read.
func (s *submission) untrack(ack client.Ack) ackFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Deleted after it is read: the deferred call runs last.
	defer delete(s.taken, ack.Index)
	from := s.taken[ack.Index]
	return ackFacts{Ack: ack, Line: from.number, URL: from.url}
}

// jobs yields the job of each line in turn. Lines that hold no job are reported and counted. When the sequence has ended,
// *readErr is what ended the reading, nil at the end of the input. The sequence can be used once, and one goroutine
// runs it.
func (s *submission) jobs(source io.Reader, readErr *error) iter.Seq[jobs.Job] {
	// A value of its own tells the end that the consumer of the sequence wanted from an error of reading.
	stop := errors.New("enough")
	index := 0
	return func(yield func(jobs.Job) bool) {
		err := eachLine(source, func(number int, line []byte) error {
			job, err := parseLine(line, &s.flags, s.notBefore)
			if err == nil {
				err = validate(job)
			}
			// A bad line does not end the input: a file of a million URLs may have a few.
			if err != nil {
				s.invalid++
				s.say(fmt.Sprintf("%s %d: %v", s.unit, number, err))
				return nil
			}
			// Noted before the job is handed on, since its ack may come at once.
			s.track(index, origin{number, job.URL})
			index++
			// The consumer has ended the loop.
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

// printJobs prints the job of each line and publishes nothing. It needs no connection. Without other goroutines, no
// lock is needed.
func (s *submission) printJobs(source io.Reader) error {
	s.taken = map[int]origin{}
	var readErr, printErr error
	for job := range s.jobs(source, &readErr) {
		// It counts as accepted, so that verdict can tell an empty input.
		s.accepted++
		if printErr = s.app.printJob(job); printErr != nil {
			break
		}
	}
	return cmp.Or(printErr, readErr, s.verdict())
}

// validate refuses a job that cannot be published, while the number of its line is known. A job without an id gets one
// later, so any id stands in for it.
func validate(job jobs.Job) error {
	job.Queue = cmp.Or(job.Queue, jobs.DefaultQueue)
	job.ID = cmp.Or(job.ID, "unnamed")
	// Encoding applies all checks of a job.
	_, err := job.Encode()
	return err
}

// say tells what is wrong with a job. It names the line or the id: a URL may hold secrets. It may be called by any
// goroutine that does not hold mu.
func (s *submission) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app.note("%s", text)
}

// printAck prints the id of an accepted job first. Acks come in any order, so the number of the line and the URL follow
// where there are several jobs. An error ends the submission: see publish.
func (s *submission) printAck(ack ackFacts) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Without it, the id would be appended to the bar.
	s.clearBar()
	if s.app.json {
		return s.app.printJSON(ack)
	}
	if s.single {
		return s.app.out.fields(ack.ID)
	}
	return s.app.out.fields(ack.ID, strconv.Itoa(ack.Line), ack.URL)
}
