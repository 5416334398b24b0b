package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// lane is one consumer that the worker pulls from: a queue's fresh jobs, or its jobs whose time has come.
type lane struct {
	w     *Worker
	queue string
	due   bool
	share *share

	consumer jetstream.Consumer
	ackWait  time.Duration
	made     atomic.Int64 // when the stream was made, in nanoseconds
	reached  atomic.Bool  // the last pull reached the consumer
	pending  atomic.Int64 // what the last pull left behind, or was there when it was looked at since
	looked   atomic.Pointer[bus.Backlog]
}

// watchEvery is how often a worker looks at what each of its lanes holds.
const watchEvery = 5 * time.Second

// watch keeps the lane's backlog known, and whether its stream is still the same, also while no slot is free to pull. When the
// server does not say, it stays.
func (l *lane) watch(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, watchEvery) {
		if b, err := l.w.cfg.Client.Backlog(ctx, l.queue, l.due); err == nil {
			l.pending.Store(b.Pending)
			l.looked.Store(&b)
		}
		if made, err := l.w.cfg.Client.LaneMade(ctx, l.due); err == nil {
			l.made.Store(made.UnixNano())
		}
	}
}

// backlog is what the lane held when it was looked at; a pull since then knows better how many jobs nobody has taken.
func (l *lane) backlog() (b bus.Backlog) {
	if looked := l.looked.Load(); looked != nil {
		b = *looked
	}
	b.Pending = l.pending.Load()
	return b
}

// pull takes slots and fills them with jobs until ctx ends. It never asks for more messages
// than it has slots, so that no job's ack wait runs before its work starts.
func (l *lane) pull(ctx context.Context) {
	for ctx.Err() == nil {
		l.w.holdBack(ctx)
		c, ok := l.w.slots.take(ctx, l.share)
		if !ok {
			return
		}
		unused, more, err := l.fetch(ctx, c)
		l.w.slots.pulled(l.share, unused, more)
		if err != nil {
			l.mend(ctx, err)
		}
	}
}

// fetch does one pull, starts what it brings, and returns the slots that it did not need. A pull is never cancelled: the
// server would hand jobs to an inbox that nobody reads any more, and they would wait there for their ack wait to pass.
func (l *lane) fetch(ctx context.Context, c claim) (unused int, more bool, err error) {
	unused = c.held()
	if err := l.bind(ctx); err != nil {
		return unused, false, err
	}
	l.reached.Store(true)
	pulledAt := time.Now()
	batch, err := l.ask(c)
	if err != nil {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, err)
	}
	got := 0
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, err)
		}
		t := &task{lane: l, msg: msg, meta: *meta, lease: newLease(pulledAt, l.ackWait), made: l.made.Load()}
		more = meta.NumPending > 0
		l.pending.Store(int64(meta.NumPending))
		if unused == 0 && !l.w.slots.cover(l.share) {
			l.w.handBack(ctx, t, handBackWait) // it comes again when this lane gets a slot, or another worker has one
			return 0, true, nil
		}
		unused = max(0, unused-1)
		got++
		l.w.tasks <- t
	}
	l.w.taken(got)
	if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoMessages) {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, err)
	}
	if got < c.n {
		l.pending.Store(0)
	}
	return unused, more, nil
}

func (l *lane) ask(c claim) (jetstream.MessageBatch, error) {
	if c.wait == 0 {
		return l.consumer.FetchNoWait(c.n)
	}
	return l.consumer.Fetch(c.n, jetstream.FetchMaxWait(c.wait))
}

func (l *lane) bind(ctx context.Context) (err error) {
	if l.consumer != nil {
		return nil
	}
	made, err := l.w.cfg.Client.LaneMade(ctx, l.due)
	if err != nil {
		return err
	}
	if l.consumer, err = l.w.cfg.Client.Lane(ctx, l.queue, l.due); err != nil {
		return err
	}
	l.made.Store(made.UnixNano())
	// A consumer that was there keeps the ack wait that it was made with.
	l.ackWait = min(l.w.cfg.AckWait, l.consumer.CachedInfo().Config.AckWait)
	return nil
}

// mend waits a little after a failed pull and finds or makes the consumer anew: it may have been deleted, or the server
// may be away. The error is logged when it is news.
func (l *lane) mend(ctx context.Context, err error) {
	if l.reached.Swap(false) {
		l.w.cfg.Log.Warn("jobs cannot be pulled, trying again", "queue", l.queue, "due", l.due, "error", err)
	}
	l.consumer = nil
	if errors.Is(err, bus.ErrNotSetUp) || errors.Is(err, jetstream.ErrStreamNotFound) {
		l.w.restore(ctx)
	}
	pause(ctx, 500*time.Millisecond)
}

// holdBack slows the taking of jobs while they could not be finished: no room for results, or no usable proxy.
func (w *Worker) holdBack(ctx context.Context) {
	for w.full.Load() && ctx.Err() == nil {
		pause(ctx, 500*time.Millisecond)
	}
	// It asks again and again instead of standing in the limiter's line: many lanes of a few slots would stand there long
	// after proxies are back.
	for w.idles() && !w.idle.Allow() && ctx.Err() == nil {
		pause(ctx, holdStep)
	}
}

// holdStep is how often a lane that is held back looks whether it may go on.
const holdStep = 50 * time.Millisecond

// taken counts the jobs of a pull; the first one has been waited for.
func (w *Worker) taken(n int) {
	if n > 1 && w.idles() {
		w.idle.ReserveN(time.Now(), n-1)
	}
}

// idles reports whether most of the latest jobs found no usable proxy.
func (w *Worker) idles() bool { return w.drought.now() }

// drought watches how many of the jobs find no usable proxy. A few that ask for a proxy that rests hold up nobody else.
type drought struct {
	mu    sync.Mutex
	share float64 // a moving mean over some sixteen jobs
	at    time.Time
}

func (d *drought) note(noProxy bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := 0.0
	if noProxy {
		found = 1
	}
	d.share += (found - d.share) / 16
	d.at = time.Now()
}

// now reports whether there is one; a job that was long ago says nothing.
func (d *drought) now() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.share > 0.5 && time.Since(d.at) < 5*time.Second // longer than the largest pulls of two lanes are paid for
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
