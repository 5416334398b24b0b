package fetch

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// facts are what is known about an attempt that has ended. judge decides by them alone, so a test needs no network
// and no pool to judge. The zero value of a field means that nothing is known. Exactly one of err and responded
// is set, except for errTooLarge, which has both.
type facts struct {
	err           error
	responded     bool // a response came, though perhaps too large a one
	stopped       bool // the job was stopped, or its time was over
	timeout       bool // the attempt's time was over, or the job's
	jobTimeout    bool // the job's time was over before the attempt had used up its own
	phase         phase
	host          string // host and port that redirects led to; empty without a redirect
	status        int
	header        http.Header
	refused       *connectRefused
	otherProtocol otherProtocol // what came instead of a tunnel
	direct        bool
	proxyScheme   string
	plain         bool // no tunnel: the response may be the proxy's own
	// healthy says that the proxy reached a target lately or in an earlier exchange, although it now wants other credentials.
	healthy bool
	// works says of a failure that the proxy relayed a response lately or in an earlier exchange: it is listed with its scheme.
	works           bool
	sent            bool
	stalled         bool          // the response arrived too slowly
	missedReadToken bool          // time ran out while the attempt beside it read its response
	exceeded        time.Duration // the first-byte timeout that ended the attempt; zero if none did
	learnt          bool          // that timeout was learnt
	learntTimeout   bool          // the learnt timeout ended the attempt, and the site never answered within it
	ended           bool          // the other end closed the connection: what seems malformed may have been cut
	ban             bool          // by the job's own rule
	fleetBan        bool          // by the fleet's list
	rule            uint64        // the key of the rule that matched
	retryable       bool
	proven          bool // the response came over TLS with the target
	refusedThrough  int  // through how many proxies the target's certificate was refused so far
	// retryAfter is the shortest delay that the target asked for.
	retryAfter time.Duration
	latency    time.Duration
	// dialTime and resolveTime are the parts of latency that it took to reach the proxy, or the target of a direct fetch, and to
	// look up its name, over all exchanges.
	dialTime, resolveTime time.Duration
	memoryTime            time.Duration // the part of latency in which it waited for memory
}

// gatherFacts records what is known about an attempt once its exchanges have ended. It also remembers refused certificates in the
// run.
func (r *run) gatherFacts(ctx context.Context, a *flight) {
	x, lease, f := a.x, a.lease, &a.facts
	*f = facts{
		err: x.err, phase: phase(x.phase.Load()), host: x.host, status: x.status(), direct: lease.Proxy() == nil, sent: x.sent.Load(), ended: x.ended, otherProtocol: x.otherProtocol, missedReadToken: x.missedReadToken,
		responded: x.err == nil || errors.Is(x.err, errTooLarge),
		stopped:   ctx.Err() != nil && x.err != nil, latency: time.Since(x.started),
	}
	r.addCause(f, x)
	f.resolveTime, f.memoryTime = x.resolveTime(), x.memory.waited
	f.dialTime = x.timeIn(connecting) - f.resolveTime
	if x.resp != nil {
		f.header = x.resp.Header
	}
	if x.proxy != nil {
		f.proxyScheme = x.proxy.Scheme
		f.plain = strings.HasPrefix(x.url, "http://") && strings.HasPrefix(x.proxy.Scheme, "http")
	}
	if f.responded {
		r.addResponse(f, x)
	} else {
		errors.As(x.err, &f.refused)
		f.works = x.host != "" || lease.Proxy() != nil && lease.Healthy()
		if opening := (*openError)(nil); errors.As(x.err, &opening) {
			f.otherProtocol = opening.otherProtocol
		}
	}
	// A 407 to a plain request may be the target's. It is, if the proxy works otherwise.
	f.healthy = f.plain && f.status == http.StatusProxyAuthRequired && (x.host != "" || lease.Healthy())
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		f.retryAfter = RetryAfter(f.header.Get("Retry-After"), time.Now())
	}
	if x.err != nil && untrusted(x.err) && !f.direct {
		r.noteRefusedCert(x, a.exitKey())
	}
	f.refusedThrough = len(r.refusedCerts)
	f.proven = f.responded && strings.HasPrefix(x.url, "https://")
}

// addCause records which bound ended the attempt, by the cause of the context. A bound that the job chose is recorded as such,
// because the proxy is not to blame for too short a time.
func (r *run) addCause(f *facts, x *exchanges) {
	switch own := r.job.Timeout.Std(); {
	case errors.Is(x.cause, errAttemptTimeout):
		f.timeout, f.jobTimeout = true, own > 0 && own < r.f.cfg.AttemptTimeout
	case errors.Is(x.cause, errStalled):
		f.timeout, f.stalled = true, true
	case errors.Is(x.cause, errNoFirstByte):
		f.timeout, f.exceeded, f.jobTimeout = true, x.exceeded, r.job.FirstByteTimeout > 0
		f.learnt = x.first.isLearnt()
		f.learntTimeout = f.learnt && !r.f.cfg.Pool.Times().HasAnsweredWithin(x.site, f.exceeded)
	case errors.Is(x.cause, errExpired), errors.Is(x.cause, errTimedOut):
		f.timeout, f.jobTimeout = true, true
	}
}

// addResponse records what the status of a response means by the job's rules and by the fleet's. A body that was too large has a
// status, too.
func (r *run) addResponse(f *facts, x *exchanges) {
	f.ban, f.rule = x.matched || r.job.Ban.MatchStatus(f.status), r.banKey()
	f.fleetBan = r.job.Ban == nil && r.policy.IsBan(f.status)
	f.retryable = r.policy.IsRetryable(f.status)
}

// noteRefusedCert remembers the first certificate that was refused through an exit. Later ones through the same exit say nothing
// new.
func (r *run) noteRefusedCert(x *exchanges, key string) {
	if r.refusedCerts[key] != nil {
		return
	}
	if r.refusedCerts == nil {
		r.refusedCerts = map[string]*refusedCert{}
	}
	cert := refusedCertOf(x.err, x.target.Hostname())
	r.refusedCerts[key] = &cert
}

// targetStatus returns the status of the target's response, zero without one. A 407 is that of a proxy: the one picked,
// or one in front of the target.
func (f *facts) targetStatus() int {
	if f.status == http.StatusProxyAuthRequired && !f.direct {
		return 0
	}
	return f.status
}

// isMostOf reports whether a part of an attempt took more than half of the attempt's time. The party that took most of
// the time is blamed for a timeout. Half of the time is a bound that at most one part can exceed.
func (f *facts) isMostOf(part time.Duration) bool { return part > f.latency/2 }
