package client

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// ListFilter selects the jobs that List lists. The zero value selects all that have not ended.
type ListFilter struct {
	// Queue narrows to one queue and State to one of jobs.States; empty means all.
	Queue string
	State string
	// Site narrows to the jobs of a site, such as "example.com" or "example.com:8443", which jobs.SiteNames reads; empty means all.
	// List then reads every job.
	Site string
	// URL narrows to the jobs of a URL, which is compared as jobs.ParseURL reads it; empty means all. List then reads every job.
	URL string
	// Since leaves out jobs that entered their state before that time; zero leaves out none.
	Since time.Time
}

// Listed is a job that has not ended.
type Listed struct {
	Key
	State string `json:"state"`
	// Site is that of the job's URL; empty if the job is invalid.
	Site string `json:"site"`
	// Since is when the job was published, or began to wait. A job whose next try was in vain waits on since its first.
	Since time.Time `json:"since"`
	// Until is when a waiting job is tried again; zero in other states, and for a job that waits for its site.
	Until time.Time `json:"until,omitzero"`

	stored time.Time // when its message was stored, in whose order jobs are listed
}

// List calls use for each job that has not ended and fits the filter, the oldest first. It stops at an error of use and
// returns that error. It reads the streams page by page: a job that moves meanwhile may come twice, or not at all.
//
// Errors: ErrNotSetUp, ErrPermission, ctx's cause; any other one may pass.
func (c *Client) List(ctx context.Context, f ListFilter, use func(Listed) error) error {
	if err := c.ready(); err != nil {
		return err
	}
	if use == nil {
		return errNoUse
	}
	l, err := c.newLister(f)
	if err != nil {
		return err
	}
	return l.list(ctx, use)
}

// newLister reads the filter.
func (c *Client) newLister(f ListFilter) (l lister, err error) {
	l = lister{c: c, filter: f, delivered: map[string]uint64{}}
	if f.Queue != "" && !jobs.ValidQueue(f.Queue) {
		return l, bus.BadKey(Key{Queue: f.Queue})
	}
	if f.Site != "" {
		if l.sites, err = jobs.SiteNames(f.Site); err != nil {
			return l, fmt.Errorf("site %q: %w", bus.Clip(f.Site), err)
		}
	}
	if f.URL != "" {
		url, err := jobs.ParseURL(f.URL)
		if err != nil {
			return l, err
		}
		l.filter.URL = url.String()
	}
	return l, nil
}

// list calls use for each job.
func (l *lister) list(ctx context.Context, use func(Listed) error) error {
	for job, err := range l.oldestFirst(ctx) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = use(job)
		} else {
			err = l.c.bus.Explain("list jobs", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listPage is how many messages are read at once first: enough that a page costs more than its request. Each page makes the
// server walk through all subjects, so pages of a list that goes on grow up to bus.WaitingPageSize.
const listPage = 1000

// lister is one call of List. One goroutine uses it.
type lister struct {
	c      *Client
	filter ListFilter
	sites  []string // what filter.Site stands for
	// delivered is, by the name of a consumer, the sequence up to which it has delivered its messages. It is asked for
	// once. A job that is delivered while the list is made may be shown as queued.
	delivered map[string]uint64
	looked    uint64 // how many messages it has read
}

// reads reports whether jobs that fit the filter may be in a stream, and under which subject. No job that waits is in the stream
// of new jobs. In the other stream the jobs of a queue have several subjects, and all are read.
func (l *lister) reads(kind string) (subject string, may bool) {
	switch state := l.filter.State; {
	case kind != "JOBS":
		return ">", true
	case state != "" && state != jobs.StateQueued && state != jobs.StateRunning:
		return "", false
	case l.filter.Queue != "":
		return l.c.bus.Names().Jobs(l.filter.Queue), true
	}
	return ">", true
}

// oldestFirst merges the jobs of both streams by time; each stream is in the order of storing already. It ends after an
// error.
func (l *lister) oldestFirst(ctx context.Context) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		// Pull2 turns the first stream into a function, so that the two can be merged.
		next, stop := iter.Pull2(l.in(ctx, "JOBS"))
		defer stop()
		fresh, err, more := next()
		for waiting, waitingErr := range l.in(ctx, "RETRIES") {
			for more && err == nil && waitingErr == nil && fresh.stored.Before(waiting.stored) {
				if !yield(fresh, nil) {
					return
				}
				fresh, err, more = next()
			}
			if !yield(waiting, waitingErr) {
				return
			}
		}
		for more && yield(fresh, err) {
			fresh, err, more = next()
		}
	}
}

