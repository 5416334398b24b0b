package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// Cancel ends a job that is queued, waiting or running with a cancelled result. The result goes first, under the guard:
// whatever a worker still does with the job, that result stands. Then the job is taken out of the streams, and the
// workers are told to stop running it; by names who cancelled. A cancel that was broken off between these steps is finished
// by the next one. Errors: ErrNotFound, ErrFinished.
func (c *Client) Cancel(ctx context.Context, key Key, by string) error {
	doing := "cancel job " + clip(key.String())
	if !key.valid() {
		return badKey(key)
	}
	result, err := c.unended(ctx, key)
	if err != nil {
		return c.explain(doing, err)
	}
	switch begun, err := c.cancelBegun(ctx, key, result.JobSeq); {
	case err != nil:
		return c.explain(doing, err)
	case begun:
		return c.explain(doing, c.remove(ctx, key))
	}
	result.Outcome, result.Error, result.Worker = jobs.Cancelled, jobs.ErrCancelled, by
	stored, err := c.StoreResult(ctx, &result)
	if err != nil {
		return err
	}
	if !stored.Won {
		return fmt.Errorf("%s: %w", doing, ErrFinished)
	}
	return c.explain(doing, c.remove(ctx, key))
}

// cancelBegun reports whether the job that is there has a cancelled result already.
func (c *Client) cancelBegun(ctx context.Context, key Key, seq uint64) (bool, error) {
	kept, err := c.Result(ctx, key.Queue, key.ID)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return kept.Outcome == jobs.Cancelled && kept.JobSeq == seq, err
}

// A job is looked for a few times before it is believed to be nowhere: the replica that answers may be a moment behind, and
// the job may be on its way from one stream to another.
const (
	looks     = 4
	lookAgain = 100 * time.Millisecond
)

// unended finds a job, and returns its result as far as it can be told before it has ended. One that is nowhere is an
// ErrFinished if it has a result.
func (c *Client) unended(ctx context.Context, key Key) (jobs.Result, error) {
	for range looks {
		result, err := c.whereverItIs(ctx, key)
		if !errors.Is(err, ErrNotFound) {
			return result, err
		}
		if _, err := c.Result(ctx, key.Queue, key.ID); err == nil {
			return jobs.Result{}, ErrFinished
		}
		select {
		case <-ctx.Done():
			return jobs.Result{}, context.Cause(ctx)
		case <-time.After(lookAgain):
		}
	}
	return jobs.Result{}, ErrNotFound
}

func (c *Client) whereverItIs(ctx context.Context, key Key) (jobs.Result, error) {
	for _, look := range []struct{ stream, subject string }{
		{c.names.Stream("JOBS"), c.names.Job(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.At(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.Due(key.Queue, key.ID)},
	} {
		msg, err := c.last(ctx, look.stream, look.subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return jobs.Result{}, err
		}
		return unendedResult(key, msg), nil
	}
	return jobs.Result{}, ErrNotFound
}

// unendedResult reads a job in the streams. What cannot be read is left out: the job ends all the same.
func unendedResult(key Key, msg *nats.Msg) jobs.Result {
	var progress jobs.Progress
	if text := msg.Header.Get(jobs.HeaderProgress); text != "" {
		progress, _ = jobs.ParseProgress(text)
	} else {
		progress.JobSeq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	}
	job, err := jobs.Decode(key.Queue, key.ID, msg.Data)
	if err != nil {
		job = jobs.Job{Queue: key.Queue, ID: key.ID}
	}
	return progress.Result(job, time.Now())
}

// remove takes a job out of the streams, in the order in which it would move through them, and tells the workers.
func (c *Client) remove(ctx context.Context, key Key) error {
	for _, at := range []struct{ stream, subject string }{
		{c.names.Stream("JOBS"), c.names.Job(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.At(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.Due(key.Queue, key.ID)},
	} {
		if err := c.purge(ctx, at.stream, at.subject); err != nil {
			return err
		}
	}
	if err := c.nc.Publish(c.names.Cancel(key.Queue, key.ID), nil); err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	return c.nc.FlushWithContext(ctx) // a program that ends at once would take the message along
}

// Unpark takes a job out of those that wait for their time, and of those whose time has come.
func (c *Client) Unpark(ctx context.Context, queue, id string) error {
	for _, subject := range []string{c.names.At(queue, id), c.names.Due(queue, id)} {
		if err := c.purge(ctx, c.names.Stream("RETRIES"), subject); err != nil {
			return c.explain("take job "+queue+"/"+clip(id)+" out of the waiting", err)
		}
	}
	return nil
}

// purge removes the messages of one subject. An empty subject would empty the stream.
func (c *Client) purge(ctx context.Context, stream, subject string, opts ...jetstream.StreamPurgeOpt) error {
	if !publishable(subject) {
		return fmt.Errorf("%q is not one subject", clip(subject))
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error {
		return s.Purge(ctx, append(opts, jetstream.WithPurgeSubject(subject))...)
	}, api+"STREAM.PURGE."+stream)
}

// OnCancel calls use for every job that somebody cancels, until stop is called. use must not block.
func (c *Client) OnCancel(use func(queue, id string)) (stop func(), err error) {
	sub, err := c.nc.Subscribe(c.names.Cancels(), func(msg *nats.Msg) {
		if queue, id, ok := jobs.SplitSubject(msg.Subject); ok {
			use(queue, id)
		}
	})
	if err != nil {
		return nil, c.explain("subscribe to cancel requests", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
