package client

import (
	"cmp"
	"context"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// Place is where a job is.
type Place = bus.Place

// The places of a job. Due covers running as well, once it has waited; Queued does before that.
const (
	Queued   = bus.Queued   // queued or running
	Waiting  = bus.Waiting  // for its time: not_before, a retry, a proxy
	Due      = bus.Due      // its time has come; queued or running
	Finished = bus.Finished // its result is stored
)

// Found is a job that was found in some place.
type Found = bus.Found

// Find lists where a job is, in all queues if the key has none: the same id in two queues is two jobs. Nothing found is an
// empty list.
func (c *Client) Find(ctx context.Context, key Key) ([]Found, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	return c.bus.Find(ctx, key.Queue, key.ID)
}

// Resolve reads "queue/id" or "id" and finds the job. Errors: ErrNotFound, *AmbiguousError.
func (c *Client) Resolve(ctx context.Context, text string) (Key, error) {
	if err := c.ready(); err != nil {
		return Key{}, err
	}
	return c.bus.Resolve(ctx, text)
}

// Cancel ends a job that is queued, waiting or running with a cancelled result, which names this client as its worker. What a
// worker still does with the job changes nothing. Errors: ErrNotFound, ErrFinished.
func (c *Client) Cancel(ctx context.Context, key Key) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.Cancel(ctx, key, cmp.Or(c.bus.ConnectionName(), defaultName))
}
