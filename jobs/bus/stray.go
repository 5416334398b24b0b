package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bringStrays stores under their public subject the results that came in while the stream did not transform subjects: their
// jobs are acked, and nobody finds them where they are. A second result of a job stays out.
func (c *Client) bringStrays(ctx context.Context) error {
	const doing = "bring in results that were stored under another subject"
	stream := c.names.Stream("RESULTS")
	for seq := uint64(1); ; seq++ {
		msg, err := c.next(ctx, stream, c.names.ResultsIngress(), seq)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return c.explain(doing, err)
		}
		if seq, err = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		in := &nats.Msg{Subject: msg.Header.Get(jetstream.SubjectHeader), Data: msg.Data, Header: nats.Header{}}
		for name, values := range msg.Header {
			if !strings.HasPrefix(name, "Nats-") { // the server's own
				in.Header[name] = slices.Clone(values)
			}
		}
		if err := c.guarded(ctx, in); err != nil && !isTaken(err) {
			return c.explain(doing, err)
		}
		if err := c.deleteMessage(ctx, stream, seq); err != nil {
			return c.explain(doing, err)
		}
	}
}

// deleteMessage removes one message. One that is gone already is no error.
func (c *Client) deleteMessage(ctx context.Context, stream string, seq uint64) error {
	request, err := json.Marshal(map[string]any{"seq": seq, "no_erase": true})
	if err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err = c.request(ctx, &nats.Msg{Subject: api + "STREAM.MSG.DELETE." + stream, Data: request})
	return err
}
