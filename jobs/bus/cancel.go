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
	found, err := c.unended(ctx, key)
	if err != nil {
		return c.explain(doing, err)
	}
	result := unendedResult(key, found)
	switch begun, err := c.cancelBegun(ctx, key, result.JobSeq); {
	case err != nil:
		return c.explain(doing, err)
	case begun:
		return c.explain(doing, c.remove(ctx, key, found))
	}
	result.Outcome, result.Error, result.Worker = jobs.Cancelled, jobs.ErrCancelled, by
	stored, err := c.StoreResult(ctx, &result)
	if err != nil {
		return err
	}
	if !stored.Won {
		return fmt.Errorf("%s: %w", doing, ErrFinished)
	}
	return c.explain(doing, c.remove(ctx, key, found))
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

// unended finds the message of a job that has not ended. A job that is nowhere is an ErrFinished if it has a result.
func (c *Client) unended(ctx context.Context, key Key) (*nats.Msg, error) {
	for range looks {
		found, err := c.whereverItIs(ctx, key)
		if !errors.Is(err, ErrNotFound) {
			return found, err
		}
		if _, err := c.Result(ctx, key.Queue, key.ID); err == nil {
			return nil, ErrFinished
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lookAgain):
		}
	}
	return nil, ErrNotFound
}

func (c *Client) whereverItIs(ctx context.Context, key Key) (*nats.Msg, error) {
	for _, look := range []struct{ stream, subject string }{
		{c.names.Stream("JOBS"), c.names.Job(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.At(key.Queue, key.ID)},
		{c.names.Stream("RETRIES"), c.names.Due(key.Queue, key.ID)},
	} {
		msg, err := c.last(ctx, look.stream, look.subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		return msg, err
	}
	return nil, ErrNotFound
}

// unendedResult is the result of a job as far as its message tells it before the job has ended. What cannot be read is left out: the job ends all the same.
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

// remove takes a job out of the streams, in the order in which it would move through them, and tells the workers. found is where
// the job was a moment ago: a replica that is asked again may not know of it yet.
func (c *Client) remove(ctx context.Context, key Key, found *nats.Msg) error {
	if err := c.takeOut(ctx, c.names.Stream("JOBS"), c.names.Job(key.Queue, key.ID), found); err != nil {
		return err
	}
	if err := c.unschedule(ctx, key.Queue, key.ID, found); err != nil {
		return err
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
	return c.explain("take job "+queue+"/"+clip(id)+" out of the waiting", c.unschedule(ctx, queue, id, nil))
}

// unschedule purges a job that waits, which no consumer reads, and takes the job out if it is due.
func (c *Client) unschedule(ctx context.Context, queue, id string, found *nats.Msg) error {
	if err := c.purge(ctx, c.names.Stream("RETRIES"), c.names.At(queue, id)); err != nil {
		return err
	}
	return c.takeOut(ctx, c.names.Stream("RETRIES"), c.names.Due(queue, id), found)
}

// takeOut removes the message of a subject that a consumer reads; found may be the message. It deletes by sequence: when a
// message in hand is purged by its subject, nats-server (2.15.3) moves the ack floor of the consumer past every older message
// that is not acked yet (nats-io/nats-server#5727). These are not delivered again, and the next leader of a work queue removes
// them.
func (c *Client) takeOut(ctx context.Context, stream, subject string, found *nats.Msg) (err error) {
	if !publishable(subject) {
		return fmt.Errorf("%q is not one subject", clip(subject))
	}
	for range looks {
		if found == nil || found.Header.Get(jetstream.SubjectHeader) != subject {
			found, err = c.direct(ctx, stream, map[string]any{"last_by_subj": subject})
		}
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		seq, err := strconv.ParseUint(found.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return fmt.Errorf("read the sequence of %q: %w", clip(subject), err)
		}
		if deleted, err := c.deleteMessage(ctx, stream, seq); deleted || err != nil {
			return err
		}
		found = nil // it was gone already: another message may have taken its place
	}
	return nil
}

// purge removes what waits under one subject. An empty subject would empty the stream.
func (c *Client) purge(ctx context.Context, stream, subject string) error {
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
		return s.Purge(ctx, jetstream.WithPurgeSubject(subject))
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
