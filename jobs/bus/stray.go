package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// inspectStrays reports whether results lie under the subject to which workers publish, where no reader finds them. The stream
// may be as it should be again without gofer setup, so its settings do not show that. found are the differences of the streams:
// nothing is asked of a stream that cannot answer, or that would gain more such results.
func (c *Client) inspectStrays(ctx context.Context, found []Difference) ([]Difference, error) {
	stream := c.names.Stream("RESULTS")
	comesFirst := func(d Difference) bool {
		return d.Name == "stream "+stream && slices.Contains([]string{"", "sealed", "allow_direct", "subject_transform"}, d.Field)
	}
	if slices.ContainsFunc(found, comesFirst) {
		return nil, nil
	}
	_, err := c.NextMessage(ctx, stream, c.names.ResultsIngress(), 1)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, c.Explain("look for results under another subject", err)
	}
	return []Difference{{
		Name: "stream " + stream, Field: "number of results under " + c.names.ResultsIngress(), Have: "above 0", Want: "0", Use: Harmless, Repair: ByUpdate,
	}}, nil
}

// moveStrays stores results again under their public subject. They were stored while the stream did not transform
// subjects, so no reader finds them, and their jobs are acked. A second result of a job is dropped.
func (c *Client) moveStrays(ctx context.Context) error {
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
		// The stream may have lost its transform since: then the copy, or what made the result taken, is no public result either.
		queue, id, _ := strings.Cut(strings.TrimPrefix(in.Subject, strings.TrimSuffix(c.names.ResultsIngress(), ">")), ".")
		if _, err := c.kept(ctx, &jobs.Result{Queue: queue, ID: id}); err != nil {
			return c.Explain(action, err)
		}
		// A crash before this deletion leaves both copies, and the next call drops this one.
		if _, err := c.DeleteMessage(ctx, stream, seq); err != nil {
			return c.Explain(action, err)
		}
	}
}

// DeleteMessage removes one message by its sequence, and reports whether it was there. It saves the server the write that would
// overwrite the bytes on disk.
func (c *Client) DeleteMessage(ctx context.Context, stream string, seq uint64) (deleted bool, err error) {
	err = c.askAPI(ctx, "STREAM.MSG.DELETE."+stream, map[string]any{"seq": seq, "no_erase": true}, &apiAnswer{})
	switch code, text := apiError(err); {
	case code == codeSequenceNotFound, code == codeDeleteFailed && isGone(text):
		return false, nil
	}
	return err == nil, err
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
