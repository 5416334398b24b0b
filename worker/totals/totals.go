// Package totals adds up the hourly sums of all workers of a fleet in JetStream.
//
// Each worker stores the parts of its hours (rollup.Part). Each part has its own subject, which keeps only the newest version. An
// hour of the fleet is the sum of its messages. So a version that is stored twice counts once, and if a version is lost, the next
// one makes up for it. Nothing is ever added to a message, and no worker writes to the subject of another worker.
package totals

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
	// stream and events are the kinds of the streams that hold the parts and the breaker events.
	stream = "ROLLUPS"
	events = "EVENTS"

	// hourLayout writes an hour as one token of a subject, in the order of time.
	hourLayout = "2006010215"

	// flushEvery is the time between two flushes. With a second for storing, a killed worker loses the counts of at most 5 s.
	flushEvery = 4 * time.Second
	// keepProxies is how long the server keeps a part of the kind Proxies after it was stored: longer than a book needs it.
	keepProxies = (rollup.ProxyHours + 1) * time.Hour
)

// store is where the parts are. *bus.Client implements it. Tests use another implementation.
type store interface {
	Replace(ctx context.Context, kind, subject string, data []byte, last uint64, keep time.Duration) (seq uint64, err error)
	LastSeq(ctx context.Context, kind, subject string) (seq uint64, err error)
	ReadFrom(ctx context.Context, kind, filter string, from uint64, use func(bus.Message)) error
	CountFrom(ctx context.Context, kind, filter string, from uint64) (uint64, error)
	Subjects(ctx context.Context, kind, filter string) (map[string]uint64, error)
	StateOf(ctx context.Context, kind string) (bus.State, error)
	Names() jobs.Names
}

// Config configures Totals; all fields are required.
type Config struct {
	// Book holds the counts of this worker.
	Book *rollup.Book
	// Flushed is called after each flush of changed parts. ok is true if all parts were stored.
	Flushed func(ok bool)
	Log     *slog.Logger
}

// Totals stores the sums of this worker, and keeps a book with the sums of the whole fleet. Make one with New; any number of
// goroutines may use it.
type Totals struct {
	cfg   Config
	fleet *rollup.Book

	// store is nil until Run. known is true once fleet has every hour that was stored when Run began.
	store atomic.Pointer[store]
	known atomic.Bool

	// Only the flushing goroutine uses writer. The comments of reader say who uses its fields.
	writer writer
	reader reader
}

// New makes Totals. It sends nothing; Run stores and reads.
func New(cfg Config) *Totals {
	return &Totals{
		cfg: cfg, fleet: rollup.NewBook(), writer: writer{stored: map[string]uint64{}},
		reader: reader{lock: make(chan struct{}, 1), asked: make(chan struct{}, 1), seen: map[seenOf]seen{}, read: map[rollup.Kind]time.Time{}},
	}
}

// Run stores and reads until ctx ends. Then it stores the changed parts, for at most 8 s, or until the context last ends. The
// caller must stop counting in the book before it cancels ctx. Run returns when no goroutine reads or stores any more.
func (t *Totals) Run(ctx, last context.Context, s store) {
	t.store.Store(&s)
	var reading sync.WaitGroup
	reading.Go(func() { t.keepReading(ctx, s) })
	t.keepFlushing(ctx, s)
	t.flushLast(last, s)
	reading.Wait()
}

// Fleet returns the book of the whole fleet: the stored sums of all workers, this one included. Its newest numbers are up to 5 s
// old. Fleet reads the running hour from NATS at most once a second. It waits for at most a second; without an answer, the book
// has the last known numbers. Until all hours have been read for the first time, book is that of this worker, and known is false.
func (t *Totals) Fleet(ctx context.Context) (book *rollup.Book, known bool) {
	if !t.known.Load() {
		return t.cfg.Book, false
	}
	select {
	case t.reader.asked <- struct{}{}:
	default: // another query has asked
	}
	t.refresh(ctx, rollup.Totals)
	return t.fleet, true
}

// FleetByProxy returns the book of Fleet, with newer numbers of single proxies. Reading these costs more, so they may be
// flushEvery older than the numbers of Fleet.
func (t *Totals) FleetByProxy(ctx context.Context) (book *rollup.Book, known bool) {
	book, known = t.Fleet(ctx)
	if known {
		t.refresh(ctx, rollup.Proxies)
	}
	return book, known
}
