package bus

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

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
	request := map[string]any{"seq": max(1, seq), "next_by_subj": filter, "batch": 1}
	end, err := c.readBatch(ctx, stream, request, 1, func(*nats.Msg) error { return nil })
	if err == nil && end.last == 0 {
		err = ErrNotFound
	}
	return end.last, err
}

// StoredAt reads the message of a sequence, or ErrNotFound. Unlike MessageAt it also reads a message whose headers cannot
// be read: for that it asks the leader of the stream, which the user needs another right for.
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

// apiAnswer is the part that each answer of the JetStream API may have.
type apiAnswer struct {
	Error *jetstream.APIError `json:"error"`
}

func (a *apiAnswer) failure() error {
	if a.Error == nil {
		return nil // and not a nil pointer in an error
	}
	return a.Error
}

// askAPI sends a request that nats.go lacks to the JetStream API and reads the answer, a struct that embeds apiAnswer. It returns
// an error that the answer holds.
func (c *Client) askAPI(ctx context.Context, subject string, request any, answer interface{ failure() error }) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: api + subject, Data: body})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return err
	}
	return answer.failure()
}

// configOf reads the settings of a stream or consumer as the server sends them. info is the subject of the request. An update
// sends them back, because an update without a setting resets it, and nats.go drops the settings that only newer servers know.
// The texts of the values are kept: a float64 does not hold every int64.
func (c *Client) configOf(ctx context.Context, info string) (map[string]json.RawMessage, error) {
	var answer struct {
		apiAnswer
		Config map[string]json.RawMessage `json:"config"`
	}
	err := c.askAPI(ctx, info, map[string]any{}, &answer)
	return answer.Config, err
}

// storedAtLeader reads the subject and the data of a message from the leader of the stream.
func (c *Client) storedAtLeader(ctx context.Context, stream string, seq uint64) (Message, error) {
	var answer struct {
		apiAnswer
		Stored struct {
			Subject string `json:"subject"`
			Data    []byte `json:"data"`
		} `json:"message"`
	}
	err := c.askAPI(ctx, "STREAM.MSG.GET."+stream, map[string]any{"seq": seq}, &answer)
	if ErrorCode(err) == jetstream.JSErrCodeMessageNotFound {
		return Message{}, ErrNotFound
	}
	if err != nil {
		return Message{}, err
	}
	return Message{Subject: answer.Stored.Subject, Seq: seq, Data: answer.Stored.Data}, nil
}

// PurgeStream removes all messages of a stream.
func (c *Client) PurgeStream(ctx context.Context, name string) error {
	return c.purgeWith(ctx, name)
}

// StreamInfo asks for the state of a stream.
func (c *Client) StreamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// Consumers calls use for each consumer of a stream, with one request for up to 256 consumers. nats.go would ask for the stream
// first, and would list a consumer twice after a short page.
func (c *Client) Consumers(ctx context.Context, name string, use func(*jetstream.ConsumerInfo)) error {
	for offset, total := 0, 1; offset < total; {
		var page struct {
			apiAnswer
			Total     int                       `json:"total"`
			Limit     int                       `json:"limit"` // of a page
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		if err := c.askAPI(ctx, "CONSUMER.LIST."+name, map[string]any{"offset": offset}, &page); err != nil {
			return err
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

// ErrorCode returns the server's error code in err; zero if err has none.
func ErrorCode(err error) jetstream.ErrorCode {
	code, _ := apiError(err)
	return code
}
