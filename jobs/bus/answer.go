package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// delivered is a message that a consumer delivered, of jetstream or of a worker's own pull.
type delivered interface{ Reply() string }

// HandBack naks a job, so that it is redelivered at once, and returns when the server has confirmed that.
func (c *Client) HandBack(ctx context.Context, msg delivered) error {
	return c.Answer(ctx, "hand back job", msg, "-NAK")
}

// errNoReply: the message did not come from a consumer.
var errNoReply = errors.New("the message cannot be answered")

// Answer sends an ack, such as "+WPI", and waits until the server has confirmed it. nats.go waits only for a plain ack.
func (c *Client) Answer(ctx context.Context, action string, msg delivered, ack string) error {
	if msg.Reply() == "" {
		return fmt.Errorf("%s: %w", action, errNoReply)
	}
	// The bound is needed even if the caller's context never ends, because an answer may be lost.
	ctx, cancel := Bounded(ctx)
	defer cancel()
	if _, err := c.request(ctx, &nats.Msg{Subject: msg.Reply(), Data: []byte(ack)}); err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}
