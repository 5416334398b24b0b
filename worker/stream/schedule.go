package stream

import (
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

// ErrChanged means that a job was not stored, because another one was stored since the guard of IfUnchanged was read.
var ErrChanged = errors.New("the stream of waiting jobs has changed")

// IfUnchanged returns a client whose Schedule and WaitForSite store a job only while last is the last sequence of the stream of
// waiting jobs. Otherwise they return ErrChanged.
func (c *Client) IfUnchanged(last uint64) *Client {
	return &Client{Client: c.Client, lastWaiting: &last}
}

// Schedule stores a job until its time: never early, at most 300 ms late. It also stores the progress, from which the next
// worker continues. scheduled is false if a job of that name waits already: then this one is stale, and the caller only
// acks it.
func (c *Client) Schedule(ctx context.Context, queue, id string, payload []byte, progress *jobs.Progress, at time.Time) (scheduled bool, err error) {
	msg := &nats.Msg{Subject: c.Names().ScheduledJob(queue, id), Data: payload, Header: nats.Header{}}
	return c.schedule(ctx, "schedule job "+queue+"/"+bus.Clip(id), msg, c.Names().DueJob(queue, id), progress, at)
}

// WaitForSite is Schedule for a job that waits for its site: a worker may release it earlier. At the time until, the server
// releases it, so that no job depends on a worker. due is the sequence of the due message that the job came with, or zero:
// waiting messages up to it are gone, although a replica that is behind may still return them.
func (c *Client) WaitForSite(ctx context.Context, site, queue, id string, due uint64, payload []byte, progress *jobs.Progress, until time.Time) (stored bool, err error) {
	action := "store job " + queue + "/" + bus.Clip(id) + " to wait for its site"
	isWaiting, err := c.isWaiting(ctx, bus.Key{Queue: queue, ID: id}, due)
	if err != nil || isWaiting {
		return false, c.Explain(action, err)
	}
	msg := &nats.Msg{Subject: c.Names().SiteWait(jobs.SiteKey(site), queue, id), Data: payload, Header: nats.Header{bus.HeaderSite: {site}}}
	return c.schedule(ctx, action, msg, c.Names().DueJob(queue, id), progress, until)
}

// isWaiting reports whether a job of that name waits already, with a sequence above after. Of two runs of one job, both may
// find that it does not. Then it waits twice, and its second run finds the result of the first one.
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
func (c *Client) schedule(ctx context.Context, action string, msg *nats.Msg, due string, progress *jobs.Progress, at time.Time) (scheduled bool, err error) {
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
	if c.lastWaiting != nil {
		msg.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(*c.lastWaiting, 10))
	}
	err = c.PublishOnce(ctx, msg)
	if bus.IsTaken(err) {
		return false, c.Explain(action, c.whyRefused(ctx, msg.Subject, err))
	}
	return err == nil, c.ExplainPublish(ctx, action, c.Names().Stream("RETRIES"), err)
}

// whyRefused returns nil if a guard refused a message because its subject has one, and ErrChanged if it was because of the
// stream's last sequence. The server's code is the same. A job that is taken for stored is acked, so both signs have to agree.
func (c *Client) whyRefused(ctx context.Context, subject string, refusal error) error {
	if c.lastWaiting == nil {
		return nil
	}
	// The refusal names the sequence of the subject's message, or the stream's last one, which is not the expected one.
	found, ok := bus.RefusedFor(refusal)
	if !ok || found > *c.lastWaiting {
		return ErrChanged
	}
	msg, err := c.LastMessage(ctx, c.Names().Stream("RETRIES"), subject)
	// A replica that lags may still have an older message of the subject.
	if errors.Is(err, bus.ErrNotFound) || err == nil && msg.Header.Get(jetstream.SequenceHeader) != strconv.FormatUint(found, 10) {
		return ErrChanged
	}
	return err
}

// addFacts adds the headers that keep a job's sequence, trace and contract version while it waits.
func addFacts(header nats.Header, progress *jobs.Progress) {
	header.Set(jobs.HeaderJobSeq, strconv.FormatUint(progress.JobSeq, 10))
	progress.Trace.AddTo(header)
	// The next worker may not know the version. Other text is not trusted, so it is dropped.
	if jobs.IsContract(progress.Contract) {
		header.Set(jobs.HeaderContract, progress.Contract)
	}
}
