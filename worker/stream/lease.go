package stream

import (
	"context"
	"fmt"
	"time"
)

// Heartbeat extends the job lease, and returns when the server has confirmed that. The confirmation does not prove that
// this worker still has the job: the server also sends it for a job that is gone.
func (c *Client) Heartbeat(ctx context.Context, msg delivered) error {
	return c.Answer(ctx, "heartbeat", msg, "+WPI")
}

// HandBackUntil naks a job, so that it is redelivered at a time, but in a second at the earliest. It returns when the server has
// confirmed that. A server that is restarted meanwhile may deliver the job at once.
func (c *Client) HandBackUntil(ctx context.Context, msg delivered, at time.Time) error {
	return c.Answer(ctx, "hand back job", msg, fmt.Sprintf(`-NAK {"delay": %d}`, max(time.Second, time.Until(at))))
}
