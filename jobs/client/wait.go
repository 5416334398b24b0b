package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// A waiter sweeps as long after the last sweep as that took, within these bounds.
	sweepEvery   = 5 * time.Second
	sweepAtLeast = 30 * time.Second
	sweepRetry   = time.Second            // after a sweep that failed
	lookupDelay  = 100 * time.Millisecond // delay before new keys are looked up, many in one request
	dropCheck    = time.Second            // how often a waiter asks whether a subscription dropped messages
	fewKeys      = 64                     // up to this number a waiter subscribes to each key's subject
	pendingBytes = 64 << 20               // of results that a waiter has not handled yet
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, key Key) (jobs.Result, error) {
	if err := c.ready(); err != nil {
		return jobs.Result{}, err
	}
	return c.bus.Result(ctx, key.Queue, key.ID)
}

// Wait returns the job's result: at once if it is stored, else as soon as it is. It returns ctx's cause when ctx ends
// first; without an end of ctx, it waits until the job has ended.
func (c *Client) Wait(ctx context.Context, key Key) (result jobs.Result, err error) {
	if err := c.ready(); err != nil {
		return jobs.Result{}, err
	}
	err = c.WaitMany(ctx, []Key{key}, func(r jobs.Result) error {
		result = r
		return nil
	})
	return result, err
}

// WaitMany is WaitEach for keys that are all known.
func (c *Client) WaitMany(ctx context.Context, keys []Key, use func(jobs.Result) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	w := c.newWaiter(use)
	defer w.end()
	for _, key := range keys {
		if err := w.add(key); err != nil {
			return err
		}
	}
	// All keys are known, so there is no use in waiting for more to share the request.
	w.lookup.Reset(0) // no more keys come
	return w.run(ctx, nil)
}

// WaitEach calls use once with the result of each key that it receives, whether it is stored already or comes later. It
// returns when keys is closed and all results are through, when use returns an error, or when ctx ends (with its cause); it
// then receives no more keys. No result is missed: subscriptions bring them as they come, and a sweep looks up the rest at
// least every 30 s, and at once after a reconnect or a dropped message. For a user who may not subscribe to results,
// sweeps look them up: every 100 ms at first, and later every 2 s.
func (c *Client) WaitEach(ctx context.Context, keys <-chan Key, use func(jobs.Result) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	case keys == nil:
		return errors.New("there are no keys: the channel is nil")
	case use == nil:
		return errNoUse
	}
	w := c.newWaiter(use)
	defer w.end()
	return w.run(ctx, keys)
}

// waiter is one WaitMany or WaitEach. Only run uses its fields, except came and ended, and only run calls use. The loop
// is the only goroutine that decides, so the fields need no lock.
type waiter struct {
	client  *Client
	use     func(jobs.Result) error
	refused error // what use returned
	open    map[Key]struct{}
	fresh   []Key // open ones that were not looked up yet

	sweep, lookup *time.Timer // when all open keys, and the fresh ones, are looked up next
	came          chan *nats.Msg
	ended         chan struct{}
	// A queue with a subscription needs no subscriptions to its keys.
	keySubs   map[Key]*nats.Subscription
	queueSubs map[string]*nats.Subscription
	dropped   int // messages that the subscriptions have dropped
	// A polling waiter may not subscribe. pause lies between its sweeps, and grows while they find nothing.
	refusal chan struct{}
	forget  func()
	polls   bool
	pause   time.Duration
}

// newWaiter makes a waiter. The caller ends it.
func (c *Client) newWaiter(use func(jobs.Result) error) *waiter {
	w := &waiter{
		// The first look fires at once and finds nothing, unless keys are known by then.
		client: c, use: use, open: map[Key]struct{}{}, sweep: time.NewTimer(sweepEvery), lookup: time.NewTimer(0),
		came: make(chan *nats.Msg), ended: make(chan struct{}),
		keySubs: map[Key]*nats.Subscription{}, queueSubs: map[string]*nats.Subscription{},
		refusal: make(chan struct{}, 1), pause: lookupDelay,
	}
	w.forget = w.expectRefusal()
	return w
}

// end releases what the waiter holds. Callbacks of subscriptions that still run return.
func (w *waiter) end() {
	// Closed first, so that a callback that is blocked returns before its subscription goes.
	close(w.ended)
	w.unlistenAll()
	w.forget()
	w.sweep.Stop()
	w.lookup.Stop()
}

