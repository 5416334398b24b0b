package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gofer-mq/gofer/jobs"
)

// progress returns a bar if it is wanted and standard error is a terminal. Otherwise it returns one that prints nothing, so
// callers need no check. A total of -1 is not known.
func (a *app) progress(wanted bool, total int) *progressbar.ProgressBar {
	if !wanted || !a.err.isTerminal() {
		// The invisible bar takes all calls, so callers need no second path.
		return progressbar.NewOptions(total, progressbar.OptionSetWriter(io.Discard), progressbar.OptionSetVisibility(false))
	}
	// A spinner that changes by itself would draw from a goroutine of its own, without the lock that the caller holds.
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(raw{a.err}), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionThrottle(barPeriod/2), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(), progressbar.OptionSetElapsedTime(false))
}

// barPeriod is how often the bar is drawn: by a clock, because output that comes fast clears it as fast.
const barPeriod = 100 * time.Millisecond

// draw shows the bar from now on until stop is called, which takes it away. stop must be called once, before
// anything else is printed at the end.
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
		_ = s.bar.Exit() // it leaves what it has drawn
		_ = s.bar.Clear()
	}
}

// drawOnce draws the bar. Everything is read under mu, so the numbers on the bar fit together.
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
		s.bar.ChangeMax(max(s.accepted, 1) + 1) // a bar that is full once is not shown again, and more lines may come
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

// clearBar makes room for a line on the same screen. The caller holds mu.
func (s *submission) clearBar() {
	if s.app.out.isTerminal() {
		_ = s.bar.Clear()
	}
}

// count counts an outcome. The caller holds mu.
func (s *submission) count(r jobs.Result) {
	// The class of a job without an answer is replaced by how it ended.
	class := jobs.StatusClass(r.Status)
	switch r.Outcome {
	case jobs.Failed:
		class = "failed"
	case jobs.Cancelled:
		class = "cancelled"
	}
	s.ended[class]++
	s.attempts += r.AttemptCount
}

// sumUp prints in one line what became of the jobs, unless there is only one. Classes without a job are left out.
func (s *submission) sumUp() {
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
			parts = append(parts, grouped(n)+word)
		}
	}
	if s.single || total < 2 || s.app.json {
		return
	}
	// The lower bound avoids a division by zero.
	spent := max(time.Since(s.began), time.Millisecond)
	_ = s.app.err.line("%s jobs in %s (%.0f/s): %s; %s attempts", grouped(total), brief(spent), float64(total)/spent.Seconds(), strings.Join(parts, ", "), grouped(s.attempts))
}

// grouped writes a number with a comma before each three digits.
func grouped(n int) string {
	// n is not negative.
	digits := fmt.Sprint(n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
