package bus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	sweepEvery   = 5 * time.Second // how often a waiter looks for what the subscription may have missed
	fewKeys      = 64              // up to which a waiter subscribes to each subject by itself
	pendingBytes = 64 << 20        // of results that a waiter has not looked at yet
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, queue, id string) (jobs.Result, error) {
	key := Key{queue, id}
	if !key.valid() {
		return jobs.Result{}, badKey(key)
	}
	msg, err := c.last(ctx, c.names.Stream("RESULTS"), c.names.Result(queue, id))
	if err != nil {
		return jobs.Result{}, c.explain("read result of job "+key.String(), err)
	}
	return jobs.ParseResult(msg.Header, msg.Data), nil
}

// Wait returns the job's result: at once if it is stored, else as soon as it is. It returns ctx's cause when ctx ends
// first.
func (c *Client) Wait(ctx context.Context, queue, id string) (result jobs.Result, err error) {
	err = c.WaitMany(ctx, []Key{{queue, id}}, func(r jobs.Result) error {
		result = r
		return nil
	})
	return result, err
}

// WaitMany calls use once with the result of each key, whether it is stored already or comes later, and returns when all
// are through, when use returns an error, or when ctx ends (with its cause). No result is missed: a subscription brings
// them as they come, and whatever it may have lost is looked up every few seconds.
func (c *Client) WaitMany(ctx context.Context, keys []Key, use func(jobs.Result) error) error {
	w := &waiter{client: c, open: make(map[Key]struct{}, len(keys)), use: use, came: make(chan *nats.Msg)}
	for _, key := range keys {
		if !key.valid() {
			return badKey(key)
		}
		w.open[key] = struct{}{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := w.subscribe(ctx)
	defer stop()
	if err != nil {
		return c.explain("subscribe to results", err)
	}
	return w.run(ctx)
}

// waiter is one WaitMany; only its run touches open and calls use.
type waiter struct {
	client *Client
	open   map[Key]struct{}
	use    func(jobs.Result) error
	came   chan *nats.Msg
}

// subscribe listens before anything is looked up, so that no result falls in between.
func (w *waiter) subscribe(ctx context.Context) (stop func(), err error) {
	var subs []*nats.Subscription
	stop = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe()
		}
	}
	for subject := range w.subjects() {
		sub, err := w.client.nc.Subscribe(subject, func(msg *nats.Msg) {
			select {
			case w.came <- msg:
			case <-ctx.Done():
			}
		})
		if err != nil {
			return stop, err
		}
		subs = append(subs, sub)
		if err := sub.SetPendingLimits(-1, pendingBytes); err != nil {
			return stop, err
		}
	}
	flush, cancel := bounded(ctx)
	defer cancel()
	return stop, w.client.nc.FlushWithContext(flush)
}

func (w *waiter) subjects() map[string]struct{} {
	out := map[string]struct{}{}
	for key := range w.open {
		if len(w.open) <= fewKeys {
			out[w.client.names.Result(key.Queue, key.ID)] = struct{}{}
		} else {
			out[w.client.names.Results(key.Queue)] = struct{}{}
		}
	}
	return out
}

func (w *waiter) run(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for len(w.open) > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case msg := <-w.came:
			if err := w.take(msg); err != nil {
				return err
			}
		case <-next.C:
			began := time.Now()
			if err := w.sweep(ctx); err != nil && !isTransient(err) {
				return err
			}
			next.Reset(max(sweepEvery, 10*time.Since(began)))
		}
	}
	return nil
}

// take hands over a result that is still waited for.
func (w *waiter) take(msg *nats.Msg) error {
	result := jobs.ParseResult(msg.Header, msg.Data)
	key := Key{result.Queue, result.ID}
	if _, waited := w.open[key]; !waited {
		return nil
	}
	delete(w.open, key)
	return w.use(result)
}

// sweep looks up what is still open.
func (w *waiter) sweep(ctx context.Context) error {
	for part := range slices.Chunk(slices.Collect(maps.Keys(w.open)), maxSubjects) {
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
				subjects = append(subjects, w.client.names.Result(key.Queue, key.ID))
			}
		}
		if len(subjects) == 0 {
			return nil
		}
		before := len(w.open)
		var refused error
		err := w.client.lastOf(ctx, w.client.names.Stream("RESULTS"), subjects, func(msg *nats.Msg) error {
			refused = w.take(msg)
			return refused
		})
		switch {
		case refused != nil:
			return refused
		case err != nil:
			return w.client.explainSweep(err)
		case len(w.open) == before:
			return nil
		}
	}
}

// explainSweep keeps what passes by itself as it is, and words the rest.
func (c *Client) explainSweep(err error) error {
	if worded := c.explain("look up results", err); errors.Is(worded, ErrConfig) {
		return worded
	}
	if isTransient(err) {
		return err
	}
	return c.explain("look up results", err)
}
