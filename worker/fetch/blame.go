package fetch

import (
	"errors"
	"net/http"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// blame is the judgement of an attempt: who failed, and what may follow. judge makes it from facts alone. The
// zero value blames nobody. Each field has one reader: verdict for the pool, decide for the job, reportAttempt
// for the history.
type blame struct {
	isResult   bool       // there is a response that may be the job's result
	tooLarge   bool       // the response is a ban by the fleet's list, and its body is larger than allowed
	isFleetBan bool       // it is the result only if no other proxy gets a better one
	fault      jobs.Fault // who caused the failure
	kind       rotation.Kind
	reason     string        // from a closed list, for statistics
	text       string        // a sentence in gofer's own words; a peer's text may hold secrets
	end        string        // the job ends with this error code
	failover   bool          // another proxy may be tried at once
	trip       time.Duration // how long the proxy's breaker opens at once; zero means that it does not
	gateway    bool          // the gateway itself failed, and not one of its exits
	unsent     bool          // the target never saw the request, so it may be sent again
	local      bool          // this host failed before anything was sent, and the attempt is not counted
}

// tripTime is how long a breaker opens for a proxy that is not expected to recover, such as one that refuses the
// credentials.
const tripTime = 10 * time.Minute

// verdict translates the judgement for the pool. The host of a ban is the one that a proxy was picked for, because a
// proxy has to be picked for that host again. Any other verdict is about the host where the attempt ended, after its
// redirects.
func (b *blame) verdict(f *facts) rotation.Verdict {
	v := rotation.Verdict{
		// Answered is true for a failure of the target's as well: the proxy reached it.
		Kind: b.kind, Host: f.host, Answered: f.responded || b.fault == jobs.FaultTarget, Proven: f.proven, JobTimeout: f.jobTimeout, CoolDown: f.retryAfter, Trip: b.trip, Latency: f.latency, Reason: b.reason,
		Gateway: b.gateway, NoTunnel: f.refused != nil && f.refused.status >= http.StatusInternalServerError,
		Doubtful: b.kind == rotation.Unclear && b.reason == "status_5xx",
	}
	switch {
	case b.kind == rotation.PairFault && (f.ban || f.fleetBan):
		v.Ban, v.Host = f.rule, "" // the host is the one for which another proxy has to be picked
	case f.status == http.StatusProxyAuthRequired && (b.kind == rotation.PairFault || b.kind == rotation.Refused):
		// A publisher chooses the URL, and a single page may answer 407. So the pair is used last, also by jobs with a rule of
		// their own, and never keeps the jobs of others waiting.
		v.Ban = rotation.UsedLast
	case b.kind == rotation.Relayed:
		// Only a response below 400 shows that the site serves this proxy. An error page may come before the site
		// examines the client.
		v.NotBanned = f.status >= 200 && f.status < 400
	}
	return v
}

// ofProxy reports whether the failure may be the proxy's and may pass by itself. A proxy with wrong credentials does not
// recover by itself.
func (b *blame) ofProxy() bool {
	return b.trip == 0 && (b.kind == rotation.ProxyFault || b.kind == rotation.Unclear)
}

// cost returns the tokens of the retry budget that a retry after this failure takes. A failover loads no target twice, so
// it costs less.
func (b *blame) cost() float64 {
	// The two costs share one bucket, so failovers and retries limit each other.
	if b.failover {
		return costOfFailover
	}
	return costOfRetry
}

// blameProxy blames the proxy, so another proxy may be tried at once. As far as the facts show, the request did not
// reach the target.
func blameProxy(reason, text string) blame {
	return blame{fault: jobs.FaultProxy, kind: rotation.ProxyFault, reason: reason, text: text, failover: true}
}

// blameUnclear leaves open whether the proxy or the target failed. The next attempt waits, because the target may be
// overloaded.
func blameUnclear(reason, text string) blame {
	return blame{fault: jobs.FaultUnclear, kind: rotation.Unclear, reason: reason, text: text}
}

// blameUnclearWithFailover is blameUnclear with a failover: proxies have many ways to say that they cannot reach a
// target.
func blameUnclearWithFailover(reason, text string) blame {
	b := blameUnclear(reason, text)
	b.failover = true
	return b
}

// blameTarget blames a target that failed although the proxy reached it.
func blameTarget(reason, text string) blame {
	return blame{fault: jobs.FaultTarget, kind: rotation.TargetFault, reason: reason, text: text}
}

// blameTargetByProxy blames a target that the proxy reports as unreachable. A proxy without a network reports every
// target so, hence the verdict about the proxy stays unclear.
func blameTargetByProxy(text string) blame {
	b := blameTarget("connect", text)
	// fault and kind differ on purpose: users see what the proxy said, while the pool weighs it with what other proxies
	// say.
	b.kind = rotation.Unclear
	return b
}

// blamePair blames the pair of proxy and site: the site does not serve this proxy. Another proxy may be tried at once.
// The proxy cools down at this site and is used at others.
func blamePair(reason, text string) blame {
	return blame{fault: jobs.FaultPair, kind: rotation.PairFault, reason: reason, text: text, failover: true}
}

// blameRefusal says that the proxy refuses the target. Package outlier finds a proxy that refuses all targets.
func blameRefusal(reason, text string) blame {
	return blame{fault: jobs.FaultPair, kind: rotation.Refused, reason: reason, text: text, failover: true}
}

// endJob ends the job for a reason that is neither the proxy's nor the target's fault; the proxy relayed the response.
func endJob(code, reason, text string) blame {
	return blame{kind: rotation.Relayed, reason: reason, text: text, end: code}
}

// judge names the fault. It is the only switch of this package that does. A breaker asks "did this proxy relay what the
// target said?" and not "did the fetch succeed?", so a 403 or a 500 through a tunnel is evidence for the proxy.
//
// The order of the cases is part of the policy. A stop comes first, because it makes every other error meaningless.
// Failures of the job and of this host come before those of others.
func judge(f *facts) blame {
	if f.err == nil {
		return judgeResponse(f)
	}
	var denied *deniedError
	var location *locationError
	switch {
	// A stop that is the attempt's own timeout is a failure, so it is excluded here.
	case f.stopped && !f.timeout:
		return blame{reason: "cancelled", text: "the attempt was cut short"}
	// The body could not be read in time because another attempt of the same job was reading. Neither proxy is
	// at fault.
	case f.missedReadToken && f.timeout:
		return blame{reason: "timeout", text: "time ran out while the answer of another attempt was read", failover: true}
	case errors.As(f.err, &denied):
		return endJob(jobs.ErrTargetDenied, "denied", denied.reason)
	case errors.As(f.err, &location):
		return blameTarget("location", "the target redirects to a Location that is no URL: "+location.reason)
	case errors.Is(f.err, errTooLarge):
		b := judgeResponse(f)
		// The size of a ban's body says nothing about the job: another proxy may get the real page.
		if b.isFleetBan {
			b.isResult, b.tooLarge = false, true
		}
		if !b.isResult {
			return b // its status says enough
		}
		return endJob(jobs.ErrBodyTooLarge, "body_too_large", "the response body is larger than allowed")
	case errors.Is(f.err, errRedirects):
		return endJob(jobs.ErrTooManyRedirects, "redirects", "the target redirected more often than follow_redirects allows")
	case errors.Is(f.err, errMatch):
		// The response is complete: proxy and target have done their part.
		return blame{kind: rotation.Relayed, reason: "timeout", text: errMatch.Error()}
	// After the judgements about the job, before those about others: a host without descriptors or memory fails
	// with errors that look like the proxy's.
	case f.isLocal():
		return judgeLocal(f)
	case f.direct:
		return judgeDirect(f)
	case f.refused != nil:
		return judgeRefusal(f)
	}
	return judgeFailure(f)
}

// judgeResponse judges a complete response by its status and by the ban rules. A status is blamed on the target only if
// it came through a tunnel or cannot be the proxy's own.
func judgeResponse(f *facts) blame {
	// The cases run from the most specific to the most general. A 407 comes first, because its meaning depends
	// on who can have said it.
	status := http.StatusText(f.status)
	switch {
	case f.status == http.StatusProxyAuthRequired && f.healthy:
		// Most proxies pass on a 407 of the target. Only a 407 of a proxy that reaches no target is certainly its own.
		return blameRefusal("proxy_auth", "the proxy, which works for others, wants other credentials (407)"+offeredSchemes(f.header))
	case f.status == http.StatusProxyAuthRequired && f.plain:
		b := blameProxy("proxy_auth", "the proxy wants other credentials (407)"+offeredSchemes(f.header))
		// Nothing is known of the host only if the request was never sent to it, so it may be repeated.
		b.trip, b.unsent = tripTime, f.host == ""
		return b
	case f.status == http.StatusProxyAuthRequired && !f.direct:
		// The 407 came through the tunnel, so it is not the proxy's own: a target must not be able to open the breakers
		// of a pool.
		return blamePair("proxy_auth", "a proxy in front of the target wants credentials (407)")
	// A ban that the job defines comes before the retryable statuses: the job knows its site best.
	case f.ban && f.direct:
		return blameTarget("ban", "the answer matches the job's ban rule")
	case f.ban:
		return blamePair("ban", "the answer matches the job's ban rule")
	// A status that is retryable as well is handled below, by the policy.
	case !f.retryable && f.fleetBan && !f.direct:
		b := blamePair("ban", "the target answered "+code(f.status)+", which is a ban here")
		b.isResult, b.isFleetBan = true, true
		return b
	case !f.retryable:
		return blame{isResult: true, kind: rotation.Relayed}
	// The site limits this proxy's rate. Retry-After sets the cooldown, and the breaker takes no harm.
	case f.status == http.StatusTooManyRequests:
		return blame{fault: jobs.FaultPair, kind: rotation.Relayed, reason: "status_429", text: "the target answered 429 " + status}
	// Through a tunnel a 502 can only be the target's. In a plain exchange the proxy may have written it.
	case f.plain && f.status >= 502 && f.status <= 504:
		// A proxy in front of the target may have sent the status and say so (RFC 9209, 2): then the fault is the
		// target's.
		if said, known := proxyStatus(f.header); known && said.fault == jobs.FaultTarget {
			return said
		}
		return blameUnclear("status_5xx", "the target or the proxy answered "+code(f.status))
	case f.status >= 500:
		return blameTarget("status_5xx", "the target answered "+code(f.status))
	case f.status == http.StatusForbidden:
		return blameTarget("status_403", "the target answered "+code(f.status))
	}
	return blameTarget("status", "the target answered "+code(f.status))
}

// code is a status with its name, such as "503 Service Unavailable". It always has three digits.
func code(status int) string {
	text := http.StatusText(status)
	if text != "" {
		text = " " + text
	}
	return string([]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)}) + text
}
