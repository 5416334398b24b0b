package bus

import (
	"context"

	"github.com/gofer-mq/gofer/jobs"
)

// Result reads a stored result, or ErrNotFound. A large body stays in the object store: see Body.
func (c *Client) Result(ctx context.Context, queue, id string) (jobs.Result, error) {
	key := Key{queue, id}
	if !key.Valid() {
		return jobs.Result{}, BadKey(key)
	}
	// The newest message of the subject is the only one, since the guard lets one in.
	msg, err := c.LastMessage(ctx, c.names.Stream("RESULTS"), c.names.Result(queue, id))
	if err != nil {
		return jobs.Result{}, c.Explain("read result of job "+key.String(), err)
	}
	return jobs.ParseResult(msg.Header, msg.Data), nil
}
