package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// NextSeq is the sequence of the first message of a filter at or after seq, or ErrNotFound. Unlike NextMessage it skips
// no message: the server names the sequence after the message, where no publisher can write.
func (c *Client) NextSeq(ctx context.Context, stream, filter string, seq uint64) (uint64, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	request, err := json.Marshal(map[string]any{"seq": max(1, seq), "next_by_subj": filter, "batch": 1})
	if err != nil {
		return 0, err
	}
	end, err := c.readBatch(ctx, stream, request, 1, func(*nats.Msg) error { return nil })
	if err == nil && end.last == 0 {
		err = ErrNotFound
	}
	return end.last, err
}

// StoredAt reads the message of a sequence, or ErrNotFound. Unlike MessageAt it reads also one whose headers
// cannot be read: it asks the leader of the stream for that one, which is another right.
func (c *Client) StoredAt(ctx context.Context, stream string, seq uint64) (Message, error) {
	msg, err := c.MessageAt(ctx, stream, seq)
	if errors.Is(err, errHeaders) {
		return c.storedAtLeader(ctx, stream, seq)
	}
	if err != nil {
		return Message{}, err
	}
	return Message{Subject: msg.Header.Get(jetstream.SubjectHeader), Seq: seq, Data: msg.Data, Header: msg.Header}, nil
}

func (c *Client) storedAtLeader(ctx context.Context, stream string, seq uint64) (Message, error) {
	request, err := json.Marshal(map[string]any{"seq": seq})
	if err != nil {
		return Message{}, err
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: api + "STREAM.MSG.GET." + stream, Data: request})
	if err != nil {
		return Message{}, err
	}
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Stored struct {
			Subject string `json:"subject"`
			Data    []byte `json:"data"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(msg.Data, &answer); {
	case err != nil:
		return Message{}, err
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Message{}, ErrNotFound
	case answer.Error != nil:
		return Message{}, answer.Error
	}
	return Message{Subject: answer.Stored.Subject, Seq: seq, Data: answer.Stored.Data}, nil
}

// PurgeStream removes all messages of a stream.
func (c *Client) PurgeStream(ctx context.Context, name string) error {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error { return stream.Purge(ctx) }, api+"STREAM.PURGE."+name)
}

// StreamInfo asks for the state of a stream.
func (c *Client) StreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// Consumers calls use for each consumer of a stream. It is one request for up to 256 consumers. nats.go would ask for
// the stream first, and list a consumer twice where a page is short.
func (c *Client) Consumers(ctx context.Context, name string, use func(*jetstream.ConsumerInfo)) error {
	for offset, total := 0, 1; offset < total; {
		ctx, cancel := Bounded(ctx)
		msg, err := c.request(ctx, &nats.Msg{Subject: api + "CONSUMER.LIST." + name, Data: fmt.Appendf(nil, `{"offset":%d}`, offset)})
		cancel()
		if err != nil {
			return err
		}
		var page struct {
			Error     *jetstream.APIError       `json:"error"`
			Total     int                       `json:"total"`
			Limit     int                       `json:"limit"` // of a page
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		if err := json.Unmarshal(msg.Data, &page); err != nil {
			return err
		}
		if page.Error != nil {
			return page.Error
		}
		for _, info := range page.Consumers {
			use(info)
		}
		// A cluster leaves out consumers without a leader, so a page may hold fewer than its limit.
		offset, total = offset+max(1, page.Limit), page.Total
	}
	return nil
}

// PauseConsumer keeps a consumer from delivering messages until a time; zero ends the pause.
func (c *Client) PauseConsumer(ctx context.Context, stream, name string, until time.Time) error {
	_, err := c.js.PauseConsumer(ctx, stream, name, until)
	return err
}

// ErrorCode is the server's code in err; zero if there is none.
func ErrorCode(err error) jetstream.ErrorCode {
	code, _ := apiError(err)
	return code
}
