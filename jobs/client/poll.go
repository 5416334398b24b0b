package client

import (
	"strings"
	"time"
)

// maxPollPause is the longest pause between two sweeps of a polling waiter, whose user may not subscribe to results.
const maxPollPause = 2 * time.Second

// expectRefusal makes the server's refusal of a subscription a signal for the waiter.
func (w *waiter) expectRefusal() (forget func()) {
	results, _, _ := strings.Cut(w.client.bus.Names().Results("*"), "*")
	// The channel has room for one, and the send never blocks: the connection's reader calls the function.
	return w.client.bus.ExpectRefusal(results, func() {
		select {
		case w.refusal <- struct{}{}:
		default:
		}
	})
}

// startPolling makes the waiter rely on its sweeps, because the server refuses its subscriptions. A second call does nothing.
func (w *waiter) startPolling() {
	if !w.polls {
		w.polls = true
		w.unlistenAll()
		w.sweep.Reset(w.pause)
	}
}

// pollPause is the time between a sweep of a polling waiter that took so long and the next one. It grows while sweeps find
// nothing; like any waiter's, they take half of its time at most.
func (w *waiter) pollPause(took time.Duration, found bool) time.Duration {
	w.pause = min(w.pause*5/4, maxPollPause)
	if found {
		w.pause = lookupDelay
	}
	// A sweep that took long is followed by a pause as long.
	return max(w.pause, took)
}

// sweepSoon lets a polling waiter sweep soon, because a key was added. It does nothing for other waiters.
func (w *waiter) sweepSoon() {
	if w.polls && w.pause > lookupDelay {
		w.pause = lookupDelay
		w.sweep.Reset(w.pause)
	}
}
