package client

import (
	"context"
	"errors"
	"maps"
	"slices"
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
	firstLook    = 100 * time.Millisecond // after which new keys are looked up, many in one request
	dropCheck    = time.Second            // how often a waiter asks whether a subscription dropped messages
	fewKeys      = 64                     // up to which a waiter subscribes to each subject by itself
	pendingBytes = 64 << 20               // of results that a waiter has not looked at yet
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, key Key) (jobs.Result, error) {
	if err := c.ready(); err != nil {
		return jobs.Result{}, err
	}
	return c.bus.Result(ctx, key.Queue, key.ID)
}

// Wait returns the job's result: at once if it is stored, else as soon as it is. It returns ctx's cause when ctx ends
// first; without an end of ctx, it waits for as long as nobody runs the job.
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
	w.look.Reset(0) // no more keys come
	return w.run(ctx, nil)
}

// WaitEach calls use once with the result of each key that it receives, whether it is stored already or comes later. It
// returns when keys is closed and all results are through, when use returns an error, or when ctx ends (with its cause); it
// then receives no more keys. No result is missed: subscriptions bring them as they come, and a sweep looks up the rest at
// least every 30 s, and at once after a reconnect or a dropped message. Of a user who may not subscribe to results, sweeps
// look them up, at first every 100 ms, and every 2 s in the end.
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

// waiter is one WaitMany or WaitEach. Only its run touches its fields, but for came and ended, and calls use.
type waiter struct {
	client  *Client
	use     func(jobs.Result) error
	refused error // what use returned
	open    map[Key]struct{}
	fresh   []Key // open ones that were not looked up yet

	sweep, look *time.Timer // when all open keys, and the fresh ones, are looked up next
	came        chan *nats.Msg
	ended       chan struct{}
	// A queue with a subscription needs none for its keys.
	keySubs   map[Key]*nats.Subscription
	queueSubs map[string]*nats.Subscription
	dropped   int // messages that the subscriptions have dropped
	// A deaf waiter may not subscribe. Its sweeps are pause apart, which grows while none brings anything.
	refusal chan struct{}
	forget  func()
	deaf    bool
	pause   time.Duration
}

// newWaiter makes a waiter. The caller ends it.
func (c *Client) newWaiter(use func(jobs.Result) error) *waiter {
	w := &waiter{
		client: c, use: use, open: map[Key]struct{}{}, sweep: time.NewTimer(sweepEvery), look: time.NewTimer(0),
		came: make(chan *nats.Msg), ended: make(chan struct{}),
		keySubs: map[Key]*nats.Subscription{}, queueSubs: map[string]*nats.Subscription{},
		refusal: make(chan struct{}, 1), pause: firstLook,
	}
	w.forget = w.expectRefusal()
	return w
}

func (w *waiter) end() {
	close(w.ended)
	w.unlistenAll()
	w.forget()
	w.sweep.Stop()
	w.look.Stop()
}

