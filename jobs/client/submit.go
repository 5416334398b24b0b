package client

import (
	"context"
	"errors"
	"iter"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Ack is the server's word that it has a job: it ends in one result.
type Ack = bus.Ack

// Submit publishes a job and returns when the server has stored it. An empty queue means the default one; an empty id is
// replaced by a new ULID. A publish that got no answer is repeated until ctx ends, for 30 s if ctx has no end; the
// server stores the job once.
//
// Errors: *jobs.InvalidError, ErrQueued, ErrFinished, ErrQueueFull, ErrTooLarge, ErrNotSetUp, ErrPermission, or the last
// one of the connection. After such a last error the job may be stored or not; submitting the same id again is safe. The Ack
// names the job whatever the error.
func (c *Client) Submit(ctx context.Context, job jobs.Job) (Ack, error) {
	if err := c.ready(); err != nil {
		return Ack{}, err
	}
	return c.bus.Submit(ctx, job)
}

var (
	errNoSource = errors.New("there is no source of jobs: the iterator is nil")
	errNoUse    = errors.New("there is nothing to call with what comes: the function is nil")
)

// SubmitMany publishes the jobs of source, up to window of them in flight (zero means 256), and calls done for each as
// its answer comes, in any order and never twice at once, but also while source is asked for the next job. It takes no more
// jobs when ctx ends, and returns its cause. done has been called for every job taken, with ctx's cause for one that was not
// published, and with an error and its key for one without an answer. Without a source or without done it takes no job and
// returns an error.
func (c *Client) SubmitMany(ctx context.Context, source iter.Seq[jobs.Job], window int, done func(jobs.Job, Ack, error)) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	case source == nil:
		return errNoSource
	case done == nil:
		return errNoUse
	case window < 0:
		return errors.New("the window is below zero")
	}
	return c.bus.SubmitMany(ctx, source, window, done)
}
