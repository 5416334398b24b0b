package bus

import (
	"context"

	"github.com/gofer-mq/gofer/jobs"
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, queue, id string) (jobs.Result, error) {
	key := Key{queue, id}
	if !key.valid() {
		return jobs.Result{}, badKey(key)
	}
	msg, err := c.last(ctx, c.names.Stream("RESULTS"), c.names.Result(queue, id))
	if err != nil {
		return jobs.Result{}, c.explain("read result of job "+key.String(), err)
	}
	return jobs.ParseResult(msg.Header, msg.Data), nil
}
