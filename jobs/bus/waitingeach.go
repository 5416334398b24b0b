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

// StillWaiting calls use for those jobs with the given sequences that still wait. It asks for each one by
// itself, so ask for a few hundred at a time. A job that is gone costs a quarter of one that is there.
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

// StillDue returns those of the sequences that are there: of due jobs that nobody has settled yet. It asks for each one by itself,
// as StillWaiting does.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) StillDue(ctx context.Context, seqs []uint64) (there map[uint64]bool, err error) {
	there = make(map[uint64]bool, len(seqs))
	err = c.readEach(ctx, seqs, func(seq uint64, _ *nats.Msg) { there[seq] = true })
	return there, c.Explain("look whether jobs are still due", err)
}

// readEach asks for each sequence by itself: a batch would read the messages in between, too.
func (c *Client) readEach(ctx context.Context, seqs []uint64, use func(seq uint64, msg *nats.Msg)) error {
	stream := c.names.Stream("RETRIES")
	return c.refusals.watch(ctx, func(ctx context.Context) error { return c.askEach(ctx, stream, seqs, use) }, directGet+stream)
}

// askWindow is how many requests of askEach are under way at once. As many messages of the largest size fit into memory.
const askWindow = 64

// askEach calls use in the order of the sequences, whatever the order of the answers. It tells the answers apart by their
// subjects: the headers of a message may be such that its sequence cannot be read.
func (c *Client) askEach(ctx context.Context, stream string, seqs []uint64, use func(seq uint64, msg *nats.Msg)) error {
	prefix := c.nc.NewInbox() + "."
	answers, err := c.openInbox(prefix+"*", min(len(seqs), askWindow))
	if err != nil {
		return err
	}
	defer answers.close()
	early := map[int]*nats.Msg{} // answers that came before an earlier one, nil for a message that is gone
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
		if early[i], err = c.storedIn(stream, msg); err != nil {
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

// storedIn returns the message that an answer holds; nil if there is none.
func (c *Client) storedIn(stream string, answer *nats.Msg) (*nats.Msg, error) {
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
	// firstRow and longestRow are how many sequences ReadWaiting asks for before it looks how many of them were there.
	firstRow, longestRow = 16, 1024
	// longestRead is how many it asks for one by one in a call.
	longestRead = 4096
	// sparse is the part of a row, as its denominator, below which a page is cheaper, which passes over gaps.
	sparse = 8
	// slowRow is how long a sequence of a row of timedRow or more may take, on a connection with long round trips, before a page
	// is faster.
	slowRow, timedRow = time.Millisecond, 256
)

// ReadWaiting does what WaitingPage does, and reads the jobs one by one where their sequences follow each other. Every page costs
// the server a walk through the subjects of all waiting jobs, and until it has ended the server reads nothing else from this
// connection: neither heartbeats nor answers. Requests for single sequences cost the same however many jobs wait.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) ReadWaiting(ctx context.Context, after uint64, limit int, use func(WaitingJob)) (last uint64, more bool, err error) {
	last = after
	rows := uint64(min(limit, longestRead))
	for row := firstRow; last-after < rows; row = min(2*row, longestRow) {
		seqs := make([]uint64, min(uint64(row), rows-(last-after)))
		for i := range seqs {
			seqs[i] = last + 1 + uint64(i)
		}
		found, began := 0, time.Now()
		err := c.readEach(ctx, seqs, func(seq uint64, msg *nats.Msg) {
			found++
			// Not to the end of the row: sequences that are missing there may be of jobs that are still to come.
			last = seq
			if job, ok := c.waitingJob(msg); ok {
				use(job)
			}
		})
		if err != nil {
			return last, true, c.Explain("read waiting jobs", err)
		}
		if found*sparse < len(seqs) || len(seqs) >= timedRow && time.Since(began) > time.Duration(len(seqs))*slowRow {
			break
		}
	}
	if rest := limit - int(last-after); rest > 0 && last-after < longestRead {
		return c.WaitingPage(ctx, last, rest, use)
	}
	return last, true, nil
}
