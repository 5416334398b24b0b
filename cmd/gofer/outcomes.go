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
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/config"
)

// nameOpen names the jobs that go on although nobody waits for them any more. With --json it prints all of them on
// standard output, as accepted jobs. Otherwise it names the first maxNamed on standard error. Jobs that may have been
// accepted are named as well. Lists are sorted by line, so that the user can start again where it stopped.
func (s *submission) nameOpen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	byLine := func(a, b ackFacts) int { return a.Line - b.Line }
	// s.open is a map, so its order means nothing.
	open := slices.SortedFunc(maps.Values(s.open), byLine)
	slices.SortFunc(s.unsure, byLine)
	s.nameSome("perhaps accepted, no answer came", s.unsure, "")
	if !s.app.json {
		s.nameSome("no result yet", open, ", which --json would name")
		return nil
	}
	// All of them, for a program may have to wait for each.
	for _, ack := range open {
		if err := s.app.printJSON(ack); err != nil {
			return err
		}
	}
	return nil
}

// nameSome names the first jobs of a list and counts the rest. more ends the last line. The caller holds mu.
func (s *submission) nameSome(what string, list []ackFacts, more string) {
	for _, ack := range list[:min(len(list), maxNamed)] {
		s.app.note("%s: %s (%s %d)", what, ack.Key, s.unit, ack.Line)
	}
	if n := len(list) - maxNamed; n > 0 {
		s.app.note("%s: %d more%s", what, n, more)
	}
}

// await prints an outcome for each job of keys until keys is closed and all outcomes have come. It counts them. It
// returns the first error: of printing, of the connection, or the cause of ctx.
func (s *submission) await(ctx context.Context, keys <-chan client.Key) error {
	// mu is for the goroutine that submits meanwhile.
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
		// The line would otherwise stand behind the bar.
		s.clearBar()
		return s.outcome(ctx, r)
	})
}

// hintAfter is how long nothing is said about jobs that nobody takes. Jobs of a healthy queue have begun by then.
const hintAfter = 5 * time.Second

// hint names the queues that no worker serves, once. A user who may not look at the queues gets no hint. It is
// a courtesy: an error of it must not disturb the submission. It asks once, after hintAfter: a queue that is paused
// later is not named.
func (s *submission) hint(ctx context.Context) {
	queues, err := s.session.client.ConsumedQueues(ctx)
	if err != nil {
		return
	}
	// Queues without open jobs are none of this call's business.
	ours := s.openQueues()
	for _, q := range queues {
		if !ours[q.Queue] {
			continue
		}
		delete(ours, q.Queue)
		switch {
		case !q.Served:
			s.hintUnserved(q.Queue)
		case !q.PausedUntil.IsZero():
			s.say("queue " + q.Queue + " is paused, so its jobs wait: gofer resume " + q.Queue)
		case q.Pulls == 0 && q.Running == 0:
			s.say("queue " + q.Queue + ": no worker asks for its jobs: start one")
		}
	}
	// Of a queue without consumers the list has only what is among the oldest jobs. What is left in ours has no
	// consumers, or no jobs.
	for _, queue := range slices.Sorted(maps.Keys(ours)) {
		if n, err := s.session.bus.CountFrom(ctx, "JOBS", s.session.names.Jobs(queue), 1); err == nil && n > 0 {
			s.hintUnserved(queue)
		}
	}
}

// hintUnserved names both causes, because a misspelt queue and a new one look the same from here.
func (s *submission) hintUnserved(queue string) {
	s.say("queue " + queue + ": no worker has ever served it, so its jobs wait: add it to GOFER_QUEUES, or is it misspelt?")
}

// openQueues returns the queues of the jobs whose outcomes have not come yet.
func (s *submission) openQueues() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	for key := range s.open {
		out[key.Queue] = true
	}
	return out
}

// outcome prints one result, and keeps its body if --output is given. A body that cannot be kept makes its job a failed
// one; the others go on. The caller holds mu.
func (s *submission) outcome(ctx context.Context, r jobs.Result) error {
	key := client.Key{Queue: r.Queue, ID: r.ID}
	from := s.open[key]
	delete(s.open, key)
	if s.flags.output != "" && r.Outcome == jobs.Succeeded {
		if err := s.save(ctx, r); err != nil {
			// It counts as failed, so the exit code says that something is missing.
			s.failed++
			s.app.note("the body of job %s is not kept: %s", key, config.Explain(err))
		}
	}
	switch {
	case s.app.json:
		return s.app.printJSON(struct {
			jobs.Summary
			Line int `json:"line"`
		}{r.Summary(), from.Line})
	case s.single && s.flags.output == "":
		// The facts go to standard error, so that the body alone can be piped.
		_ = s.app.err.line("%s", resultLine(r))
		return s.app.printBody(ctx, s.session, r)
	}
	return s.app.printResult(r)
}

// save writes the body to the file QUEUE/ID below the folder. Two jobs never share a file, and queues and ids hold no
// path. It neither replaces a file nor leaves the folder through a link. A file that cannot be completed is
// removed. Queues and ids hold neither slashes nor dots, which the message contract guarantees.
func (s *submission) save(ctx context.Context, r jobs.Result) error {
	body, err := s.session.client.Body(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	// os.OpenRoot keeps every path within the folder, also through symbolic links.
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

// verdict is how the whole submission went: nil, an error, or a failure with exit code 3 if some jobs failed and others
// did not. It is called when no other goroutine uses s. Exit code 1 means that no job was accepted.
func (s *submission) verdict() error {
	// The cases go from the worst to the best, and each later one can rely on the former ones not holding.
	switch bad := s.invalid + s.refused; {
	case bad+s.accepted == 0: // nothing failed
		s.say("no jobs in " + s.sourceName())
	case bad > 0 && s.accepted == 0:
		return fmt.Errorf("no job was accepted, %d refused", bad)
	// A single job was reported with its outcome already, so counts would only repeat it.
	case s.failed > 0 && s.flags.wait && s.accepted == 1 && bad == 0:
		return &failure{code: exitSomeFailed, err: errors.New("the job failed")}
	case s.unwanted > 0:
		return &failure{code: exitSomeFailed, err: fmt.Errorf("jobs accepted: %d, refused: %d, failed: %d, answers other than 2xx and 3xx: %d", s.accepted, bad, s.failed, s.unwanted)}
	case bad+s.failed > 0:
		return &failure{code: exitSomeFailed, err: fmt.Errorf("jobs accepted: %d, refused: %d, failed: %d", s.accepted, bad, s.failed)}
	}
	return nil
}
