package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// Park stores a job until its time: never early, at most 300 ms late. It takes the progress along, so that whoever takes
// the job up next goes on where this worker stopped. parked is false when a job of that name waits already: then this
// one is its stale twin, and its worker has nothing to do but to ack.
func (c *Client) Park(ctx context.Context, queue, id string, payload []byte, progress jobs.Progress, at time.Time) (parked bool, err error) {
	doing := "park job " + queue + "/" + clip(id)
	encoded, err := progress.Encode()
	if err != nil {
		return false, err
	}
	subject := c.names.At(queue, id)
	if !publishable(subject) {
		return false, fmt.Errorf("%s: %w", doing, errNoSubject)
	}
	msg := &nats.Msg{Subject: subject, Data: payload, Header: nats.Header{
		jobs.HeaderProgress: {encoded}, jobs.HeaderJobSeq: {fmt.Sprint(progress.JobSeq)},
	}}
	schedule(msg, c.names.Due(queue, id), at)
	err = c.guarded(ctx, msg)
	if isTaken(err) {
		return false, nil
	}
	return err == nil, c.explainPublish(ctx, doing, c.names.Stream("RETRIES"), err)
}

// schedule lets the server move a message to target at a time. It does not use nats.go's own option, which cuts the time to
// whole seconds: the server would release the message up to a second early.
func schedule(msg *nats.Msg, target string, at time.Time) {
	msg.Header.Set(jetstream.ScheduleHeader, scheduleAt+at.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(jetstream.ScheduleTargetHeader, target)
}

// errNoReply: the message did not come from a consumer.
var errNoReply = errors.New("the message cannot be answered")

// Heartbeat tells the server that the job is being worked on, and returns when the server has said that it knows. That
// says nothing about whose the job is: the server answers for a job that is gone, too.
func (c *Client) Heartbeat(ctx context.Context, msg jetstream.Msg) error {
	return c.answer(ctx, "heartbeat", msg, "+WPI")
}

// HandBack gives a job back, to be delivered to anybody at once, and returns when the server has said that it knows.
func (c *Client) HandBack(ctx context.Context, msg jetstream.Msg) error {
	return c.answer(ctx, "hand back job", msg, "-NAK")
}

// HandBackUntil gives a job back, to be delivered to anybody not before a time, and returns when the server has said that it
// knows. A server that is killed may deliver the job at once.
func (c *Client) HandBackUntil(ctx context.Context, msg jetstream.Msg, at time.Time) error {
	return c.answer(ctx, "hand back job", msg, fmt.Sprintf(`-NAK {"delay": %d}`, max(time.Second, time.Until(at))))
}

// answer sends an ack of its own as a request: what nats.go sends for these two is not confirmed.
func (c *Client) answer(ctx context.Context, doing string, msg jetstream.Msg, word string) error {
	if msg.Reply() == "" {
		return fmt.Errorf("%s: %w", doing, errNoReply)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := c.request(ctx, &nats.Msg{Subject: msg.Reply(), Data: []byte(word)}); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
