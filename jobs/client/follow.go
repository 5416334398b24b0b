package client

import (
	"context"
	"fmt"
	"io"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Filter says which results or events are followed. The zero value follows all of them from now on.
type Filter = bus.Filter

// Reader is the durable consumer of results and events that is there for users who may not create one. All who read with it
// share what comes.
const Reader = bus.Reader

// Event is one of the events, as it was stored.
type Event = bus.Event

// Follow calls use for each result, in the order of storing, until use returns an error, which comes back, or ctx ends,
// whose cause comes back. It outlives a server's restart, and brings nothing twice unless it reads with a durable.
func (c *Client) Follow(ctx context.Context, f Filter, use func(jobs.Result) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	return c.bus.Follow(ctx, f, func(r jobs.Result) error {
		r.HeadersOnly = f.HeadersOnly
		return use(r)
	})
}

// Events is Follow for events.
func (c *Client) Events(ctx context.Context, f Filter, use func(Event) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	return c.bus.Events(ctx, f, use)
}

// Body reads the response body of a result, wherever it is kept. The end of a body that is not the one that was stored
// reads as ErrDigest. The reader belongs to ctx and to one goroutine; closing it is good manners and costs nothing. A job
// that did not succeed has none: ErrNoBody. Of a result that was read without its payload the stored one is read.
func (c *Client) Body(ctx context.Context, r jobs.Result) (io.ReadCloser, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if r.Outcome != jobs.Succeeded {
		return nil, fmt.Errorf("read body of job %s, whose outcome is %q: %w", r.ID, r.Outcome, ErrNoBody)
	}
	if r.HeadersOnly && r.Object == "" {
		stored, err := c.Result(ctx, Key{Queue: r.Queue, ID: r.ID})
		if err != nil {
			return nil, err
		}
		r = stored
	}
	return c.bus.Body(ctx, r)
}
