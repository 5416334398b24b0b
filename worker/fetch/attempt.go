package fetch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// attempt is one try through one proxy, redirects included, and how it was judged. It is written once, when the attempt has
// ended.
type attempt struct {
	jobs.Attempt
	blame      blame
	retryAfter time.Duration // the shortest delay that the target asked for; zero without a Retry-After
	responded  bool          // a complete response came
}

// errAttemptTimeout ends an attempt that used up its own time.
var errAttemptTimeout = errors.New("the attempt took longer than its timeout")

// attemptOnAnyProxy does one attempt and decides what follows: nil means that the policy decides whether and when another one
// follows. A failure of this host is not counted: another proxy is tried at once, up to maxLocal of them, and then the
// job waits for a proxy.
func (r *run) attemptOnAnyProxy(ctx context.Context) *jobs.RunOutcome {
	// A failure of this host says nothing about the job, so it costs no attempt. It is bounded, because a host
	// that cannot open any connection would otherwise go through the whole pool.
	for range maxLocal {
		if end := r.attemptOnce(ctx); end != nil || !r.last.blame.local {
			return end
		}
		r.unreachable = append(r.unreachable, r.last.Proxy)
	}
	return r.waitForProxy(r.last.Error, time.Time{})
}

// maxLocal is how many proxies a job tries in turn while this host cannot open a connection to any of them.
const maxLocal = 3

// attemptOnce picks a proxy and makes one attempt through it. It returns nil if the policy decides what follows. An attempt that
// may have failed because of an outage is not counted; the job then waits for a proxy.
//
// The order of the steps matters. The site and the domain are asked before a proxy is taken, so that a job that has to
// wait holds no proxy. What is acquired is released in the reverse order, also when a step panics.
func (r *run) attemptOnce(ctx context.Context) *jobs.RunOutcome {
	visit, end := r.enterSite()
	if end != nil {
		return end
	}
	defer func() { r.siteChanged(visit.Release()) }()
	// The domain's limits come after the site: a job that waits for its site must not use up the domain's rate.
	release, end := r.acquireDomain(ctx)
	if end != nil {
		return end
	}
	began := false
	// began says whether an attempt was made: an attempt that found no proxy does not count in the domain's rate.
	defer func() { release(began) }()
	lease, err := r.takeLease()
	if err != nil {
		if r.f.domains.isLimited() {
			r.progress.Reservation = time.Now() // so that the job is served before jobs without a reservation
		}
		return r.withoutProxy(err)
	}
	began = true
	defer lease.Release()
	if len(r.unreachable) > 0 && slices.Contains(r.unreachable, lease.ID()) {
		return r.waitForProxy(r.last.Error, time.Time{}) // no other proxy is left to try
	}
	r.beginAttempt()
	a := r.race(ctx, lease)
	defer a.x.releaseMemory()
	if a.isStopped() {
		r.endWait() // the time counts for retry.timeout, the attempt for nothing
		r.leaveOut(a)
		return r.stopped(ctx)
	}
	r.reportAttempt(a, false)
	r.reportToSite(&visit, a)
	if a.x.url != "" {
		r.cameTo(a.x.url)
	}
	return r.settleAttempt(ctx, a)
}

// beginAttempt records that an attempt of the job begins. The first attempt of a job earns tokens of the retry budget:
// the budget grows with the number of jobs, not with the number of attempts.
func (r *run) beginAttempt() {
	r.began = time.Now()
	// A job with a retry.timeout that waited for a site or a proxy has its start from that wait.
	first := r.progress.Started.IsZero() || len(r.progress.Attempts) == 0 && r.policy.Timeout > 0
	r.progress.SiteSince, r.progress.Released = time.Time{}, false
	r.responded = siteTime{} // it excuses no attempt that begins after it
	if first {
		r.f.budget.earn()
	}
}

// settleAttempt adds the attempt to the job's history and decides what follows. An attempt that costs the job nothing
// stays out of the history. Nothing is counted before that is decided, so nothing has to be undone.
//
// A request that the target may have acted on is never repeated here, whatever the fault: see mayHaveActed.
func (r *run) settleAttempt(ctx context.Context, a *flight) *jobs.RunOutcome {
	f, b := &a.facts, &a.blame
	repeatable := !f.stopped && !r.mayHaveActed(f, b)
	switch {
	case repeatable && b.local:
		r.f.warnOfLocal(b.text)
		r.leaveOut(a)
		return nil
	// The outage is decided before the attempt enters the history, from which MaxAttempts is counted.
	case repeatable && r.mayBeOutage(b, f.host):
		r.leaveOut(a)
		return r.withoutProxy(&rotation.NoProxyError{Reason: rotation.Outage})
	}
	r.addToHistory()
	return r.decide(ctx, a)
}

// leaveOut renumbers the history when an attempt stays out of it: a hedge that began later may be in the history, and
// its numbers must have no gap.
func (r *run) leaveOut(a *flight) {
	for i := range r.progress.Attempts {
		if kept := &r.progress.Attempts[i]; kept.Attempt > a.number {
			kept.Attempt--
		}
	}
}

// endWait records that the job no longer waits for a proxy. The first attempt also sets the time from which retry.timeout
// runs, unless a wait has.
func (r *run) endWait() {
	r.progress.WaitingSince, r.progress.Why = time.Time{}, ""
	if r.progress.Started.IsZero() {
		r.progress.Started = r.began
	}
}

// mayHaveActed reports whether the target may have acted on a request that must not be sent again: it was sent, at least
// in part, nobody said that it was left unprocessed, and its method is not idempotent (RFC 9110, 9.2.2).
func (r *run) mayHaveActed(f *facts, b *blame) bool { return f.sent && !b.unsent && r.nonIdempotent() }

