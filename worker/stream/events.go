package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// PublishRetry stores the announcement that a job will be tried again, with the job's trace in the headers.
func (c *Client) PublishRetry(ctx context.Context, e jobs.RetryEvent) error {
	header := nats.Header{}
	e.Trace.AddTo(header)
	return c.publishEvent(ctx, c.Names().RetryEvent(e.Queue, e.JobID), e, header)
}

// LastRetry returns the newest announced retry of a job and when the server stored it, or bus.ErrNotFound.
func (c *Client) LastRetry(ctx context.Context, queue, id string) (e jobs.RetryEvent, stored time.Time, err error) {
	key := bus.Key{Queue: queue, ID: id}
	if !key.Valid() {
		return e, stored, bus.BadKey(key)
	}
	msg, err := c.LastMessage(ctx, c.Names().Stream("EVENTS"), c.Names().RetryEvent(queue, id))
	if err != nil {
		return e, stored, c.Explain("read last retry of job "+key.String(), err)
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
	return c.publishEvent(ctx, c.Names().BreakerEvent(e.ProxyID), e, nil)
}

// PublishPool stores that a worker's pool fails as a whole, or no longer does.
func (c *Client) PublishPool(ctx context.Context, e jobs.PoolEvent) error {
	return c.publishEvent(ctx, c.Names().PoolEvent(e.Worker), e, nil)
}

// PublishSite stores that a site began or ended its rest or test.
func (c *Client) PublishSite(ctx context.Context, e jobs.SiteEvent) error {
	return c.publishEvent(ctx, c.Names().SiteEvent(e.Site), e, nil)
}

// PublishDuplicate stores that a finished id was published again.
func (c *Client) PublishDuplicate(ctx context.Context, e jobs.DuplicateEvent) error {
	return c.publishEvent(ctx, c.Names().DuplicateEvent(e.Queue, e.JobID), e, nil)
}

// publishEvent stores an event. The error is bus.ErrNoSubject if the id, of an invalid job, gives no valid subject.
func (c *Client) publishEvent(ctx context.Context, subject string, event any, header nats.Header) error {
	if !bus.Publishable(subject) {
		return fmt.Errorf("publish event to %q: %w", bus.Clip(subject), bus.ErrNoSubject)
	}
	payload, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = c.Publish(ctx, &nats.Msg{Subject: subject, Data: payload, Header: header})
	return c.ExplainPublish(ctx, "publish event "+subject, c.Names().Stream("EVENTS"), err)
}
