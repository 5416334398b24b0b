package share

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
)

const (
	// flushEvery leaves a second for the storing: what a killed worker loses is not older than 5 s.
	flushEvery = 4 * time.Second
	// rowsEvery is for the rows of proxies when they are many: 1,000 of them cost the server 60 messages in the time in
	// which the totals cost one.
	rowsEvery = time.Minute
	// lastFlush bounds the flush of a worker that drains.
	lastFlush = 8 * time.Second
	// rowsFor is how far back the rows of proxies are read: they are kept for a day.
	rowsFor = 25 * time.Hour
)

// Counters are the fleet's sums; *bus.Client has them.
type Counters interface {
	AddRollups(ctx context.Context, inc bus.Increments) error
	Rollups(ctx context.Context, prefix string, since time.Time, use func(name, sum string), known func()) error
	Breakers(ctx context.Context, since time.Time, use func(stored time.Time, e jobs.BreakerEvent)) error
}

// RollupsConfig is what Rollups are made of; all fields are required.
type RollupsConfig struct {
	// Book is this worker's.
	Book *rollup.Book
	// Flushed is told whether a delta was stored.
	Flushed func(ok bool)
	Log     *slog.Logger
}

// Rollups add what this worker counts to the sums of the fleet, and keep a book of those sums. Make them with NewRollups;
// they may be shared by any number of goroutines.
type Rollups struct {
	cfg   RollupsConfig
	fleet *rollup.Book

	hoursKnown, rowsKnown atomic.Bool
	strange               atomic.Bool // a sum that the book does not take was logged

	tried uint64 // the delta that was tried last; only the flushing goroutine has it
}

// NewRollups makes Rollups; Run feeds them.
func NewRollups(cfg RollupsConfig) *Rollups {
	return &Rollups{cfg: cfg, fleet: rollup.NewBook()}
}

// Fleet is the book of the whole fleet: what all workers have flushed, this one included, so that its newest numbers are
// up to 5 s old and none is in it twice. While NATS is away it stays as it was. Until it has been read for the first time
// it is this worker's own book, and known is false.
func (r *Rollups) Fleet() (book *rollup.Book, known bool) {
	if r.hoursKnown.Load() && r.rowsKnown.Load() {
		return r.fleet, true
	}
	return r.cfg.Book, false
}

// Run flushes and reads until ctx ends, and then flushes what is left, which takes 8 s at most. What counts must have
// ended before ctx does.
func (r *Rollups) Run(ctx context.Context, c Counters) {
	var parts sync.WaitGroup
	parts.Go(func() {
		r.again(ctx, "hours", func() error {
			return c.Rollups(ctx, "hour", time.Time{}, r.set, func() { r.hoursKnown.Store(true) })
		})
	})
	parts.Go(func() {
		r.again(ctx, "proxies", func() error {
			return c.Rollups(ctx, "proxy", time.Now().Add(-rowsFor), r.set, func() { r.rowsKnown.Store(true) })
		})
	})
	parts.Go(func() {
		var since time.Time
		r.again(ctx, "breakers", func() error {
			return c.Breakers(ctx, since, func(stored time.Time, e jobs.BreakerEvent) {
				since = stored.Add(1)
				r.fleet.Recall(e)
			})
		})
	})
	r.keepFlushing(ctx, c)
	parts.Wait()
}

// again reads until ctx ends; it says once when it cannot.
func (r *Rollups) again(ctx context.Context, what string, read func() error) {
	for said := false; ctx.Err() == nil; {
		if err := read(); err != nil && ctx.Err() == nil && !said {
			r.cfg.Log.Warn("the fleet's rollups cannot be read, what is known of them is shown", "part", what, "error", err)
			said = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (r *Rollups) set(name, sum string) {
	if err := r.fleet.Set(name, sum); err != nil && r.strange.CompareAndSwap(false, true) {
		r.cfg.Log.Warn("some of the fleet's rollups are left out", "error", err)
	}
}

func (r *Rollups) keepFlushing(ctx context.Context, c Counters) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	rows, failing := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			r.flushLast(context.WithoutCancel(ctx), c)
			return
		case <-tick.C:
		}
		all := time.Since(rows) >= rowsEvery
		err := r.flush(ctx, c, all)
		if err == nil && all {
			rows = time.Now()
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.cfg.Log.Warn("rollups not flushed, they wait for the next time", "error", err)
		}
		failing = err != nil
	}
}

// flush stores one delta after the other, so that the mark of the last one tells of all before it.
func (r *Rollups) flush(ctx context.Context, c Counters, all bool) error {
	for {
		d := r.cfg.Book.Take(all)
		if d.Seq == 0 {
			return nil
		}
		err := c.AddRollups(ctx, bus.Increments{ID: d.ID(), Mark: d.Mark(), Counts: d.Counts, Repeated: d.Seq == r.tried})
		r.tried = d.Seq
		r.cfg.Flushed(err == nil)
		if err != nil {
			return err
		}
		r.cfg.Book.Done(d.Seq)
		if !d.More {
			return nil
		}
	}
}

// flushLast flushes until nothing is left: a delta that failed before is not the last one.
func (r *Rollups) flushLast(ctx context.Context, c Counters) {
	ctx, cancel := context.WithTimeout(ctx, lastFlush)
	defer cancel()
	var failed error
	for r.cfg.Book.Take(true).Seq != 0 {
		err := r.flush(ctx, c, true)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		failed = err
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	if r.cfg.Book.Take(true).Seq != 0 {
		r.cfg.Log.Error("rollups of the last seconds are lost", "error", failed)
	}
}
