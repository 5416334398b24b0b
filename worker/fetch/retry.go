package fetch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// attempts makes attempts until the job ends or its next delay is too long to wait here. A delay that was announced is
// kept, even if ctx has ended since: the outcome names its end, and the worker that runs the job next waits for it.
func (r *run) attempts(ctx context.Context) *jobs.RunOutcome {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	defer func() {
		if r.failoverLease != nil { // the job stopped before the failover's attempt
			r.failoverLease.Release()
		}
	}()
	delays := backoff{policy: &r.policy, made: len(r.progress.Attempts)}
	var announced time.Time
	for ctx.Err() == nil {
		if outcome := r.attemptOnAnyProxy(ctx); outcome != nil {
			return outcome
		}
		delay, stop := delays.Next()
		if stop || len(r.progress.Attempts) >= r.policy.MaxAttempts { // the delays do not count hedges
			return r.exhausted()
		}
		retry := r.plan(delay)
		if outcome := r.endInstead(retry); outcome != nil {
			r.f.budget.refund(retry.cost)
			return outcome
		}
		r.publishRetry(retry)
		announced = retry.at
		if retry.kind == jobs.RetryScheduled && ctx.Err() == nil {
			return r.scheduled(retry.at)
		}
		sleep(ctx, time.Until(retry.at))
	}
	outcome := r.stopped(ctx)
	if outcome.Kind == jobs.RunStopped {
		outcome.At = announced // whoever runs the job next keeps it
	}
	return outcome
}

// endInstead ends a job that makes no further attempt: no time is left for it, or the job holds a kept response, which no
// message carries to another run. It returns nil if the attempt follows.
func (r *run) endInstead(retry plannedRetry) *jobs.RunOutcome {
	if cause := r.checkDeadline(retry.at); cause != nil {
		return r.outOfTime(cause)
	}
	if r.keptResponse != nil && retry.kind == jobs.RetryScheduled {
		return r.succeeded(r.keptResponse)
	}
	return nil
}

// plannedRetry is when and how the next attempt comes.
type plannedRetry struct {
	kind  string // inline or scheduled
	delay time.Duration
	at    time.Time
	cost  float64 // taken from the retry budget
}

// plan lets the next attempt start at once if another proxy may be tried. Otherwise the attempt waits for the longest of
// three delays: the policy's, the one that the target asked for, and the one that the retry budget demands.
func (r *run) plan(delay time.Duration) plannedRetry {
	last := r.last
	retry := plannedRetry{kind: jobs.RetryInline, cost: last.blame.cost()}
	budgetDelay := r.f.budget.spend(retry.cost)
	if budgetDelay == 0 && r.otherRetryAfter == 0 && last.blame.failover && r.prepareFailover() {
		delay = 0
	} else {
		delay = max(delay, last.retryAfter, r.otherRetryAfter, budgetDelay)
	}
	if delay > r.f.cfg.InlineWait {
		retry.kind = jobs.RetryScheduled
	}
	retry.delay, retry.at = delay, time.Now().Add(delay)
	return retry
}

// prepareFailover leases a proxy for the next attempt and reports whether it did. It leases only a proxy that can be used
// now and has not failed this job: only then the attempt needs no delay. attempts releases the lease if no attempt
// follows.
func (r *run) prepareFailover() bool {
	if r.job.Proxy.Direct || r.failoverLease != nil {
		return r.failoverLease != nil
	}
	lease, err := r.pick()
	if err != nil {
		return false
	}
	if slices.Contains(r.failedProxies(), lease.ID()) {
		lease.Release()
		return false
	}
	r.failoverLease = lease
	return true
}

// checkDeadline returns why no attempt may start at that time: errExpired or errTimedOut. It returns nil if one may. The
// limits are exclusive: at the deadline itself no attempt starts.
func (r *run) checkDeadline(at time.Time) error {
	switch {
	case !r.job.Deadline.IsZero() && !at.Before(r.job.Deadline):
		return errExpired
	case r.policy.Timeout > 0 && !r.progress.Started.IsZero() && !at.Before(r.progress.Started.Add(r.policy.Timeout.Std())):
		return errTimedOut
	}
	return nil
}

// publishRetry announces the next attempt before its delay begins. If this worker dies meanwhile, another one reads the
// announcement and keeps the delay.
func (r *run) publishRetry(retry plannedRetry) {
	a := r.last
	r.f.cfg.Observer.RetryPlanned(jobs.RetryEvent{
		JobID: r.job.ID, Queue: r.job.Queue, Attempt: a.Attempt.Attempt, MaxAttempts: r.policy.MaxAttempts, Proxy: a.Proxy,
		Status: a.Status, Fault: a.Fault, Error: a.Error, Delay: jobs.Duration(retry.delay), NextAttemptAt: retry.at.UTC(), Kind: retry.kind,
		Worker: r.f.cfg.Worker, At: time.Now().UTC(), Trace: r.progress.Trace,
	})
}

// startTime starts the time of retry.timeout, unless it runs already. It bounds attempts and waits together, the wait
// for the first proxy and that for a site that rests included. It does not run while the job waits for its first
// reservation at a domain: that wait is like time in the queue.
func (r *run) startTime(now time.Time) {
	if r.policy.Timeout > 0 && r.progress.Started.IsZero() {
		r.progress.Started = now.UTC()
	}
}

// bound limits ctx by the job's deadline and by retry.timeout, each with its cause.
func (r *run) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, cause := r.job.Deadline, errExpired
	if r.policy.Timeout > 0 {
		started := r.progress.Started
		if started.IsZero() {
			started = time.Now() // the first attempt or the first wait begins now
		}
		if at := started.Add(r.policy.Timeout.Std()); deadline.IsZero() || at.Before(deadline) {
			deadline, cause = at, errTimedOut
		}
	}
	if deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, deadline, cause)
}

// outOfTime ends a job that has no time left for another attempt.
func (r *run) outOfTime(cause error) *jobs.RunOutcome {
	if errors.Is(cause, errExpired) {
		return r.failed(jobs.ErrExpired, "the next attempt could not start before the deadline "+r.job.Deadline.UTC().Format(time.RFC3339)+r.lastWait())
	}
	return r.failed(jobs.ErrTimedOut, "the next attempt could not start within retry.timeout "+r.policy.Timeout.String()+r.lastWait())
}

// lastWait describes the wait for a proxy that took the rest of the job's time. It is empty for a job that waited for
// none, or for its site after that.
func (r *run) lastWait() string {
	if r.progress.Why == "" || !r.progress.SiteSince.IsZero() {
		return ""
	}
	return ", and the job waited for a proxy: " + r.progress.Why
}

// exhausted ends a job that has had all its attempts, with the failure of the last one.
func (r *run) exhausted() *jobs.RunOutcome {
	detail := ""
	if r.last != nil {
		detail = r.last.Error
	}
	return r.failed(jobs.ErrAttemptsExhausted, detail)
}
