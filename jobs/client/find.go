package client

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Place is where a job is.
type Place string

// The places of a job. A running job is Queued if it never waited, and Due if it did.
const (
	Queued   Place = "queued"   // queued or running
	Waiting  Place = "waiting"  // for its time: not_before, a retry, a proxy, a site
	Due      Place = "due"      // its time has come; queued or running
	Finished Place = "finished" // its result is stored
)

// Found is a job and where it was found.
type Found struct {
	Key
	Place Place `json:"place"`
}

// String is the job and its place.
func (f Found) String() string { return f.Key.String() + " is " + string(f.Place) }

// Find lists where a job is, in all queues if the key has none: the same id in two queues is two jobs. Nothing found is an
// empty list.
func (c *Client) Find(ctx context.Context, key Key) ([]Found, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	queue, id := key.Queue, key.ID
	if queue != "" && !jobs.ValidQueue(queue) || !jobs.ValidID(id) {
		return nil, bus.BadKey(key)
	}
	if queue == "" {
		queue = "*"
	}
	var out []Found
	for _, look := range []struct {
		stream, subject string
		place           Place
	}{
		{c.bus.Names().Stream("RESULTS"), c.bus.Names().Result(queue, id), Finished},
		{c.bus.Names().Stream("JOBS"), c.bus.Names().Job(queue, id), Queued},
		{c.bus.Names().Stream("RETRIES"), c.bus.Names().ScheduledJob(queue, id), Waiting},
		{c.bus.Names().Stream("RETRIES"), c.bus.Names().SiteWait("*", queue, id), Waiting},
		{c.bus.Names().Stream("RETRIES"), c.bus.Names().DueJob(queue, id), Due},
	} {
		subjects, err := c.bus.CountBySubject(ctx, look.stream, look.subject)
		if err != nil {
			return nil, c.bus.Explain("look for job "+id, err)
		}
		for subject := range subjects {
			// The subject of a job at a site holds the site as well; the other subjects have none.
			if _, in, _, ok := jobs.SplitWaiting(subject); ok {
				out = append(out, Found{Key{Queue: in, ID: id}, look.place})
			}
		}
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.Queue+string(a.Place), b.Queue+string(b.Place)) })
	return slices.Compact(out), nil
}

// Resolve reads "queue/id" or "id" and finds the job. Errors: ErrNotFound, *AmbiguousError.
func (c *Client) Resolve(ctx context.Context, text string) (Key, error) {
	if err := c.ready(); err != nil {
		return Key{}, err
	}
	queue, id, qualified := strings.Cut(text, "/")
	if !qualified {
		queue, id = "", text
	}
	found, err := c.Find(ctx, Key{Queue: queue, ID: id})
	if err != nil {
		return Key{}, err
	}
	var queues []string
	// Find has sorted by queue, so equal ones are neighbours.
	for _, f := range found {
		queues = append(queues, f.Queue)
	}
	switch queues = slices.Compact(queues); len(queues) {
	case 0:
		return Key{}, fmt.Errorf("job %s: %w", text, ErrNotFound)
	case 1:
		return Key{Queue: queues[0], ID: id}, nil
	}
	return Key{}, &AmbiguousError{ID: id, Queues: queues}
}

// AmbiguousError says that an id without a queue names more than one job.
type AmbiguousError struct {
	ID     string
	Queues []string
}

// Error names the queues to choose from.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("job %s is in more than one queue: write QUEUE/%s with one of %s", e.ID, e.ID, strings.Join(e.Queues, ", "))
}
