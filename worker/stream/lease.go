package stream

import (
	"context"
	"fmt"
	"time"
)

// Heartbeat tells the server that the job is being worked on, and returns when the server has confirmed it. The answer does not
// prove that this worker still owns the job: the server also answers for a job that is gone.
func (c *Client) Heartbeat(ctx context.Context, msg delivered) error {
	return c.Answer(ctx, "heartbeat", msg, "+WPI")
}

// HandBackUntil gives a job back, to be delivered to anybody not before a time, and returns when the server has confirmed it. A
// server that is killed may deliver the job at once.
func (c *Client) HandBackUntil(ctx context.Context, msg delivered, at time.Time) error {
	return c.Answer(ctx, "hand back job", msg, fmt.Sprintf(`-NAK {"delay": %d}`, max(time.Second, time.Until(at))))
}
