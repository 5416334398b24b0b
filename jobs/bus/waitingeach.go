package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// StillWaiting calls use for those jobs with the given sequences that still wait. It sends a request for each, so pass a
// few hundred at a time. A job that is gone costs a quarter of one that is there.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) StillWaiting(ctx context.Context, seqs []uint64, use func(WaitingJob)) error {
	err := c.readEach(ctx, seqs, func(_ uint64, msg *nats.Msg) {
		if job, ok := c.waitingJob(msg); ok {
			use(job)
		}
	})
	return c.Explain("look whether jobs still wait", err)
}

// StillDue returns those of the sequences whose due jobs nobody has settled yet. It sends a request for each, as
// StillWaiting does.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) StillDue(ctx context.Context, seqs []uint64) (there map[uint64]bool, err error) {
	there = make(map[uint64]bool, len(seqs))
	err = c.readEach(ctx, seqs, func(seq uint64, _ *nats.Msg) { there[seq] = true })
	return there, c.Explain("look whether jobs are still due", err)
}

// WaitAgain reports for each sequence of a released job whether the job waits again, for its site or for its next attempt.
// It sends one request for all of them, because a site that comes back releases thousands of jobs. Pass at most half of
// MaxSubjects.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) WaitAgain(ctx context.Context, released map[uint64]Key) (again map[uint64]bool, err error) {
	newest := map[Key]uint64{}
	// The server may cut its answer short, and the next request asks for the others. An answer without a new job ends it.
	for left, found := uint64(1), -1; left > 0 && len(newest) > found; {
		found = len(newest)
		if left, err = c.readNewest(ctx, released, newest); err != nil {
			return nil, c.Explain("look whether released jobs wait again", err)
		}
	}
	again = make(map[uint64]bool, len(newest))
	for due, key := range released {
		// A replica that is behind its leader may return the message of the wait before this one.
		again[due] = newest[key] > due
	}
	return again, nil
}

// readNewest adds to newest the sequence of the newest waiting message of each job that newest lacks. left is how many
// messages the server did not send.
func (c *Client) readNewest(ctx context.Context, released map[uint64]Key, newest map[Key]uint64) (left uint64, err error) {
	var subjects []string
	for _, key := range released {
		if _, known := newest[key]; !known && key.Valid() {
			subjects = append(subjects, c.names.SiteWait("*", key.Queue, key.ID), c.names.ScheduledJob(key.Queue, key.ID))
		}
	}
	if len(subjects) == 0 {
		return 0, nil
	}
	request := map[string]any{"multi_last": subjects, "max_bytes": answerBytes}
	end, err := c.readBatch(ctx, c.names.Stream("RETRIES"), request, len(subjects), func(msg *nats.Msg) error {
		if job, ok := c.waitingJob(msg); ok {
			newest[job.Key] = max(newest[job.Key], job.Seq)
		}
		return nil
	})
	return end.left, err
}

// readEach sends a request for each sequence: a batch would also read the messages in between.
func (c *Client) readEach(ctx context.Context, seqs []uint64, use func(seq uint64, msg *nats.Msg)) error {
	stream := c.names.Stream("RETRIES")
	return c.refusals.watch(ctx, func(ctx context.Context) error { return c.askEach(ctx, stream, seqs, use) }, directGet+stream)
}

// askWindow is how many requests of askEach are under way at once. So many messages of the largest size fit into memory.
const askWindow = 64

// askEach calls use in the order of the sequences, whatever the order of the answers. It recognises the answers by their
// subjects, because the sequence in the headers of a message may be unreadable.
func (c *Client) askEach(ctx context.Context, stream string, seqs []uint64, use func(seq uint64, msg *nats.Msg)) error {
	prefix := c.nc.NewInbox() + "."
	answers, err := c.openInbox(prefix+"*", min(len(seqs), askWindow))
	if err != nil {
		return err
	}
	defer answers.close()
	early := map[int]*nats.Msg{} // answers to later requests than next; nil for a message that is gone
	for next, sent := 0, 0; next < len(seqs); {
		for ; sent < min(next+askWindow, len(seqs)); sent++ {
			if err := c.Send(directGet+stream, prefix+strconv.Itoa(sent), fmt.Appendf(nil, `{"seq":%d}`, seqs[sent])); err != nil {
				return err
			}
		}
		msg, err := answers.next(ctx)
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(strings.TrimPrefix(msg.Subject, prefix))
		if err != nil {
			return err
		}
		if early[i], err = c.messageIn(stream, msg); err != nil {
			return err
		}
		for {
			msg, answered := early[next]
			if !answered {
				break
			}
			if msg != nil {
				use(seqs[next], msg)
			}
			delete(early, next)
			next++
		}
	}
	return nil
}

// messageIn returns the message that an answer holds; nil if there is none.
func (c *Client) messageIn(stream string, answer *nats.Msg) (*nats.Msg, error) {
	found, err := c.isMessage(stream, answer)
	switch {
	case errors.Is(err, errHeaders):
		answer.Header = nil // which makes it no waiting job
		return answer, nil
	case err != nil || !found:
		return nil, err
	}
	return answer, nil
}

const (
	// firstGroup and maxGroup bound how many sequences ReadWaiting asks for before it counts how many of them exist.
	firstGroup, maxGroup = 16, 1024
	// maxSingleReads bounds how many it asks for one by one in a call.
	maxSingleReads = 4096
	// A page skips gaps between sequences, so it is cheaper if fewer than one in sparse of a group exist.
	sparse = 8
	// On a connection with long round trips, a page is faster if a group takes longer than slowRead for each sequence.
	// Groups below minTimedGroup are too small to measure that.
	slowRead, minTimedGroup = time.Millisecond, 256
)

// ReadWaiting is WaitingPage, but reads the jobs one by one where their sequences follow each other. For every page the
// server walks through the subjects of all waiting jobs, and until then it reads nothing else from this connection, such as
// heartbeats. The cost of a request for one sequence does not depend on the number of waiting jobs.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) ReadWaiting(ctx context.Context, after uint64, limit int, use func(WaitingJob)) (last uint64, more bool, err error) {
	last = after
	rows := uint64(min(limit, maxSingleReads))
	for size := firstGroup; last-after < rows; size = min(2*size, maxGroup) {
		seqs := make([]uint64, min(uint64(size), rows-(last-after)))
		for i := range seqs {
			seqs[i] = last + 1 + uint64(i)
		}
		found, began := 0, time.Now()
		err := c.readEach(ctx, seqs, func(seq uint64, msg *nats.Msg) {
			found++
			// The rest of the group does not count as read: missing sequences there may be of jobs that are
			// still to come.
			last = seq
			if job, ok := c.waitingJob(msg); ok {
				use(job)
			}
		})
		if err != nil {
			return last, true, c.Explain("read waiting jobs", err)
		}
		if found*sparse < len(seqs) || len(seqs) >= minTimedGroup && time.Since(began) > time.Duration(len(seqs))*slowRead {
			break
		}
	}
	if rest := limit - int(last-after); rest > 0 && last-after < maxSingleReads {
		return c.WaitingPage(ctx, last, rest, use)
	}
	return last, true, nil
}