func (w *waiter) run(ctx context.Context, keys <-chan Key) error {
	reconnected := w.client.bus.Conn().StatusChanged(nats.CONNECTED)
	defer w.client.bus.Conn().RemoveStatusListener(reconnected)
	check := time.NewTicker(dropCheck)
	defer check.Stop()
	for keys != nil || len(w.open) > 0 {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case key, more := <-keys:
			if !more {
				keys = nil
				continue
			}
			err = w.add(key)
		case msg := <-w.came:
			err = w.take(msg)
		case <-w.look.C:
			err = w.lookUpFresh(ctx)
		case <-w.sweep.C:
			err = w.lookUpOpen(ctx)
		case <-reconnected:
			w.sweep.Reset(0)
		case <-w.refusal:
			w.deafen()
		case <-check.C:
			if w.hasDropped() {
				w.sweep.Reset(0)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add begins to wait for a result. It listens before it looks, so that no result falls in between: the server reads the
// subscription before the request.
func (w *waiter) add(key Key) error {
	if !key.Valid() {
		return bus.BadKey(key)
	}
	if _, twice := w.open[key]; twice {
		return nil
	}
	if err := w.listen(key); err != nil {
		return w.client.bus.Explain("subscribe to results", err)
	}
	w.open[key] = struct{}{}
	w.hurry()
	if w.fresh = append(w.fresh, key); len(w.fresh) == 1 {
		w.look.Reset(firstLook)
	}
	return nil
}

// listen subscribes to the key's result, or to all of its queue when many are waited for.
func (w *waiter) listen(key Key) (err error) {
	switch {
	case w.deaf, w.queueSubs[key.Queue] != nil:
		return nil
	case len(w.keySubs) < fewKeys:
		w.keySubs[key], err = w.subscribe(w.client.bus.Names().Result(key.Queue, key.ID))
		return err
	}
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

func (w *waiter) subscribe(subject string) (*nats.Subscription, error) {
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

func (w *waiter) unlisten(key Key) {
	if sub := w.keySubs[key]; sub != nil {
		_ = sub.Unsubscribe()
	}
	delete(w.keySubs, key)
}

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
	dropped := 0
	for _, sub := range w.queueSubs {
		n, _ := sub.Dropped() // fails only once it is closed
		dropped += n
	}
	before := w.dropped
	w.dropped = dropped
	return dropped > before
}

// take hands over a result that is still waited for.
func (w *waiter) take(msg *nats.Msg) error {
	result := jobs.ParseResult(msg.Header, msg.Data)
	key := Key{Queue: result.Queue, ID: result.ID}
	if _, waited := w.open[key]; !waited {
		return nil
	}
	delete(w.open, key)
	w.unlisten(key)
	w.refused = w.use(result)
	return w.refused
}

// lookUpFresh looks up the keys that are new.
func (w *waiter) lookUpFresh(ctx context.Context) error {
	fresh := w.fresh
	w.fresh = nil
	err := w.lookUpAll(ctx, fresh)
	if w.passes(err) {
		w.fresh = fresh
		w.look.Reset(sweepRetry)
		return nil
	}
	return err
}

// lookUpOpen looks up all that is open.
func (w *waiter) lookUpOpen(ctx context.Context) error {
	began, before := time.Now(), len(w.open)
	err := w.lookUpAll(ctx, slices.Collect(maps.Keys(w.open)))
	if w.passes(err) {
		w.sweep.Reset(sweepRetry)
		return nil
	}
	pause := sweepPause(time.Since(began))
	if w.deaf {
		pause = w.deafPause(time.Since(began), len(w.open) < before)
	}
	w.sweep.Reset(pause)
	return err
}

// sweepPause is the time between a sweep that took so long and the next one: sweeps take half of a waiter's time at most.
func sweepPause(took time.Duration) time.Duration { return min(max(took, sweepEvery), sweepAtLeast) }

// passes reports whether a look-up failed in a way that a later one need not.
func (w *waiter) passes(err error) bool { return w.refused == nil && bus.IsTransient(err) }

func (w *waiter) lookUpAll(ctx context.Context, keys []Key) error {
	for part := range slices.Chunk(keys, bus.MaxSubjects) {
		if err := w.lookUp(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// lookUp asks for the results of some keys until an answer brings nothing new: a long one may be cut short.
func (w *waiter) lookUp(ctx context.Context, keys []Key) error {
	for {
		var subjects []string
		for _, key := range keys {
			if _, open := w.open[key]; open {
				subjects = append(subjects, w.client.bus.Names().Result(key.Queue, key.ID))
			}
		}
		if len(subjects) == 0 {
			return nil
		}
		before := len(w.open)
		err := w.client.bus.LastMessages(ctx, w.client.bus.Names().Stream("RESULTS"), subjects, w.take)
		switch {
		case w.refused != nil:
			return w.refused
		case err != nil:
			return w.client.explainSweep(err)
		case len(w.open) == before:
			return nil
		}
	}
}

// explainSweep keeps what passes by itself as it is, and words the rest.
func (c *Client) explainSweep(err error) error {
	if worded := c.bus.Explain("look up results", err); errors.Is(worded, bus.ErrConfig) {
		return worded
	}
	if bus.IsTransient(err) {
		return err
	}
	return c.bus.Explain("look up results", err)
}
