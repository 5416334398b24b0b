package bus

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Message is a message of a stream.
type Message struct {
	Subject string
	Seq     uint64
	At      time.Time // by the server's clock
	Data    []byte
	Header  nats.Header // set by StoredAt only, and where it can be read
}

// ErrReplaced means that the newest message of a subject is not the expected one.
var ErrReplaced = errors.New("the newest message of the subject is another one")

// Replace stores data as the newest message of subject, if the newest one so far has the sequence last; zero means
// none. The server drops the message after keep; zero means the stream's own limit. It returns the sequence of the
// message.
//
// Errors: ErrReplaced, also if an earlier call stored the message and its answer was lost; ErrPermission, ErrNotSetUp.
func (c *Client) Replace(ctx context.Context, kind, subject string, data []byte, last uint64, keep time.Duration) (uint64, error) {
	msg := nats.NewMsg(subject)
	msg.Data = data
	// The guard makes the write conditional: a second worker with the same expectation is refused.
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
	if keep > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, keep.String())
	}
	ack, err := c.Publish(ctx, msg)
	// The same answer may mean that this call's first attempt was stored; the caller reads and compares.
	if code, _ := apiError(err); code == jetstream.JSErrCodeStreamWrongLastSequence {
		return 0, ErrReplaced
	}
	if err != nil {
		return 0, c.ExplainPublish(ctx, "store "+subject, c.names.Stream(kind), err)
	}
	return ack.Sequence, nil
}

// LastSeq is the sequence of the newest message of subject, zero if there is none. Any replica answers, which may be a moment
// behind its leader. Errors: ErrPermission, ErrNotSetUp.
func (c *Client) LastSeq(ctx context.Context, kind, subject string) (uint64, error) {
	msg, err := c.LastMessage(ctx, c.names.Stream(kind), subject)
	if isNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, c.Explain("look for "+subject, err)
	}
	return sequenceOf(msg)
}

// batchMessages is how many messages one request of ReadFrom asks for.
const batchMessages = 1000

// ReadFrom calls use for each message under filter whose sequence is from or higher, in the order of the stream. It ends
// with the newest one. Errors: ErrPermission, ErrNotSetUp, nats.ErrDisconnected while there is no connection.
func (c *Client) ReadFrom(ctx context.Context, kind, filter string, from uint64, use func(Message)) error {
	for {
		end, err := c.batchFrom(ctx, kind, filter, from, batchMessages, use)
		// An answer without a message of the range would make the loop endless.
		if err != nil || end.left == 0 || end.last < from {
			return err
		}
		from = end.last + 1
	}
}

// CountFrom counts the messages under filter whose sequence is from or higher. Errors: as ReadFrom.
func (c *Client) CountFrom(ctx context.Context, kind, filter string, from uint64) (uint64, error) {
	n, _, err := c.CountAndOldest(ctx, kind, filter, from)
	return n, err
}

// CountAndOldest is CountFrom that also returns when the first of these messages was stored; zero without any.
func (c *Client) CountAndOldest(ctx context.Context, kind, filter string, from uint64) (n uint64, oldest time.Time, err error) {
	// The server says with one message how many follow it.
	end, err := c.batchFrom(ctx, kind, filter, from, 1, func(m Message) { n, oldest = 1, m.At })
	return n + end.left, oldest, err
}

// CountSince counts the messages under filter that were stored at a time or later. Errors: as ReadFrom.
func (c *Client) CountSince(ctx context.Context, kind, filter string, since time.Time) (n uint64, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	request := map[string]any{"start_time": since.UTC(), "next_by_subj": filter, "batch": 1}
	end, err := c.readBatch(ctx, c.names.Stream(kind), request, 1, func(*nats.Msg) error { return nil })
	// Without a message the server sends no sequence.
	if end.last > 0 {
		n = 1 + end.left
	}
	return n, c.Explain("count the messages of stream "+c.names.Stream(kind), err)
}

// Subjects counts the messages of each subject under filter. Errors: ErrPermission, ErrNotSetUp.
func (c *Client) Subjects(ctx context.Context, kind, filter string) (map[string]uint64, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	subjects, err := c.CountBySubject(ctx, c.names.Stream(kind), filter)
	return subjects, c.Explain("list subjects of stream "+c.names.Stream(kind), err)
}

// batchFrom reads at most batch messages, as ReadFrom does, and the end of the batch.
func (c *Client) batchFrom(ctx context.Context, kind, filter string, from uint64, batch int, use func(Message)) (end batchEnd, err error) {
	if !c.nc.IsConnected() { // the connection would keep the request, and send it when no call waits for its answer
		return end, nats.ErrDisconnected
	}
	// The server cuts an answer at max_bytes, whatever the batch asks for.
	request := map[string]any{"seq": max(1, from), "next_by_subj": filter, "batch": batch, "max_bytes": answerBytes}
	end, err = c.readBatch(ctx, c.names.Stream(kind), request, batch, func(msg *nats.Msg) error {
		seq, err := sequenceOf(msg)
		if err != nil {
			return err
		}
		at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
		if err != nil {
			return err
		}
		use(Message{Subject: msg.Header.Get(jetstream.SubjectHeader), Seq: seq, At: at, Data: msg.Data})
		return nil
	})
	return end, c.Explain("read stream "+c.names.Stream(kind), err)
}

// State is the state of a stream. Nothing was stored or deleted between two equal states.
type State struct {
	// CreatedAt is when the stream was created. Another stream under its name has other sequences.
	CreatedAt         time.Time
	Messages, LastSeq uint64
}

// StateOf asks for the state of a stream. Errors: ErrNotSetUp, ErrPermission.
func (c *Client) StateOf(ctx context.Context, kind string) (State, error) {
	info, err := c.infoOf(ctx, c.names.Stream(kind))
	if err != nil {
		return State{}, err
	}
	return State{CreatedAt: info.Created, Messages: info.State.Msgs, LastSeq: info.State.LastSeq}, nil
}

// infoOf is StreamInfo with a bound in time and an explained error.
func (c *Client) infoOf(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := c.StreamInfo(ctx, name)
	return info, c.Explain("look for stream "+name, err)
}
