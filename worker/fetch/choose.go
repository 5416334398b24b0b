package fetch

import (
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// pick takes a proxy for the next attempt. The pool prefers one that has not failed this job. The lease of a direct fetch
// is empty, and its Proxy is nil.
func (r *run) pick() (*rotation.Lease, error) {
	if r.job.Proxy.Direct {
		return &rotation.Lease{}, nil
	}
	return r.pickBy(r.need())
}

// need is what the job asks of a proxy.
func (r *run) need() rotation.Need {
	return rotation.Need{
		Host: hostPort(r.job.Target()), Tags: r.job.Proxy.Tags, Region: r.job.Proxy.Region, RegionStrict: r.job.Proxy.RegionStrict,
		Session: r.job.Proxy.Session, ID: r.job.Proxy.ID, Exclude: append(r.failedProxies(), r.unreachable...),
		Ban: r.banKey(), ExcludeExits: r.failedExits(),
		Trusted: r.f.cfg.Trusted, Relayed: r.isSiteTest,
	}
}

// pickBy picks a proxy for a need and reports the pick, also one that failed. The caller ends the lease. The error is a
// *rotation.NoProxyError.
func (r *run) pickBy(need rotation.Need) (*rotation.Lease, error) {
	began := time.Now()
	lease, events, err := r.f.cfg.Pool.Pick(need)
	r.f.cfg.Observer.Picked(time.Since(began), err)
	r.reportBreakers(events)
	return &lease, err
}

// takeLease returns the lease that a failover has prepared, or picks a proxy. Each prepared lease is returned once.
func (r *run) takeLease() (*rotation.Lease, error) {
	if lease := r.failoverLease; lease != nil {
		r.failoverLease = nil
		return lease, nil
	}
	return r.pick()
}

// failedProxies returns the ids of the proxies that failed the job. A session stays with its proxy if the target failed:
// the next proxy would meet the same failure, and the session would be lost.
func (r *run) failedProxies() (ids []string) {
	for _, a := range r.progress.Attempts {
		stays := r.job.Proxy.Session != "" && a.Fault == jobs.FaultTarget
		if a.Proxy != "" && !stays && r.excluded(a) {
			ids = append(ids, a.Proxy)
		}
	}
	return ids
}

// withoutProxy ends or schedules a job for which the pool has no proxy. An error of another type than
// *rotation.NoProxyError is the job's own: it asks for something that no pool can give.
func (r *run) withoutProxy(err error) *jobs.RunOutcome {
	var none *rotation.NoProxyError
	switch {
	case !errors.As(err, &none):
		return r.failed(jobs.ErrInvalidJob, err.Error())
	case none.Reason == rotation.Unmatched && r.f.cfg.PoolIncomplete():
		return r.waitForProxy(none.Error()+", and a list of proxies was never read", time.Time{})
	case none.Reason == rotation.Unmatched:
		return r.failed(jobs.ErrNoProxy, none.Error())
	}
	return r.waitForProxy(none.Error(), none.RetryAt)
}

// waitForProxy schedules a job for a time at which a proxy may be usable. It ends a job that does not wait, that has
// waited for MaxWait, or whose time is over. A zero retryAt means that the time is not known. The job never goes
// direct, and no attempt is counted.
func (r *run) waitForProxy(why string, retryAt time.Time) *jobs.RunOutcome {
	now := time.Now()
	if r.job.WhenNoProxy == jobs.NoProxyFail {
		return r.failed(jobs.ErrNoProxy, why)
	}
	if r.progress.WaitingSince.IsZero() {
		r.progress.WaitingSince = now
	}
	r.progress.SiteSince = time.Time{} // its site let it through
	r.startTime(now)
	if now.Sub(r.progress.WaitingSince) >= r.f.cfg.MaxWait {
		return r.failed(jobs.ErrNoProxy, why+", for "+r.f.cfg.MaxWait.String())
	}
	wait := askAgainBlind
	if !retryAt.IsZero() {
		wait = min(max(retryAt.Sub(now), askAgainSoonest), askAgainLatest)
	}
	// The last wait ends with MaxWait, so that the job ends on time and not one interval later.
	at := now.Add(min(wait, max(askAgainSoonest, r.f.cfg.MaxWait-now.Sub(r.progress.WaitingSince))))
	r.progress.Why = why
	if cause := r.checkDeadline(now); cause != nil {
		return r.outOfTime(cause)
	}
	if r.checkDeadline(at) != nil {
		// A proxy may come before the time that is known for one.
		left := r.ownEnd().Sub(now)
		at = now.Add(max(left/2, min(left, askAgainSoonest)))
	}
	o := r.scheduled(at)
	o.NoProxy = true
	return o
}
