package fetch

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// answer is a complete one.
type answer struct {
	status int
	header http.Header
	fields []jobs.HeaderField // as header, in the order in which they came
	body   []byte
	url    string
}

func (x *exchange) answer() *answer {
	return &answer{status: x.status(), header: x.header, fields: x.resultFields(), body: x.body, url: x.url}
}

// succeeded is the outcome of a job that an answer ends.
func (r *run) succeeded(a *answer) jobs.RunOutcome {
	r.url = a.url
	result := r.result()
	result.Outcome, result.Status, result.Header, result.Fields, result.Body = jobs.Succeeded, a.status, a.header, a.fields, a.body
	return jobs.RunOutcome{Kind: jobs.RunFinished, Result: result}
}

// rule is the key of what a ban is for this job.
func (r *run) rule() uint64 {
	if r.job.Ban == nil {
		return rotation.FleetBan
	}
	return r.job.Ban.Key()
}

// isBan reports whether an answer of this status is a ban, by the job's own rule or the fleet's list.
func (r *run) isBan(status int) bool {
	if r.job.Ban == nil {
		return r.policy.Bans(status)
	}
	return r.job.Ban.MatchStatus(status)
}

// matchRedirect notes whether a redirect leads to where the job's rule calls it a ban.
func (x *exchange) matchRedirect(ctx context.Context, location string) error {
	if x.run.job.Ban == nil {
		return nil
	}
	if target, err := x.target.Resolve(location); err == nil { // who follows a redirect says what is wrong with it
		if x.matched, err = x.run.job.Ban.MatchRedirect(ctx, target.String()); err != nil {
			return fmt.Errorf("%w: %w", errMatch, err)
		}
	}
	return nil
}

// goesElsewhere reports whether a job that met a ban of the fleet's list tries another proxy, and takes that one. It does not if
// none can be used that has met no ban of this site: then the answer is the result.
func (r *run) goesElsewhere() bool {
	if r.job.Proxy.ID != "" || r.nonIdempotent() || len(r.progress.Attempts) >= r.policy.MaxAttempts {
		return false
	}
	need := r.need()
	need.Fresh = true
	lease, err := r.pickBy(need)
	if err != nil {
		return false
	}
	r.next = lease
	return true
}

// orKept ends a job with an answer that was a ban by the fleet's list, if the attempts after it brought none, or if the job
// would have to wait: no message carries the answer.
func (r *run) orKept(o jobs.RunOutcome) jobs.RunOutcome {
	if r.kept == nil {
		return o
	}
	switch o.Kind {
	case jobs.RunScheduled, jobs.RunStopped:
		return r.succeeded(r.kept)
	case jobs.RunFinished:
		answered := o.Result.Error == jobs.ErrAttemptsExhausted && r.last.answered
		banned := o.Result.Error == jobs.ErrBodyTooLarge && r.last.blame.tooLarge
		if slices.Contains([]string{jobs.ErrAttemptsExhausted, jobs.ErrExpired, jobs.ErrTimedOut, jobs.ErrNoProxy, jobs.ErrPermanent}, o.Result.Error) && !answered || banned {
			return r.succeeded(r.kept)
		}
	case jobs.RunLeaseLost:
	}
	return o
}
