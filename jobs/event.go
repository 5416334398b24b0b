package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The kinds of a retry.
const (
	RetryInline    = "inline"    // the worker waits
	RetryScheduled = "scheduled" // the job went back to the stream until its time comes
)

// RetryEvent announces that a job will be tried again. It is published before the wait starts.
type RetryEvent struct {
	JobID string `json:"job_id"`
	Queue string `json:"queue"`
	// Attempt is the one that failed, counted from 1.
	Attempt     int    `json:"attempt"`
	MaxAttempts int    `json:"max_attempts"`
	Proxy       string `json:"proxy"`
	// Status is the target's answer, zero when there was none.
	Status        int       `json:"status"`
	Fault         Fault     `json:"fault"`
	Error         string    `json:"error"`
	Delay         Duration  `json:"delay"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
	// Kind is RetryInline or RetryScheduled.
	Kind   string    `json:"kind"`
	Worker string    `json:"worker"`
	At     time.Time `json:"at"`
	// Trace is that of the job, in the headers of the event's message.
	Trace Trace `json:"-"`
}

// BreakerEvent reports that a proxy's breaker changed its state: "closed", "open", "half_open".
type BreakerEvent struct {
	ProxyID      string    `json:"proxy_id"`
	FromState    string    `json:"from_state"`
	ToState      string    `json:"to_state"`
	Timestamp    time.Time `json:"timestamp"`
	Reason       string    `json:"reason"`
	FailureCount int       `json:"failure_count"`
	// NextTestTime is when an open breaker lets a test through; null in the other states.
	NextTestTime *time.Time `json:"next_test_time"`
	Worker       string     `json:"worker"`
}

// PoolEvent reports that the proxies of a worker began to fail all at once, or that one of them relayed a response again.
type PoolEvent struct {
	Worker    string    `json:"worker"`
	Failing   bool      `json:"failing"`
	Timestamp time.Time `json:"timestamp"`
	Reason    string    `json:"reason"`
}

// SiteEvent reports that a site began or ceased to rest, or to be tested. Its states are "new", "up", "resting", "testing".
type SiteEvent struct {
	Site      string    `json:"site"`
	FromState string    `json:"from_state"`
	ToState   string    `json:"to_state"`
	Timestamp time.Time `json:"timestamp"`
	Reason    string    `json:"reason"`
	// NextTestTime is when a resting site is tested; null in the other states.
	NextTestTime *time.Time `json:"next_test_time"`
	Worker       string     `json:"worker"`
}

// DuplicateEvent reports that a job of a finished id was published again and stored nothing.
type DuplicateEvent struct {
	JobID string `json:"job_id"`
	Queue string `json:"queue"`
	// JobSeq is the sequence of the job that came too late, StoredSeq that of the job whose result is kept.
	JobSeq    uint64    `json:"job_seq"`
	StoredSeq uint64    `json:"stored_seq"`
	Worker    string    `json:"worker"`
	At        time.Time `json:"at"`
}

// Progress is what a waiting job takes along: whoever takes it up next goes on where the last one stopped. The zero
// value is that of a fresh job.
type Progress struct {
	// JobSeq is the job's sequence in the job stream.
	JobSeq uint64 `json:"job_seq,omitempty"`
	// Attempts are those made so far.
	Attempts []Attempt `json:"attempts,omitempty"`
	// Bytes were received over proxies so far.
	Bytes int64 `json:"bytes,omitempty"`
	// URL is where the redirects of the newest attempt ended; empty if there were none.
	URL string `json:"url,omitempty"`
	// Started is when the first attempt began, or, with a retry.timeout, the wait before it. It is zero before that.
	Started time.Time `json:"started,omitzero"`
	// WaitingSince is when the job began to wait for any usable proxy, zero while it does not.
	WaitingSince time.Time `json:"waiting_since,omitzero"`
	// Why says in a sentence why no proxy could be used, while WaitingSince is set. It is for people.
	Why string `json:"why,omitempty"`
	// Reservation is when the rate limit of its domain lets the job start, zero if the job holds no reservation.
	Reservation time.Time `json:"turn,omitzero"`
	// SiteSince is when the job began to wait for its site, zero while it does not.
	SiteSince time.Time `json:"site_since,omitzero"`
	// Released says that the fleet let the job through that waited for its site.
	Released bool `json:"site_released,omitempty"`
	// Trace came with the job's message, and travels in the headers of every message about the job.
	Trace Trace `json:"-"`
	// Contract is the version of the contract that the job's message names. It goes along while the job waits.
	Contract string `json:"-"`
}

// Brief is the progress without what only people read. It makes a job fit that the stream refuses for its size.
func (p *Progress) Brief() *Progress {
	brief := *p
	brief.Attempts, brief.Why, brief.URL = slices.Clone(p.Attempts), "", ""
	for i := range brief.Attempts {
		brief.Attempts[i].Error, brief.Attempts[i].Region, brief.Attempts[i].Phases = "", "", nil
	}
	return &brief
}

// Encode writes the progress as a header value, with times in UTC. The value never contains the name of a header that the server
// reads: nats-server 2.15 overlooks a header whose name, written twice in a row, stands in a value before it. A job whose
// schedule is overlooked waits for ever.
func (p *Progress) Encode() (string, error) {
	utc := *p
	utc.Started, utc.WaitingSince, utc.Reservation, utc.SiteSince = p.Started.UTC(), p.WaitingSince.UTC(), p.Reservation.UTC(), p.SiteSince.UTC()
	data, err := json.Marshal(&utc)
	if err != nil {
		return "", fmt.Errorf("encode progress: %w", err)
	}
	// JSON may write any character as an escape, so the value means the same.
	return strings.ReplaceAll(string(data), "Nats-", `\u004eats-`), nil
}

// ParseProgress reads what Encode wrote.
func ParseProgress(value string) (Progress, error) {
	var p Progress
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return Progress{}, fmt.Errorf("read progress: %w", err)
	}
	// A time beyond the bounds overflows the server's clock when the job is scheduled again.
	for _, at := range []time.Time{p.Started, p.WaitingSince, p.Reservation, p.SiteSince} {
		if year := at.UTC().Year(); year < 1 || year > MaxYear {
			return Progress{}, fmt.Errorf("read progress: the year of a time is not between 1 and %d", MaxYear)
		}
	}
	// No URL has other bytes, and this one goes into a header.
	if strings.ContainsFunc(p.URL, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return Progress{}, errors.New("read progress: the URL has characters that no URL has")
	}
	return p, nil
}

// firstAttempt is when the first attempt began, zero if there was none. A job that waits may have Started, and made no attempt.
func (p *Progress) firstAttempt() (began time.Time) {
	for _, a := range p.Attempts {
		if a.StartedAt.IsZero() {
			return p.Started
		}
		if began.IsZero() || a.StartedAt.Before(began) {
			began = a.StartedAt
		}
	}
	if waits := !p.SiteSince.IsZero() || !p.WaitingSince.IsZero() || !p.Reservation.IsZero(); began.IsZero() && !waits {
		began = p.Started
	}
	return began
}

// Result is what is true of a job's result at this time however the job ends.
func (p *Progress) Result(job *Job, now time.Time) Result {
	r := Result{
		Queue: job.Queue, ID: job.ID, URL: job.URL, Attempts: p.Attempts, AttemptCount: len(p.Attempts), Bytes: p.Bytes, Meta: job.Meta,
		JobSeq: p.JobSeq, FinishedAt: now, Trace: p.Trace,
	}
	// The normal form tells where the request went; the job's own spelling stands in if the URL is invalid.
	if !job.target.IsZero() {
		r.URL = job.target.String()
	}
	if p.URL != "" {
		r.URL = p.URL
	}
	if began := p.firstAttempt(); !began.IsZero() {
		// The clock of another worker may be ahead.
		r.Duration = max(0, now.Sub(began))
	}
	for _, a := range p.Attempts {
		if a.Hedge {
			continue // it brought nothing to the job
		}
		// The last attempt that counted is what the result is about.
		r.Proxy, r.Exit = a.Proxy, a.Exit
		if a.Status != 0 && a.Fault != FaultProxy { // a 407 is never the target's
			r.Status = a.Status
		}
	}
	return r
}
