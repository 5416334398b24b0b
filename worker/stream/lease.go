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

// Schedule stores a job until its time: never early, at most 300 ms late. It takes the progress along, so that whoever takes
// the job up next goes on where this worker stopped. scheduled is false when a job of that name waits already: then this
// one is stale, and its worker has nothing to do but to ack.
func (c *Client) Schedule(ctx context.Context, queue, id string, payload []byte, progress jobs.Progress, at time.Time) (scheduled bool, err error) {
	msg := &nats.Msg{Subject: c.Names().ScheduledJob(queue, id), Data: payload, Header: nats.Header{}}
	return c.schedule(ctx, "schedule job "+queue+"/"+bus.Clip(id), msg, c.Names().DueJob(queue, id), progress, at)
}

// WaitForSite stores a job until somebody releases it, because its site may be asked again. The server releases it at a time
// by itself, so that no job depends on who releases the others. Else it is as Schedule: a job of that name that waits already,
// for its time or for a site, makes this one stale. due is the sequence of the message that the job came with if that is a due
// job, else zero: what the job waited as before that is gone, though a replica that is behind its leader may still show it.
func (c *Client) WaitForSite(ctx context.Context, site, queue, id string, due uint64, payload []byte, progress jobs.Progress, until time.Time) (stored bool, err error) {
	action := "let job " + queue + "/" + bus.Clip(id) + " wait for its site"
	waits, err := c.waits(ctx, bus.Key{Queue: queue, ID: id}, due)
	if err != nil || waits {
		return false, c.Explain(action, err)
	}
	msg := &nats.Msg{Subject: c.Names().SiteWait(jobs.SiteKey(site), queue, id), Data: payload, Header: nats.Header{bus.HeaderSite: {site}}}
	return c.schedule(ctx, action, msg, c.Names().DueJob(queue, id), progress, until)
}

// waits reports whether a job of that name waits already, under a later sequence than after. Two runs of one job may both find
// that it does not: then it waits twice, and its second run finds the result of the first one.
func (c *Client) waits(ctx context.Context, key bus.Key, after uint64) (bool, error) {
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
	// A version that this worker knows may still be too new for the next one. Any other text may hold anything.
	if jobs.IsContract(progress.Contract) {
		header.Set(jobs.HeaderContract, progress.Contract)
	}
}

// Heartbeat tells the server that the job is being worked on, and returns when the server has said that it knows. That
// says nothing about whose the job is: the server answers for a job that is gone, too.
func (c *Client) Heartbeat(ctx context.Context, msg delivered) error {
	return c.Answer(ctx, "heartbeat", msg, "+WPI")
}

// HandBackUntil gives a job back, to be delivered to anybody not before a time, and returns when the server has said that it
// knows. A server that is killed may deliver the job at once.
func (c *Client) HandBackUntil(ctx context.Context, msg delivered, at time.Time) error {
	return c.Answer(ctx, "hand back job", msg, fmt.Sprintf(`-NAK {"delay": %d}`, max(time.Second, time.Until(at))))
}
