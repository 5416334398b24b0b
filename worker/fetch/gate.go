package fetch

import (
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/sites"
)

// viaDirect stands for a direct attempt where a proxy's id is expected; no proxy has this id.
const viaDirect = "(direct)"

// enterSite begins an attempt at the job's site. If the attempt may not begin, end says what becomes of the job. The caller
// ends the visit.
func (r *run) enterSite() (visit sites.Visit, end *jobs.RunOutcome) {
	table := r.f.cfg.Sites
	if table == nil {
		// No site is known, and a zero visit may be ended like any other.
		return visit, nil
	}
	timeout := r.job.Timeout.Std()
	if timeout == 0 {
		timeout = r.f.cfg.AttemptTimeout
	}
	name := r.job.Target().Site()
	visit, refusal, events := table.Enter(name, sites.Ask{MaxDuration: timeout + testSlack, Released: r.progress.Released})
	r.progress.Released = false // a release allows one visit
	r.siteChanged(events)
	r.isSiteTest = visit.Test()
	if refusal == nil {
		return visit, nil
	}
	r.f.cfg.Observer.SiteAwaited(refusal.State)
	return visit, r.waitForSite(name, refusal)
}

// testSlack is how long a test of a site may take beyond the attempt's own timeout before another attempt becomes the test.
const testSlack = 5 * time.Second

// siteChanged reports what changed. It is called without any lock, so the observer may ask the table.
func (r *run) siteChanged(events []sites.Event) {
	if len(events) > 0 {
		r.f.cfg.Observer.SitesChanged(events)
	}
}

// waitForSite schedules a job that may not begin an attempt at its site now, or ends the job. It ends at once if it does
// not wait for a site that rests. Otherwise it ends when it has waited for SiteMaxWait and a test has failed meanwhile.
// No attempt is counted.
//
// The job carries the time since when it waits in its progress, so that the wait is the same in whichever worker it
// continues.
func (r *run) waitForSite(name string, refusal *sites.Refusal) *jobs.RunOutcome {
	now := time.Now()
	// New and returning sites end no job: they only bound how many attempts begin.
	rests := refusal.State == sites.Resting || refusal.State == sites.Testing
	r.progress.Released = false
	if rests && r.job.WhenSiteDown == jobs.SiteDownFail {
		return r.failed(jobs.ErrSiteDown, siteWords(name, refusal))
	}
	if r.progress.SiteSince.IsZero() {
		r.progress.SiteSince = now.UTC()
	}
	if rests {
		r.startTime(now)
	}
	wait := &jobs.SiteWait{Site: name, Since: r.progress.SiteSince, Until: refusal.Until, Detail: siteWords(name, refusal)}
	at := refusal.At
	// A wait for a share of the slots ends no job, so what came before the rest does not count.
	waiting := laterOf(r.progress.SiteSince, refusal.Since)
	if rests && refusal.Failed.After(waiting) {
		wait.End = waiting.Add(r.f.cfg.SiteMaxWait)
		if !now.Before(wait.End) {
			return r.failed(jobs.ErrSiteDown, siteWords(name, refusal)+", for "+r.f.cfg.SiteMaxWait.String())
		}
		at = earlierOf(at, wait.End)
	}
	// The job's own end may come before the site's next test.
	if end := r.ownEnd(); !end.IsZero() {
		at = earlierOf(at, end)
		if wait.End.IsZero() || end.Before(wait.End) {
			wait.End = end
		}
	}
	o := r.scheduled(at)
	o.Wait = wait
	return o
}

// ownEnd returns when the job ends whatever it waits for: at its deadline, or when retry.timeout is over. Zero means
// never.
func (r *run) ownEnd() time.Time {
	if r.policy.Timeout <= 0 || r.progress.Started.IsZero() {
		return r.job.Deadline
	}
	return r.orDeadline(r.progress.Started.Add(r.policy.Timeout.Std()))
}

