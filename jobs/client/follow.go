package client

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Filter says which results or events are followed. The zero value follows all of them from now on.
type Filter = bus.Filter

// Reader is the prepared durable consumer of results and events, for users who may not create one. All users that read
// with it share its messages.
const Reader = bus.Reader

// Follow calls use for each result, in the order of storing. It returns the first error of use, or the cause of ctx. It
// continues after a restart of the server, and calls use once for each result unless it reads with a durable.
func (c *Client) Follow(ctx context.Context, f Filter, use func(jobs.Result) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	stream := c.bus.Names().Stream("RESULTS")
	// An empty queue stands for all: Results writes the wildcard.
	return c.bus.FollowStream(ctx, stream, []string{c.bus.Names().Results(f.Queue)}, f, func(msg jetstream.Msg) error {
		r := jobs.ParseResult(msg.Headers(), msg.Data())
		r.HeadersOnly = f.HeadersOnly
		return use(r)
	})
}

// Event is one of the events, as it was stored.
type Event struct {
	// Kind is "retry", "breaker", "pool", "site" or "duplicate"; the payload is the jobs.RetryEvent, jobs.BreakerEvent,
	// jobs.PoolEvent, jobs.SiteEvent or jobs.DuplicateEvent in JSON.
	Kind     string          `json:"kind"`
	Subject  string          `json:"subject"`
	StoredAt time.Time       `json:"stored_at"`
	Payload  json.RawMessage `json:"payload"`
}

// Events is Follow for events.
func (c *Client) Events(ctx context.Context, f Filter, use func(Event) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	subjects := []string{c.bus.Names().Events()}
	if f.Queue != "" {
		id := cmp.Or(f.ID, "*")
		// Breaker, pool and site events belong to no queue, so they are left out.
		subjects = []string{c.bus.Names().RetryEvent(f.Queue, id), c.bus.Names().DuplicateEvent(f.Queue, id)}
	}
	return c.bus.FollowStream(ctx, c.bus.Names().Stream("EVENTS"), subjects, f, func(msg jetstream.Msg) error {
		event := Event{Subject: msg.Subject(), Payload: msg.Data()}
		// The kind is the third token of the subject.
		if parts := strings.SplitN(event.Subject, ".", 4); len(parts) == 4 {
			event.Kind = parts[2]
		}
		if meta, err := msg.Metadata(); err == nil {
			event.StoredAt = meta.Timestamp.UTC()
		}
		return use(event)
	})
}
