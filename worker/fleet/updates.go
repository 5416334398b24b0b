package fleet

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// maxUpdates bounds what waits to be written: enough for a pool whose 4096 proxies die together.
	maxUpdates = 4096
	// writeTimeout bounds one write; an update without an answer is written again, which is harmless.
	writeTimeout = 2 * time.Second
)

// update is what is to be written about a proxy: that it is dead until a time or, without a time, that it is not dead. The time
// is of this machine; it is written as a duration.
type update struct {
	until  time.Time
	reason string
}

// updateQueue holds the updates that wait to be written, at most one for each key, in the order of the first one about it. Any
// number of goroutines may put; one takes with first and done.
type updateQueue[U comparable] struct {
	// wake receives after each put. It has room for one.
	wake chan struct{}

	// mu guards the fields below. Every key of updates is in order once.
	mu      sync.Mutex
	updates map[string]U
	order   []string
	full    bool // an update was dropped, and put has said so; the queue has not been empty since
}

// newUpdateQueue makes an empty queue.
func newUpdateQueue[U comparable]() updateQueue[U] {
	return updateQueue[U]{updates: map[string]U{}, wake: make(chan struct{}, 1)}
}

// put queues an update, and replaces an older one about the same key. It never waits: it drops the update if maxUpdates keys
// wait, and kept is then false. shouldLog is true once per overflow, which lasts until the queue has been empty.
func (o *updateQueue[U]) put(id string, u U) (kept, shouldLog bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, waits := o.updates[id]; !waits {
		if len(o.order) >= maxUpdates {
			shouldLog = !o.full
			o.full = true
			return false, shouldLog
		}
		o.order = append(o.order, id)
	}
	o.updates[id] = u
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true, false
}

// first returns the update that has waited longest among those that may be written. It stays in the queue until done. It finds
// that the queue is empty, which ends an overflow.
func (o *updateQueue[U]) first(may func(U) bool) (id string, u U, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.full = o.full && len(o.order) > 0
	for _, id := range o.order {
		if u := o.updates[id]; may(u) {
			return id, u, true
		}
	}
	return "", u, false
}

// done removes an update, unless there is a newer one about the key by now: that one keeps the place and is written next.
func (o *updateQueue[U]) done(id string, u U) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.order, id); o.updates[id] == u {
		o.order = slices.Delete(o.order, i, i+1)
		delete(o.updates, id)
	}
}

// write writes the updates one by one until ctx ends. It drops what the server refuses for good, or has no room for. It tries
// again what gets no answer, or a temporary refusal: the update is written when NATS is back, unless its time is over by then.
func (b *Breakers) write(ctx context.Context, js jetstream.JetStream, bucket string) {
	var kv jetstream.KeyValue
	for failing := false; ctx.Err() == nil; {
		// While no proxy works, write only withdrawals: this worker's own network may be the cause.
		deaths := b.cfg.Pool.AnyHealthy()
		id, u, ok := b.updates.first(func(u update) bool { return deaths || u.until.IsZero() })
		if !ok {
			select {
			case <-ctx.Done():
			case <-b.updates.wake:
			case <-time.After(time.Second): // a proxy may have delivered
			}
			continue
		}
		err := nats.ErrDisconnected
		// A client that is cut off would keep the message and send it later, when it is no longer true.
		if js.Conn().IsConnected() {
			kv, err = b.writeUpdate(ctx, js, bucket, kv, id, u)
		}
		// A refused update would be refused again, and would hold up all behind it.
		refused := err != nil && !bus.CuredByWaiting(err)
		if err == nil || refused {
			b.updates.done(id, u)
		}
		if err != nil && !failing && ctx.Err() == nil {
			b.cfg.Log.Warn("cannot share breakers with the fleet, the other workers judge by themselves", "error", err)
		}
		// After a refusal the next update is tried at once: it may be about another proxy and be accepted.
		if failing = err != nil; failing && !refused {
			sleep(ctx, time.Second)
		}
	}
}

// writeUpdate writes an update, and returns the bucket for the next one. A nil bucket means that it has to be looked up. An
// update whose time is over is dropped without an error.
func (b *Breakers) writeUpdate(ctx context.Context, js jetstream.JetStream, bucket string, kv jetstream.KeyValue, id string, u update) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if kv == nil {
		var err error
		if kv, err = js.KeyValue(ctx, bucket); err != nil {
			return nil, err
		}
	}
	left := time.Until(u.until)
	switch {
	case u.until.IsZero():
		return kv, kv.Delete(ctx, id)
	case left <= 0:
		return kv, nil
	}
	data, err := json.Marshal(Finding{Worker: b.cfg.Worker, Instance: b.instance, Duration: jobs.Duration(left.Round(time.Millisecond)), Reason: u.reason})
	if err == nil {
		_, err = kv.Put(ctx, id, data)
	}
	return kv, err
}
