package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Page selects the messages of a stream that one page holds.
type Page struct {
	Stream, Subject string
	// After is the sequence before the page: zero for the first one.
	After uint64
	// Since leaves out the messages that were stored before it, if After is zero. Zero means no such bound.
	Since time.Time
	// Limit is the largest number of messages. A page holds fewer where they do not fit into one answer of the server.
	Limit int
}

// ReadPage calls use for each message of a page, in order, except those whose headers cannot be read. It returns the sequence
// after which the next page begins, and whether there is one.
//
// Errors: those of use, and of a request to the server, which Explain explains.
func (c *Client) ReadPage(ctx context.Context, p Page, use func(*nats.Msg) error) (last uint64, more bool, err error) {
	request := map[string]any{"seq": p.After + 1, "next_by_subj": p.Subject, "batch": p.Limit, "max_bytes": pageBytes}
	if p.After == 0 && !p.Since.IsZero() {
		delete(request, "seq") // the server takes one of the two
		request["start_time"] = p.Since.UTC()
	}
	last = p.After
	end, err := c.readBatch(ctx, p.Stream, request, p.Limit, func(msg *nats.Msg) (err error) {
		if last, err = sequenceOf(msg); err != nil {
			return err
		}
		return use(msg)
	})
	// Messages whose headers cannot be read count for the end of the page, so the next page begins after them.
	return max(last, end.last), end.left > 0, err
}

// searchPage is how many messages are read at once behind one whose headers cannot be read.
const searchPage = 100

// errFound ends a search.
var errFound = errors.New("found")

// nextReadable returns the first message, from a page on, whose headers can be read; or ErrNotFound.
func (c *Client) nextReadable(ctx context.Context, p Page) (found *nats.Msg, err error) {
	for more := true; more; {
		p.After, more, err = c.ReadPage(ctx, p, func(msg *nats.Msg) error {
			found = msg
			// The search stops at the first one; the rest of the page is not used.
			return errFound
		})
		if errors.Is(err, errFound) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, ErrNotFound
}

// DeliveredUpTo returns the sequence of the latest message that a consumer has delivered; zero if there is no such consumer.
func (c *Client) DeliveredUpTo(ctx context.Context, stream, consumer string) (uint64, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	found, err := c.js.Consumer(ctx, stream, consumer)
	// A consumer that does not exist has delivered nothing.
	if code := ErrorCode(err); code == jetstream.JSErrCodeConsumerNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return found.CachedInfo().Delivered.Stream, nil
}
