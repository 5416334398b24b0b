package fetch

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// response is a complete response that may be the job's result. It keeps its memory until the result is stored.
// One goroutine owns it. A caller that drops a response without storing it must release its memory.
type response struct {
	status int
	header http.Header
	fields []jobs.HeaderField // as header, in the order in which they came
	body   []byte
	url    string
	memory *memoryShare // of the body
}

// response returns the newest response and hands its memory over to the caller. The body must have been read to its end. taken
// keeps releaseMemory at the attempt's end from freeing what the result still needs.
func (x *exchanges) response() *response {
	x.taken = true
	return &response{memory: &x.memory, status: x.status(), header: x.header, fields: x.resultFields(), body: x.body, url: x.url}
}

// keep stores a response that becomes the result if no later attempt brings a better one. It frees the memory of the
// response that was kept before. At most one response is kept for each run, so a job with many bans holds the memory of
// one body.
func (r *run) keep(a *response) {
	if r.keptResponse != nil {
		r.keptResponse.memory.releaseAll()
	}
	r.keptResponse = a
}

// succeeded is the outcome of a job that a response ends.
func (r *run) succeeded(a *response) *jobs.RunOutcome {
	// The URL is where the redirects ended, which is what a result reports.
	r.cameTo(a.url)
	o := r.finished()
	o.Result.Outcome, o.Result.Status, o.Result.Header, o.Result.Fields, o.Result.Body = jobs.Succeeded, a.status, a.header, a.fields, a.body
	return o
}

// banKey returns the key under which the pool cools down a proxy after a ban: that of the job's own rule, or the fleet's.
// Jobs with equal rules share the key, so that they share what they learn.
func (r *run) banKey() uint64 {
	if r.job.Ban == nil {
		return rotation.FleetBan
	}
	return r.job.Ban.Key()
}

// isBan reports whether a response of this status is a ban, by the job's own rule or the fleet's list.
func (r *run) isBan(status int) bool {
	if r.job.Ban == nil {
		return r.policy.IsBan(status)
	}
	return r.job.Ban.MatchStatus(status)
}

// matchRedirect records whether a redirect leads to a URL that the job's rule calls a ban. A login page is often
// reached that way. The error is an errMatch if the job's pattern took too long.
func (x *exchanges) matchRedirect(ctx context.Context, location string) error {
	if x.run.job.Ban == nil {
		return nil
	}
	// The location is resolved here only to be matched; the redirect itself resolves it again and reports its
	// errors.
	if target, err := x.target.Resolve(location); err == nil { // the redirect itself reports the error
		if x.matched, err = x.run.job.Ban.MatchRedirect(ctx, target.String()); err != nil {
			return fmt.Errorf("%w: %w", errMatch, err)
		}
	}
	return nil
}

// pickUnbanned leases another proxy for a job whose response is a ban by the fleet's list, and reports whether there is
// one. It takes only a proxy that has met no ban of this site. If there is none, the response is the result. The lease
// is used by the next attempt.
func (r *run) pickUnbanned() bool {
	// A job that is bound to one proxy, a request that must not be sent twice, and a job without attempts left
	// have no use for another proxy.
	if r.job.Proxy.ID != "" || r.nonIdempotent() || len(r.progress.Attempts) >= r.policy.MaxAttempts {
		return false
	}
	need := r.need()
	// Without NoLastResort the pool would give a proxy that this site has banned as well.
	need.NoLastResort = true
	lease, err := r.pickBy(need)
	if err != nil {
		return false
	}
	r.failoverLease = lease
	return true
}

// orKeptResponse ends a job with the response that was kept: a ban by the fleet's list. It does so if the attempts after
// it brought no response, or if the job would have to wait, because no message carries a response from run to run.
// Otherwise it returns o unchanged.
func (r *run) orKeptResponse(o *jobs.RunOutcome) *jobs.RunOutcome {
	if r.keptResponse == nil {
		return o
	}
	switch o.Kind {
	case jobs.RunScheduled, jobs.RunStopped:
		return r.succeeded(r.keptResponse)
	case jobs.RunFinished:
		// The response that came last is better than a kept ban only if the attempts ended with a response,
		// whatever its status.
		responded := o.Result.Error == jobs.ErrAttemptsExhausted && r.last.responded
		banned := o.Result.Error == jobs.ErrBodyTooLarge && r.last.blame.tooLarge
		if slices.Contains([]string{jobs.ErrAttemptsExhausted, jobs.ErrExpired, jobs.ErrTimedOut, jobs.ErrNoProxy, jobs.ErrSiteDown, jobs.ErrPermanent}, o.Result.Error) && !responded || banned {
			return r.succeeded(r.keptResponse)
		}
	case jobs.RunLeaseLost:
	}
	return o
}
