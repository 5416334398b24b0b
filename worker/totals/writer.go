package totals

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// lastFlush bounds the flush of a worker that drains.
const lastFlush = 8 * time.Second

// writer has the state that only the flushing goroutine uses.
type writer struct {
	// stored is the sequence of the newest version of each part, by its subject.
	stored map[string]uint64
}

// keepFlushing flushes every flushEvery until ctx ends. A failure is logged once, not at each try; the next flush stores
// what is missing.
func (t *Totals) keepFlushing(ctx context.Context, s store) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false // the last flush has failed
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := t.flush(ctx, s)
		if err != nil && !failing && ctx.Err() == nil {
			t.cfg.Log.Warn("rollups not stored, they wait for the next time", "error", err)
		}
		failing = err != nil
	}
}

// flush stores each part that has changed, the oldest hour first.
func (t *Totals) flush(ctx context.Context, s store) error {
	changed := t.cfg.Book.Changed()
	if len(changed) == 0 {
		return nil
	}
	// The first error ends the flush, because the further parts would most likely fail for the same reason.
	for _, p := range changed {
		if err := t.put(ctx, s, p); err != nil {
			t.cfg.Flushed(false)
			return err
		}
	}
	t.cfg.Flushed(true)
	return nil
}

// put stores a version of a part in place of the version before.
func (t *Totals) put(ctx context.Context, s store, p rollup.Part) error {
	subject, keep := subjectOf(s, p), time.Duration(0)
	if p.Kind == rollup.Proxies {
		keep = keepProxies
	}
	seq, err := s.Replace(ctx, stream, subject, p.Data, t.writer.stored[subject], keep)
	if errors.Is(err, bus.ErrReplaced) {
		// Either somebody has deleted the stored version: then a new part begins. Or an earlier store succeeded, but its answer
		// was lost: then the version is stored again. The leader answers Subjects, so its answer is current.
		there, err := s.Subjects(ctx, stream, subject)
		if err != nil {
			return err
		}
		if len(there) == 0 {
			t.noteLost(subject, p)
			return nil
		}
		return t.putAgain(ctx, s, p, keep)
	}
	if err != nil {
		return err
	}
	t.noteStored(subject, p, seq)
	return nil
}

// putAgain stores a version in place of a version whose sequence the writer does not know. A replica that lags may return an old
// sequence. Then the server refuses with bus.ErrReplaced, and the next flush tries again.
func (t *Totals) putAgain(ctx context.Context, s store, p rollup.Part, keep time.Duration) error {
	subject := subjectOf(s, p)
	newest, err := s.LastSeq(ctx, stream, subject)
	if err != nil {
		return err
	}
	seq, err := s.Replace(ctx, stream, subject, p.Data, newest, keep)
	if err == nil {
		t.noteStored(subject, p, seq)
	}
	return err
}

// noteStored notes that a version of a part is stored under a sequence.
func (t *Totals) noteStored(subject string, p rollup.Part, seq uint64) {
	t.writer.stored[subject] = seq
	t.cfg.Book.Stored(p)
}

// noteLost begins a new part, because the stored part was deleted. The next flush stores the new part.
func (t *Totals) noteLost(subject string, p rollup.Part) {
	delete(t.writer.stored, subject)
	t.cfg.Book.Lost(p)
	t.reader.suspect.Store(true)
	t.cfg.Log.Warn("stored rollups were deleted, the fleet's count begins again", "hour", p.Hour, "kind", p.Kind)
}

// subjectOf returns the subject of a part. No other worker writes to it, because it has the random id of the part.
func subjectOf(s store, p rollup.Part) string {
	return s.Names().Hour(p.Hour.UTC().Format(hourLayout), string(p.Kind), p.ID)
}

// flushLast flushes until all parts are stored, lastFlush is over or ctx ends. It repeats failed flushes.
func (t *Totals) flushLast(ctx context.Context, s store) {
	ctx, cancel := context.WithTimeout(ctx, lastFlush)
	defer cancel()
	var failed error
	for len(t.cfg.Book.Changed()) > 0 && ctx.Err() == nil {
		err := t.flush(ctx, s)
		if err == nil {
			continue
		}
		if failed = err; errors.Is(err, bus.ErrUnreachable) && !bus.IsTransient(err) {
			break // the connection is closed for good
		}
		select {
		case <-ctx.Done():
		// Without a pause, a server that refuses at once would be asked in a tight loop.
		case <-time.After(100 * time.Millisecond):
		}
	}
	if len(t.cfg.Book.Changed()) > 0 {
		t.cfg.Log.Error("rollups of the last seconds are lost", "error", failed)
	}
}
