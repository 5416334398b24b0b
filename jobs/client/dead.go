package client

import (
	"context"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// DeadLetter is a job that failed, as it was published.
type DeadLetter = bus.Letter

// DeadLetters calls use for each dead letter, the oldest first, until use returns an error, which comes back.
func (c *Client) DeadLetters(ctx context.Context, use func(DeadLetter) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	return c.bus.Dead(ctx, use)
}

// DeadLetter reads the dead letter of a job, or ErrNotFound.
func (c *Client) DeadLetter(ctx context.Context, key Key) (DeadLetter, error) {
	if err := c.ready(); err != nil {
		return DeadLetter{}, err
	}
	return c.bus.DeadOf(ctx, key)
}

// Replay publishes the job of a dead letter again, as replay-<sequence of the letter>, and removes the letter. A letter
// that was replayed before, or is gone, is refused with ErrReplayed; other errors are those of Submit.
func (c *Client) Replay(ctx context.Context, letter DeadLetter) (Ack, error) {
	if err := c.ready(); err != nil {
		return Ack{}, err
	}
	return c.bus.Replay(ctx, letter)
}

// RemoveDeadLetter removes one dead letter, and not a later one of the same job. One that is gone already is no error.
func (c *Client) RemoveDeadLetter(ctx context.Context, letter DeadLetter) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.DropDead(ctx, letter)
}

// PurgeDeadLetters removes all dead letters.
func (c *Client) PurgeDeadLetters(ctx context.Context) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.PurgeDead(ctx)
}
