package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// puller fetches from one consumer: a queue's fresh jobs, or its due jobs.
type puller struct {
	worker  *Worker
	queue   string
	dueJobs bool
	slots   *consumerSlots

	consumer *jetstream.ConsumerInfo // as it was found; nil until then. Used only by the goroutine of run
	// isHeld compares it with the one of the task.
	streamCreated atomic.Int64 // creation time of the stream, in Unix nanoseconds
	pending       atomic.Int64 // messages left by the last fetch, or counted by a later inspection
	info          atomic.Pointer[bus.JobConsumerInfo]
	lastError     pullError
}

// watchConsumer inspects the consumer regularly, also while no slot is free. While its queue is quiet, listConsumers does.
func (p *puller) watchConsumer(ctx context.Context) {
	// If the server does not answer, the last known state stays.
	p.worker.watch(ctx, p.isQuiet, math.MaxInt, func(ctx context.Context) { _ = p.inspect(ctx) })
}

// isQuiet reports whether the queue has had no work for a while, and the consumer could be pulled from.
func (p *puller) isQuiet() bool {
	return p.worker.slots.consumerQuietFor(p.slots) > quietAfter*p.worker.cfg.InspectInterval && p.lastError.get() == nil
}

// inspect reads the consumer's state and settings: somebody may have edited it.
func (p *puller) inspect(ctx context.Context) error {
	info, err := p.worker.client.JobConsumerInfo(ctx, p.queue, p.dueJobs)
	if err == nil {
		p.noteInfo(info)
	}
	return err
}

func (p *puller) noteInfo(info bus.JobConsumerInfo) {
	// A fetch may store a newer number right after it, which is as good.
	p.pending.Store(info.Pending)
	p.info.Store(&info)
	if err := info.Unusable(); err != nil && p.lastError.set(err) {
		p.worker.cfg.Log.Error("no jobs are taken from this consumer until it is repaired", "queue", p.queue, "due", p.dueJobs, "error", err)
	}
}

// unusable returns why no job of the consumer may be taken, or nil.
func (p *puller) unusable() error {
	if info := p.info.Load(); info != nil {
		return info.Unusable()
	}
	return nil
}

// ackWait returns how long the server waits for a heartbeat. A consumer keeps the ack wait that it was created with.
func (p *puller) ackWait() time.Duration {
	if info := p.info.Load(); info != nil && info.AckWait > 0 {
		// The shorter one is safe: a heartbeat that comes too early does no harm.
		return min(p.worker.cfg.AckWait, info.AckWait)
	}
	return p.worker.cfg.AckWait
}

// backlog returns the state of the consumer at its last inspection. The number of pending jobs is newer: each fetch sets it.
func (p *puller) backlog() (b bus.Backlog) {
	if info := p.info.Load(); info != nil {
		b = info.Backlog
	}
	b.Pending = p.pending.Load()
	return b
}

// run acquires slots and fetches jobs for them until ctx ends. It never fetches more messages than it has slots, because the
// ack wait of a message runs from its delivery, whether or not a slot is free for it.
func (p *puller) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.waitUntilAllowed(ctx)
		g, ok := p.worker.slots.waitForGrant(ctx, p.slots)
		if !ok {
			return
		}
		unused, more, err := p.fetch(ctx, g)
		// Also after an error: the slots must not stay with a consumer that does not use them.
		p.worker.slots.endPull(p.slots, unused, more)
		if err != nil {
			p.repair(ctx, err)
		}
	}
}

// fetch performs one pull request, passes the jobs on to runners, and returns how many slots it did not use. Only Pulls ends a
// pull request early: the server may have delivered a job to it, which has to go back, or it would be stuck for its ack wait.
func (p *puller) fetch(ctx context.Context, g grant) (unused int, more bool, err error) {
	unused = g.slots()
	if err := p.findConsumer(ctx); err != nil {
		return unused, false, err
	}
	patience := min(p.ackWait(), p.worker.cfg.DrainTimeout/2)
	n, wait := p.limits(g, patience)
	created := p.streamCreated.Load()
	pull, err := p.worker.pulls.Pull(stream.PullRequest{
		Stream: p.consumer.Stream, Consumer: p.consumer.Name, Jobs: n, Wait: wait, Patience: patience, Waits: p.lastError.end,
	})
	if err != nil {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", p.queue, bus.Plain(err))
	}
	got := 0
	for msg := pull.Next(); msg != nil; msg = pull.Next() {
		meta := msg.Metadata()
		t := &task{puller: p, msg: msg, meta: meta, lease: newLease(msg.Since(), p.ackWait()), streamCreated: created}
		// It is known with each message, so the last one decides.
		more = meta.NumPending > 0
		p.pending.Store(int64(meta.NumPending))
		// A pull that has waited for minutes may have begun while jobs could still be settled.
		if wait > 0 && p.isHeld() {
			p.worker.handBack(ctx, t)
			return unused, true, nil
		}
		// A poll has no slots, so each of its messages has to find one. The job goes back if there is none.
		if unused == 0 && !p.worker.slots.acquire(p.slots) {
			p.worker.handBack(ctx, t) // it is redelivered when this puller gets a slot, or to another worker
			return 0, true, nil
		}
		unused = max(0, unused-1)
		got++
		// It blocks until a runner is free, which is soon: there is a slot for the job.
		p.worker.tasks <- t
	}
	p.worker.countPulled(got)
	if err := pull.Err(); err != nil {
		return unused, false, fmt.Errorf("pull jobs of queue %s: %w", p.queue, bus.Plain(err))
	}
	p.lastError.end()
	// The server had fewer than asked for, so nothing is left.
	if got < n {
		p.pending.Store(0)
	}
	if got == 0 && wait > 0 && wait < g.wait {
		sleep(ctx, min(g.wait, pollEvery)-wait) // otherwise short pull requests would follow one another without a pause
	}
	return unused, more, nil
}

