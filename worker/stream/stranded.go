package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// StrandedJob is a job that is in the job stream although its consumer counts it as acked, so that nobody gets it.
//
// A server that is killed while its disk is full may keep the ack of a job and lose the removal of the job, and the result that
// it had confirmed before. If somebody purges a running job by its subject, the server counts all older ones as acked.
type StrandedJob struct {
	bus.Key
	Seq    uint64
	data   []byte      // empty if it cannot be read
	header nats.Header // nil if it cannot be read
	// unread is why the job cannot be read, and so not released; its id is unreadID then.
	unread error
}

// unreadID stands for the id of a job that cannot be read; no job has it.
const unreadID = "(unread)"

// Stranded lists the oldest jobs of a queue at or below the ack floor of its consumer, at most limit. A job that was acked
// a moment ago may be among them: only one that is listed again some seconds later is stranded. A queue without a consumer
// has none. Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Stranded(ctx context.Context, queue string, limit int) (out []StrandedJob, err error) {
	action := "look for stranded jobs of queue " + queue
	asking, cancel := bus.Bounded(ctx)
	defer cancel()
	info, err := c.ConsumerInfo(asking, c.Names().Stream("JOBS"), c.Names().WorkerConsumer(queue))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, c.Explain(action, err)
	}
	for seq := uint64(1); len(out) < limit; seq++ {
		job, found, err := c.nextStranded(ctx, queue, seq, info.AckFloor.Stream)
		if err != nil || !found {
			return out, c.Explain(action, err)
		}
		if seq = job.Seq; job.ID != "" {
			out = append(out, job)
		}
	}
	return out, nil
}

// nextStranded finds the first job of a queue from a sequence to the ack floor. Its id is empty if the job is gone by now.
func (c *Client) nextStranded(ctx context.Context, queue string, from, floor uint64) (job StrandedJob, found bool, err error) {
	// Mostly this is the only request: the consumer still delivers the oldest job of the queue.
	stream := c.Names().Stream("JOBS")
	seq, err := c.NextSeq(ctx, stream, c.Names().Jobs(queue), from)
	if errors.Is(err, bus.ErrNotFound) || err == nil && seq > floor {
		return job, false, nil
	}
	if err != nil {
		return job, false, err
	}
	// StoredAt also reads a job with malformed headers, which its consumer delivers as well.
	stored, err := c.StoredAt(ctx, stream, seq)
	err = c.Explain("read a stranded job", err)
	switch {
	case errors.Is(err, bus.ErrPermission): // it must not hide the others
		return StrandedJob{Key: bus.Key{Queue: queue, ID: unreadID}, Seq: seq, unread: err}, true, nil
	case err != nil && !errors.Is(err, bus.ErrNotFound):
		return job, false, err
	}
	_, id, _ := jobs.SplitSubject(stored.Subject)
	return StrandedJob{Key: bus.Key{Queue: queue, ID: id}, Seq: seq, data: stored.Data, header: stored.Header}, true, nil
}

// ReleaseStranded makes a stranded job a due one and then removes it from the job stream. After a crash in between it is
// listed again; the guard on results keeps a second run from storing a second result.
func (c *Client) ReleaseStranded(ctx context.Context, job StrandedJob) error {
	action := "release stranded job " + job.Queue + "/" + bus.Clip(job.ID)
	if job.unread != nil {
		return job.unread
	}
	progress := jobs.Progress{JobSeq: job.Seq, Trace: jobs.ParseTrace(job.header), Contract: job.header.Get(jobs.HeaderContract)}
	encoded, err := progress.Encode()
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	due := &nats.Msg{Subject: c.Names().DueJob(job.Queue, job.ID), Data: job.data, Header: nats.Header{jobs.HeaderProgress: {encoded}}}
	addFacts(due.Header, &progress)
	if !bus.Publishable(due.Subject) {
		return fmt.Errorf("%s: %w", action, bus.ErrNoSubject)
	}
	ctx, cancel := bus.Bounded(ctx)
	defer cancel()
	if err := c.PublishOnce(ctx, due); err != nil && !bus.IsTaken(err) {
		return c.Explain(action, err)
	}
	_, err = c.DeleteMessage(ctx, c.Names().Stream("JOBS"), job.Seq)
	return c.Explain(action, err)
}
