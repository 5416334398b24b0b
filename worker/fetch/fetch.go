// Package fetch takes one job from its first pick of a proxy to its end: exchange, blame, retry, wait.
//
// Each act has one home: retry.go decides when a job is tried again, exchange.go does one HTTP exchange through one proxy,
// blame.go says whose fault a failure was. A connection belongs to one attempt at a time and leads through exactly the proxy
// that was picked for it: no library retries, redials through another proxy or follows a redirect by itself.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/time/rate"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// Fetcher runs jobs. Make one with New; it may be shared between goroutines. Close it after the last Do has returned.
type Fetcher struct {
	cfg          Config
	conns        *conns
	budget       *budget
	hedges       hedges
	domains      *domains
	interceptors interceptors
	decoders     decoders
	bodies       bodies
	memory       *memoryBudget
	header       http.Header    // of jobs that have none; nobody changes it
	warned       rate.Sometimes // of what fails on this host
}

// New makes a fetcher.
func New(cfg Config) *Fetcher {
	cfg = cfg.withDefaults()
	return &Fetcher{
		cfg: cfg, header: requestHeader(nil, cfg.UserAgent), conns: newConns(cfg), budget: newBudget(cfg.RetryBudget, cfg.RetryFloor), domains: newDomains(cfg.HostRate, cfg.HostConcurrency),
		warned: rate.Sometimes{Interval: time.Minute}, decoders: newDecoders(), memory: newMemoryBudget(cfg.MaxMemory),
	}
}

// Close closes the connections that wait for a next attempt.
func (f *Fetcher) Close() { f.conns.close() }

// IdleConns is the number of connections that wait for a next attempt.
func (f *Fetcher) IdleConns() int { return f.conns.idleCount() }

