package totals

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// refusedFor is how long mending rests after it was refused: a refusal takes 5 s to be noticed, in which nothing is flushed.
const refusedFor = time.Minute

func (r *Rollups) foundBroken(b bus.Broken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken[b] = true
}

func (r *Rollups) toMend() []bus.Broken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.broken), func(a, b bus.Broken) int { return cmp.Compare(a.Seq, b.Seq) })
}

func (r *Rollups) forgetBroken(all []bus.Broken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range all {
		delete(r.broken, b)
	}
}

// mend adds what the server stored without adding it. Every worker that reads of it does so, and it counts once. Without the
// right to, what is counted in the broken counters waits, and with it what this worker counts later.
func (r *Rollups) mend(ctx context.Context, c Counters) error {
	broken := r.toMend()
	if len(broken) == 0 || time.Since(r.refused) < refusedFor {
		return nil
	}
	err := c.MendRollups(ctx, broken)
	switch {
	case errors.Is(err, bus.ErrPermission):
		if r.refused.IsZero() {
			r.cfg.Log.Warn("a restart of the NATS server broke counters of the fleet's rollups, and this worker's user may not mend them: "+
				"give it the permission that deploy/nats/server.conf has", "counters", len(broken), "error", err)
		}
		r.refused = time.Now()
		return nil
	case err != nil:
		return err
	}
	r.refused = time.Time{}
	r.forgetBroken(broken)
	r.cfg.Log.Warn("a restart of the NATS server broke counters of the fleet's rollups, they are mended", "counters", len(broken))
	return nil
}

// mark is the name of the one that this worker's deltas are stored under now.
func (r *Rollups) mark(d rollup.Delta) string {
	if r.left == 0 {
		return d.Mark()
	}
	return d.Mark() + "." + strconv.Itoa(r.left)
}

// leave goes on under another mark when the server broke the last one, which still tells what was stored: the server may have
// stopped before it answered. What was tried and not stored then never will be, for the server refuses what comes under
// that mark. No other worker mends it: its repetition would hide what it tells.
func (r *Rollups) leave(next rollup.Delta, stored string) rollup.Delta {
	r.left++
	if next.Seq == 0 || next.ID() != stored {
		return next
	}
	r.cfg.Flushed(true)
	r.cfg.Book.Done(next.Seq)
	return r.cfg.Book.Take()
}
