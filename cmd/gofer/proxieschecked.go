package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// report prints what became of a proxy and counts it. Any number of goroutines may call it.
func (k *check) report(r checkResult) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	// ended is called under the lock, so that it needs none of its own.
	if k.ended != nil {
		k.ended(r)
	}
	if r.OK {
		k.times = append(k.times, r.Duration.Std())
	} else {
		k.failed++
	}
	k.bar.Describe(fmt.Sprintf("%d failed", k.failed))
	// The bar and the lines share a screen. Add draws the bar again below the new line.
	_ = k.bar.Clear()
	return errors.Join(k.printLine(r), k.bar.Add(1))
}

// printLine prints one line. It pads ids and addresses, so that the lines form a table although they are printed one by one.
func (k *check) printLine(r checkResult) error {
	if k.app.json {
		return k.app.printJSON(r)
	}
	// Without a status there was no answer, and a dash says that better than a zero.
	word, status, why := "ok", "-", ""
	if r.Status != 0 {
		status = fmt.Sprint(r.Status)
	}
	if !r.OK {
		word, why = "failed", " "+r.Error
	}
	// The fault comes first: it says whether the proxy or the page has to be looked at.
	if r.Fault != jobs.FaultNone {
		why = " " + string(r.Fault) + ": " + r.Error
	}
	return k.app.out.line("%-*s %-*s %-6s %3s %s%s", k.widths[0], r.ID, k.widths[1], r.Addr, word, status, milliseconds(r.Duration), why)
}

// exitError sums up on standard error and returns the error for the exit code: 3 if proxies failed, 130 if the check was
// interrupted. stopped is why the check ended early; nil if it did not. No goroutine of the check is left when it is
// called.
func (k *check) exitError(stopped error) error {
	// The goroutines have ended, so no lock is needed.
	slices.Sort(k.times)
	text := fmt.Sprintf("%d ok, %d failed", len(k.times), k.failed)
	if n := len(k.times); n > 0 {
		text += ", median time " + k.times[n/2].Round(time.Millisecond).String()
	}
	// Some proxies are left unchecked only if the check ended early.
	left := len(k.list) - len(k.times) - k.failed
	switch {
	// Such as a line that could not be printed: this is the error, and the numbers do not matter.
	case stopped != nil && !errors.Is(stopped, context.Canceled) && !errors.Is(stopped, errInterrupted):
		return stopped
	case left > 0:
		return fmt.Errorf("%w: %s, %d not checked", errInterrupted, text, left)
	case k.failed > 0:
		return &failure{code: exitSomeFailed, err: errors.New(text)}
	}
	k.app.note("%s", text)
	return nil
}
