package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bringStrays stores results again under their public subject. They were stored while the stream did not transform
// subjects, so no reader finds them, and their jobs are acked. A second result of a job is dropped.
func (c *Client) bringStrays(ctx context.Context) error {
	const action = "bring in results that were stored under another subject"
	stream := c.names.Stream("RESULTS")
	// The walk is by sequence, so a result that cannot be moved ends it with an error instead of looping.
	for seq := uint64(1); ; seq++ {
		msg, err := c.NextMessage(ctx, stream, c.names.ResultsIngress(), seq)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return c.Explain(action, err)
		}
		if seq, err = sequenceOf(msg); err != nil {
			return fmt.Errorf("%s: %w", action, err)
		}
		in := &nats.Msg{Subject: msg.Header.Get(jetstream.SubjectHeader), Data: msg.Data, Header: nats.Header{}}
		for name, values := range msg.Header {
			if !strings.HasPrefix(name, "Nats-") { // the server's own
				in.Header[name] = slices.Clone(values)
			}
		}
		// A second result of a job is dropped, since the first one is kept.
		if err := c.PublishOnce(ctx, in); err != nil && !IsTaken(err) {
			return c.Explain(action, err)
		}
		// Deleted only after the copy is stored: a crash in between leaves both, and the next run drops this
		// one.
		if _, err := c.DeleteMessage(ctx, stream, seq); err != nil {
			return c.Explain(action, err)
		}
	}
}

// DeleteMessage removes one message by its sequence, and reports whether it was there. The server does not overwrite the
// bytes on disk.
func (c *Client) DeleteMessage(ctx context.Context, stream string, seq uint64) (deleted bool, err error) {
	// no_erase saves the server from overwriting the bytes, which costs a write for each.
	request, err := json.Marshal(map[string]any{"seq": seq, "no_erase": true})
	if err != nil {
		return false, err
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: api + "STREAM.MSG.DELETE." + stream, Data: request})
	if err != nil {
		return false, err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return false, err
	}
	switch {
	case answer.Error == nil:
		return true, nil
	case answer.Error.ErrorCode == codeSequenceNotFound, answer.Error.ErrorCode == codeDeleteFailed && isGone(answer.Error.Description):
		return false, nil
	}
	return false, answer.Error
}

// The answers to a delete of a message that is gone. The second code covers any cause; the text names it.
const (
	codeSequenceNotFound jetstream.ErrorCode = 10043
	codeDeleteFailed     jetstream.ErrorCode = 10057
)

// isGone reports whether the text of a failed delete says that the message does not exist.
func isGone(text string) bool {
	return strings.Contains(text, "no message found") || strings.Contains(text, "stream store EOF")
}
