package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// DeadLetter is a job that failed, as it was published.
type DeadLetter struct {
	Key
	// Seq is the letter's sequence; a replay is named after it.
	Seq      uint64    `json:"seq"`
	StoredAt time.Time `json:"stored_at"`
	Reason   string    `json:"reason"`
	Payload  []byte    `json:"-"`
	// Result holds the facts of the failure, without attempts.
	Result jobs.Result `json:"-"`
}

// deadPage is how many dead letters are read at once. Each holds its job, so one answer has up to 8 MiB.
const deadPage = 500

// DeadLetters calls use for each dead letter, the oldest first. It stops at an error of use and returns that error. use
// may remove letters.
func (c *Client) DeadLetters(ctx context.Context, use func(DeadLetter) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	ours := strings.TrimSuffix(c.bus.Names().AllDead(), ">")
	// Without a filter the server knows how many messages are left; with a filter it would examine each subject for
	// each page.
	page := bus.Page{Stream: c.bus.Names().Stream("DEAD"), Subject: ">", Limit: deadPage}
	for more := true; more; {
		var letters []DeadLetter
		var err error
		page.After, more, err = c.bus.ReadPage(ctx, page, func(msg *nats.Msg) error {
			if strings.HasPrefix(msg.Header.Get(jetstream.SubjectHeader), ours) {
				letters = append(letters, letterOf(msg))
			}
			return nil
		})
		if err != nil {
			return c.bus.Explain("list dead letters", err)
		}
		for _, letter := range letters {
			if err := use(letter); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeadLetter reads the dead letter of a job, or ErrNotFound.
func (c *Client) DeadLetter(ctx context.Context, key Key) (DeadLetter, error) {
	if err := c.ready(); err != nil {
		return DeadLetter{}, err
	}
	if !key.Valid() {
		return DeadLetter{}, bus.BadKey(key)
	}
	msg, err := c.bus.LastMessage(ctx, c.bus.Names().Stream("DEAD"), c.bus.Names().Dead(key.Queue, key.ID))
	if err != nil {
		return DeadLetter{}, c.bus.Explain("read dead letter of job "+key.String(), err)
	}
	return letterOf(msg), nil
}

// DeadLetterAt reads the dead letter of a sequence, or ErrNotFound.
func (c *Client) DeadLetterAt(ctx context.Context, seq uint64) (DeadLetter, error) {
	if err := c.ready(); err != nil {
		return DeadLetter{}, err
	}
	msg, err := c.bus.MessageAt(ctx, c.bus.Names().Stream("DEAD"), seq)
	if err != nil {
		return DeadLetter{}, c.bus.Explain(fmt.Sprintf("read dead letter %d", seq), err)
	}
	return letterOf(msg), nil
}

// letterOf reads a dead letter. Headers that cannot be read leave their fields zero: anybody with the right may publish a
// letter.
func letterOf(msg *nats.Msg) DeadLetter {
	letter := DeadLetter{Payload: msg.Data, Reason: msg.Header.Get(jobs.HeaderReason), Result: jobs.ParseResult(msg.Header, nil)}
	// The subject is the server's, so it can be trusted although the letter cannot.
	letter.Queue, letter.ID, _ = jobs.SplitSubject(msg.Header.Get(jetstream.SubjectHeader))
	letter.Seq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	letter.StoredAt, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	return letter
}

// Replay publishes the job of a dead letter again, as replay-<sequence of the letter>, and removes the letter. If a letter of
// a deleted stream has had that id, the job runs as replay-<sequence>-<milliseconds of StoredAt>. A letter that was replayed
// before, or is gone, is refused with ErrReplayed; other errors are those of Submit.
func (c *Client) Replay(ctx context.Context, letter DeadLetter) (Ack, error) {
	if err := c.ready(); err != nil {
		return Ack{}, err
	}
	action := fmt.Sprintf("replay dead letter %d", letter.Seq)
	if !jobs.ValidQueue(letter.Queue) {
		return Ack{}, bus.BadKey(letter.Key)
	}
	msg, err := c.bus.MessageAt(ctx, c.bus.Names().Stream("DEAD"), letter.Seq)
	// The letter was replayed or purged, or the stream is a new one.
	if errors.Is(err, ErrNotFound) || err == nil && !letter.isStoredAs(msg) {
		return Ack{}, fmt.Errorf("%s: %w, or purged", action, ErrReplayed)
	}
	if err != nil {
		return Ack{}, c.bus.Explain(action, err)
	}
	key := c.replayKey(ctx, letterOf(msg))
	// A result of that id means that the replay has run already.
	if err := c.unfinished(ctx, key); err != nil {
		return Ack{}, fmt.Errorf("%s: %w", action, ErrReplayed)
	}
	// The header names the letter's job, so that its results can be traced.
	header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}, jobs.HeaderReplayOf: {letter.String()}, jobs.HeaderContract: {jobs.ContractVersion}}
	jobs.ParseTrace(msg.Header).AddTo(header)
	ack, err := c.submit(ctx, key, &nats.Msg{Subject: c.bus.Names().Job(key.Queue, key.ID), Data: letter.Payload, Header: header})
	if errors.Is(err, ErrQueued) {
		return Ack{}, fmt.Errorf("%s: %w", action, ErrReplayed)
	}
	if err != nil {
		return Ack{}, err
	}
	// Removed after the job is stored: a crash in between leaves a letter whose second replay is refused.
	return ack, c.RemoveDeadLetter(ctx, letter)
}

// isStoredAs reports whether msg is this letter. A stream that was deleted and created again has other letters under the
// same sequences.
func (l DeadLetter) isStoredAs(msg *nats.Msg) bool {
	stored := letterOf(msg)
	return stored.Key == l.Key && (l.StoredAt.IsZero() || stored.StoredAt.Equal(l.StoredAt))
}

// replayKey returns the key under which a letter is replayed. The sequence alone identifies a letter, unless the stream
// was deleted and created again. Then a job of that name is older than the letter, and the time of the letter is
// appended.
func (c *Client) replayKey(ctx context.Context, letter DeadLetter) Key {
	key := Key{Queue: letter.Queue, ID: "replay-" + strconv.FormatUint(letter.Seq, 10)}
	// Equal times cannot occur: the replayed job is stored after the letter.
	if since := c.storedSince(ctx, key); !since.IsZero() && since.Before(letter.StoredAt) {
		key.ID += "-" + strconv.FormatInt(letter.StoredAt.UnixMilli(), 10)
	}
	return key
}

// storedSince returns since when a stream has had a job of this name, or its result; zero if none has it, or none can
// be read.
func (c *Client) storedSince(ctx context.Context, key Key) (since time.Time) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	names := c.bus.Names()
	for _, look := range []struct{ stream, subject string }{
		{"RESULTS", names.Result(key.Queue, key.ID)}, {"JOBS", names.Job(key.Queue, key.ID)},
		{"RETRIES", names.ScheduledJob(key.Queue, key.ID)}, {"RETRIES", names.DueJob(key.Queue, key.ID)},
	} {
		msg, err := c.bus.LastMessage(ctx, names.Stream(look.stream), look.subject)
		if err != nil {
			// What cannot be read counts as absent: then the plain name is used, and the guard decides.
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
		if err == nil && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	return since
}

// RemoveDeadLetter removes one dead letter, and not a later one of the same job. One that is gone already is no error.
func (c *Client) RemoveDeadLetter(ctx context.Context, letter DeadLetter) error {
	if err := c.ready(); err != nil {
		return err
	}
	action, subject := fmt.Sprintf("remove dead letter %d", letter.Seq), c.bus.Names().Dead(letter.Queue, letter.ID)
	if !bus.Publishable(subject) {
		return fmt.Errorf("%s: %w", action, bus.BadKey(letter.Key))
	}
	// Removing by sequence leaves a letter that replaced this one in place.
	msg, err := c.bus.MessageAt(ctx, c.bus.Names().Stream("DEAD"), letter.Seq)
	if errors.Is(err, ErrNotFound) || err == nil && msg.Header.Get(jetstream.SubjectHeader) != subject {
		return nil // a stream that was created again counts from 1 again
	}
	if err == nil {
		_, err = c.bus.DeleteMessage(ctx, c.bus.Names().Stream("DEAD"), letter.Seq) // see bus.Client.RemoveMessage
	}
	return c.bus.Explain(action, err)
}

// PurgeDeadLetters removes all dead letters.
func (c *Client) PurgeDeadLetters(ctx context.Context) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.bus.Explain("purge dead letters", c.bus.PurgeStream(ctx, c.bus.Names().Stream("DEAD")))
}

// PurgeDeadLettersOf removes the dead letters of a queue up to and including a sequence, in one request, and returns how many
// there were. An empty queue means all.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) PurgeDeadLettersOf(ctx context.Context, queue string, upTo uint64) (count uint64, err error) {
	if err := c.ready(); err != nil {
		return 0, err
	}
	subject := c.bus.Names().AllDead()
	if queue != "" {
		if !jobs.ValidQueue(queue) {
			return 0, bus.BadKey(Key{Queue: queue})
		}
		subject = c.bus.Names().Dead(queue, ">")
	}
	count, err = c.bus.PurgeUpTo(ctx, c.bus.Names().Stream("DEAD"), subject, upTo)
	return count, c.bus.Explain("purge dead letters", err)
}
