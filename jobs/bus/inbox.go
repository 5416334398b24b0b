package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// inbox receives the answers to one request, or to several. The caller closes it. A synchronous subscription of nats.go would do
// the same with room for 65,536 messages, half a megabyte, for each request.
type inbox struct {
	sub  *nats.Subscription
	msgs chan *nats.Msg
}

// openInbox subscribes to subject, and has room for limit answers and the message that ends them. nats.go drops what finds
// no room. Open it before the request is sent: then no answer can be missed.
func (c *Client) openInbox(subject string, limit int) (inbox, error) {
	msgs := make(chan *nats.Msg, limit+1)
	sub, err := c.nc.ChanSubscribe(subject, msgs)
	return inbox{sub: sub, msgs: msgs}, err
}

func (b inbox) close() { _ = b.sub.Unsubscribe() }

// closedCheck is how often a wait for an answer checks whether the connection was closed, which nats.go does not report
// to a channel.
const closedCheck = 100 * time.Millisecond

// next returns the next answer. It waits for at most requestTimeout: if the server dies, no answer comes.
func (b inbox) next(ctx context.Context) (*nats.Msg, error) {
	// Most answers are here already, and need no timer.
	select {
	case msg := <-b.msgs:
		return msg, nil
	default:
	}
	began, tick := time.Now(), time.NewTicker(closedCheck)
	defer tick.Stop()
	for b.sub.IsValid() && time.Since(began) < requestTimeout {
		select {
		case msg := <-b.msgs:
			return msg, nil
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if !b.sub.IsValid() {
		return nil, nats.ErrConnectionClosed
	}
	return nil, context.DeadlineExceeded
}
