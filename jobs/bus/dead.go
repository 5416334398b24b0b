package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
)

// Letter is a dead letter: a job that failed, as it was published.
type Letter struct {
	Key
	// Seq is the letter's sequence; a replay is named after it.
	Seq      uint64    `json:"seq"`
	StoredAt time.Time `json:"stored_at"`
	Reason   string    `json:"reason"`
	Payload  []byte    `json:"-"`
	// Result holds the facts of the failure, without attempts.
	Result jobs.Result `json:"-"`
}

// Dead calls use for each dead letter, the oldest first, until use returns an error, which comes back.
func (c *Client) Dead(ctx context.Context, use func(Letter) error) error {
	for seq := uint64(1); ; {
		msg, err := c.next(ctx, c.names.Stream("DEAD"), c.names.AllDead(), seq)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return c.explain("list dead letters", err)
		}
		letter := letterOf(msg)
		if err := use(letter); err != nil {
			return err
		}
		seq = letter.Seq + 1
	}
}

// DeadOf reads the dead letter of a job, or ErrNotFound.
func (c *Client) DeadOf(ctx context.Context, key Key) (Letter, error) {
	if !key.valid() {
		return Letter{}, badKey(key)
	}
	msg, err := c.last(ctx, c.names.Stream("DEAD"), c.names.Dead(key.Queue, key.ID))
	if err != nil {
		return Letter{}, c.explain("read dead letter of job "+key.String(), err)
	}
	return letterOf(msg), nil
}

func letterOf(msg *nats.Msg) Letter {
	letter := Letter{Payload: msg.Data, Reason: msg.Header.Get(jobs.HeaderReason), Result: jobs.ParseResult(msg.Header, nil)}
	letter.Queue, letter.ID, _ = jobs.SplitSubject(msg.Header.Get(jetstream.SubjectHeader))
	letter.Seq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	letter.StoredAt, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer))
	return letter
}

// Replay publishes the job of a dead letter again, as replay-<sequence of the letter>, and removes the letter. A letter
// that was replayed before, or is gone, is refused with ErrReplayed; other errors are those of Submit.
func (c *Client) Replay(ctx context.Context, letter Letter) (Ack, error) {
	doing := fmt.Sprintf("replay dead letter %d", letter.Seq)
	if !jobs.ValidQueue(letter.Queue) {
		return Ack{}, badKey(letter.Key)
	}
	_, err := c.direct(ctx, c.names.Stream("DEAD"), map[string]any{"seq": letter.Seq})
	if errors.Is(err, ErrNotFound) {
		return Ack{}, fmt.Errorf("%s: %w, or purged", doing, ErrReplayed)
	}
	if err != nil {
		return Ack{}, c.explain(doing, err)
	}
	key := Key{letter.Queue, "replay-" + strconv.FormatUint(letter.Seq, 10)}
	if err := c.unfinished(ctx, key); err != nil {
		return Ack{}, fmt.Errorf("%s: %w", doing, ErrReplayed)
	}
	ack, err := c.submit(ctx, key, &nats.Msg{Subject: c.names.Job(key.Queue, key.ID), Data: letter.Payload, Header: nats.Header{
		jetstream.MsgIDHeader: {nuid.Next()}, jobs.HeaderReplayOf: {letter.String()},
	}})
	if errors.Is(err, ErrQueued) {
		return Ack{}, fmt.Errorf("%s: %w", doing, ErrReplayed)
	}
	if err != nil {
		return Ack{}, err
	}
	return ack, c.DropDead(ctx, letter)
}

// DropDead removes one dead letter, and not a later one of the same job. One that is gone already is no error.
func (c *Client) DropDead(ctx context.Context, letter Letter) error {
	doing, subject := fmt.Sprintf("remove dead letter %d", letter.Seq), c.names.Dead(letter.Queue, letter.ID)
	if !publishable(subject) {
		return fmt.Errorf("%s: %w", doing, badKey(letter.Key))
	}
	msg, err := c.direct(ctx, c.names.Stream("DEAD"), map[string]any{"seq": letter.Seq})
	if errors.Is(err, ErrNotFound) || err == nil && msg.Header.Get(jetstream.SubjectHeader) != subject {
		return nil // a stream that was created again counts from 1 again
	}
	if err == nil {
		_, err = c.deleteMessage(ctx, c.names.Stream("DEAD"), letter.Seq) // see takeOut
	}
	return c.explain(doing, err)
}

// PurgeDead removes all dead letters.
func (c *Client) PurgeDead(ctx context.Context) error {
	name := c.names.Stream("DEAD")
	stream, err := c.js.Stream(ctx, name)
	if err == nil {
		err = c.refusals.watch(ctx, func(ctx context.Context) error { return stream.Purge(ctx) }, api+"STREAM.PURGE."+name)
	}
	return c.explain("purge dead letters", err)
}
