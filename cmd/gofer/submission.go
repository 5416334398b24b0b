package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
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

	accepted []bus.Key
	invalid  int // lines that are no job
	refused  int // jobs that the server did not take
	failed   int // jobs that did not succeed

	said sync.Mutex // held while a message is written
}

// run publishes every job and, if asked, waits for their results.
func (s *submission) run(ctx context.Context, source io.Reader) error {
	if err := s.publish(ctx, source); err != nil {
		return err
	}
	if s.flags.wait && len(s.accepted) > 0 {
		if err := s.await(ctx); err != nil {
			return err
		}
	}
	return s.verdict()
}

// publish sends the jobs of all lines. A line that is no job, or that is refused, is told about; the others go on.
func (s *submission) publish(ctx context.Context, source io.Reader) error {
	var readErr error
	err := s.session.client.SubmitMany(ctx, s.jobs(source, &readErr), 0, func(_ jobs.Job, ack bus.Ack, err error) {
		if err != nil {
			s.refused++
			s.say(err.Error())
			return
		}
		s.accepted = append(s.accepted, ack.Key)
		if !s.flags.wait {
			s.printAck(ack)
		}
	})
	return errors.Join(err, readErr)
}

// jobs yields the job of each line and counts the lines that hold none.
func (s *submission) jobs(source io.Reader, readErr *error) iter.Seq[jobs.Job] {
	stop := errors.New("enough")
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
	s.said.Lock()
	defer s.said.Unlock()
	fmt.Fprintln(s.app.err, "gofer: "+text)
}

func (s *submission) printAck(ack bus.Ack) {
	if s.app.json {
		_ = s.app.printJSON(ack)
		return
	}
	fmt.Fprintln(s.app.out, ack.ID)
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
		s.said.Lock()
		defer s.said.Unlock()
		if r.Outcome != jobs.Succeeded {
			s.failed++
		}
		bar.Describe(fmt.Sprintf("%d failed", s.failed))
		_ = bar.Clear()
		err := s.outcome(ctx, r)
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

// outcome prints one result and keeps its body if asked.
func (s *submission) outcome(ctx context.Context, r jobs.Result) error {
	if s.flags.output != "" && r.Outcome == jobs.Succeeded {
		if err := s.save(ctx, r); err != nil {
			return err
		}
	}
	if len(s.accepted) == 1 && s.flags.output == "" && !s.app.json {
		fmt.Fprintln(s.app.err, resultLine(r))
		return s.app.printBody(ctx, s.session, r)
	}
	return s.app.printResult(r)
}

// save writes the body to a file named by the job's id, which is safe as a file name.
func (s *submission) save(ctx context.Context, r jobs.Result) error {
	body, err := s.session.client.Body(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f, err := os.Create(filepath.Join(s.flags.output, r.ID))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// verdict is how the whole submission went, as an exit code.
func (s *submission) verdict() error {
	switch bad := s.invalid + s.refused; {
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
	if !isTerminal(a.err) || total < 2 {
		return progressbar.NewOptions(total, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetVisibility(false))
	}
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(a.err), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(what), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
}