// Do runs a job that was decoded, from the point that its progress names. It ends soon after ctx has ended. The cause of
// ctx, one of the errors of package jobs, decides the outcome: see stopped. The caller calls Release of the outcome once
// the result is stored. A panic in a job ends that job only.
func (f *Fetcher) Do(ctx context.Context, job *jobs.Job, progress *jobs.Progress) (outcome *jobs.RunOutcome) {
	// Deferred functions run in reverse order: first the panic becomes an outcome, then the memory is handed
	// over, so that it is released after a panic as well.
	//
	// The run copies the progress, because the caller compares its own with the run's.
	r := &run{f: f, job: job, progress: *progress, memory: memoryAccount{budget: f.memory}}
	defer func() { r.handOverMemory(outcome) }()
	defer func() {
		if p := recover(); p != nil {
			f.cfg.Log.Error("a job made gofer panic", "queue", job.Queue, "job", job.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			outcome = r.failed(jobs.ErrPermanent, "the worker could not process this job: an internal error was logged")
		}
	}()
	r.readPolicy()
	if outcome = r.checkJob(ctx); outcome == nil {
		// checkJob has no response to keep; only attempts can end with one.
		outcome = r.orKeptResponse(r.attempts(ctx))
		r.learnEarlyEnds()
	}
	// Asked last: whatever the run found out, a worker without the lease must not settle it.
	if errors.Is(context.Cause(ctx), jobs.ErrLeaseLost) {
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	}
	return outcome
}

// readPolicy gives the run the policy of now, with what the job overrides.
func (r *run) readPolicy() { r.policy = r.job.Retry.ApplyTo(r.f.cfg.Policy()) }

// handOverMemory leaves the memory of the result's body to the caller, which stores the result, and releases the rest.
func (r *run) handOverMemory(outcome *jobs.RunOutcome) {
	// Most runs hold none: small bodies are not counted.
	if r.memory.holds() == 0 {
		return
	}
	if len(outcome.Result.Body) == 0 {
		r.memory.releaseAll()
		return
	}
	// The worker calls Free once the result is stored.
	outcome.Free = r.memory.releaseAll
}

// run is one run of one job. It belongs to the goroutine of Do.
type run struct {
	f        *Fetcher
	job      *jobs.Job // of the caller; nobody changes it
	policy   jobs.Policy
	progress jobs.Progress

	endedEarly    []siteTime              // the attempts that the learnt bound ended, until they are counted
	responded     siteTime                // the newest response since the latest attempt began; zero if none came
	underWay      int                     // attempts that have begun and are not in progress yet
	flights       int                     // all that have begun in this run
	last          *attempt                // the newest one that ended
	began         time.Time               // when the attempt under way began
	keptResponse  *response               // the newest response that is a ban by the fleet's list
	failoverLease *rotation.Lease         // a lease for the next attempt, if it is a failover
	unreachable   []string                // the proxies that this host could not open a connection to
	refusedCerts  map[string]*refusedCert // what was refused as the target's certificate, by the proxy's id
	isSiteTest    bool                    // the attempt tests a site that rests
	// Of the attempt that ended first of an attempt and its hedge: the delay that its response asked for, and whether
	// it had a response. Zero if the latest attempt had no hedge.
	otherRetryAfter time.Duration
	otherResponded  bool
	memory          memoryAccount // of the responses and decoders
}

// What ends a run from within.
var (
	errExpired  = errors.New("the job's deadline has passed")
	errTimedOut = errors.New("the attempts took longer than the retry timeout")
)

// maxStartWait is the longest wait for a job's not_before that holds a slot. A job waits for its time without a slot, but the
// server may release a message up to 250 ms late if it is scheduled for a nearer time. The wait for an earlier deadline has
// the bound of other waits: with a clock behind the server's, the worker would schedule the job again each time it comes.
const maxStartWait = 500 * time.Millisecond

// checkJob ends or schedules the jobs that need no attempt now. It returns nil for the others.
func (r *run) checkJob(ctx context.Context) *jobs.RunOutcome {
	at := r.orDeadline(r.job.NotBefore)
	inline := r.f.cfg.InlineWait
	if at.Equal(r.job.NotBefore) {
		inline = min(inline, maxStartWait)
	}
	if wait := time.Until(at); wait > inline {
		return r.scheduled(at)
	} else if wait > 0 {
		sleep(ctx, wait)
	}
	switch {
	case ctx.Err() != nil:
		return r.stopped(ctx)
	case !r.job.Deadline.IsZero() && !time.Now().Before(r.job.Deadline):
		return r.failed(jobs.ErrExpired, "the deadline was "+r.job.Deadline.UTC().Format(time.RFC3339)+r.lastWait())
	case r.job.Proxy.Direct && !r.f.cfg.AllowDirect:
		return r.invalid("proxy.direct is not allowed here: the worker's owner has to allow direct fetches", "proxy.direct: not allowed by this worker")
	case r.job.MaxBodyBytes > r.f.cfg.MaxBodyBytes:
		reason := fmt.Sprintf("max_body_bytes: this worker allows at most %d", r.f.cfg.MaxBodyBytes)
		return r.invalid(reason, reason)
	case len(r.progress.Attempts) >= r.policy.MaxAttempts:
		return r.failed(jobs.ErrAttemptsExhausted, "")
	}
	if reason := r.f.denyReason(r.job.Target()); reason != "" {
		// A redirect is checked again when it comes, since it may lead elsewhere.
		return r.failed(jobs.ErrTargetDenied, reason)
	}
	return nil
}

// orDeadline returns the earlier of at and the job's deadline. A job that waits is woken at its deadline, so that its
// publisher gets the result on time.
func (r *run) orDeadline(at time.Time) time.Time {
	if d := r.job.Deadline; !d.IsZero() && d.Before(at) {
		return d
	}
	return at
}

// sleep waits for a duration, or until ctx ends if that is sooner. The caller asks ctx which of the two it was.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 { // a retry without a delay needs no timer
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stopped returns the outcome of a run whose context has ended. The cause decides: a stop of the worker is no failure of
// the job, and neither is a lost lease.
func (r *run) stopped(ctx context.Context) *jobs.RunOutcome {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, jobs.ErrLeaseLost):
		return &jobs.RunOutcome{Kind: jobs.RunLeaseLost}
	case errors.Is(cause, jobs.ErrJobCancelled):
		o := r.failed(jobs.ErrCancelled, "")
		o.Result.Outcome = jobs.Cancelled
		return o
	case errors.Is(cause, errExpired):
		return r.failed(jobs.ErrExpired, "the deadline was "+r.job.Deadline.UTC().Format(time.RFC3339)+r.lastWait())
	case errors.Is(cause, errTimedOut):
		return r.failed(jobs.ErrTimedOut, "retry.timeout is "+r.policy.Timeout.String()+r.lastWait())
	}
	return &jobs.RunOutcome{Kind: jobs.RunStopped, Progress: r.progress}
}

// invalid is the outcome of a job that asks for what this worker does not allow.
func (r *run) invalid(detail, reason string) *jobs.RunOutcome {
	o := r.failed(jobs.ErrInvalidJob, detail)
	o.Result.Reasons = []string{reason}
	return o
}

// failed is the outcome of a job that did not succeed.
func (r *run) failed(code, detail string) *jobs.RunOutcome {
	o := r.finished()
	o.Result.Outcome, o.Result.Error, o.Result.Detail = jobs.Failed, code, detail
	return o
}

// finished is the outcome of a job that has its result, with the fields that are the same however the job ended.
func (r *run) finished() *jobs.RunOutcome {
	o := &jobs.RunOutcome{Kind: jobs.RunFinished, Result: r.progress.Result(r.job, time.Now())}
	o.Result.Worker = r.f.cfg.Worker
	return o
}

// cameTo records the URL to which an attempt came. The job carries it while it waits, if it is not the job's own.
func (r *run) cameTo(url string) {
	r.progress.URL = url
	if url == r.job.Target().String() {
		r.progress.URL = ""
	}
}

// scheduled is the outcome of a job that waits until at.
func (r *run) scheduled(at time.Time) *jobs.RunOutcome {
	return &jobs.RunOutcome{Kind: jobs.RunScheduled, At: at, Progress: r.progress}
}
