package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// The values of Moment.What.
const (
	MomentQueued    = "queued"
	MomentAttempt   = "attempt"
	MomentWait      = "wait" // for its next attempt, or for its time
	MomentDue       = "due"  // its time has come
	MomentDuplicate = "duplicate"
	MomentEnded     = "ended"
)

// KindSite is the Kind of a wait for a site.
const KindSite = "site"

// Moment is one event in a job's story. What decides which fields are set.
type Moment struct {
	// At is when an attempt began if that is known, else when it ended.
	At   time.Time `json:"at"`
	What string    `json:"what"`

	Attempt int `json:"attempt,omitempty"`
	// MaxAttempts is set where the announcement of a retry named it.
	MaxAttempts int           `json:"max_attempts,omitempty"`
	Proxy       string        `json:"proxy,omitempty"`
	Status      int           `json:"status,omitempty"`
	Fault       jobs.Fault    `json:"fault,omitempty"`
	Error       string        `json:"error,omitempty"`
	Duration    jobs.Duration `json:"duration,omitempty"`

	// Until is when a wait ends, if that is known; Kind is jobs.RetryInline, jobs.RetryScheduled or KindSite.
	Until time.Time `json:"until,omitzero"`
	Kind  string    `json:"kind,omitempty"`
	// Site is what the job waits for if Kind is KindSite.
	Site string `json:"site,omitempty"`
	// Overdue is when a wait ended although the job still waits: the server has not released it.
	Overdue time.Time `json:"overdue_since,omitzero"`
	Worker  string    `json:"worker,omitempty"`
	// Source names where this is known from, if not from the streams.
	Source string `json:"source,omitempty"`
}

// Story is what the streams still hold about a job, in the order of time.
type Story struct {
	Key
	// Places are where the job is now; a job that is nowhere has none.
	Places  []Place  `json:"places"`
	Moments []Moment `json:"story"`
	// Result is nil before the job has ended, and once its result is no longer kept.
	Result *jobs.Result `json:"-"`
	// DeadLetter is the sequence of its dead letter; zero if there is none.
	DeadLetter uint64 `json:"dead_letter,omitempty"`
	// Waiting is what the job waits for, according to its message; nil for a job that does not wait.
	Waiting *Wait `json:"waiting,omitempty"`
	// Unread says which parts could not be read, and why, such as what this user may not read.
	Unread []error `json:"-"`

	attempts []jobs.Attempt // those that are known in full
	retries  []jobs.RetryEvent
}

// Story gathers what is known about a job. What cannot be read is left out and named in Unread. Errors: ErrNotFound if nothing is
// known; those of Find.
func (c *Client) Story(ctx context.Context, key Key) (*Story, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if !key.Valid() { // Find would take a key without a queue for any queue
		return nil, bus.BadKey(key)
	}
	found, err := c.Find(ctx, key)
	if err != nil {
		return nil, err
	}
	t := &Story{Key: key, Places: []Place{}, Moments: []Moment{}}
	for _, f := range found {
		t.Places = append(t.Places, f.Place)
	}
	for _, part := range []struct {
		what string
		read func(context.Context, *Client) error
	}{{"result", t.readResult}, {"stored copy", t.readStored}, {"story in the events", t.readEvents}, {"dead letter", t.readLetter}} {
		// Each part is read by itself, because a user may be allowed some and not others.
		err := part.read(ctx, c)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Unread = append(t.Unread, fmt.Errorf("the job's %s cannot be read: %w", part.what, err))
		}
	}
	t.addAttempts()
	// Nothing was found: the id is misspelt, or everything has expired.
	if len(t.Places) == 0 && len(t.Moments) == 0 && t.DeadLetter == 0 {
		return nil, fmt.Errorf("job %s: %w", key, ErrNotFound)
	}
	t.addQueued()
	// The sort is stable, so moments of the same time keep the order in which they were found.
	slices.SortStableFunc(t.Moments, earlier)
	return t, nil
}

// earlier orders moments by time. The end of a job comes after what happened at the same time.
func earlier(a, b Moment) int {
	ended := func(m Moment) int {
		if m.What == MomentEnded {
			return 1
		}
		return 0
	}
	// Times are rounded by JSON, so a job may end at the very time of its last attempt.
	return cmp.Or(a.At.Compare(b.At), ended(a)-ended(b))
}

// readResult adds the result, and the attempts that it lists.
func (t *Story) readResult(ctx context.Context, c *Client) error {
	r, err := c.Result(ctx, t.Key)
	if err != nil {
		return err
	}
	t.Result = &r
	t.attempts = append(t.attempts, r.Attempts...)
	t.add(Moment{At: r.FinishedAt, What: MomentEnded, Proxy: r.Proxy, Status: r.Status, Error: r.Error, Duration: jobs.Duration(r.Duration), Worker: r.Worker})
	return nil
}

// readStored reads the message of the job itself, wherever it waits. A job that moves on meanwhile is found in its next
// place, or left out.
func (t *Story) readStored(ctx context.Context, c *Client) error {
	n := c.bus.Names()
	for _, at := range []struct {
		place                 Place
		stream, subject, what string
	}{
		{Queued, n.Stream("JOBS"), n.Job(t.Queue, t.ID), MomentQueued},
		{Waiting, n.Stream("RETRIES"), n.ScheduledJob(t.Queue, t.ID), MomentWait},
		{Due, n.Stream("RETRIES"), n.DueJob(t.Queue, t.ID), MomentDue},
	} {
		// Find returned where the job is, so only these places are read.
		if !slices.Contains(t.Places, at.place) {
			continue
		}
		msg, err := c.bus.LastMessage(ctx, at.stream, at.subject)
		if errors.Is(err, ErrNotFound) {
			if at.place == Waiting {
				if err := t.readSiteWait(ctx, c); err != nil {
					return err
				}
			}
			continue // the job has moved on meanwhile
		}
		if err != nil {
			return c.bus.Explain("read stream "+at.stream, err)
		}
		t.addStored(at.what, msg)
	}
	return nil
}

