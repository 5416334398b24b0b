package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Schedule stores a job until its time: never early, at most 300 ms late. It stores the progress too, so that the next worker
// continues where this one stopped. scheduled is false if a job of that name waits already. Then this one is stale: the caller
// only acks it.
func (c *Client) Schedule(ctx context.Context, queue, id string, payload []byte, progress jobs.Progress, at time.Time) (scheduled bool, err error) {
	msg := &nats.Msg{Subject: c.Names().ScheduledJob(queue, id), Data: payload, Header: nats.Header{}}
	return c.schedule(ctx, "schedule job "+queue+"/"+bus.Clip(id), msg, c.Names().DueJob(queue, id), progress, at)
}

// WaitForSite stores a job until somebody releases it, because its site may be asked again. At the time until, the server
// releases it by itself, so that no job depends on a worker. Otherwise it works like Schedule: a job of that name that waits
// already, for its time or for a site, makes this one stale. due is the sequence of the due message that the job came with, or
// zero. Waiting messages up to it are gone, although a lagging replica may still show them.
func (c *Client) WaitForSite(ctx context.Context, site, queue, id string, due uint64, payload []byte, progress jobs.Progress, until time.Time) (stored bool, err error) {
	action := "store job " + queue + "/" + bus.Clip(id) + " to wait for its site"
	isWaiting, err := c.isWaiting(ctx, bus.Key{Queue: queue, ID: id}, due)
	if err != nil || isWaiting {
		return false, c.Explain(action, err)
	}
	msg := &nats.Msg{Subject: c.Names().SiteWait(jobs.SiteKey(site), queue, id), Data: payload, Header: nats.Header{bus.HeaderSite: {site}}}
	return c.schedule(ctx, action, msg, c.Names().DueJob(queue, id), progress, until)
}

// isWaiting reports whether a job of that name waits already, with a sequence above after. Two runs of one job may both find that
// it does not. Then it waits twice, and its second run finds the result of the first one.
func (c *Client) isWaiting(ctx context.Context, key bus.Key, after uint64) (bool, error) {
	_, found, err := c.SiteWait(ctx, key, after)
	if err != nil || found {
		return found, err
	}
	_, err = c.NextMessage(ctx, c.Names().Stream("RETRIES"), c.Names().ScheduledJob(key.Queue, key.ID), after+1)
	if errors.Is(err, bus.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// schedule stores a job that waits, under the guard of its subject. scheduled is false if the subject already has a
// message.
func (c *Client) schedule(ctx context.Context, action string, msg *nats.Msg, due string, progress jobs.Progress, at time.Time) (scheduled bool, err error) {
	encoded, err := progress.Encode()
	if err != nil {
		return false, err
	}
	if !bus.Publishable(msg.Subject) {
		return false, fmt.Errorf("%s: %w", action, bus.ErrNoSubject)
	}
	msg.Header.Set(jobs.HeaderProgress, encoded)
	addFacts(msg.Header, progress)
	bus.Schedule(msg, due, at)
	err = c.PublishOnce(ctx, msg)
	if bus.IsTaken(err) {
		return false, nil
	}
	return err == nil, c.ExplainPublish(ctx, action, c.Names().Stream("RETRIES"), err)
}

// addFacts adds the headers by which a job stays what its publisher sent, wherever it waits.
func addFacts(header nats.Header, progress jobs.Progress) {
	header.Set(jobs.HeaderJobSeq, strconv.FormatUint(progress.JobSeq, 10))
	progress.Trace.AddTo(header)
	// A version that this worker knows may be unknown to the next one, so it goes along. Other text is dropped, because it is
	// untrusted.
	if jobs.IsContract(progress.Contract) {
		header.Set(jobs.HeaderContract, progress.Contract)
	}
}
