package daemon

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
)

// findJob lists the jobs of an id, one for each queue that has it.
func (d *daemon) findJob(ctx context.Context, id string) (list []admin.Job, err error) {
	err = d.asClient(func(c *client.Client) error {
		found, err := c.Find(ctx, client.Key{ID: id})
		if err != nil {
			return err
		}
		// A job that has a result and a dead letter is found twice.
		seen := map[string]bool{}
		for _, f := range found {
			if seen[f.Queue] || len(seen) == worker.MaxQueues {
				continue
			}
			seen[f.Queue] = true
			row, err := d.findIn(ctx, c, f.Key)
			if err != nil && !errors.Is(err, client.ErrNotFound) {
				return err
			}
			// A job that ended between the two questions is left out.
			if err == nil {
				list = append(list, row)
			}
		}
		return nil
	})
	return list, err
}

// findIn finds a job whose queue is known. Errors: client.ErrNotFound if it has gone meanwhile.
func (d *daemon) findIn(ctx context.Context, c *client.Client, key client.Key) (admin.Job, error) {
	// The result comes first: a job with a result has ended, whatever else lies in the streams.
	result, err := c.Result(ctx, key)
	if err == nil {
		return admin.Job{Queue: key.Queue, ID: key.ID, State: result.Outcome, Site: siteOfURL(result.URL), Since: result.FinishedAt.UTC()}, nil
	}
	if !errors.Is(err, client.ErrNotFound) {
		return admin.Job{}, err
	}
	job, err := c.StateOf(ctx, key)
	job.Queue, job.ID = key.Queue, key.ID
	return liveJob(job), err
}

// bodyPreview is the beginning of the body of a result.
type bodyPreview struct {
	// Text is empty if the body is no text.
	Text  string `json:"text"`
	Bytes int    `json:"bytes"`
	// Truncated means that Text is only the beginning.
	Truncated bool `json:"truncated"`
}

// maxPreview bounds the preview of a body. The page shows a preview; the whole body is one call of gofer
// results.
const maxPreview = 4096

// previewOf is nil for a body that is not in the result's message.
func previewOf(r *jobs.Result) *bodyPreview {
	if r.Object != "" {
		return nil
	}
	head := r.Body[:min(len(r.Body), maxPreview)]
	cut := strings.ToValidUTF8(string(head), "")
	preview := &bodyPreview{Bytes: len(r.Body), Truncated: len(head) < len(r.Body)}
	// More than one cut character means that the body is no text.
	if len(head)-len(cut) <= utf8.UTFMax && !strings.ContainsRune(cut, 0) { // the end may cut a letter
		preview.Text = cut
	}
	return preview
}