// run is the loop of the waiter. It ends when keys is closed and every result has come, or with the first error. keys may
// be nil.
func (w *waiter) run(ctx context.Context, keys <-chan Key) error {
	// A reconnect may have lost messages, so everything is looked up again.
	reconnected := w.client.bus.Conn().StatusChanged(nats.CONNECTED)
	defer w.client.bus.Conn().RemoveStatusListener(reconnected)
	check := time.NewTicker(dropCheck)
	defer check.Stop()
	for keys != nil || len(w.open) > 0 {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		// A nil channel is never ready, so a closed keys is taken out of the select.
		case key, more := <-keys:
			if !more {
				keys = nil
				continue
			}
			err = w.add(key)
		case msg := <-w.came:
			err = w.take(msg)
		case <-w.lookup.C:
			err = w.lookUpFresh(ctx)
		case <-w.sweep.C:
			err = w.lookUpOpen(ctx)
		case <-reconnected:
			w.sweep.Reset(0)
		case <-w.refusal:
			w.startPolling()
		// nats.go does not report drops as they happen.
		case <-check.C:
			if w.hasDropped() {
				w.sweep.Reset(0)
			}
		}
		switch {
		case err == nil:
		// The end of ctx also ends a look-up that is under way, with an error that does not say why. An error of use is not replaced.
		case ctx.Err() != nil && w.refused == nil && errors.Is(err, ctx.Err()):
			return context.Cause(ctx)
		default:
			return err
		}
	}
	return nil
}

// add begins to wait for a result. It subscribes before it looks up, so that no result is missed: the server handles
// the subscription before the request.
func (w *waiter) add(key Key) error {
	if !key.Valid() {
		return bus.BadKey(key)
	}
	// A key that is given twice has one result, and use is called once.
	if _, twice := w.open[key]; twice {
		return nil
	}
	if err := w.listen(key); err != nil {
		return w.client.bus.Explain("subscribe to results", err)
	}
	w.open[key] = struct{}{}
	w.sweepSoon()
	// The first fresh key starts the timer, so that those that follow share one request.
	if w.fresh = append(w.fresh, key); len(w.fresh) == 1 {
		w.lookup.Reset(lookupDelay)
	}
	return nil
}

// listen subscribes to the key's result, or to all results of its queue once fewKeys keys have subscriptions of their
// own: a subscription for each of ten thousand keys would load the server.
func (w *waiter) listen(key Key) (err error) {
	switch {
	case w.polls, w.queueSubs[key.Queue] != nil:
		return nil
	case len(w.keySubs) < fewKeys:
		w.keySubs[key], err = w.subscribe(w.client.bus.Names().Result(key.Queue, key.ID))
		return err
	}
	// The queue is subscribed to before the single subscriptions end, so that no result is missed.
	if w.queueSubs[key.Queue], err = w.subscribe(w.client.bus.Names().Results(key.Queue)); err != nil {
		return err
	}
	for other := range w.keySubs {
		if other.Queue == key.Queue {
			w.unlisten(other)
		}
	}
	return nil
}

// subscribe hands the messages of a subject to the loop, until the waiter ends. The number of messages that wait is not
// bounded, their bytes are.
func (w *waiter) subscribe(subject string) (*nats.Subscription, error) {
	// The callback blocks until the loop takes the message. nats.go buffers meanwhile, up to pendingBytes.
	sub, err := w.client.bus.Conn().Subscribe(subject, func(msg *nats.Msg) {
		select {
		case w.came <- msg:
		case <-w.ended:
		}
	})
	if err != nil {
		return nil, err
	}
	return sub, sub.SetPendingLimits(-1, pendingBytes)
}

// unlisten ends the subscription to one key, if it has one.
func (w *waiter) unlisten(key Key) {
	if sub := w.keySubs[key]; sub != nil {
		_ = sub.Unsubscribe()
	}
	delete(w.keySubs, key)
}

// unlistenAll ends all subscriptions.
func (w *waiter) unlistenAll() {
	for key := range w.keySubs {
		w.unlisten(key)
	}
	for queue, sub := range w.queueSubs {
		_ = sub.Unsubscribe()
		delete(w.queueSubs, queue)
	}
}

// hasDropped reports whether a subscription has dropped messages since it was last asked.
func (w *waiter) hasDropped() bool {
	// Single subscriptions get one message each and drop none.
	dropped := 0
	for _, sub := range w.queueSubs {
		n, _ := sub.Dropped() // fails only once it is closed
		dropped += n
	}
	before := w.dropped
	w.dropped = dropped
	return dropped > before
}

// take calls use with a result that is still open; a result that came before is ignored. It returns the error of use.
func (w *waiter) take(msg *nats.Msg) error {
	result := jobs.ParseResult(msg.Header, msg.Data)
	key := Key{Queue: result.Queue, ID: result.ID}
	// The sweep and a subscription may both bring a result.
	if _, waited := w.open[key]; !waited {
		return nil
	}
	delete(w.open, key)
	w.unlisten(key)
	w.refused = w.use(result)
	return w.refused
}
