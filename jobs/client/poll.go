package client

import (
	"strings"
	"time"
)

// maxPollPause is the longest pause between sweeps of a polling waiter: one whose user may not subscribe to results. Publishers
// of one account could otherwise address answers to each other's subscriptions.
const maxPollPause = 2 * time.Second

// expectRefusal makes the server's refusal of a subscription a signal for the waiter.
func (w *waiter) expectRefusal() (forget func()) {
	results, _, _ := strings.Cut(w.client.bus.Names().Results("*"), "*")
	// Room for one, and nobody is waited for: the refusal is called from the connection's reader.
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
		w.pause = firstLook
	}
	// A sweep that took long is followed by a pause as long.
	return max(w.pause, took)
}

// hurry makes the next sweep of a polling waiter come soon, because a key was added. Other waiters are not concerned.
func (w *waiter) hurry() {
	if w.polls && w.pause > firstLook {
		w.pause = firstLook
		w.sweep.Reset(w.pause)
	}
}
