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

// writer is what only the flushing goroutine uses.
type writer struct {
	// stored is the sequence of the newest version of each part, by its subject.
	stored map[string]uint64
}

// keepFlushing flushes every flushEvery until ctx ends. A failure is logged once, not at each try; the next flush stores
// what is missing.
func (t *Totals) keepFlushing(ctx context.Context, s store) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false // whether the last flush has failed
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

// flush stores each part that has changed. The order is that of Changed: the oldest hour first.
func (t *Totals) flush(ctx context.Context, s store) error {
	changed := t.cfg.Book.Changed()
	if len(changed) == 0 {
		return nil
	}
	// The first error ends the flush: mostly all further parts would fail alike.
	for _, p := range changed {
		if err := t.put(ctx, s, p); err != nil {
			t.cfg.Flushed(false)
			return err
		}
	}
	t.cfg.Flushed(true)
	return nil
}

// put stores a version of a part in the place of the one before.
func (t *Totals) put(ctx context.Context, s store, p rollup.Part) error {
	subject, keep := subjectOf(s, p), time.Duration(0)
	if p.Kind == rollup.Proxies {
		keep = keepProxies
	}
	seq, err := s.Replace(ctx, stream, subject, p.Data, t.writer.stored[subject], keep)
	if errors.Is(err, bus.ErrReplaced) {
		// Either somebody deleted the stored version, and the count begins again. Or an earlier store succeeded, but its reply
		// was lost. The leader answers Subjects, so the list is current.
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

// putAgain stores a version in the place of one that the writer does not know. A lagging replica may return an old sequence.
// Then the server refuses, and the next flush tries again. The refusal is bus.ErrReplaced, like any other.
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

// noteLost starts a new part, because the stored one was deleted. The next flush stores it.
func (t *Totals) noteLost(subject string, p rollup.Part) {
	delete(t.writer.stored, subject)
	t.cfg.Book.Lost(p)
	t.reader.suspect.Store(true)
	t.cfg.Log.Warn("stored rollups were deleted, the fleet's count begins again", "hour", p.Hour, "kind", p.Kind)
}

// subjectOf is the subject of a part. No other worker writes to it. The id of a part is random, and so is the
// subject.
func subjectOf(s store, p rollup.Part) string {
	return s.Names().Hour(p.Hour.UTC().Format(hourLayout), string(p.Kind), p.ID)
}

// flushLast flushes until nothing is left: what could not be stored before may be stored now.
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
		// A pause, so that a server which refuses at once is not asked in a tight loop.
		case <-time.After(100 * time.Millisecond):
		}
	}
	if len(t.cfg.Book.Changed()) > 0 {
		t.cfg.Log.Error("rollups of the last seconds are lost", "error", failed)
	}
}
