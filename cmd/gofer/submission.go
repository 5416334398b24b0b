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
	"github.com/gofer-mq/gofer/jobs/bus"
)

// submission is one run of gofer submit. Lines are read while earlier jobs are answered; what both of them touch is locked.
type submission struct {
	app       *app
	session   *session
	flags     submitFlags
	notBefore time.Time
	unit      string // what holds a job: a line or a URL
	single    bool   // there is one URL, so nothing has to tell jobs apart

	accepted []bus.Key
	open     map[bus.Key]ackFacts // accepted jobs whose results are waited for
	invalid  int                  // lines that are no job
	refused  int                  // jobs that the server did not take
	failed   int                  // jobs that did not succeed, or whose body could not be kept

	mu    sync.Mutex     // held while a message is written, and for taken
	taken map[int]origin // of each job on its way to the server, by its index
}

// origin is where a job was read: the line's number, or the argument's.
type origin struct {
	number int
	url    string
}

// ackFacts is an accepted job in JSON.
type ackFacts struct {
	bus.Ack
	Line int    `json:"line"`
	URL  string `json:"url"`
}

// run publishes every job and, if asked, waits for their results. Whatever ends it early, no accepted job goes unnamed.
func (s *submission) run(ctx context.Context, source io.Reader) error {
	s.open, s.taken = map[bus.Key]ackFacts{}, map[int]origin{}
	err := s.publish(ctx, source)
	if err == nil && s.flags.wait && len(s.accepted) > 0 {
		err = s.await(ctx)
	}
	if err != nil {
		return errors.Join(err, s.nameOpen())
	}
	return s.verdict()
}

// sourceName is where the lines come from, in words.
func (s *submission) sourceName() string {
	if s.flags.file == "" || s.flags.file == "-" {
		return "standard input"
	}
	return s.flags.file
}

// publish sends the jobs of all lines. A line that is no job, or that is refused, is told about; the others go on.
func (s *submission) publish(ctx context.Context, source io.Reader) error {
	var readErr error
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := s.session.client.SubmitMany(ctx, s.jobs(source, &readErr), 0, func(_ jobs.Job, ack bus.Ack, err error) {
		from := s.landed(ack.Index)
		if err != nil {
			s.refused++
			s.say(fmt.Sprintf("%s %d: %v", s.unit, from.number, err))
			return
		}
		s.accepted = append(s.accepted, ack.Key)
		facts := ackFacts{Ack: ack, Line: from.number, URL: from.url}
		if s.flags.wait {
			s.open[ack.Key] = facts
		} else if err := s.printAck(facts); err != nil {
			stop(err) // jobs whose ids nobody learns are of no use
		}
	})
	return errors.Join(err, readErr)
}

// took notes where the next job was read; landed is that of the job of an index.
func (s *submission) took(index int, from origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[index] = from
}

func (s *submission) landed(index int) origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.taken, index)
	return s.taken[index]
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

// nameOpen names the jobs that go on without anybody waiting: with --json on standard output, as accepted ones.
func (s *submission) nameOpen() error {
	left := slices.SortedFunc(maps.Values(s.open), func(a, b ackFacts) int { return a.Line - b.Line })
	for _, ack := range left {
		if !s.app.json {
			s.say(fmt.Sprintf("no result yet: %s (%s %d)", ack.Key, s.unit, ack.Line))
		} else if err := s.app.printJSON(ack); err != nil {
			return err
		}
	}
	return nil
}

// await prints an outcome for each accepted job, and shows on a terminal how far it is.
func (s *submission) await(ctx context.Context) error {
	interrupted := ctx
	if s.flags.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.flags.timeout, fmt.Errorf("no result within %s: the jobs go on, see gofer results", s.flags.timeout))
		defer cancel()
	}
	hint := time.AfterFunc(hintAfter, func() { s.hint(ctx) })
	defer hint.Stop()
	bar := s.app.progress(len(s.accepted), "jobs")
	err := s.session.client.WaitMany(ctx, s.accepted, func(r jobs.Result) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Outcome != jobs.Succeeded {
			s.failed++
		}
		_ = bar.Clear()
		err := s.outcome(ctx, r)
		bar.Describe(fmt.Sprintf("%d failed", s.failed))
		return errors.Join(err, bar.Add(1))
	})
	_ = bar.Exit()
	if interrupted.Err() != nil {
		return errors.New("interrupted: the jobs go on, see gofer results")
	}
	return err
}

// hintAfter is how long nothing is said about jobs that nobody takes.
const hintAfter = 5 * time.Second

// hint tells of queues that no worker serves; who may not look at the queues is told nothing.
func (s *submission) hint(ctx context.Context) {
	queues, err := s.session.client.Queues(ctx)
	if err != nil {
		return
	}
	for _, q := range queues {
		ours := slices.ContainsFunc(s.accepted, func(k bus.Key) bool { return k.Queue == q.Queue })
		switch {
		case !ours:
		case !q.Served:
			s.say("queue " + q.Queue + ": no worker has ever served it, so its jobs wait: add it to GOFER_QUEUES, or is it misspelt?")
		case !q.PausedUntil.IsZero():
			s.say("queue " + q.Queue + " is paused, so its jobs wait: gofer resume " + q.Queue)
		case q.Pulls == 0 && q.Running == 0:
			s.say("queue " + q.Queue + ": no worker asks for its jobs: start one")
		}
	}
}

// outcome prints one result and keeps its body if asked. A body that cannot be kept is its job's failure; the others go on.
func (s *submission) outcome(ctx context.Context, r jobs.Result) error {
	key := bus.Key{Queue: r.Queue, ID: r.ID}
	from := s.open[key]
	delete(s.open, key)
	if s.flags.output != "" && r.Outcome == jobs.Succeeded {
		if err := s.save(ctx, r); err != nil {
			s.failed++
			s.app.note("the body of job %s is not kept: %v", key, err)
		}
	}
	switch {
	case s.app.json:
		return s.app.printJSON(struct {
			resultFacts
			Line int `json:"line"`
		}{resultJSON(r), from.Line})
	case len(s.accepted) == 1 && s.flags.output == "":
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
	case bad+len(s.accepted) == 0: // nothing failed
		s.say("no jobs in " + s.sourceName())
	case bad > 0 && len(s.accepted) == 0:
		return fmt.Errorf("no job was accepted, %d refused", bad)
	case bad+s.failed > 0 && s.flags.wait && len(s.accepted) == 1 && bad == 0:
		return &failure{code: exitSomeFailed, err: errors.New("the job failed")}
	case bad+s.failed > 0:
		return &failure{code: exitSomeFailed, err: fmt.Errorf("jobs accepted: %d, refused: %d, failed: %d", len(s.accepted), bad, s.failed)}
	}
	return nil
}

// progress is a bar with counts, rate and remaining time on a terminal, and nothing elsewhere.
func (a *app) progress(total int, what string) *progressbar.ProgressBar {
	if !a.err.isTerminal() || total < 2 {
		return progressbar.NewOptions(total, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetVisibility(false))
	}
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(raw{a.err}), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(what), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
}
