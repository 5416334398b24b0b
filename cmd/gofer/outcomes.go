package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/config"
)

// printOpen names the jobs that go on although nobody waits for them any more, and those that may have been accepted, in the
// order of their lines. With --json it prints all accepted jobs on standard output, because a program may have to wait for
// each. Otherwise it names the first maxNamed on standard error.
func (s *submission) printOpen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	byLine := func(a, b ackFacts) int { return a.Line - b.Line }
	open := slices.SortedFunc(maps.Values(s.open), byLine)
	slices.SortFunc(s.unanswered, byLine)
	s.printSome("perhaps accepted, no answer came", s.unanswered, "")
	if !s.app.json {
		s.printSome("no result yet", open, ", which --json would name")
		return nil
	}
	for _, ack := range open {
		if err := s.app.printJSON(ack); err != nil {
			return err
		}
	}
	return nil
}

// printSome names the first jobs of a list and counts the rest. more ends the last line. The caller holds mu.
func (s *submission) printSome(what string, list []ackFacts, more string) {
	for _, ack := range list[:min(len(list), maxNamed)] {
		s.app.note("%s: %s (%s %d)", what, ack.Key, s.unit, ack.Line)
	}
	if n := len(list) - maxNamed; n > 0 {
		s.app.note("%s: %d more%s", what, n, more)
	}
}

// await prints and counts an outcome for each job of keys, until keys is closed and all outcomes have come. It returns the first
// error: of printing, of the connection, or the cause of ctx.
func (s *submission) await(ctx context.Context, keys <-chan client.Key) error {
	// WaitEach calls this function for one result at a time. mu keeps out the goroutine that submits meanwhile.
	return s.session.client.WaitEach(ctx, keys, func(r jobs.Result) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case r.Outcome != jobs.Succeeded:
			s.failed++
		// A job that failed is not counted again as unwanted.
		case s.flags.fail && (r.Status < 200 || r.Status > 399):
			s.unwanted++
		}
		s.count(r)
		return s.printAbove(s.app.out, func() error { return s.printOutcome(ctx, r) })
	})
}

// printOutcome prints one result, and saves its body with --output. A job whose body cannot be saved counts as failed. The
// caller holds mu.
func (s *submission) printOutcome(ctx context.Context, r jobs.Result) error {
	key := client.Key{Queue: r.Queue, ID: r.ID}
	from := s.open[key]
	delete(s.open, key)
	if s.flags.output != "" && r.Outcome == jobs.Succeeded {
		if err := s.save(ctx, r); err != nil {
			s.failed++
			// The job itself has succeeded, but a script that reads the folder would miss its body.
			s.note("the body of job %s is not kept: %s", key, config.Explain(err))
		}
	}
	switch {
	case s.app.json:
		return s.app.printJSON(struct {
			jobs.Summary
			Line int `json:"line"`
		}{r.Summary(), from.Line})
	case s.single && s.flags.output == "":
		// The facts go to standard error, so that the body alone can be piped. A line that is lost there fails nothing.
		_ = s.app.err.line("%s", resultLine(r))
		return s.app.printBody(ctx, s.session, r)
	}
	return s.app.printResult(r)
}

// save writes the body to the file QUEUE/ID below the folder. Queues and ids hold neither slashes nor dots, so two jobs never
// share a file. save replaces no file, and does not leave the folder through a link. It removes a file that it cannot complete.
func (s *submission) save(ctx context.Context, r jobs.Result) error {
	body, err := s.session.client.Body(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	// os.OpenRoot keeps every path within the folder, also through symbolic links: others may be able to write there.
	folder, err := os.OpenRoot(s.flags.output)
	if err != nil {
		return err
	}
	defer func() { _ = folder.Close() }()
	if err := folder.Mkdir(r.Queue, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	name := r.Queue + "/" + r.ID
	// O_EXCL: an existing file may be the body of an earlier run.
	f, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	// Close reports what the system could not write, such as a full disk.
	if err = errors.Join(err, f.Close()); err != nil {
		_ = folder.Remove(name) // half a body would look like a whole one
	}
	return err
}

// exitError returns nil, or an error with exit code 3 if some jobs failed, and 1 if no job was accepted. No other goroutine
// uses s when it is called.
func (s *submission) exitError() error {
	cancelled := s.ended[jobs.Cancelled]
	// With --fail and with cancelled jobs the text has more numbers: otherwise those are zero.
	sums := fmt.Sprintf("jobs accepted: %d, refused: %d, failed: %d", s.accepted, s.invalid+s.refused, s.failed-cancelled)
	if cancelled > 0 {
		sums += fmt.Sprintf(", cancelled: %d", cancelled)
	}
	switch bad := s.invalid + s.refused; {
	case bad+s.accepted == 0:
		s.printNote("no jobs in " + s.sourceName())
	// Exit code 1: a script that submits only broken lines has submitted nothing.
	case bad > 0 && s.accepted == 0:
		return fmt.Errorf("no job was accepted, %d refused", bad)
	// The outcome of a single job was printed already.
	case s.failed > 0 && s.flags.wait && s.accepted == 1 && bad == 0:
		what := "failed"
		if cancelled > 0 {
			what = "was cancelled"
		}
		return &failure{code: exitSomeFailed, err: errors.New("the job " + what)}
	case s.unwanted > 0:
		return &failure{code: exitSomeFailed, err: fmt.Errorf("%s, answers other than 2xx and 3xx: %d", sums, s.unwanted)}
	case bad+s.failed > 0:
		return &failure{code: exitSomeFailed, err: errors.New(sums)}
	}
	return nil
}