// readSiteWait reads the job if it waits for its site.
func (t *Story) readSiteWait(ctx context.Context, c *Client) error {
	job, found, err := c.bus.SiteWait(ctx, t.Key, 0)
	if err != nil || !found {
		return err
	}
	t.addStored(MomentWait, job.Message())
	return nil
}

// addStored adds what the message of an unfinished job says. The progress of a fresh job is ignored, because its
// publisher may write anything there; only workers write the other streams.
func (t *Story) addStored(what string, msg *nats.Msg) {
	at, _ := time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets it
	m := Moment{At: at.UTC(), What: what}
	site := msg.Header.Get(bus.HeaderSite)
	if what == MomentWait && site != "" {
		m.Kind, m.Site = KindSite, site
	} else if what == MomentWait {
		m.Until, _ = bus.ScheduledAt(msg.Header)
		m.Kind = jobs.RetryScheduled
		end := m.Until
		if end.IsZero() {
			end = m.At // workers always store the time
		}
		if time.Since(end) > bus.OverdueAfter {
			m.Overdue = end
		}
	}
	t.add(m)
	if what == MomentQueued {
		return
	}
	if what == MomentWait {
		t.Waiting = t.waitOf(msg, m)
	}
	if progress, err := jobs.ParseProgress(msg.Header.Get(jobs.HeaderProgress)); err == nil {
		t.attempts = append(t.attempts, progress.Attempts...)
	}
}

// readEvents collects the announced retries of the job, and publishes of its id after its end.
func (t *Story) readEvents(ctx context.Context, c *Client) error {
	return c.Events(ctx, Filter{Queue: t.Queue, ID: t.ID, All: true, UntilNow: true}, func(e Event) error {
		switch e.Kind {
		case "retry":
			var r jobs.RetryEvent
			if err := json.Unmarshal(e.Payload, &r); err != nil {
				return fmt.Errorf("read %s: %w", e.Subject, err)
			}
			t.retries = append(t.retries, r)
		case "duplicate":
			t.add(Moment{At: e.StoredAt.UTC(), What: MomentDuplicate})
		}
		return nil
	})
}

// readLetter records the job's dead letter, if it has one.
func (t *Story) readLetter(ctx context.Context, c *Client) error {
	letter, err := c.DeadLetter(ctx, t.Key)
	if err == nil {
		t.DeadLetter = letter.Seq
	}
	return err
}

// addAttempts merges what is known about each attempt. A failed result and a waiting job list their attempts in full. An
// announced retry says how its attempt ended. A success names only the last attempt, without its start.
func (t *Story) addAttempts() {
	full := map[int]bool{}
	for _, a := range t.attempts {
		// The result and the stored job may both have an attempt; the first one counts.
		if !full[a.Attempt] {
			t.add(Moment{
				At: a.StartedAt.UTC(), What: MomentAttempt, Attempt: a.Attempt, Proxy: a.Proxy, Status: a.Status, Fault: a.Fault,
				Error: a.Error, Duration: a.Duration,
			})
		}
		full[a.Attempt] = true
	}
	for _, r := range t.retries {
		if !full[r.Attempt] {
			t.add(Moment{
				At: r.At, What: MomentAttempt, Attempt: r.Attempt, MaxAttempts: r.MaxAttempts, Proxy: r.Proxy, Status: r.Status,
				Fault: r.Fault, Error: r.Error, Worker: r.Worker,
			})
		}
		// Every retry announces a wait, also one whose attempt is known in full.
		t.addWait(Moment{At: r.At, What: MomentWait, Until: r.NextAttemptAt, Kind: r.Kind, Worker: r.Worker})
	}
	// A success lists no attempts in its headers, so the last attempt is made from the fields of the result.
	if r := t.Result; r != nil && r.Outcome == jobs.Succeeded && !full[r.AttemptCount] {
		m := Moment{At: r.FinishedAt, What: MomentAttempt, Attempt: r.AttemptCount, Proxy: r.Proxy, Status: r.Status, Worker: r.Worker}
		if r.AttemptCount == 1 { // the job's duration is that of the attempt
			m.At, m.Duration = r.FinishedAt.Add(-r.Duration), jobs.Duration(r.Duration)
		}
		t.add(m)
	}
}

// addWait adds an announced wait. It replaces the moment of the stored job that waits until the same time, since both are
// one wait.
func (t *Story) addWait(m Moment) {
	t.Moments = slices.DeleteFunc(t.Moments, func(o Moment) bool {
		// The stored job and its announcement have the same time, up to rounding.
		same := o.What == MomentWait && o.Worker == "" && o.Kind == m.Kind && o.Until.Sub(m.Until).Abs() < time.Second
		if same {
			m.Overdue = o.Overdue
		}
		return same
	})
	t.add(m)
}

// addQueued adds the time at which the job was queued if its stream no longer has it. A ULID holds the time at which it
// was made.
func (t *Story) addQueued() {
	known := slices.ContainsFunc(t.Moments, func(m Moment) bool { return m.What == MomentQueued })
	// Any other id has no time.
	if id, err := ulid.ParseStrict(t.ID); err == nil && !known {
		t.add(Moment{At: id.Timestamp().UTC(), What: MomentQueued, Source: "id"})
	}
}

// add appends a moment; Story sorts them at its end.
func (t *Story) add(m Moment) { t.Moments = append(t.Moments, m) }
