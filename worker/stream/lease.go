package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Schedule stores a job until its time: never early, at most 300 ms late. It takes the progress along, so that whoever takes
// the job up next goes on where this worker stopped. scheduled is false when a job of that name waits already: then this
// one is stale, and its worker has nothing to do but to ack.
func (c *Client) Schedule(ctx context.Context, queue, id string, payload []byte, progress jobs.Progress, at time.Time) (scheduled bool, err error) {
	doing := "schedule job " + queue + "/" + bus.Clip(id)
	encoded, err := progress.Encode()
	if err != nil {
		return false, err
	}
	subject := c.Names().At(queue, id)
	if !bus.Publishable(subject) {
		return false, fmt.Errorf("%s: %w", doing, bus.ErrNoSubject)
	}
	msg := &nats.Msg{Subject: subject, Data: payload, Header: nats.Header{
		jobs.HeaderProgress: {encoded}, jobs.HeaderJobSeq: {fmt.Sprint(progress.JobSeq)},
	}}
	bus.Schedule(msg, c.Names().Due(queue, id), at)
	err = c.PublishOnce(ctx, msg)
	if bus.IsTaken(err) {
		return false, nil
	}
	return err == nil, c.ExplainPublish(ctx, doing, c.Names().Stream("RETRIES"), err)
}

// Heartbeat tells the server that the job is being worked on, and returns when the server has said that it knows. That
// says nothing about whose the job is: the server answers for a job that is gone, too.
func (c *Client) Heartbeat(ctx context.Context, msg jetstream.Msg) error {
	return c.Answer(ctx, "heartbeat", msg, "+WPI")
}

// HandBackUntil gives a job back, to be delivered to anybody not before a time, and returns when the server has said that it
// knows. A server that is killed may deliver the job at once.
func (c *Client) HandBackUntil(ctx context.Context, msg jetstream.Msg, at time.Time) error {
	return c.Answer(ctx, "hand back job", msg, fmt.Sprintf(`-NAK {"delay": %d}`, max(time.Second, time.Until(at))))
}
