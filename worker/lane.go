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

	consumer jetstream.Consumer // only the pulling goroutine has it
	made     atomic.Int64       // when the stream was made, in nanoseconds
	pending  atomic.Int64       // what the last pull left behind, or was there when it was looked at since
	info     atomic.Pointer[bus.LaneInfo]
	trouble  trouble
}

// watch keeps known how the consumer stands, also while no slot is free to pull.
func (l *lane) watch(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, l.w.cfg.Look) {
		_ = l.look(ctx) // when the server does not say, what was known stays
	}
}

// look asks how the consumer stands: somebody may have edited it.
func (l *lane) look(ctx context.Context) error {
	info, err := l.w.cfg.Client.LaneInfo(ctx, l.queue, l.due)
	if err != nil {
		return err
	}
	l.pending.Store(info.Pending)
	l.info.Store(&info)
	if err := info.Unusable(); err != nil && l.trouble.set(err) {
		l.w.cfg.Log.Error("no jobs are taken from this consumer until it is repaired", "queue", l.queue, "due", l.due, "error", err)
	}
	return nil
}

// unusable is why no job of the consumer may be taken; nil if it may.
func (l *lane) unusable() error {
	if info := l.info.Load(); info != nil {
		return info.Unusable()
	}
	return nil
}

// ackWait is how long the server leaves a job to a silent worker. A consumer keeps the ack wait that it was made with.
func (l *lane) ackWait() time.Duration {
	if info := l.info.Load(); info != nil && info.AckWait > 0 {
		return min(l.w.cfg.AckWait, info.AckWait)
	}
	return l.w.cfg.AckWait
}

// backlog is what the lane held when it was looked at; a pull since then knows better how many jobs nobody has taken.
func (l *lane) backlog() (b bus.Backlog) {
	if info := l.info.Load(); info != nil {
		b = info.Backlog
	}
	b.Pending = l.pending.Load()
	return b
}

// pull takes slots and fills them with jobs until ctx ends. It never asks for more messages
// than it has slots, so that no job's ack wait runs before its work starts.
func (l *lane) pull(ctx context.Context) {
	for ctx.Err() == nil {
		l.holdBack(ctx)
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
	n, wait := l.bounds(c)
	pulledAt := time.Now()
	batch, err := l.ask(n, wait)
	if err != nil {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, bus.Plain(err))
	}
	got := 0
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, bus.Plain(err))
		}
		t := &task{lane: l, msg: msg, meta: *meta, lease: newLease(pulledAt, l.ackWait()), made: l.made.Load()}
		more = meta.NumPending > 0
		l.pending.Store(int64(meta.NumPending))
		if unused == 0 && !l.w.slots.cover(l.share) {
			l.w.handBack(ctx, t) // it comes again when this lane gets a slot, or another worker has one
			return 0, true, nil
		}
		unused = max(0, unused-1)
		got++
		l.w.tasks <- t
	}
	l.w.taken(got)
	if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoMessages) {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", l.queue, bus.Plain(err))
	}
	l.trouble.end()
	if got < n {
		l.pending.Store(0)
	}
	if got == 0 && wait > 0 && wait < c.wait {
		pause(ctx, min(c.wait, probeEvery)-wait) // it would ask without end
	}
	return unused, more, nil
}

// bounds are the size of a pull and how long it may wait, as the consumer's owner bounds them. A drain waits for the end of a
// pull, so a short drain has short ones.
func (l *lane) bounds(c claim) (n int, wait time.Duration) {
	n, wait = c.n, min(c.wait, l.w.spare())
	info := l.info.Load()
	if info.MaxBatch > 0 {
		n = min(n, info.MaxBatch)
	}
	if info.MaxExpires > 0 {
		wait = min(wait, info.MaxExpires)
	}
	return n, wait
}

func (l *lane) ask(n int, wait time.Duration) (jetstream.MessageBatch, error) {
	if wait == 0 {
		return l.consumer.FetchNoWait(n)
	}
	return l.consumer.Fetch(n, jetstream.FetchMaxWait(wait))
}

// bind finds the consumer, or creates it if it is missing.
func (l *lane) bind(ctx context.Context) error {
	if l.consumer != nil {
		return l.unusable()
	}
	made, err := l.w.cfg.Client.LaneMade(ctx, l.due)
	if err != nil {
		return err
	}
	if err = l.look(ctx); err == nil {
		err = l.unusable()
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return err
	}
	consumer, err := l.w.cfg.Client.Lane(ctx, l.queue, l.due)
	if err != nil {
		return err
	}
	if err := l.look(ctx); err != nil {
		return err
	}
	l.made.Store(made.UnixNano())
	l.consumer = consumer
	l.trouble.begin()
	return l.unusable()
}

// mend waits a little after a failed pull and finds or makes the consumer anew: it may have been deleted, or the server
// may be away. The error is logged when it is news.
func (l *lane) mend(ctx context.Context, err error) {
	if l.trouble.set(err) {
		l.w.cfg.Log.Warn("jobs cannot be pulled, trying again", "queue", l.queue, "due", l.due, "error", err)
	}
	l.consumer = nil
	if errors.Is(err, bus.ErrNotSetUp) || errors.Is(err, jetstream.ErrStreamNotFound) {
		l.w.Restore(ctx)
	}
	pause(ctx, 500*time.Millisecond)
}

// holdBack waits while jobs of the lane may not be taken, or could not be finished or kept: the consumer or a stream is unusable,
// or there is no room. Jobs whose time has come are taken also while there is no room for other ones that wait.
func (l *lane) holdBack(ctx context.Context) {
	w := l.w
	held := func() bool {
		return w.full.Load() || w.unsettled.blocks(l.queue) || l.unusable() != nil || w.streams.unusable() != nil || !l.due && w.streams.crowded()
	}
	for held() && ctx.Err() == nil {
		w.slots.rest(l.share)
		pause(ctx, 500*time.Millisecond)
	}
	w.holdBack(ctx)
}

// holdBack slows the taking of jobs while no proxy is usable.
func (w *Worker) holdBack(ctx context.Context) {
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
