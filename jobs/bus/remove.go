package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxLookups bounds the look-ups of a message that other messages may replace meanwhile.
const maxLookups = 4

// RemoveScheduled removes a job that waits for its time or for a site, and a due job. A job that is not found is no
// error.
func (c *Client) RemoveScheduled(ctx context.Context, queue, id string) error {
	return c.Explain("take job "+queue+"/"+Clip(id)+" out of the waiting", c.Unschedule(ctx, queue, id, nil))
}

// Unschedule removes a job wherever it waits. It purges the subject of a job that waits for its time, which no consumer reads.
// It deletes a job that waits for a site, or that is due, by its sequence. found may be the job's message, as for RemoveMessage.
func (c *Client) Unschedule(ctx context.Context, queue, id string, found *nats.Msg) error {
	// This is the order in which a job moves, so a job that moves meanwhile is not missed.
	if err := c.purge(ctx, c.names.Stream("RETRIES"), c.names.ScheduledJob(queue, id)); err != nil {
		return err
	}
	if err := c.removeSiteWait(ctx, queue, id); err != nil {
		return err
	}
	return c.RemoveMessage(ctx, c.names.Stream("RETRIES"), c.names.DueJob(queue, id), found)
}

// removeSiteWait removes a job that waits for a site. The id may be that of an invalid job, which never waits.
func (c *Client) removeSiteWait(ctx context.Context, queue, id string) error {
	if !(Key{queue, id}).Valid() {
		return nil
	}
	for range maxLookups {
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
	for range maxLookups {
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

// purge removes the messages of one subject. An empty subject would empty the stream, and a wildcard would remove other jobs.
func (c *Client) purge(ctx context.Context, stream, subject string) error {
	if !Publishable(subject) {
		return fmt.Errorf("%q is not one subject", Clip(subject))
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	return c.purgeWith(ctx, stream, jetstream.WithPurgeSubject(subject))
}

// purgeWith removes the messages of a stream that the options select; without options, all of them.
func (c *Client) purgeWith(ctx context.Context, name string, opts ...jetstream.StreamPurgeOpt) error {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	return c.refusals.watch(ctx, func(ctx context.Context) error { return stream.Purge(ctx, opts...) }, api+"STREAM.PURGE."+name)
}

// PurgeUpTo removes the messages of a stream under a filter up to and including a sequence, and returns how many there were. It
// is for streams without consumers that count acks: see RemoveMessage.
func (c *Client) PurgeUpTo(ctx context.Context, stream, filter string, upTo uint64) (purged uint64, err error) {
	var answer struct {
		apiAnswer
		Purged uint64 `json:"purged"`
	}
	request := map[string]any{"filter": filter, "seq": upTo + 1} // the server keeps the message of seq
	err = c.askAPI(ctx, "STREAM.PURGE."+stream, request, &answer)
	return answer.Purged, err
}
