package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The requests that clients and workers make alike. Each is bounded in time, ends at once when the server refuses it to this
// user, and goes to JetStream's domain.

// Conn is the connection.
func (c *Client) Conn() *nats.Conn { return c.nc }

// Send sends a request to the JetStream API, whose answers go to reply. It does not wait for them.
func (c *Client) Send(subject, reply string, body []byte) error {
	return c.nc.PublishRequest(c.inDomain(subject), reply, body)
}

// MessageAt reads the message of a sequence, or ErrNotFound.
func (c *Client) MessageAt(ctx context.Context, stream string, seq uint64) (*nats.Msg, error) {
	return c.direct(ctx, stream, map[string]any{"seq": seq})
}

// PurgeStream removes all messages of a stream.
func (c *Client) PurgeStream(ctx context.Context, name string) error {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error { return stream.Purge(ctx) }, api+"STREAM.PURGE."+name)
}

// StreamInfo asks how a stream stands.
func (c *Client) StreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// Consumers calls use for each consumer of a stream.
func (c *Client) Consumers(ctx context.Context, name string, use func(*jetstream.ConsumerInfo)) error {
	// The handle is fetched for each call: a stream may have been recreated.
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error {
		lister := stream.ListConsumers(ctx)
		for info := range lister.Info() {
			use(info)
		}
		return lister.Err()
	}, api+"CONSUMER.LIST."+name)
}

// PauseConsumer keeps a consumer from giving out messages until a time; zero ends that.
func (c *Client) PauseConsumer(ctx context.Context, stream, name string, until time.Time) error {
	_, err := c.js.PauseConsumer(ctx, stream, name, until)
	return err
}

// ErrorCode is the server's code in err; zero if there is none.
func ErrorCode(err error) jetstream.ErrorCode {
	code, _ := apiError(err)
	return code
}
