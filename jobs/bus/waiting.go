package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// WaitingPageSize is the largest page of waiting jobs. For each page the server counts what follows, which takes 35 ms
	// among a million jobs, so large pages cost less. Meanwhile it reads nothing else from the connection that asked; see
	// ReadWaiting.
	WaitingPageSize = 16_384
	// pageBytes keeps a page in memory far below the 64 MiB at which nats.go drops messages.
	pageBytes = 8 << 20
)

// WaitingJob is a job that waits for its time, or for a site.
type WaitingJob struct {
	Key
	// Site is the jobs.SiteKey of the site that it waits for, empty if it waits for its time only.
	Site string
	// Seq is the sequence of its message. A job that is scheduled again gets another one.
	Seq uint64
	// Until is its time. If the time cannot be read, Until is when the message was stored.
	Until time.Time

	msg *nats.Msg
}

// HeaderSite names the site that a job waits for. Only workers write it.
const HeaderSite = "Gofer-Site"

// Message is the job's message as it was read.
func (j WaitingJob) Message() *nats.Msg { return j.msg }

// Subject is the subject of its message.
func (j WaitingJob) Subject() string { return j.msg.Header.Get(jetstream.SubjectHeader) }

// WaitingJobOf reads a waiting job from the answer to a request for its message.
func WaitingJobOf(msg *nats.Msg) (WaitingJob, error) {
	seq, err := sequenceOf(msg)
	if err != nil {
		return WaitingJob{}, err
	}
	site, queue, id, ok := jobs.SplitWaiting(msg.Header.Get(jetstream.SubjectHeader))
	if !ok {
		return WaitingJob{}, fmt.Errorf("%q is not the subject of a waiting job", Clip(msg.Header.Get(jetstream.SubjectHeader)))
	}
	until, ok := ScheduledAt(msg.Header)
	if !ok {
		until, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets it
	}
	return WaitingJob{Key: Key{queue, id}, Site: site, Seq: seq, Until: until, msg: msg}, nil
}

// WaitingState describes all waiting jobs together.
type WaitingState struct {
	// Now is the time by the clock of the stream's leader, which releases the jobs.
	Now time.Time
	// LastSeq is the stream's last sequence. At most Messages jobs wait.
	LastSeq, Messages uint64
	// Epoch is another text after a change of the stream, its leader or the connection: then earlier sequences may name
	// other messages, or the server may have lost some.
	Epoch string
}

// WaitingState asks for the state of the waiting jobs. Its cost does not depend on their number.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) WaitingState(ctx context.Context) (WaitingState, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	connection := c.nc.Stats().Reconnects
	info, err := c.StreamInfo(ctx, c.names.Stream("RETRIES"))
	if err != nil {
		return WaitingState{}, c.Explain("look for waiting jobs", err)
	}
	leader := ""
	if info.Cluster != nil {
		leader = info.Cluster.Leader
	}
	return WaitingState{
		Now: info.TimeStamp, LastSeq: info.State.LastSeq, Messages: info.State.Msgs,
		Epoch: fmt.Sprint(info.Created.UnixNano(), " ", leader, " ", info.Config.Replicas, " ", connection),
	}, nil
}

