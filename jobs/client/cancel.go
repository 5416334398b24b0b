package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Cancel ends a job that is queued, waiting or running with a cancelled result. First it stores the guarded result:
// whatever a worker still does with the job, that result stays. Then it removes the job from the streams, and tells the
// workers to stop the run. The result names this client as its worker. A cancel that was interrupted between these
// steps is finished by the next one. Errors: ErrNotFound, ErrFinished.
func (c *Client) Cancel(ctx context.Context, key Key) error {
	if err := c.ready(); err != nil {
		return err
	}
	action := "cancel job " + bus.Clip(key.String())
	if !key.Valid() {
		return bus.BadKey(key)
	}
	found, err := c.unended(ctx, key)
	if err != nil {
		return c.bus.Explain(action, err)
	}
	result := unendedResult(key, found)
	// Asked before storing, because the guard would report a cancelled job of an earlier call as finished.
	switch begun, err := c.cancelBegun(ctx, key, result.JobSeq); {
	case err != nil:
		return c.bus.Explain(action, err)
	case begun:
		return c.bus.Explain(action, c.remove(ctx, key, found))
	}
	// The worker of a cancelled result names the client that cancelled it.
	result.Outcome, result.Error, result.Worker = jobs.Cancelled, jobs.ErrCancelled, cmp.Or(c.bus.ConnectionName(), defaultName)
	stored, err := c.bus.StoreResult(ctx, &result)
	if err != nil {
		return err
	}
	if !stored.Won {
		return fmt.Errorf("%s: %w", action, ErrFinished)
	}
	// A worker that still runs the job finds the stored result when it settles, so a removal that fails does no
	// harm.
	return c.bus.Explain(action, c.remove(ctx, key, found))
}

// cancelBegun reports whether the job that is there has a cancelled result already: an earlier cancel stored the result
// and did not remove the job.
func (c *Client) cancelBegun(ctx context.Context, key Key, seq uint64) (bool, error) {
	kept, err := c.Result(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	// The sequence distinguishes this job from an earlier one of the same id.
	return kept.Outcome == jobs.Cancelled && kept.JobSeq == seq, err
}

// A job is looked up several times before it counts as not found: the replica that answers may be a moment behind, and
// the job may be moving from one stream to another.
const (
	lookups     = 4
	lookupPause = 100 * time.Millisecond
)

// unended finds the message of a job that has not ended. If there is none and the job has a result, the error is
// ErrFinished.
func (c *Client) unended(ctx context.Context, key Key) (*nats.Msg, error) {
	// Each round also looks for the result: a job that has just ended has left its stream.
	for range lookups {
		found, err := c.whereverItIs(ctx, key)
		if !errors.Is(err, ErrNotFound) {
			return found, err
		}
		if _, err := c.Result(ctx, key); err == nil {
			return nil, ErrFinished
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lookupPause):
		}
	}
	return nil, ErrNotFound
}

// whereverItIs finds the message of a job that has not ended, in the order in which a job moves through the streams.
// Errors: ErrNotFound.
func (c *Client) whereverItIs(ctx context.Context, key Key) (*nats.Msg, error) {
	for _, look := range []struct{ stream, subject string }{
		{c.bus.Names().Stream("JOBS"), c.bus.Names().Job(key.Queue, key.ID)},
		{c.bus.Names().Stream("RETRIES"), c.bus.Names().ScheduledJob(key.Queue, key.ID)},
		{c.bus.Names().Stream("RETRIES"), c.bus.Names().DueJob(key.Queue, key.ID)},
	} {
		msg, err := c.bus.LastMessage(ctx, look.stream, look.subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		return msg, err
	}
	// Jobs at a site have the site in their subject, so they cannot be looked up by name.
	job, found, err := c.bus.SiteWait(ctx, key, 0)
	if err != nil || !found {
		return nil, cmp.Or(err, ErrNotFound)
	}
	return job.Message(), nil
}

// unendedResult makes the result of a job that has not ended from its message. What cannot be read is left out, because
// an invalid job can be cancelled, too.
func unendedResult(key Key, msg *nats.Msg) jobs.Result {
	var progress jobs.Progress
	// A fresh job has no progress; its sequence is that of its message.
	if text := msg.Header.Get(jobs.HeaderProgress); text != "" {
		progress, _ = jobs.ParseProgress(text)
	} else {
		progress.JobSeq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	}
	progress.Trace = jobs.ParseTrace(msg.Header)
	job, err := jobs.Decode(key.Queue, key.ID, msg.Data)
	if err != nil {
		job = jobs.Job{Queue: key.Queue, ID: key.ID}
	}
	return progress.Result(&job, time.Now())
}

// remove removes a job from the streams, in the order in which the job would move through them, and tells the workers to
// stop it. found is where the job was a moment ago, because a replica that is asked again may not know of it yet.
func (c *Client) remove(ctx context.Context, key Key, found *nats.Msg) error {
	if err := c.bus.RemoveMessage(ctx, c.bus.Names().Stream("JOBS"), c.bus.Names().Job(key.Queue, key.ID), found); err != nil {
		return err
	}
	if err := c.bus.Unschedule(ctx, key.Queue, key.ID, found); err != nil {
		return err
	}
	// A worker that runs the job hears it. Nobody answers.
	if err := c.bus.Conn().Publish(c.bus.Names().Cancel(key.Queue, key.ID), nil); err != nil {
		return err
	}
	ctx, cancel := bus.Bounded(ctx)
	defer cancel()
	return c.bus.Conn().FlushWithContext(ctx) // without it, a program that ends at once would lose the message
}
