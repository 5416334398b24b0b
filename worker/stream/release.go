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

// schedulePurge makes the server remove a waiting job when it stores the due one.
const schedulePurge = "purge"

// codeNotScheduled is the server's refusal to release a message that it has not scheduled.
const codeNotScheduled jetstream.ErrorCode = 10212

// Release makes a waiting job a due one, as the server does at its time, and keeps its attempts and headers. The server
// stores the due job and removes the waiting one in one step, and only if the waiting job is still the one that was read.
// If it was released, cancelled or scheduled again meanwhile, released is false.
//
// Nobody can release a message that the server has not scheduled. Such a message is scheduled again instead, under the same
// guard: for its own time, or for the time when it was stored if its own cannot be read. A bug of nats-server makes such
// messages: if the job's id contains the name Nats-Schedule twice in a row, the server may overlook that header.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Release(ctx context.Context, job bus.WaitingJob) (released bool, err error) {
	seq, err := c.releaseScheduled(ctx, job)
	return seq != 0, err
}

// ReleaseAtSite is Release for a job that waits for a site. It marks the job's progress, so that the worker that gets the
// job does not let it wait again. It returns the sequence of the due job; zero if it released none.
func (c *Client) ReleaseAtSite(ctx context.Context, job bus.WaitingJob) (seq uint64, err error) {
	header := job.Message().Header
	// A job whose progress cannot be read ends as an invalid job.
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

// release publishes the message that makes a waiting job a due one or, if it is not scheduled, schedules it again. The
// sequence of the waiting job is the guard: if another message has taken its place, nothing happens and seq is zero.
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
