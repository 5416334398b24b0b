// Package totals adds up what all workers of a fleet count, hour by hour, in JetStream.
package totals

import (
	"cmp"
	"context"
	"errors"
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
	// lastFlush bounds the flush of a worker that drains.
	lastFlush = 8 * time.Second
	// rowsFor is how far back the rows of proxies are read: they are kept for a day.
	rowsFor = 25 * time.Hour
)

// Counters are the fleet's sums; *bus.Client has them.
type Counters interface {
	AddRollups(ctx context.Context, inc bus.Increments) error
	RollupMark(ctx context.Context, mark string) (id string, broken bool, err error)
	MendRollups(ctx context.Context, broken []bus.Broken) error
	Rollups(ctx context.Context, prefix string, since time.Time, use func(name, sum string), broken func(bus.Broken), known func()) error
	RollupSums(ctx context.Context, names []string) (map[string]string, error)
	Breakers(ctx context.Context, since time.Time, use func(stored time.Time, e jobs.BreakerEvent)) error
	EventsMade(ctx context.Context) (time.Time, error)
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
	cfg     RollupsConfig
	fleet   atomic.Pointer[rollup.Book] // nil before it was read for the first time
	anew    chan struct{}               // the fleet's sums were deleted
	strange atomic.Bool                 // something that the book does not take was logged

	mu     sync.Mutex
	broken map[bus.Broken]bool // read and not mended yet

	// Only the flushing goroutine has these: the ids of the deltas that were tried and stored last, how many of its marks were
	// broken, and when it was refused to mend, if it was.
	tried, stored string
	left          int
	refused       time.Time

	// Of what is read, to find out whether it is still there. Only the flushing goroutine has what was asked for last, and was
	// known then.
	witnesses  atomic.Pointer[witnesses]
	eventsMade atomic.Pointer[time.Time]
	asked      *witnesses
	known      map[string]string
}

// NewRollups makes Rollups; Run feeds them.
func NewRollups(cfg RollupsConfig) *Rollups {
	return &Rollups{cfg: cfg, anew: make(chan struct{}, 1), broken: map[bus.Broken]bool{}}
}

// Fleet is the book of the whole fleet: what all workers have flushed, this one included, so that its newest numbers are
// up to 5 s old and none is in it twice. While NATS is away it stays as it was; when sums were deleted or purged it is
// another book soon. Until it has been read for the first time it is this worker's own book, and known is false.
func (r *Rollups) Fleet() (book *rollup.Book, known bool) {
	if book := r.fleet.Load(); book != nil {
		return book, true
	}
	return r.cfg.Book, false
}

// Run flushes and reads until ctx ends, and then flushes what is left, until last ends, for 8 s at most. What counts must have
// ended before ctx does. It mends what a restart of the server broke of the fleet's sums.
func (r *Rollups) Run(ctx, last context.Context, c Counters) {
	reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // the last flush may need to know what is broken
	var reader sync.WaitGroup
	reader.Go(func() {
		for reading.Err() == nil {
			r.read(reading, c)
		}
	})
	r.keepFlushing(ctx, c)
	r.flushLast(last, c)
	stop()
	reader.Wait()
}

// read fills a new book, shows it as soon as it has all sums, and keeps it up to date until ctx ends or what it has read is
// no longer there: readers who wait for what follows in the old stream would wait for days.
func (r *Rollups) read(ctx context.Context, c Counters) {
	ctx, stop := context.WithCancel(ctx)
	book, seen := rollup.NewBook(), newWitnesses()
	r.witnesses.Store(seen)
	r.eventsMade.Store(nil)
	set := func(name, sum string) {
		seen.saw(name, sum)
		r.leftOut(book.Set(name, sum))
	}
	var known [2]atomic.Bool
	part := func(i int) func() {
		return func() {
			if known[i].Store(true); known[1-i].Load() {
				r.fleet.Store(book)
			}
		}
	}
	var parts sync.WaitGroup
	parts.Go(func() {
		r.again(ctx, "hours", func() error { return c.Rollups(ctx, "hour", time.Time{}, set, r.foundBroken, part(0)) })
	})
	parts.Go(func() {
		r.again(ctx, "proxies", func() error { return c.Rollups(ctx, "proxy", time.Now().Add(-rowsFor), set, r.foundBroken, part(1)) })
	})
	parts.Go(func() { r.readBreakers(ctx, c, book) })
	select {
	case <-ctx.Done():
	case <-r.anew:
	}
	stop()
	parts.Wait()
}

func (r *Rollups) readBreakers(ctx context.Context, c Counters, book *rollup.Book) {
	var since time.Time
	r.again(ctx, "breakers", func() error {
		if r.eventsMade.Load() == nil {
			made, err := c.EventsMade(ctx)
			if err != nil {
				return err
			}
			r.eventsMade.Store(&made)
		}
		return c.Breakers(ctx, since, func(stored time.Time, e jobs.BreakerEvent) {
			since = stored.Add(1)
			r.leftOut(book.Recall(e, stored))
		})
	})
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

func (r *Rollups) leftOut(err error) {
	if err != nil && r.strange.CompareAndSwap(false, true) {
		r.cfg.Log.Warn("some of the fleet's rollups are left out", "error", err)
	}
}

func (r *Rollups) keepFlushing(ctx context.Context, c Counters) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.turn(ctx, c)
		if err == nil {
			r.verify(ctx, c)
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.cfg.Log.Warn("rollups not flushed, they wait for the next time", "error", err)
		}
		failing = err != nil
	}
}

func (r *Rollups) turn(ctx context.Context, c Counters) error {
	if err := r.look(ctx, c); err != nil {
		return err
	}
	unmended := r.mend(ctx, c)
	return cmp.Or(r.flush(ctx, c), unmended)
}

// look finds out whether the fleet's sums are still those that this worker added to: a stream that was deleted or purged
// no longer has this worker's mark. One that has counted nothing yet stores its mark for that alone.
func (r *Rollups) look(ctx context.Context, c Counters) error {
	next := r.cfg.Book.Take()
	id, broken, err := c.RollupMark(ctx, r.mark(next))
	switch {
	case err != nil:
		return err
	case broken:
		next = r.leave(next, id)
	case id != "" && (id == r.stored || id == r.tried):
		return nil
	case r.stored != "":
		r.begin("they were deleted")
	}
	r.stored = ""
	if next.Seq != 0 {
		return nil // its mark comes with it
	}
	mark := r.mark(next)
	if err := c.AddRollups(ctx, bus.Increments{ID: mark, Mark: mark}); err != nil {
		return err
	}
	r.stored = mark
	return nil
}

// flush stores one delta after the other, so that the mark of the last one tells of all before it.
func (r *Rollups) flush(ctx context.Context, c Counters) error {
	for {
		d := r.cfg.Book.Take()
		if d.Seq == 0 {
			return nil
		}
		err := c.AddRollups(ctx, bus.Increments{ID: d.ID(), Mark: r.mark(d), Counts: d.Counts, Repeated: d.ID() == r.tried})
		r.tried = d.ID()
		r.cfg.Flushed(err == nil)
		if err != nil {
			return err
		}
		r.stored = d.ID()
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
	for r.cfg.Book.Take().Seq != 0 {
		err := r.turn(ctx, c)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		failed = err
		if errors.Is(err, bus.ErrUnreachable) {
			break // the connection is closed for good
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	if r.cfg.Book.Take().Seq != 0 {
		r.cfg.Log.Error("rollups of the last seconds are lost", "error", failed)
	}
}
