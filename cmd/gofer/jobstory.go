package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// The moments of a job's story.
const (
	momentQueued    = "queued"
	momentAttempt   = "attempt"
	momentWait      = "wait" // for its next attempt, or for its time
	momentDue       = "due"  // its time has come
	momentDuplicate = "duplicate"
	momentEnded     = "ended"
)

// moment is something that happened to a job. Which fields are set depends on what it was.
type moment struct {
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

	// Until is when a wait ends; Kind is jobs.RetryInline or jobs.RetryScheduled.
	Until time.Time `json:"until,omitzero"`
	Kind  string    `json:"kind,omitempty"`
	// Overdue is when a wait ended although the job still waits: the server has not released it.
	Overdue time.Time `json:"overdue_since,omitzero"`
	Worker  string    `json:"worker,omitempty"`
	// Source tells where else than from the streams this is known.
	Source string `json:"source,omitempty"`
}

// story is everything that is known about a job.
type story struct {
	bus.Key
	Places  []client.Place `json:"places"`
	Moments []moment       `json:"story"`
	Result  *resultFacts   `json:"result,omitempty"`
	// DeadLetter is the sequence of its dead letter.
	DeadLetter uint64 `json:"dead_letter,omitempty"`
	// Unsettled are the workers that hold the job and cannot settle it.
	Unsettled []holder `json:"unsettled,omitempty"`

	attempts []jobs.Attempt // those that are known in full
	retries  []jobs.RetryEvent
}

// tell gathers a job's story. What this user may not read is left out, which note is told of. Errors: bus.ErrNotFound if
// nothing is known.
func tell(ctx context.Context, s *session, key bus.Key, note func(format string, args ...any)) (*story, error) {
	t := &story{Key: key, Places: []client.Place{}, Moments: []moment{}}
	found, err := s.client.Find(ctx, key)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		t.Places = append(t.Places, f.Place)
	}
	for _, part := range []struct {
		what string
		read func(context.Context, *session) error
	}{{"result", t.readResult}, {"stored copy", t.readStored}, {"story in the events", t.readEvents}, {"dead letter", t.readLetter}} {
		err := part.read(ctx, s)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			note("the job's %s cannot be read: %v", part.what, err)
		}
	}
	t.readHolders(ctx, s)
	t.addAttempts()
	if len(t.Places) == 0 && len(t.Moments) == 0 && t.DeadLetter == 0 {
		return nil, bus.ErrNotFound
	}
	t.addQueued()
	slices.SortStableFunc(t.Moments, earlier)
	return t, nil
}

// earlier sorts moments by time, and the end after what was known at its time.
func earlier(a, b moment) int {
	ended := func(m moment) int {
		if m.What == momentEnded {
			return 1
		}
		return 0
	}
	return cmp.Or(a.At.Compare(b.At), ended(a)-ended(b))
}

func (t *story) readResult(ctx context.Context, s *session) error {
	r, err := s.client.Result(ctx, t.Key)
	if err != nil {
		return err
	}
	facts := resultJSON(r)
	t.Result = &facts
	t.attempts = append(t.attempts, r.Attempts...)
	t.add(moment{At: r.FinishedAt, What: momentEnded, Proxy: r.Proxy, Status: r.Status, Error: r.Error, Duration: jobs.Duration(r.Duration), Worker: r.Worker})
	return nil
}

// readStored reads the job itself, where it waits for a worker or for its time.
func (t *story) readStored(ctx context.Context, s *session) error {
	for _, at := range []struct {
		place                 client.Place
		stream, subject, what string
	}{
		{client.Queued, s.names.Stream("JOBS"), s.names.Job(t.Queue, t.ID), momentQueued},
		{client.Waiting, s.names.Stream("RETRIES"), s.names.At(t.Queue, t.ID), momentWait},
		{client.Due, s.names.Stream("RETRIES"), s.names.Due(t.Queue, t.ID), momentDue},
	} {
		if !slices.Contains(t.Places, at.place) {
			continue
		}
		stream, err := s.bus.JetStream().Stream(ctx, at.stream)
		if err != nil {
			return err
		}
		msg, err := stream.GetLastMsgForSubject(ctx, at.subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it has gone on meanwhile
		}
		if err != nil {
			return err
		}
		t.addStored(at.what, msg)
	}
	return nil
}

