package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/config"
)

// submission is one run of gofer submit. With --wait, outcomes are printed while lines are read.
type submission struct {
	app       *app
	session   *session
	flags     submitFlags
	notBefore time.Time
	unit      string // what holds a job: a line or a URL
	single    bool   // there is one URL, so nothing has to tell jobs apart
	bar       *progressbar.ProgressBar

	mu       sync.Mutex              // guards what follows, and is held while an outcome or a message is written
	accepted int                     // jobs
	open     map[client.Key]ackFacts // accepted jobs whose results are waited for
	unsure   []ackFacts              // jobs without an answer when the submission was ended: perhaps accepted
	invalid  int                     // lines that are no job
	refused  int                     // jobs that the server did not take
	failed   int                     // jobs that did not succeed, or whose body could not be kept
	taken    map[int]origin          // of each job on its way to the server, by its index
}

// origin is where a job was read: the line's number, or the argument's.
type origin struct {
	number int
	url    string
}

// ackFacts is an accepted job in JSON.
type ackFacts struct {
	client.Ack
	Line int    `json:"line"`
	URL  string `json:"url"`
}

// run publishes every job and, if asked, waits for their results. Whatever ends it early, accepted jobs are named.
func (s *submission) run(ctx context.Context, source io.Reader) error {
	s.open, s.taken = map[client.Key]ackFacts{}, map[int]origin{}
	act := s.publish
	if s.flags.wait {
		s.bar, act = s.app.progress(!s.single, 1, "jobs"), s.publishAndWait
	}
	if err := act(ctx, source); err != nil {
		return errors.Join(s.ended(ctx, err), s.nameOpen())
	}
	return s.verdict()
}

// ended is err, or what an interruption means for the jobs.
func (s *submission) ended(ctx context.Context, err error) error {
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

// publish sends the jobs of all lines and prints the id of each.
func (s *submission) publish(ctx context.Context, source io.Reader) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	return s.submit(ctx, source, func(ack ackFacts) {
		if err := s.printAck(ack); err != nil {
			stop(err) // jobs whose ids nobody learns are of no use
		}
	})
}

// publishAndWait sends the jobs of all lines and prints the outcome of each as it comes.
func (s *submission) publishAndWait(ctx context.Context, source io.Reader) error {
	ctx, stop := context.WithCancelCause(ctx)
	keys := make(chan client.Key)
	var submitErr error
	var beside sync.WaitGroup
	beside.Go(func() {
		submitErr = s.submitForWaiter(ctx, source, keys)
		if submitErr != nil {
			stop(submitErr)
		}
		close(keys)
		if limit := s.flags.timeout; limit > 0 && sleep(ctx, limit) {
			stop(fmt.Errorf("no result within %s: the jobs go on, see gofer results", limit))
		}
	})
	beside.Go(func() {
		if sleep(ctx, hintAfter) {
			s.hint(ctx)
		}
	})
	err := s.await(ctx, keys)
	stop(nil)
	beside.Wait()
	return cmp.Or(err, submitErr)
}

// submitForWaiter sends the jobs of all lines, and tells keys which results are to be waited for.
func (s *submission) submitForWaiter(ctx context.Context, source io.Reader, keys chan<- client.Key) error {
	err := s.submit(ctx, source, func(ack ackFacts) {
		select {
		case keys <- ack.Key:
		case <-ctx.Done():
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bar.ChangeMax(s.accepted)
	return err
}

// submit sends the jobs of all lines, and calls use for each that was accepted. A line that is no job, or that is refused, is
// reported; the others go on.
func (s *submission) submit(ctx context.Context, source io.Reader, use func(ackFacts)) error {
	var readErr error
	err := s.session.client.SubmitMany(ctx, s.jobs(source, &readErr), 0, func(_ jobs.Job, ack client.Ack, err error) {
		facts := s.landed(ack)
		switch {
		case err == nil:
			s.accept(facts)
			use(facts)
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)): // it was not published
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
		s.open[ack.Key] = ack
		s.bar.ChangeMax(s.accepted + 1) // a bar that is full once is not shown again, and more lines may come
	}
}

// doubt notes a job whose answer was not waited for any longer.
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
	s.app.note("%s %d: %s", s.unit, ack.Line, config.Explain(err))
}

// took notes where the next job was read; landed names what came of the job of an index.
func (s *submission) took(index int, from origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[index] = from
}

func (s *submission) landed(ack client.Ack) ackFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.taken, ack.Index)
	from := s.taken[ack.Index]
	return ackFacts{Ack: ack, Line: from.number, URL: from.url}
}