// warnOfLocal logs at most once a minute that this host cannot open connections. Every job would log the same otherwise.
func (f *Fetcher) warnOfLocal(text string) {
	f.warned.Do(func() { f.cfg.Log.Warn("attempts fail on this host", "error", text) })
}

// mayBeOutage reports whether the failure may be due to an outage of the pool, so that it costs the job no attempt.
//
// A failure that may be the target's fault counts as a part of an outage only if the target has responded before.
// Otherwise jobs for dead sites would wait for ever. A job that does not wait for a proxy follows its policy until the
// outage is certain, because another proxy may still relay.
func (r *run) mayBeOutage(b *blame, host string) bool {
	pool := r.f.cfg.Pool
	if !b.ofProxy() || !pool.MayBeOutage() {
		return false
	}
	if host == "" {
		host = hostPort(r.job.Target())
	}
	if b.kind == rotation.Unclear && !pool.HasAnswered(host) {
		return false
	}
	_, ongoing := pool.Outage()
	return ongoing || r.job.WhenNoProxy != jobs.NoProxyFail
}

// recordAttempt reports an attempt and adds it to the job's history.
func (r *run) recordAttempt(ended *flight, lost bool) {
	r.reportAttempt(ended, lost)
	r.addToHistory()
}

// addToHistory adds the last attempt to the job's history. The history is ordered by the start of the attempts, which
// with a hedge is not the order in which they end.
func (r *run) addToHistory() {
	r.endWait()
	at := len(r.progress.Attempts)
	for at > 0 && r.progress.Attempts[at-1].Attempt > r.last.Attempt.Attempt {
		at--
	}
	r.progress.Attempts = slices.Insert(r.progress.Attempts, at, r.last.Attempt)
}

// reportAttempt makes an attempt that has ended the last one, and reports it to the observer. lost is true if another
// attempt, which ran beside it, decided what became of the job.
func (r *run) reportAttempt(ended *flight, lost bool) {
	x, f, b := ended.x, &ended.facts, &ended.blame
	a := &attempt{blame: *b, retryAfter: f.retryAfter, responded: f.responded, Attempt: jobs.Attempt{
		Attempt: ended.number, StartedAt: ended.started.UTC(), Duration: jobs.Duration(time.Since(ended.started)),
		Status: f.targetStatus(), Phase: x.phaseName(), Phases: x.phaseDurations(), Fault: b.fault, Error: b.text, Hedge: lost,
	}}
	if proxy := ended.lease.Proxy(); proxy != nil {
		a.Proxy, a.Region, a.Exit = proxy.ID, ended.lease.Region(), ended.lease.Exit()
	}
	r.last = a
	r.underWay--
	r.f.cfg.Observer.AttemptEnded(&a.Attempt, x.received, b.reason)
	if a.Status != 0 && a.Proxy != "" {
		r.f.cfg.Observer.Answered(x.site, a.Proxy, a.Status)
	}
}

// decide is the one place that turns an attempt into the job's end. It returns nil if it leaves that to the policy.
func (r *run) decide(ctx context.Context, a *flight) *jobs.RunOutcome {
	x, f, b := a.x, &a.facts, &a.blame
	switch {
	case f.stopped:
		return r.stopped(ctx)
	case b.end == "" && b.isResult:
		r.reportInterceptors(x)
		if b.isFleetBan && r.pickUnbanned() {
			r.keep(x.response())
			return nil
		}
		return r.succeeded(x.response())
	case b.tooLarge && !r.pickUnbanned():
		return r.failed(jobs.ErrBodyTooLarge, "the response body is larger than allowed")
	case b.tooLarge:
		return nil
	case b.end != "":
		return r.failed(b.end, b.text)
	case r.mayHaveActed(f, b):
		return r.failed(jobs.ErrAttemptsExhausted, b.text+"; the request may have been received, and retry_non_idempotent is not set")
	}
	return nil
}

// reportInterceptors opens the breakers of interceptors: certificates of one issuer were refused through them at several domains,
// and are good through other proxies. What one or two sites show may be the fault of these sites.
func (r *run) reportInterceptors(x *exchanges) {
	if strings.HasPrefix(x.url, "https://") {
		r.f.interceptors.clear(r.last.Proxy)
	}
	for id, cert := range r.refusedCerts {
		if id != r.last.Proxy && !strings.Contains(id, exitMark) && r.f.interceptors.suspect(id, *cert) {
			// The breaker opens for tripTime at once. A streak of failures would take long, since the
			// interceptor relays plain HTTP well.
			events, _ := r.f.cfg.Pool.ForceOpen(id, tripTime, "intercepts")
			r.reportBreakers(events)
		}
	}
}

// nonIdempotent reports whether sending the request again could have a second effect. PUT and DELETE are idempotent by
// RFC 9110, 9.2.2. A job that sets retry_non_idempotent accepts the risk.
func (r *run) nonIdempotent() bool {
	return (r.job.Method == "POST" || r.job.Method == "PATCH") && !r.policy.RetryNonIdempotent
}

// reportBreakers passes on what changed. It is called without any lock, so the observer may ask the pool.
func (r *run) reportBreakers(events []rotation.Event) {
	if len(events) > 0 {
		r.f.cfg.Observer.BreakersChanged(events)
	}
}

// The bounds of the time after which a job that found no proxy asks again.
const (
	// A job asks at the time that the pool names, but not sooner and not later than these two bounds.
	askAgainSoonest = 200 * time.Millisecond
	askAgainLatest  = 30 * time.Second
	// The pool names no time, for example because every proxy is busy.
	askAgainBlind = 2 * time.Second
)
