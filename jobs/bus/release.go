package bus

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// schedulePurge lets the server remove a waiting job together with the storing of the due one.
const schedulePurge = "purge"

// codeNotScheduled refuses to release a message that the server has not scheduled.
const codeNotScheduled jetstream.ErrorCode = 10212

// Release makes a waiting job a due one, as the server does when its time has come. The server does both steps or none,
// and only while the waiting job is the one that was read: a job that was released, cancelled or scheduled again meanwhile
// stays as it is, and released is false. Attempts and headers are kept.
//
// A message that the server has not scheduled is scheduled again instead, under the same guard, without a readable time for
// the time when it was stored: the server lets nobody release what it has not scheduled. It overlooks the schedule of a job
// whose id holds the name of that header twice in a row, depending on the order of the headers.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Release(ctx context.Context, job WaitingJob) (released bool, err error) {
	_, scheduled := scheduledAt(job.msg.Header)
	released, err = c.release(ctx, job, scheduled)
	if code, _ := apiError(err); scheduled && code == codeNotScheduled {
		return c.release(ctx, job, false)
	}
	return released, err
}

func (c *Client) release(ctx context.Context, job WaitingJob, scheduled bool) (released bool, err error) {
	doing := "release overdue job " + job.Queue + "/" + clip(job.ID)
	msg := &nats.Msg{Subject: c.names.Due(job.Queue, job.ID), Data: job.msg.Data, Header: nats.Header{}}
	at := c.names.At(job.Queue, job.ID)
	maps.Copy(msg.Header, job.msg.Header)
	maps.DeleteFunc(msg.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") }) // the server's
	if scheduled {
		msg.Header.Set(jetstream.SchedulerHeader, at)
		msg.Header.Set(jetstream.ScheduleNextHeader, schedulePurge)
	} else {
		msg.Subject = at
		schedule(msg, c.names.Due(job.Queue, job.ID), job.Until)
	}
	if !publishable(msg.Subject) {
		return false, fmt.Errorf("%s: %w", doing, errNoSubject)
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(job.Seq, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, at)
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err = c.js.PublishMsg(ctx, msg)
	if isTaken(err) {
		return false, nil
	}
	return err == nil, c.explain(doing, err)
}