// earlierOf returns the earlier of two times.
func earlierOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// siteWords says in words what the job waits for. Users read it in results and in 'gofer job'.
func siteWords(name string, refusal *sites.Refusal) string {
	switch refusal.State {
	case sites.Fresh:
		// The texts are in gofer's own words; only the name comes from the job.
		return "the site " + name + " is new: until it answers, few jobs at once are tried"
	case sites.Returning:
		return "the site " + name + " answers again, and its jobs come back one by one"
	case sites.Testing:
		return "the site " + name + " does not answer: a test of it goes on"
	case sites.Answering, sites.Resting:
	}
	return "the site " + name + " does not answer: it rests until " + refusal.Until.Format(time.RFC3339)
}

// reportToSite ends the visit with what the attempt says about the site. An attempt that a redirect led to another site
// says that its own site has answered.
func (r *run) reportToSite(visit *sites.Visit, a *flight) {
	if r.f.cfg.Sites == nil {
		return
	}
	x, f, b := a.x, &a.facts, &a.blame
	o := sites.Outcome{Kind: siteKind(f, b), Via: r.via(r.last.Attempt), Took: f.latency, JobTimeout: f.jobTimeout, Routes: r.routes()}
	if !b.local { // an attempt that this host could not begin says nothing about the site
		o.Count = siteCount(&r.last.Attempt, f.ban || f.fleetBan)
	}
	if r.job.Proxy.Direct {
		o.Via = viaDirect
	}
	if x.host != "" {
		o.Site = x.site
	}
	// A response through either of the two proves that the site answers.
	if o.Kind == sites.Failed && r.otherResponded {
		o.Kind = sites.Answered // the other attempt of the pair got a response
	}
	if o.Kind == sites.Failed || o.Kind == sites.Gateway {
		// In an outage every site seems to fail, so the table has to know about it.
		_, o.Outage = r.f.cfg.Pool.Outage()
	}
	r.siteChanged(visit.Report(o))
}

// siteCount returns what the tally of the site counts of an attempt.
func siteCount(a *jobs.Attempt, ban bool) sites.Count {
	c := sites.Count{Class: sites.ClassNone, Ban: ban, Error: a.Error}
	switch jobs.StatusClass(a.Status) {
	case jobs.Class2xx:
		c.Class = sites.Class2xx
	case jobs.Class3xx:
		c.Class = sites.Class3xx
	case jobs.Class4xx:
		c.Class = sites.Class4xx
	case jobs.Class5xx:
		c.Class = sites.Class5xx
	}
	switch a.Fault {
	case jobs.FaultProxy:
		c.Fault = sites.FaultProxy
	case jobs.FaultTarget:
		c.Fault = sites.FaultTarget
	case jobs.FaultPair:
		c.Fault = sites.FaultPair
	case jobs.FaultUnclear:
		c.Fault = sites.FaultUnclear
	case jobs.FaultNone:
	}
	return c
}

// routes returns how many routes to a site there are now: the proxies with a closed breaker, and the direct route if
// the job uses it. Zero means many. A site that fails through every one of few routes is soon found to be down.
func (r *run) routes() int {
	// A gateway has as many routes as exits, and their number is unknown.
	if r.f.cfg.Pool.HasGateways() {
		return 0
	}
	n := r.f.cfg.Pool.Closed()
	if r.job.Proxy.Direct {
		n++
	}
	return max(1, n)
}

// siteKind says what an attempt shows about the site. A 407 is never the target's. 502, 504 and 520 to 530 are what a
// proxy in front of a site says when the site does not answer; 520 and above are those of a content delivery network.
func siteKind(f *facts, b *blame) sites.Kind {
	var location *locationError
	switch {
	case f.responded && f.targetStatus() != 0 && b.fault != jobs.FaultProxy:
		if f.status == 502 || f.status == 504 || f.status >= 520 && f.status <= 530 {
			return sites.Gateway
		}
		return sites.Answered
	case errors.As(f.err, &location), b.end != "" && b.kind == rotation.Relayed:
		return sites.Answered
	case f.learntTimeout: // the site may need longer than the learnt bound
		return sites.NoEvidence
	case b.fault == jobs.FaultTarget, b.fault == jobs.FaultPair, b.fault == jobs.FaultUnclear:
		return sites.Failed
	}
	return sites.NoEvidence
}