// jobs yields the job of each line and counts the lines that hold none.
func (s *submission) jobs(source io.Reader, readErr *error) iter.Seq[jobs.Job] {
	stop := errors.New("enough")
	index := 0
	return func(yield func(jobs.Job) bool) {
		err := eachLine(source, func(number int, line []byte) error {
			job, err := parseLine(line, &s.flags, s.notBefore)
			if err == nil {
				err = sound(job)
			}
			if err != nil {
				s.invalid++
				s.say(fmt.Sprintf("%s %d: %v", s.unit, number, err))
				return nil
			}
			s.took(index, origin{number, job.URL})
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

// sound refuses a job that no server would be asked to take, while its line is known.
func sound(job jobs.Job) error {
	job.Queue = cmp.Or(job.Queue, jobs.DefaultQueue)
	job.ID = cmp.Or(job.ID, "unnamed")
	_, err := job.Encode()
	return err
}

// say tells what is wrong with a job. It names the line or the id: a URL may hold secrets.
func (s *submission) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app.note("%s", text)
}

// printAck prints the id first; acks come in any order, so what tells the jobs apart follows where there are several.
func (s *submission) printAck(ack ackFacts) error {
	if s.app.json {
		return s.app.printJSON(ack)
	}
	if s.single {
		return s.app.out.fields(ack.ID)
	}
	return s.app.out.fields(ack.ID, strconv.Itoa(ack.Line), ack.URL)
}

// mostNamed bounds the jobs of a kind that an end before the time names.
const mostNamed = 10

// nameOpen names jobs that go on without anybody waiting: with --json all of them on standard output, as accepted ones, else
// the first. Jobs that may have been accepted are named as well.
func (s *submission) nameOpen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	byLine := func(a, b ackFacts) int { return a.Line - b.Line }
	open := slices.SortedFunc(maps.Values(s.open), byLine)
	slices.SortFunc(s.unsure, byLine)
	s.nameSome("perhaps accepted, no answer came", s.unsure, "")
	if !s.app.json {
		s.nameSome("no result yet", open, ", which --json would name")
		return nil
	}
	for _, ack := range open {
		if err := s.app.printJSON(ack); err != nil {
			return err
		}
	}
	return nil
}

func (s *submission) nameSome(what string, list []ackFacts, more string) {
	for _, ack := range list[:min(len(list), mostNamed)] {
		s.app.note("%s: %s (%s %d)", what, ack.Key, s.unit, ack.Line)
	}
	if n := len(list) - mostNamed; n > 0 {
		s.app.note("%s: %d more%s", what, n, more)
	}
}

// await prints an outcome for each job of keys, and shows on a terminal how far it is.
func (s *submission) await(ctx context.Context, keys <-chan client.Key) error {
	defer func() { _ = s.bar.Exit() }()
	return s.session.client.WaitEach(ctx, keys, func(r jobs.Result) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Outcome != jobs.Succeeded {
			s.failed++
		}
		_ = s.bar.Clear()
		err := s.outcome(ctx, r)
		s.bar.Describe(fmt.Sprintf("%d failed", s.failed))
		return errors.Join(err, s.bar.Add(1))
	})
}

// hintAfter is how long nothing is said about jobs that nobody takes.
const hintAfter = 5 * time.Second

// hint tells of queues that no worker serves; who may not look at the queues is told nothing.
func (s *submission) hint(ctx context.Context) {
	queues, err := s.session.client.Queues(ctx)
	if err != nil {
		return
	}
	ours := s.openQueues()
	for _, q := range queues {
		switch {
		case !ours[q.Queue]:
		case !q.Served:
			s.say("queue " + q.Queue + ": no worker has ever served it, so its jobs wait: add it to GOFER_QUEUES, or is it misspelt?")
		case !q.PausedUntil.IsZero():
			s.say("queue " + q.Queue + " is paused, so its jobs wait: gofer resume " + q.Queue)
		case q.Pulls == 0 && q.Running == 0:
			s.say("queue " + q.Queue + ": no worker asks for its jobs: start one")
		}
	}
}

// openQueues are the queues of the jobs that are waited for.
func (s *submission) openQueues() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	for key := range s.open {
		out[key.Queue] = true
	}
	return out
}

// outcome prints one result and keeps its body if asked. A body that cannot be kept is its job's failure; the others go on.
func (s *submission) outcome(ctx context.Context, r jobs.Result) error {
	key := client.Key{Queue: r.Queue, ID: r.ID}
	from := s.open[key]
	delete(s.open, key)
	if s.flags.output != "" && r.Outcome == jobs.Succeeded {
		if err := s.save(ctx, r); err != nil {
			s.failed++
			s.app.note("the body of job %s is not kept: %s", key, config.Explain(err))
		}
	}
	switch {
	case s.app.json:
		return s.app.printJSON(struct {
			resultFacts
			Line int `json:"line"`
		}{resultJSON(r), from.Line})
	case s.single && s.flags.output == "":
		_ = s.app.err.line("%s", resultLine(r))
		return s.app.printBody(ctx, s.session, r)
	}
	return s.app.printResult(r)
}

// save writes the body to the file QUEUE/ID below the folder: two jobs never share one, and both names are safe there. It
// neither replaces a file nor leaves the folder through a link.
func (s *submission) save(ctx context.Context, r jobs.Result) error {
	body, err := s.session.client.Body(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	folder, err := os.OpenRoot(s.flags.output)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	if err := folder.Mkdir(r.Queue, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := r.Queue + "/" + r.ID
	f, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = folder.Remove(name) // half a body would look like a whole one
	}
	return err
}

// verdict is how the whole submission went, as an exit code.
func (s *submission) verdict() error {
	switch bad := s.invalid + s.refused; {
	case bad+s.accepted == 0: // nothing failed
		s.say("no jobs in " + s.sourceName())
	case bad > 0 && s.accepted == 0:
		return fmt.Errorf("no job was accepted, %d refused", bad)
	case bad+s.failed > 0 && s.flags.wait && s.accepted == 1 && bad == 0:
		return &failure{code: exitSomeFailed, err: errors.New("the job failed")}
	case bad+s.failed > 0:
		return &failure{code: exitSomeFailed, err: fmt.Errorf("jobs accepted: %d, refused: %d, failed: %d", s.accepted, bad, s.failed)}
	}
	return nil
}

// progress is a bar with counts, rate and remaining time on a terminal, if it is wanted, and nothing elsewhere.
func (a *app) progress(wanted bool, total int, what string) *progressbar.ProgressBar {
	if !wanted || !a.err.isTerminal() {
		return progressbar.NewOptions(total, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetVisibility(false))
	}
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(raw{a.err}), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(what), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
}
