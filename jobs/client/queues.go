package client

import (
	"context"
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// QueueState is how a queue stands.
type QueueState = bus.QueueState

// Queues lists the queues that have consumers or jobs, by name. It reads the name of every waiting job, and of every
// queued one if some queue is not served: fit for a person's question, not for a tight loop.
func (c *Client) Queues(ctx context.Context) ([]QueueState, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	return c.bus.Queues(ctx)
}

// CountOverdue counts the jobs of each queue that the server has not released at their time. It looks for 5 s: of a million
// waiting jobs it sees only the older ones.
func (c *Client) CountOverdue(ctx context.Context, queues []QueueState) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.CountOverdue(ctx, queues)
}

// Pause stops the queue's workers from getting jobs until a time, or until Resume if it is zero. Running jobs end as
// usual. A time that has passed is an error. Other errors: ErrNotFound for a queue without consumers.
func (c *Client) Pause(ctx context.Context, queue string, until time.Time) error {
	if err := c.ready(); err != nil {
		return err
	}
	if !until.IsZero() && !until.After(time.Now()) {
		return fmt.Errorf("pause queue until %s: that time has passed", until.UTC().Format(time.RFC3339))
	}
	return c.bus.Pause(ctx, queue, until)
}

// Resume ends a pause. Errors: ErrNotFound for a queue without consumers.
func (c *Client) Resume(ctx context.Context, queue string) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.Resume(ctx, queue)
}
