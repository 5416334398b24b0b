// Package totals adds up what all workers of a fleet count, hour by hour, in JetStream.
//
// Each worker stores the parts of its hours (rollup.Part). Each part has its own subject, which keeps only the newest version. An
// hour of the fleet is the sum of its messages. So a version that is stored twice counts once, and the next version replaces one
// that was lost. Nothing is ever added to a message, and no worker writes to the subject of another one.
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

	// flushEvery is the time between two flushes. With a second for storing, a killed worker loses at most its last 5 s.
	flushEvery = 4 * time.Second
	// keepProxies is how long the server keeps a part of the proxies after it was stored: longer than a book names them.
	keepProxies = (rollup.ProxyHours + 1) * time.Hour
)

// store holds the parts. *bus.Client is one. Tests use another implementation.
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
	// Flushed is called after each flush that had something to store. Ok is true if all of it was stored.
	Flushed func(ok bool)
	Log     *slog.Logger
}

// Totals store what this worker counts, and keep a book of what the whole fleet counted. Make them with New; they may be shared
// by any number of goroutines.
type Totals struct {
	cfg   Config
	fleet *rollup.Book

	// store is nil until Run. known is true once the book has every hour that was stored when Run began.
	store atomic.Pointer[store]
	known atomic.Bool

	// The goroutine that flushes owns writer. The goroutine that reads owns reader, except for the fields that its comments name.
	writer writer
	reader reader
}

// New makes Totals; Run connects them with the fleet. It sends nothing.
func New(cfg Config) *Totals {
	return &Totals{
		cfg: cfg, fleet: rollup.NewBook(), writer: writer{stored: map[string]uint64{}},
		reader: reader{lock: make(chan struct{}, 1), asked: make(chan struct{}, 1), seen: map[seenOf]seen{}, read: map[rollup.Kind]time.Time{}},
	}
}

// Run stores and reads until ctx ends. Then it stores the rest, for at most 8 s or until last ends. The caller must stop all
// counting before it cancels ctx. It returns when reading and storing have ended.
func (t *Totals) Run(ctx, last context.Context, s store) {
	t.store.Store(&s)
	var reading sync.WaitGroup
	reading.Go(func() { t.keepReading(ctx, s) })
	t.keepFlushing(ctx, s)
	t.flushLast(last, s)
	reading.Wait()
}

// Fleet is the book of the whole fleet: what all workers have stored, this one included. Its newest numbers are up to 5 s old.
// It asks NATS for the running hour at most once a second, for at most a second, and returns what it has if NATS does not answer.
// Until all hours have been read for the first time, the book is this worker's own, and known is false.
func (t *Totals) Fleet(ctx context.Context) (book *rollup.Book, known bool) {
	if !t.known.Load() {
		return t.cfg.Book, false
	}
	select {
	case t.reader.asked <- struct{}{}:
	default: // somebody else has asked
	}
	t.refresh(ctx, rollup.Totals)
	return t.fleet, true
}

// FleetByProxy is Fleet with the newest numbers of each proxy. Reading them costs more. They are up to flushEvery
// older than those of Fleet.
func (t *Totals) FleetByProxy(ctx context.Context) (book *rollup.Book, known bool) {
	book, known = t.Fleet(ctx)
	if known {
		t.refresh(ctx, rollup.Proxies)
	}
	return book, known
}