// addStored takes what the message of an unfinished job knows. A client's job may claim any progress; it is ignored.
func (t *story) addStored(what string, msg *jetstream.RawStreamMsg) {
	m := moment{At: msg.Time.UTC(), What: what}
	if what == momentWait {
		m.Until, _ = time.Parse(time.RFC3339Nano, strings.TrimPrefix(msg.Header.Get(jetstream.ScheduleHeader), "@at "))
		m.Kind = jobs.RetryScheduled
		end := m.Until
		if end.IsZero() {
			end = m.At // nobody but a stranger stores a job without its time
		}
		if time.Since(end) > bus.OverdueAfter {
			m.Overdue = end
		}
	}
	t.add(m)
	if what == momentQueued {
		return
	}
	if progress, err := jobs.ParseProgress(msg.Header.Get(jobs.HeaderProgress)); err == nil {
		t.attempts = append(t.attempts, progress.Attempts...)
	}
}

func (t *story) readEvents(ctx context.Context, s *session) error {
	return s.client.Events(ctx, client.Filter{Queue: t.Queue, ID: t.ID, All: true, UntilNow: true}, func(e client.Event) error {
		switch e.Kind {
		case "retry":
			var r jobs.RetryEvent
			if err := json.Unmarshal(e.Payload, &r); err != nil {
				return fmt.Errorf("read %s: %w", e.Subject, err)
			}
			t.retries = append(t.retries, r)
		case "duplicate":
			t.add(moment{At: e.StoredAt.UTC(), What: momentDuplicate})
		}
		return nil
	})
}

func (t *story) readLetter(ctx context.Context, s *session) error {
	letter, err := s.client.DeadLetter(ctx, t.Key)
	if err == nil {
		t.DeadLetter = letter.Seq
	}
	return err
}

// addAttempts puts together what is known of each attempt: a result that failed and a job that waits have them in full,
// an announced retry tells how its attempt ended, and a success has only the last one, without its start.
func (t *story) addAttempts() {
	full := map[int]bool{}
	for _, a := range t.attempts {
		if !full[a.Attempt] {
			t.add(moment{
				At: a.StartedAt.UTC(), What: momentAttempt, Attempt: a.Attempt, Proxy: a.Proxy, Status: a.Status, Fault: a.Fault,
				Error: a.Error, Duration: a.Duration,
			})
		}
		full[a.Attempt] = true
	}
	for _, r := range t.retries {
		if !full[r.Attempt] {
			t.add(moment{
				At: r.At, What: momentAttempt, Attempt: r.Attempt, MaxAttempts: r.MaxAttempts, Proxy: r.Proxy, Status: r.Status,
				Fault: r.Fault, Error: r.Error, Worker: r.Worker,
			})
		}
		t.addWait(moment{At: r.At, What: momentWait, Until: r.NextAttemptAt, Kind: r.Kind, Worker: r.Worker})
	}
	if r := t.Result; r != nil && r.Outcome == jobs.Succeeded && !full[r.Attempts] {
		m := moment{At: r.FinishedAt, What: momentAttempt, Attempt: r.Attempts, Proxy: r.Proxy, Status: r.Status, Worker: r.Worker}
		if r.Attempts == 1 { // the job's duration is that of the attempt
			m.At, m.Duration = r.FinishedAt.Add(-r.Duration.Std()), r.Duration
		}
		t.add(m)
	}
}

// addWait adds an announced wait, in place of the stored job that waits just so.
func (t *story) addWait(m moment) {
	t.Moments = slices.DeleteFunc(t.Moments, func(o moment) bool {
		same := o.What == momentWait && o.Worker == "" && o.Kind == m.Kind && o.Until.Sub(m.Until).Abs() < time.Second
		if same {
			m.Overdue = o.Overdue
		}
		return same
	})
	t.add(m)
}

// addQueued takes the time at which the job was named, if its stream no longer knows when it came: an id that is a ULID
// has it.
func (t *story) addQueued() {
	known := slices.ContainsFunc(t.Moments, func(m moment) bool { return m.What == momentQueued })
	if id, err := ulid.ParseStrict(t.ID); err == nil && !known {
		t.add(moment{At: id.Timestamp().UTC(), What: momentQueued, Source: "id"})
	}
}

func (t *story) add(m moment) { t.Moments = append(t.Moments, m) }
