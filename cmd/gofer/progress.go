package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gofer-mq/gofer/jobs"
)

// barLine is the line of a progress bar. It keeps what was drawn last, so that the bar can be drawn again at once.
type barLine struct {
	to     io.Writer
	drawn  []byte
	hidden bool // while something is printed in its place
}

// Write writes what the bar draws and keeps it. The bar writes blanks to clear its line. They are not kept, because they would be
// drawn again in place of the bar.
func (l *barLine) Write(p []byte) (int, error) {
	if len(bytes.TrimSpace(p)) > 0 {
		l.drawn = append(l.drawn[:0], p...)
	}
	return l.to.Write(p)
}

// newBar returns a bar that draws on to, if it is wanted and standard error is a terminal; otherwise one that draws
// nothing. A total of -1 is not known.
func (a *app) newBar(to io.Writer, wanted bool, total int) *progressbar.ProgressBar {
	if !wanted || !a.err.isTerminal() {
		// The invisible bar takes all calls, so callers need no second path.
		return progressbar.NewOptions(total, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetVisibility(false))
	}
	// A spinner that changes by itself would draw from a goroutine of its own, without the lock that the caller holds.
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(to), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionThrottle(barPeriod/2), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(), progressbar.OptionSetElapsedTime(false))
}

// barPeriod is how often the bar is drawn: by a clock and not after each line, because the next line removes it.
const barPeriod = 100 * time.Millisecond

// draw shows the bar until stop is called, which removes it. stop must be called once.
func (s *submission) draw(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var drawing sync.WaitGroup
	// It draws at once, and then each barPeriod until stop.
	drawing.Go(func() {
		for more := true; more; more = sleep(ctx, barPeriod) {
			s.drawOnce()
		}
	})
	return func() {
		cancel()
		// No drawing may follow the last clearing.
		drawing.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = s.bar.Exit() // ends the bar, and leaves what it has drawn
		_ = s.bar.Clear()
		s.line.drawn = nil
	}
}

// drawOnce draws the bar with the present counts. It takes mu, because lines are printed in the place of the bar meanwhile.
func (s *submission) drawOnce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for _, n := range s.ended {
		done += n
	}
	what := "submitted"
	if s.flags.wait {
		what = fmt.Sprintf("%d failed", s.failed)
		s.bar.ChangeMax(max(s.accepted, 1) + 1) // more lines may come, and a bar that was full once is not shown again
	} else {
		done = s.accepted
	}
	// A rate over less than a second jumps too much.
	if spent := time.Since(s.began).Seconds(); spent > 1 {
		what += fmt.Sprintf(", %.0f/s", float64(done)/spent)
	}
	s.bar.Describe(what)
	_ = s.bar.Set(done)
	_ = s.bar.RenderBlank()
}

// printAbove prints above the bar if both are on one screen, and draws the bar again at once. The caller holds mu.
func (s *submission) printAbove(on *stream, printLine func() error) error {
	// hidden: printLine may print another line above the bar, such as a note about a body, and only the outer call draws the bar
	// again.
	if s.bar == nil || len(s.line.drawn) == 0 || s.line.hidden || !on.isTerminal() {
		return printLine()
	}
	_, s.line.hidden = s.bar.Clear(), true
	err := printLine()
	s.line.hidden = false
	_, _ = s.line.to.Write(s.line.drawn)
	return err
}

// count counts an outcome for the bar and for the summary. The caller holds mu.
func (s *submission) count(r jobs.Result) {
	// A failed job counts as failed and not by its last status: a 503 that exhausted its retries is no answer that was wanted.
	class := jobs.StatusClass(r.Status)
	switch r.Outcome {
	case jobs.Failed:
		class = "failed"
	case jobs.Cancelled:
		class = jobs.Cancelled
	}
	s.ended[class]++
	s.attempts += r.AttemptCount
}

// printSummary prints in one line how many jobs of each class have ended, unless there is only one job.
func (s *submission) printSummary() {
	total := 0
	var parts []string
	// A fixed order, so that two runs can be compared.
	for _, class := range append(jobs.Classes(), "failed", "cancelled") {
		if n := s.ended[class]; n > 0 {
			total += n
			word := " " + class
			if class == jobs.ClassNone {
				word = " without a status"
			}
			parts = append(parts, withCommas(n)+word)
		}
	}
	if s.single || total < 2 || s.app.json {
		return
	}
	// The lower bound avoids a division by zero.
	spent := max(time.Since(s.began), time.Millisecond)
	_ = s.app.err.line("%s jobs in %s (%.0f/s): %s; %s attempts", withCommas(total), shortDuration(spent), float64(total)/spent.Seconds(), strings.Join(parts, ", "), withCommas(s.attempts))
}

// withCommas writes a number that is not negative with a comma before each three digits.
func withCommas(n int) string {
	digits := fmt.Sprint(n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
