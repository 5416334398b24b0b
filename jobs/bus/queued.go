package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// queuedPage is how many queued jobs are read at once.
const queuedPage = 1000

// ReadQueued calls use with the queue of each queued or running job that follows the sequence after, in order. It reads at most
// limit jobs, and begins no page later than budget. It returns the sequence of the last job, and whether others follow.
//
// Its cost depends on limit and not on how many jobs there are. A list of all subjects takes a server 20 s at a million
// jobs, and blocks publishes meanwhile.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) ReadQueued(ctx context.Context, after uint64, limit int, budget time.Duration, use func(queue string)) (last uint64, more bool, err error) {
	end := time.Now().Add(budget)
	// For each page the server counts the messages that follow. It knows their number without a filter; with one, such as
	// AllJobs, it examines each subject.
	page := Page{Stream: c.names.Stream("JOBS"), Subject: ">", After: after}
	for more = true; more && limit > 0; {
		page.Limit = min(queuedPage, limit)
		limit -= page.Limit
		page.After, more, err = c.ReadPage(ctx, page, func(msg *nats.Msg) error {
			if queue, _, ok := jobs.SplitSubject(msg.Header.Get(jetstream.SubjectHeader)); ok {
				use(queue)
			}
			return nil
		})
		if err != nil {
			return page.After, more, c.Explain("read queued jobs", err)
		}
		if time.Now().After(end) {
			break
		}
	}
	return page.After, more, nil
}
