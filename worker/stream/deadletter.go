package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// DeadLetter stores the bytes of a failed job, with the reason in Gofer-* headers. To store it twice does no harm: the
// stream keeps only the last dead letter of an id. Errors: bus.ErrDeadLettersFull; else as PublishRetry has them.
func (c *Client) DeadLetter(ctx context.Context, queue, id string, payload []byte, r *jobs.Result) error {
	action := "store dead letter of job " + queue + "/" + bus.Clip(id)
	subject := c.Names().Dead(queue, id)
	if !bus.Publishable(subject) {
		return fmt.Errorf("%s: %w", action, bus.ErrNoSubject)
	}
	header := r.Facts()
	header[jobs.HeaderReason] = []string{reasonLine(r)}
	if r.JobSeq != 0 {
		header[jetstream.MsgIDHeader] = []string{"dead-" + queue + "-" + strconv.FormatUint(r.JobSeq, 10)}
	}
	_, err := c.Publish(ctx, &nats.Msg{Subject: subject, Data: payload, Header: header})
	if bus.IsFull(err) {
		return fmt.Errorf("%s: %w (%w)", action, bus.ErrDeadLettersFull, err)
	}
	return c.ExplainPublish(ctx, action, c.Names().Stream("DEAD"), err)
}

// reasonLine is why the job failed, as one line of at most 2000 bytes, which fits in a header.
func reasonLine(r *jobs.Result) string {
	text := r.Detail
	if text == "" {
		text = jobs.Title(r.Error)
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	return strings.TrimSpace(strings.ToValidUTF8(text[:min(len(text), 2000)], ""))
}
