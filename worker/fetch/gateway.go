package fetch

import (
	"net/http"
	"strconv"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// considerGateway changes the judgement of an attempt through a gateway: an exit is blamed and not the gateway, unless the
// gateway itself failed. It failed if it cannot be reached, if TLS with it fails, or if it refuses the credentials.
// Attempts through other proxies keep their judgement.
func (b *blame) considerGateway(lease *rotation.Lease, status int) {
	switch {
	// The cases are exclusive: a judgement is changed once at most.
	case !lease.IsGateway():
	case b.reason == "proxy_auth" && (b.trip > 0 || b.kind == rotation.Refused):
		if !lease.RefuseCredentials() {
			*b = refusedRegion()
			return
		}
		b.gateway = b.trip > 0
	case b.kind == rotation.ProxyFault && (b.reason == "connect" || b.reason == "proxy_tls"):
		b.gateway = true
	case b.kind == rotation.Unclear && b.fault == jobs.FaultTarget:
		b.kind = rotation.TargetFault // the gateway works, and reports the target as unreachable
	case b.kind == rotation.Neutral && b.fault == jobs.FaultUnclear:
		b.kind = rotation.Unclear // one exit may replace certificates
	case b.reason == "status_5xx" && status == http.StatusServiceUnavailable:
		b.kind = rotation.TargetFault // a failing exit shows as 502 or 504
	case b.trip > 0:
		b.trip, b.failover = 0, false // too many requests: the next word would get the same response
	}
}

// refusedRegion judges a gateway that refuses the region that the job asks for, and works in others. Nobody is at
// fault, and other proxies are tried.
func refusedRegion() blame {
	return blame{reason: "region_refused", text: "the gateway refuses the region that the job asks for (407)", failover: true, unsent: true}
}

// excluded reports whether no more attempts of the job go through the proxy of a failed attempt. A gateway has other
// exits, so it stays, unless the gateway itself failed or refuses the region.
func (r *run) excluded(a jobs.Attempt) bool {
	if !r.f.cfg.Pool.IsGateway(a.Proxy) {
		return true
	}
	// Only a failure to connect is the gateway's own; later phases are those of an exit.
	isGateways := a.Fault == jobs.FaultProxy && a.Phase == connecting.String()
	refusedRegion := a.Fault == jobs.FaultNone && a.Status == 0 && !a.Hedge
	return isGateways || refusedRegion
}

// failedExits are the words of the exits that failed the job. 429 and 503 are answers of a site that is busy, and no failures.
func (r *run) failedExits() (words []string) {
	for _, a := range r.progress.Attempts {
		isBusy := a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable
		if a.Exit != "" && a.Fault != jobs.FaultTarget && !isBusy {
			words = append(words, a.Exit)
		}
	}
	return words
}

// exitKey returns a key that differs for different exits: the id of a proxy with one exit, and for a gateway its id with
// the word of the exit or the serial number of the attempt. The number in the job's history does not suffice: an
// attempt that costs the job nothing leaves its number to the next one.
func (a *flight) exitKey() string {
	switch {
	case !a.lease.IsGateway():
		return a.lease.ID()
	case a.lease.Exit() != "":
		return a.lease.ID() + exitMark + a.lease.Exit()
	}
	return a.lease.ID() + exitMark + strconv.Itoa(a.serial)
}

// via names the proxy of an attempt, or the exit of a gateway. Without a word each attempt has an exit of its own, so the
// start of the attempt stands for it.
func (r *run) via(a jobs.Attempt) string {
	switch {
	case a.Exit != "":
		return a.Proxy + exitMark + a.Exit
	case r.f.cfg.Pool.IsGateway(a.Proxy):
		return a.Proxy + exitMark + strconv.FormatInt(a.StartedAt.UnixNano(), 36)
	}
	return a.Proxy
}

// exitMark separates the id and the exit. No id of a proxy contains it.
const exitMark = "/"
