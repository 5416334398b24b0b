package client

import (
	"context"
	"errors"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// errEnough ends a listing.
var errEnough = errors.New("enough")

// ListFirst lists at most limit jobs, as List does, and reports whether more follow. A job that begins to wait meanwhile is
// listed once: a worker stores the message that waits before it acks the one that runs.
func (c *Client) ListFirst(ctx context.Context, f ListFilter, limit int) (list []Listed, more bool, err error) {
	s, err := c.Search(ctx, f, limit)
	return s.List, s.More, err
}

// Searched is what Search has found, and how far it has come.
type Searched struct {
	// List are the jobs that fit, and More means that others follow.
	List []Listed
	More bool
	// Looked is how many jobs Search has looked at, of about Jobs: those among which the server cannot tell which ones fit.
	// Both are zero if it has not begun.
	Looked, Jobs uint64
}

// Search does what ListFirst does, and reports how far it has come, also if ctx ends it.
func (c *Client) Search(ctx context.Context, f ListFilter, limit int) (s Searched, err error) {
	if err := c.ready(); err != nil {
		return s, err
	}
	l, err := c.newLister(f)
	if err != nil {
		return s, err
	}
	if s.Jobs, err = l.count(ctx); err != nil {
		return s, err
	}
	s.List, s.More, err = l.first(ctx, limit)
	s.Looked = l.looked
	return s, err
}

// first lists at most limit jobs, and reports whether more follow.
func (l *lister) first(ctx context.Context, limit int) (list []Listed, more bool, err error) {
	running := map[Key]bool{}
	err = l.list(ctx, func(job Listed) error {
		if running[job.Key] {
			list = slices.DeleteFunc(list, func(earlier Listed) bool { return earlier.Key == job.Key })
		}
		running[job.Key] = job.State == jobs.StateRunning
		if len(list) == limit {
			more = true
			return errEnough
		}
		list = append(list, job)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, more, err
}

// count asks how many messages it will read, in one request for each stream.
func (l *lister) count(ctx context.Context) (sum uint64, err error) {
	for _, kind := range []string{"JOBS", "RETRIES"} {
		subject, may := l.reads(kind)
		if !may {
			continue
		}
		var n uint64
		switch {
		case !l.filter.Since.IsZero():
			n, err = l.c.bus.CountSince(ctx, kind, subject, l.filter.Since)
		case subject == ">":
			var state bus.State
			state, err = l.c.bus.StateOf(ctx, kind)
			n = state.Messages
		default:
			bounded, cancel := bus.Bounded(ctx)
			n, err = l.c.bus.CountFrom(bounded, kind, subject, 1)
			cancel()
		}
		if err != nil {
			return sum, err
		}
		sum += n
	}
	return sum, nil
}
