package stream

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// schedulePurge lets the server remove a waiting job together with the storing of the due one.
const schedulePurge = "purge"

// codeNotScheduled refuses to release a message that the server has not scheduled.
const codeNotScheduled jetstream.ErrorCode = 10212

// Release makes a waiting job a due one, as the server does when its time has come. The server does both steps or none, and only
// while the waiting job is the one that was read: a job that was released, cancelled or scheduled again meanwhile stays as it is,
// and released is false. Attempts and headers are kept.
//
// The server lets nobody release a message that it has not scheduled. Such a message is scheduled again instead, under the same
// guard, and for the time when it was stored if its own time cannot be read.
//
// A bug of nats-server makes such messages: it misses the header Nats-Schedule if the job's id contains that name twice in a row,
// depending on the order of the headers.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Release(ctx context.Context, job bus.WaitingJob) (released bool, err error) {
	seq, err := c.releaseScheduled(ctx, job)
	return seq != 0, err
}

// ReleaseAtSite is Release for a job that waits for a site, and marks its progress: the worker that gets it does not let it wait
// again. It returns the sequence of the due job, zero if it released none.
func (c *Client) ReleaseAtSite(ctx context.Context, job bus.WaitingJob) (seq uint64, err error) {
	header := job.Message().Header
	// What cannot be read ends as an invalid job.
	if progress, err := jobs.ParseProgress(header.Get(jobs.HeaderProgress)); err == nil {
		progress.Released = true
		encoded, err := progress.Encode()
		if err != nil {
			return 0, err
		}
		header.Set(jobs.HeaderProgress, encoded)
	}
	return c.releaseScheduled(ctx, job)
}

// WaitsAgain reports whether a job that was released with due sequence due waits again: for its site, or for its next attempt.
func (c *Client) WaitsAgain(ctx context.Context, key bus.Key, due uint64) (bool, error) {
	isWaiting, err := c.isWaiting(ctx, key, due)
	return isWaiting, c.Explain("check whether job "+key.String()+" waits again", err)
}

// releaseScheduled releases a job whether or not the server has scheduled its message. It returns the sequence of the due
// job; zero if the job was not released.
func (c *Client) releaseScheduled(ctx context.Context, job bus.WaitingJob) (seq uint64, err error) {
	_, scheduled := bus.ScheduledAt(job.Message().Header)
	seq, err = c.release(ctx, job, scheduled)
	if code := bus.ErrorCode(err); scheduled && code == codeNotScheduled {
		return c.release(ctx, job, false)
	}
	return seq, err
}

// release publishes the message that makes a waiting job a due one, or that schedules it again. The guard is the sequence
// of the waiting job: if another message is there by now, nothing happens and seq is zero.
func (c *Client) release(ctx context.Context, job bus.WaitingJob, scheduled bool) (seq uint64, err error) {
	action := "release waiting job " + job.Queue + "/" + bus.Clip(job.ID)
	msg := &nats.Msg{Subject: c.Names().DueJob(job.Queue, job.ID), Data: job.Message().Data, Header: nats.Header{}}
	at := job.Subject()
	maps.Copy(msg.Header, job.Message().Header)
	maps.DeleteFunc(msg.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") }) // the server's
	if scheduled {
		msg.Header.Set(jetstream.SchedulerHeader, at)
		msg.Header.Set(jetstream.ScheduleNextHeader, schedulePurge)
	} else {
		msg.Subject = at
		bus.Schedule(msg, c.Names().DueJob(job.Queue, job.ID), job.Until)
	}
	if !bus.Publishable(msg.Subject) {
		return 0, fmt.Errorf("%s: %w", action, bus.ErrNoSubject)
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(job.Seq, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, at)
	ack, err := c.Publish(ctx, msg)
	if bus.IsTaken(err) {
		return 0, nil
	}
	if err != nil {
		return 0, c.Explain(action, err)
	}
	return ack.Sequence, nil
}
