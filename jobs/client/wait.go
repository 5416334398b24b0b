package client

import (
	"context"
	"errors"

	"github.com/gofer-mq/gofer/jobs"
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, key Key) (jobs.Result, error) {
	if err := c.ready(); err != nil {
		return jobs.Result{}, err
	}
	return c.bus.Result(ctx, key.Queue, key.ID)
}

// Wait returns the job's result: at once if it is stored, else as soon as it is. It returns ctx's cause when ctx ends
// first; without an end of ctx, it waits for as long as nobody runs the job.
func (c *Client) Wait(ctx context.Context, key Key) (jobs.Result, error) {
	if err := c.ready(); err != nil {
		return jobs.Result{}, err
	}
	return c.bus.Wait(ctx, key.Queue, key.ID)
}

// WaitEach calls use once with the result of each key that it receives, whether it is stored already or comes later. It
// returns when keys is closed and all results are through, when use returns an error, or when ctx ends (with its cause); it
// then receives no more keys. No result is missed: subscriptions bring them as they come, and a sweep looks up the rest at
// least every 30 s, and at once after a reconnect or a dropped message.
func (c *Client) WaitEach(ctx context.Context, keys <-chan Key, use func(jobs.Result) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	case keys == nil:
		return errors.New("there are no keys: the channel is nil")
	case use == nil:
		return errNoUse
	}
	return c.bus.WaitEach(ctx, keys, use)
}