// limits returns the size of a pull request and how long it may wait, within the limits of the consumer.
func (p *puller) limits(g grant, patience time.Duration) (n int, wait time.Duration) {
	n, wait = g.n, stream.BoundWait(g.wait, patience, p.ackWait())
	info := p.info.Load()
	if info.MaxBatch > 0 {
		n = min(n, info.MaxBatch)
	}
	if info.MaxExpires > 0 {
		wait = min(wait, info.MaxExpires)
	}
	return n, wait
}

// findConsumer finds the consumer, or creates it if it is missing.
func (p *puller) findConsumer(ctx context.Context) error {
	if p.consumer != nil {
		return p.unusable()
	}
	// Asked before the consumer is bound: if the stream is recreated in between, the older time makes the tasks
	// invalid rather than valid for the wrong stream.
	created, err := p.worker.client.JobStreamCreated(ctx, p.dueJobs)
	if err != nil {
		return err
	}
	if err = p.inspect(ctx); err == nil {
		err = p.unusable()
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return err
	}
	consumer, err := p.worker.client.EnsureJobConsumer(ctx, p.queue, p.dueJobs)
	if err != nil {
		return err
	}
	if err := p.inspect(ctx); err != nil {
		return err
	}
	p.streamCreated.Store(created.UnixNano())
	p.consumer = consumer.CachedInfo()
	p.lastError.begin()
	return p.unusable()
}

// repair waits briefly after a failed pull request and forgets the consumer, so that the next fetch binds it again: somebody may
// have deleted it, or the server may be down. It logs an error only when it differs from the last one.
func (p *puller) repair(ctx context.Context, err error) {
	if p.lastError.set(err) {
		p.worker.cfg.Log.Warn("jobs cannot be pulled, trying again", "queue", p.queue, "due", p.dueJobs, "error", err)
	}
	// Only run's goroutine reads and writes consumer, so no lock is needed.
	p.consumer = nil
	if errors.Is(err, bus.ErrNotSetUp) || errors.Is(err, jetstream.ErrStreamNotFound) {
		p.worker.Restore(ctx)
	}
	sleep(ctx, 500*time.Millisecond)
}

// waitUntilAllowed waits while jobs of the consumer must not be taken because they could not be settled: the consumer or a stream
// is unusable, or a stream is full. Due jobs are taken even while scheduled jobs have no more room: that makes room.
func (p *puller) waitUntilAllowed(ctx context.Context) {
	w := p.worker
	for p.isHeld() && ctx.Err() == nil {
		// The slots of a consumer that may not fetch go to the others.
		w.slots.setIdle(p.slots)
		sleep(ctx, 500*time.Millisecond)
	}
	w.throttle(ctx)
}

// isHeld reports whether jobs of the consumer must not be taken now.
func (p *puller) isHeld() bool {
	w := p.worker
	return w.resultsFull.Load() != nil || w.unsettled.blocks(p.queue) || p.unusable() != nil || w.streams.unusable() != nil || !p.dueJobs && w.streams.waitingNearlyFull()
}

// throttle slows the pulling while no proxy is usable.
func (w *Worker) throttle(ctx context.Context) {
	// It polls the limiter instead of calling Wait: the reservations of many pullers would delay jobs long after proxies are
	// usable again.
	for w.isThrottled() && !w.pullLimiter.Allow() && ctx.Err() == nil {
		sleep(ctx, throttleStep)
	}
}

// throttleStep is the interval at which a throttled puller polls the limiter.
const throttleStep = 50 * time.Millisecond

// countPulled charges the limiter for the jobs of a pull request, except for the first: throttle has paid for that one.
func (w *Worker) countPulled(n int) {
	if n > 1 && w.isThrottled() {
		// The reservation is never waited for; it only makes the next Allow fail for longer.
		w.pullLimiter.ReserveN(time.Now(), n-1)
	}
}

// isThrottled reports whether most of the latest jobs found no usable proxy.
func (w *Worker) isThrottled() bool { return w.proxyShortage.isOngoing() }

// proxyShortage measures the share of jobs that find no usable proxy. A few jobs that demand an unusable proxy slow down nobody
// else.
type proxyShortage struct {
	mu    sync.Mutex
	share float64 // moving mean over about sixteen jobs
	at    time.Time
}

func (s *proxyShortage) add(noProxy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := 0.0
	if noProxy {
		found = 1
	}
	s.share += (found - s.share) / 16
	s.at = time.Now()
}

// isOngoing reports whether most of the latest jobs found no proxy. Jobs that ended long ago are no evidence.
func (s *proxyShortage) isOngoing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Longer than the limiter charges for the largest pull requests of two pullers.
	return s.share > 0.5 && time.Since(s.at) < 5*time.Second
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
