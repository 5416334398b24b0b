package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// report prints what became of a proxy and counts it. Calls are serialised, so lines do not mix.
func (k *check) report(r checked) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended != nil {
		k.ended(r)
	}
	if r.OK {
		k.times = append(k.times, r.Duration.Std())
	} else {
		k.failed++
	}
	k.bar.Describe(fmt.Sprintf("%d failed", k.failed))
	// The bar and the line share a screen.
	_ = k.bar.Clear()
	return errors.Join(k.print(r), k.bar.Add(1))
}

// print prints one line. Ids and addresses are padded, so that the lines form a table although they are printed one by
// one.
func (k *check) print(r checked) error {
	if k.app.json {
		return k.app.printJSON(r)
	}
	// A dash stands for no status.
	word, status, why := "ok", "-", ""
	if r.Status != 0 {
		status = fmt.Sprint(r.Status)
	}
	if !r.OK {
		word, why = "failed", " "+r.Error
	}
	if r.Fault != jobs.FaultNone {
		why = " " + string(r.Fault) + ": " + r.Error
	}
	return k.app.out.line("%-*s %-*s %-6s %3s %s%s", k.widths[0], r.ID, k.widths[1], r.Addr, word, status, milliseconds(r.Duration), why)
}

// verdict sums up on standard error and returns the error for the exit code: 3 if proxies failed, 130 if it was
// interrupted. stopped is why the check ended early; nil if it did not. It is called when no goroutine of the check
// is left.
func (k *check) verdict(stopped error) error {
	// The goroutines have ended, so no lock is needed.
	slices.Sort(k.times)
	text := fmt.Sprintf("%d ok, %d failed", len(k.times), k.failed)
	if n := len(k.times); n > 0 {
		text += ", median time " + k.times[n/2].Round(time.Millisecond).String()
	}
	// Proxies that were never judged, which only an early end leaves.
	left := len(k.list) - len(k.times) - k.failed
	switch {
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
