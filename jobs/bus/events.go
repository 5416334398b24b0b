package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// PublishRetry stores the announcement that a job will be tried again.
func (c *Client) PublishRetry(ctx context.Context, e jobs.RetryEvent) error {
	return c.event(ctx, c.names.RetryEvent(e.Queue, e.JobID), e)
}

// LastRetry is the newest announced retry of a job and when the server stored it, or ErrNotFound.
func (c *Client) LastRetry(ctx context.Context, queue, id string) (e jobs.RetryEvent, stored time.Time, err error) {
	key := Key{queue, id}
	if !key.valid() {
		return e, stored, badKey(key)
	}
	msg, err := c.last(ctx, c.names.Stream("EVENTS"), c.names.RetryEvent(queue, id))
	if err != nil {
		return e, stored, c.explain("read last retry of job "+key.String(), err)
	}
	if err = json.Unmarshal(msg.Data, &e); err == nil {
		stored, err = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	}
	if err != nil {
		return e, stored, fmt.Errorf("read last retry of job %s: %w", key, err)
	}
	return e, stored, nil
}

// PublishBreaker stores that a proxy's breaker changed.
func (c *Client) PublishBreaker(ctx context.Context, e jobs.BreakerEvent) error {
	return c.event(ctx, c.names.BreakerEvent(e.ProxyID), e)
}

// PublishPool stores that a worker's pool fails as a whole, or no longer does.
func (c *Client) PublishPool(ctx context.Context, e jobs.PoolEvent) error {
	return c.event(ctx, c.names.PoolEvent(e.Worker), e)
}

// PublishDuplicate stores that a finished id was published again.
func (c *Client) PublishDuplicate(ctx context.Context, e jobs.DuplicateEvent) error {
	return c.event(ctx, c.names.DuplicateEvent(e.Queue, e.JobID), e)
}

func (c *Client) event(ctx context.Context, subject string, event any) error {
	if !publishable(subject) {
		return fmt.Errorf("publish event to %q: %w", clip(subject), errNoSubject)
	}
	payload, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = c.publish(ctx, &nats.Msg{Subject: subject, Data: payload})
	return c.explainPublish(ctx, "publish event "+subject, c.names.Stream("EVENTS"), err)
}

// DeadLetter keeps the bytes of a failed job, with the reason in Gofer-* headers. A letter that is written twice is one
// letter: the stream keeps the last one of an id.
func (c *Client) DeadLetter(ctx context.Context, queue, id string, payload []byte, r *jobs.Result) error {
	doing := "store dead letter of job " + queue + "/" + clip(id)
	subject := c.names.Dead(queue, id)
	if !publishable(subject) {
		return fmt.Errorf("%s: %w", doing, errNoSubject)
	}
	header := r.Facts()
	header[jobs.HeaderReason] = []string{reason(r)}
	if r.JobSeq != 0 {
		header[jetstream.MsgIDHeader] = []string{"dead-" + queue + "-" + strconv.FormatUint(r.JobSeq, 10)}
	}
	_, err := c.publish(ctx, &nats.Msg{Subject: subject, Data: payload, Header: header})
	return c.explainPublish(ctx, doing, c.names.Stream("DEAD"), err)
}

// reason is a sentence that fits in a header: one line, and not longer than a person reads.
func reason(r *jobs.Result) string {
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
