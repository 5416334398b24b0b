// Package stream holds what a worker does in JetStream. It fetches jobs (Pulls), acks them (Acks) and extends their leases
// (Heartbeat). It schedules and releases jobs, stores dead letters, publishes events, and receives the requests to cancel
// jobs (OnCancel).
package stream

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Client is a bus.Client with the operations of a worker. It may be shared by any number of goroutines.
type Client struct {
	*bus.Client
	lastWaiting *uint64 // see IfUnchanged; nil for no guard
}

// New makes a client on an open connection.
func New(b *bus.Client) *Client { return &Client{Client: b} }

// headerSize is the header for the size of a payload that a consumer leaves out, in bytes.
const headerSize = "Nats-Msg-Size"

// IsWhole reports whether a delivered job has the payload that was published. A consumer with the setting headers_only
// leaves payloads out and adds headerSize. A publisher can forge that header, so the stored message decides, or the
// consumer's settings if the message cannot be read.
func (c *Client) IsWhole(ctx context.Context, d *Delivery, queue string, due bool) (bool, error) {
	if len(d.Data()) > 0 || d.Headers().Get(headerSize) == "" {
		return true, nil
	}
	stored, err := c.MessageAt(ctx, d.meta.Stream, d.meta.Sequence.Stream)
	if err == nil {
		return len(stored.Data) == 0, nil
	}
	info, err := c.JobConsumerInfo(ctx, queue, due)
	return !slices.ContainsFunc(info.Differences, func(d bus.Difference) bool { return d.Field == "headers_only" }), err
}

// OnCancel calls use for every job that somebody cancels, until stop is called. use must not block.
func (c *Client) OnCancel(use func(queue, id string)) (stop func(), err error) {
	sub, err := c.Conn().Subscribe(c.Names().AllCancels(), func(msg *nats.Msg) {
		if queue, id, ok := jobs.SplitSubject(msg.Subject); ok {
			use(queue, id)
		}
	})
	if err != nil {
		return nil, c.Explain("subscribe to cancel requests", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
