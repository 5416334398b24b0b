package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// lookUpFresh looks up the keys that were added since its last call. After a transient error they stay fresh. Keys that
// are added during the look-up belong to the next one.
func (w *waiter) lookUpFresh(ctx context.Context) error {
	fresh := w.fresh
	w.fresh = nil
	err := w.lookUpAll(ctx, fresh)
	if w.isTransient(err) {
		w.fresh = fresh
		w.lookup.Reset(sweepRetry)
		return nil
	}
	return err
}

// lookUpOpen looks up every key whose result has not come, and plans the next sweep.
func (w *waiter) lookUpOpen(ctx context.Context) error {
	began, before := time.Now(), len(w.open)
	// The keys are copied: take removes from open while the answers come.
	err := w.lookUpAll(ctx, slices.Collect(maps.Keys(w.open)))
	if w.isTransient(err) {
		w.sweep.Reset(sweepRetry)
		return nil
	}
	pause := sweepPause(time.Since(began))
	if w.polls {
		pause = w.pollPause(time.Since(began), len(w.open) < before)
	}
	w.sweep.Reset(pause)
	return err
}

// sweepPause is the pause after a sweep: as long as the sweep took, so that sweeps take at most half of the time, and
// between sweepEvery and sweepAtLeast.
func sweepPause(took time.Duration) time.Duration { return min(max(took, sweepEvery), sweepAtLeast) }

// isTransient reports whether an error is transient, so that a later look-up may succeed. An error of use never is.
func (w *waiter) isTransient(err error) bool { return w.refused == nil && bus.IsTransient(err) }

// lookUpAll looks up keys in parts of at most bus.MaxSubjects.
func (w *waiter) lookUpAll(ctx context.Context, keys []Key) error {
	for part := range slices.Chunk(keys, bus.MaxSubjects) {
		if err := w.lookUp(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// lookUp asks for the results of some keys until an answer brings nothing new: the server may cut a long answer short.
func (w *waiter) lookUp(ctx context.Context, keys []Key) error {
	for {
		// Made in each round, since results may have come by a subscription meanwhile.
		var subjects []string
		for _, key := range keys {
			if _, open := w.open[key]; open {
				subjects = append(subjects, w.client.bus.Names().Result(key.Queue, key.ID))
			}
		}
		if len(subjects) == 0 {
			return nil
		}
		before := len(w.open)
		err := w.client.bus.LastMessages(ctx, w.client.bus.Names().Stream("RESULTS"), subjects, w.take)
		switch {
		case w.refused != nil:
			return w.refused
		case err != nil:
			return w.client.explainSweep(err)
		case len(w.open) == before:
			return nil
		}
	}
}

// explainSweep returns a transient error as it is, so that isTransient recognises it, and explains all others. A wrong
// configuration comes first, because no later look-up can succeed.
func (c *Client) explainSweep(err error) error {
	if worded := c.bus.Explain("look up results", err); errors.Is(worded, bus.ErrConfig) {
		return worded
	}
	if bus.IsTransient(err) {
		return err
	}
	return c.bus.Explain("look up results", err)
}