// in returns the jobs of a stream that fit the filter, in the order of storing. It ends after an error.
func (l *lister) in(ctx context.Context, kind string) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		subject, may := l.reads(kind)
		if !may {
			return
		}
		// Since lets the server skip what is older. It applies to the first page only, and the sequence after
		// that.
		page := bus.Page{Stream: l.c.bus.Names().Stream(kind), Subject: subject, Since: l.filter.Since, Limit: listPage}
		for more := true; more; {
			var listed []Listed
			var err error
			page.After, more, err = l.c.bus.ReadPage(ctx, page, func(msg *nats.Msg) error {
				l.looked++
				job, fits, err := l.read(ctx, msg)
				if fits {
					listed = append(listed, job)
				}
				return err
			})
			page.Limit = min(2*page.Limit, bus.WaitingPageSize)
			// Yielded after the page is read: a consumer may break off in the middle.
			for _, job := range listed {
				if !yield(job, nil) {
					return
				}
			}
			if err != nil {
				yield(Listed{}, err)
				return
			}
		}
	}
}

// read makes a job of its message, and reports whether the job fits the filter. A message that is no job fits no filter.
func (l *lister) read(ctx context.Context, msg *nats.Msg) (job Listed, fits bool, err error) {
	subject := msg.Header.Get(jetstream.SubjectHeader)
	site, queue, id, ok := jobs.SplitWaiting(subject)
	if !ok || l.filter.Queue != "" && queue != l.filter.Queue {
		return Listed{}, false, nil
	}
	job = Listed{Key: Key{Queue: queue, ID: id}}
	job.stored, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets it
	if job.State, job.Since, err = l.state(ctx, msg, job.Key, subject); err != nil {
		return Listed{}, false, err
	}
	if job.Since.IsZero() {
		job.Since = job.stored
	}
	// State and time are compared before the payload is decoded, which costs the most.
	if l.filter.State != "" && job.State != l.filter.State || job.Since.Before(l.filter.Since) {
		return Listed{}, false, nil
	}
	if site == "" { // otherwise a worker releases the job, long before its time
		job.Until, _ = bus.ScheduledAt(msg.Header)
	}
	url := ""
	if decoded, err := jobs.Decode(queue, id, msg.Data); err == nil {
		target := decoded.Target()
		job.Site, url = target.Site(), target.String()
	}
	fits = (l.filter.Site == "" || slices.Contains(l.sites, job.Site)) && (l.filter.URL == "" || url == l.filter.URL)
	return job, fits, nil
}

// state names the state of a job by where its message is, and by the progress that it carries. since is zero if the message
// was stored when the state began.
func (l *lister) state(ctx context.Context, msg *nats.Msg, key Key, subject string) (state string, since time.Time, err error) {
	names := l.c.bus.Names()
	switch subject {
	case names.Job(key.Queue, key.ID):
		state, err = l.taken(ctx, msg, names.Stream("JOBS"), names.WorkerConsumer(key.Queue))
	case names.DueJob(key.Queue, key.ID):
		state, err = l.taken(ctx, msg, names.Stream("RETRIES"), names.DueConsumer(key.Queue))
	default:
		// Everything else waits: for its time, or for a site.
		state, since, _ = jobs.StateOfWait(msg.Header.Get(jobs.HeaderProgress))
	}
	return state, since, err
}

// taken distinguishes running jobs from queued ones: a consumer delivers in order, so it has delivered all messages up
// to a sequence. A job that was handed back and waits for its next delivery counts as running.
func (l *lister) taken(ctx context.Context, msg *nats.Msg, stream, consumer string) (string, error) {
	upTo, asked := l.delivered[consumer]
	if !asked {
		var err error
		// One request for each consumer, not for each job.
		if upTo, err = l.c.bus.DeliveredUpTo(ctx, stream, consumer); err != nil {
			return "", err
		}
		l.delivered[consumer] = upTo
	}
	seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return "", fmt.Errorf("a message of %s has no sequence: %w", stream, err)
	}
	if seq <= upTo {
		return jobs.StateRunning, nil
	}
	return jobs.StateQueued, nil
}

// StateOf returns a job that has not ended as List does. Errors: ErrNotFound for a job that has ended or is unknown.
func (c *Client) StateOf(ctx context.Context, key Key) (Listed, error) {
	if err := c.ready(); err != nil {
		return Listed{}, err
	}
	if !key.Valid() {
		return Listed{}, bus.BadKey(key)
	}
	action := "look for job " + bus.Clip(key.String())
	msg, err := c.whereverItIs(ctx, key)
	if err != nil {
		return Listed{}, c.bus.Explain(action, err)
	}
	l := lister{c: c, delivered: map[string]uint64{}}
	job, _, err := l.read(ctx, msg)
	return job, c.bus.Explain(action, err)
}