// Overdue calls use for each waiting job that the server has not released although grace has passed since its time, by the
// server's clock at the call. It reads every waiting job, which takes 20 s for a million.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) Overdue(ctx context.Context, grace time.Duration, use func(WaitingJob)) error {
	state, err := c.WaitingState(ctx)
	if err != nil {
		return err
	}
	limit := state.Now.Add(-grace)
	for after, more := uint64(0), true; more && after < state.LastSeq; {
		after, more, err = c.WaitingPage(ctx, after, WaitingPageSize, func(job WaitingJob) {
			if job.Until.Before(limit) {
				use(job)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// OverdueAfter is how long after its time a waiting job counts as overdue. A server that keeps its timers releases a job less
// than a second after its time.
const OverdueAfter = 5 * time.Second

// WaitingPage calls use for at most limit of the waiting jobs that follow the sequence after, in order: as many as fit into one
// answer of the server. It returns the sequence after which the next page begins, and whether there is one.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) WaitingPage(ctx context.Context, after uint64, limit int, use func(WaitingJob)) (last uint64, more bool, err error) {
	page := Page{Stream: c.names.Stream("RETRIES"), Subject: c.names.AllScheduledJobs(), After: after, Limit: limit}
	last, more, err = c.ReadPage(ctx, page, func(msg *nats.Msg) error {
		if job, ok := c.waitingJob(msg); ok {
			use(job)
		}
		return nil
	})
	return last, more, c.Explain("read waiting jobs", err)
}

// NextWaiting returns the first waiting job that follows the sequence after. It costs less than a page if many jobs wait
// and few of them follow.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) NextWaiting(ctx context.Context, after uint64) (job WaitingJob, found bool, err error) {
	return c.nextWaiting(ctx, c.names.AllScheduledJobs(), after)
}

// NextSiteWait returns the first job that waits for a site and follows the sequence after. key is the jobs.SiteKey of the
// site. A replica that is behind its leader may return a job that is gone.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) NextSiteWait(ctx context.Context, key string, after uint64) (job WaitingJob, found bool, err error) {
	if !jobs.ValidSiteKey(key) {
		return WaitingJob{}, false, fmt.Errorf("%q is not the key of a site", Clip(key))
	}
	if after > 0 {
		// Mostly it is the next message. Among 100,000 subjects the server takes milliseconds to find the first
		// message of a filter.
		if msg, err := c.MessageAt(ctx, c.names.Stream("RETRIES"), after+1); err == nil {
			if job, ok := c.waitingJob(msg); ok && job.Site == key {
				return job, true, nil
			}
		}
	}
	return c.nextWaiting(ctx, c.names.AllSiteWaits(key), after)
}

// NextSiteWaitOfQueue is NextSiteWait for the jobs of one queue.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) NextSiteWaitOfQueue(ctx context.Context, key, queue string, after uint64) (job WaitingJob, found bool, err error) {
	if !jobs.ValidSiteKey(key) || !jobs.ValidQueue(queue) {
		return WaitingJob{}, false, fmt.Errorf("%q is not the key of a site, or %q not a queue", Clip(key), Clip(queue))
	}
	return c.nextWaiting(ctx, c.names.SiteWait(key, queue, "*"), after)
}

// SiteWait returns a job if it waits for a site and its message follows the sequence after.
//
// Errors: ErrNotSetUp, ErrPermission; any other one may pass.
func (c *Client) SiteWait(ctx context.Context, key Key, after uint64) (job WaitingJob, found bool, err error) {
	if !key.Valid() {
		return WaitingJob{}, false, BadKey(key)
	}
	return c.nextWaiting(ctx, c.names.SiteWait("*", key.Queue, key.ID), after)
}

// nextWaiting returns the first waiting job under filter that follows the sequence after.
func (c *Client) nextWaiting(ctx context.Context, filter string, after uint64) (job WaitingJob, found bool, err error) {
	for {
		msg, err := c.NextMessage(ctx, c.names.Stream("RETRIES"), filter, after+1)
		if errors.Is(err, ErrNotFound) {
			return WaitingJob{}, false, nil
		}
		if err == nil {
			after, err = sequenceOf(msg)
		}
		if err != nil {
			return WaitingJob{}, false, c.Explain("read waiting jobs", err)
		}
		if job, ok := c.waitingJob(msg); ok {
			return job, true, nil
		}
	}
}

// waitingJob reads a waiting job from its message, and reports whether the message is one.
func (c *Client) waitingJob(msg *nats.Msg) (WaitingJob, bool) {
	if !strings.HasPrefix(msg.Header.Get(jetstream.SubjectHeader), strings.TrimSuffix(c.names.AllScheduledJobs(), ">")) {
		return WaitingJob{}, false
	}
	job, err := WaitingJobOf(msg)
	return job, err == nil
}

// Schedule makes the server move a message to the subject target at a time. nats.go's own option cuts the time to whole
// seconds, so that the server would release the message up to a second early.
func Schedule(msg *nats.Msg, target string, at time.Time) {
	msg.Header.Set(jetstream.ScheduleHeader, scheduleAt+at.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(jetstream.ScheduleTargetHeader, target)
}

const scheduleAt = "@at "

// ScheduledAt returns the time at which the server is to release a message.
func ScheduledAt(h nats.Header) (at time.Time, ok bool) {
	text, ok := strings.CutPrefix(h.Get(jetstream.ScheduleHeader), scheduleAt)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return at, err == nil
}
