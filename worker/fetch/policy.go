package fetch

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/gofer-mq/gofer/jobs"
)

// errAgain is what an attempt returns that is to be tried again; the run knows the rest.
var errAgain = errors.New("to be tried again")

// attempts tries until the job has ended, or has to wait for longer than is spent here.
func (r *run) attempts(ctx context.Context) Outcome {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	defer func() {
		if r.next != nil { // a lease that was taken ahead, and the job stopped before its attempt
			r.next.Release()
		}
	}()
	b := &backoff{run: r, made: len(r.progress.Attempts)}
	var end Outcome
	err := retry.Do(ctx, b, func(ctx context.Context) error {
		outcome, again := r.attempt(ctx)
		if again {
			return retry.RetryableError(errAgain)
		}
		end = outcome
		return nil
	})
	switch {
	case err == nil:
		return end
	case ctx.Err() != nil:
		end = r.stopped(ctx)
		if end.Kind == Stopped {
			end.At = b.next // whoever runs the job next keeps what was announced
		}
		return end
	case !b.later.IsZero():
		return Outcome{Kind: Later, At: b.later, Progress: r.progress}
	case b.cut != nil:
		return r.cut(b.cut)
	}
	return r.exhausted()
}

// bound limits ctx by the job's deadline and by the time for all attempts together, each with its cause.
func (r *run) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, cause := r.job.Deadline, errExpired
	if r.policy.Timeout > 0 {
		started := r.progress.Started
		if started.IsZero() {
			started = time.Now() // the first attempt begins now, or the job goes back to wait for a proxy
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

// cut ends a job for whose next attempt no time is left.
func (r *run) cut(cause error) Outcome {
	if errors.Is(cause, errExpired) {
		return r.failed(jobs.ErrExpired, "the next attempt could not start before the deadline "+r.job.Deadline.UTC().Format(time.RFC3339))
	}
	return r.failed(jobs.ErrTimedOut, "the next attempt could not start within retry.timeout "+r.policy.Timeout.String())
}

func (r *run) exhausted() Outcome {
	detail := ""
	if r.last != nil {
		detail = r.last.Error
	}
	return r.failed(jobs.ErrAttemptsExhausted, detail)
}

// curve is the policy's waits after the attempts that were made already: growth, then the cap, then jitter inside it, then
// the count. It has state and belongs to one run.
func curve(p jobs.Policy, made int) retry.Backoff {
	var n float64
	b := retry.Backoff(retry.BackoffFunc(func() (time.Duration, bool) {
		n++
		return grow(p, n), false
	}))
	b = retry.WithCappedDuration(p.MaxBackoffDelay.Std(), b)
	if p.Jitter {
		b = retry.WithFullJitter(b)
	}
	left := max(0, p.MaxAttempts-1)
	b = retry.WithMaxRetries(uint64(left), b)
	for range made {
		b.Next()
	}
	return b
}

// grow is the n-th wait, from 1, before the cap. It saturates far above any cap instead of overflowing.
func grow(p jobs.Policy, n float64) time.Duration {
	d := p.BaseDelay.Seconds()
	switch p.BackoffStrategy {
	case jobs.Linear:
		d *= n
	case jobs.Exponential:
		d *= math.Pow(p.Multiplier, n-1)
	}
	return time.Duration(math.Min(d, 1e6) * float64(time.Second))
}

// backoff is the outermost wrap around the curve, and the only place that knows that a retry will happen, and after what
// wait: so it is announced here. go-retry calls Next right after the attempt, on the same goroutine.
type backoff struct {
	run   *run
	made  int           // attempts of earlier runs
	curve retry.Backoff // nil until the first failure

	next  time.Time // the announced time of the next attempt
	later time.Time // the wait is too long to be spent here
	cut   error     // the wait would not end in time
}

// Next is the wait before the next attempt, or stop.
func (b *backoff) Next() (time.Duration, bool) {
	if b.curve == nil {
		b.curve = curve(b.run.policy, b.made)
	}
	wait, stop := b.curve.Next()
	if stop {
		return 0, true
	}
	a := b.run.last
	cost := a.blame.cost()
	turn := b.run.f.budget.retry(cost)
	if turn == 0 && a.blame.failover && b.run.ahead() {
		wait = 0
	} else {
		wait = max(wait, a.retryAfter, turn)
	}
	at := time.Now().Add(wait)
	if b.cut = b.run.tooLate(at); b.cut != nil {
		b.run.f.budget.giveBack(cost)
		return 0, true
	}
	kind := jobs.RetryInline
	if wait > b.run.f.cfg.InlineWait {
		kind, b.later = jobs.RetryScheduled, at
	}
	b.next = at
	b.run.announce(kind, wait, at)
	return wait, kind == jobs.RetryScheduled
}

// ahead takes a proxy for the next attempt if one can be used now that has not failed this job: only then it needs no wait.
func (r *run) ahead() bool {
	if r.job.Proxy.Direct {
		return false
	}
	lease, err := r.pick()
	if err != nil {
		return false
	}
	if slices.Contains(r.failedProxies(), lease.ID()) {
		lease.Release()
		return false
	}
	r.next = lease
	return true
}

// tooLate is why no attempt may start at that time; nil when one may.
func (r *run) tooLate(at time.Time) error {
	switch {
	case !r.job.Deadline.IsZero() && !at.Before(r.job.Deadline):
		return errExpired
	case r.policy.Timeout > 0 && !r.progress.Started.IsZero() && !at.Before(r.progress.Started.Add(r.policy.Timeout.Std())):
		return errTimedOut
	}
	return nil
}

func (r *run) announce(kind string, wait time.Duration, at time.Time) {
	a := r.last
	r.f.cfg.OnRetry(jobs.RetryEvent{
		JobID: r.job.ID, Queue: r.job.Queue, Attempt: a.Attempt.Attempt, MaxAttempts: r.policy.MaxAttempts, Proxy: a.Proxy,
		Status: a.Status, Fault: a.Fault, Error: a.Error, Delay: jobs.Duration(wait), NextAttemptAt: at.UTC(), Kind: kind,
		Worker: r.f.cfg.Worker, At: time.Now().UTC(),
	})
}
