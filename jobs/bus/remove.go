package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// takes is how often a message is looked up that another one may replace meanwhile.
const takes = 4

// RemoveScheduled removes a job that waits for its time or for a site, and a due job. A job that is not found is no
// error.
func (c *Client) RemoveScheduled(ctx context.Context, queue, id string) error {
	return c.Explain("take job "+queue+"/"+Clip(id)+" out of the waiting", c.Unschedule(ctx, queue, id, nil))
}

// Unschedule removes a job wherever it waits. It purges the subject of a job that waits for its time, which no consumer reads.
// It deletes a job that waits for a site, or that is due, by its sequence. found may be the job's message, as for RemoveMessage.
func (c *Client) Unschedule(ctx context.Context, queue, id string, found *nats.Msg) error {
	// The job is removed in the order in which it moves through the streams, so it cannot be missed.
	if err := c.purge(ctx, c.names.Stream("RETRIES"), c.names.ScheduledJob(queue, id)); err != nil {
		return err
	}
	if err := c.leaveSite(ctx, queue, id); err != nil {
		return err
	}
	return c.RemoveMessage(ctx, c.names.Stream("RETRIES"), c.names.DueJob(queue, id), found)
}

// leaveSite removes a job that waits for a site. The id may be that of an invalid job, which never waits.
func (c *Client) leaveSite(ctx context.Context, queue, id string) error {
	if !(Key{queue, id}).Valid() {
		return nil
	}
	for range takes {
		job, found, err := c.SiteWait(ctx, Key{queue, id}, 0)
		if err != nil || !found {
			return err
		}
		// Another worker may have scheduled the job again meanwhile, so it is looked for once more.
		if _, err := c.DeleteMessage(ctx, c.names.Stream("RETRIES"), job.Seq); err != nil {
			return err
		}
	}
	return nil
}

// RemoveMessage removes the message of a subject that a consumer reads; found may be the message. It deletes by sequence: when a
// message in hand is purged by its subject, nats-server (2.15.3) moves the ack floor of the consumer past every older message
// that is not acked yet (nats-io/nats-server#5727). These are not delivered again, and the next leader of a work queue removes
// them.
func (c *Client) RemoveMessage(ctx context.Context, stream, subject string, found *nats.Msg) (err error) {
	if !Publishable(subject) {
		return fmt.Errorf("%q is not one subject", Clip(subject))
	}
	for range takes {
		// found saves the first look-up.
		if found == nil || found.Header.Get(jetstream.SubjectHeader) != subject {
			found, err = c.direct(ctx, stream, map[string]any{"last_by_subj": subject})
		}
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		seq, err := sequenceOf(found)
		if err != nil {
			return fmt.Errorf("read the sequence of %q: %w", Clip(subject), err)
		}
		if deleted, err := c.DeleteMessage(ctx, stream, seq); deleted || err != nil {
			return err
		}
		found = nil // the message was gone: another one may have replaced it
	}
	return nil
}

// purge removes the messages of one subject. The subject must be a literal one: an empty one would empty the
// stream. The check stands before everything else: a wildcard would remove other jobs.
func (c *Client) purge(ctx context.Context, stream, subject string) error {
	if !Publishable(subject) {
		return fmt.Errorf("%q is not one subject", Clip(subject))
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error {
		return s.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}, api+"STREAM.PURGE."+stream)
}

// PurgeUpTo removes the messages of a stream under a filter up to and including a sequence, and returns how many there were. It
// is for streams without consumers that count acks: see RemoveMessage.
func (c *Client) PurgeUpTo(ctx context.Context, stream, filter string, upTo uint64) (purged uint64, err error) {
	request, err := json.Marshal(map[string]any{"filter": filter, "seq": upTo + 1}) // the server keeps the message of seq
	if err != nil {
		return 0, err
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	msg, err := c.request(ctx, &nats.Msg{Subject: api + "STREAM.PURGE." + stream, Data: request})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Purged uint64              `json:"purged"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return 0, err
	}
	if answer.Error != nil {
		return 0, answer.Error
	}
	return answer.Purged, nil
}
