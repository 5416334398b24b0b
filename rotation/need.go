package rotation

import (
	"fmt"
	"strings"
	"time"
)

// Need is what a pick asks for. The zero value accepts any proxy.
type Need struct {
	// Host is the target's "host:port".
	Host string
	// Tags must all be on the proxy.
	Tags []string
	// Region is preferred. With RegionStrict it is required.
	Region       string
	RegionStrict bool
	// Session sends all picks of one name to the same proxy while it works. A pick that finds the proxy busy uses another one.
	Session string
	// ID names the only proxy that is accepted. What may be the target's failure is then no evidence against the proxy, because
	// a publisher chose both, unless the need is Trusted.
	ID      string
	Trusted bool
	// Ban is the key of the job's own rule of what a ban is: proxies that cool down by it are not used. FleetBan means that the
	// job has none: proxies that cool down by that are used last.
	Ban uint64
	// NoLastResort refuses the proxies that are used last: the excluded ones, those that cool down by FleetBan or UsedLast, and
	// those that another worker found dead.
	NoLastResort bool
	// Relayed prefers proxies that relayed a response within the last minute: a failure through one of them is more
	// likely the host's. Such a pick is no probe.
	Relayed bool
	// Beside says that the pick is for a hedge, which runs beside another attempt of the job. It does not move the
	// position of RoundRobin.
	Beside bool
	// Exclude are the ids of proxies that failed the job. They are used only if no other proxy is left. A pick with excluded
	// proxies is no probe, and prefers proxies whose latest attempt succeeded.
	Exclude []string
	// ExcludeExits are the words of the exits that failed the job. A session moves to another word. A pick with such
	// words is no probe, either.
	ExcludeExits []string
}

// isRetry reports whether the job has failed before. A retry must not be spent on a probe: the job has lost
// enough time.
func (n *Need) isRetry() bool { return len(n.Exclude)+len(n.ExcludeExits) > 0 }

// Reason is why no proxy could be picked. Metrics use it as a label.
type Reason string

// The reasons. The values are public: metrics and the message contract use them.
const (
	Empty       Reason = "empty"     // the pool has no proxies
	Unmatched   Reason = "unmatched" // no proxy of the pool can ever meet the need
	Unavailable Reason = "resting"   // the proxies that can have an open breaker, cool down or are busy
	Outage      Reason = "failing"   // an outage: all proxies fail
)

// NoProxyError says that no proxy could be picked, and when to try again.
type NoProxyError struct {
	Reason Reason
	// RetryAt is zero if that time is unknown.
	RetryAt time.Time
	// Proxies is how many proxies match, if the reason is Unavailable: Cooling of them cool down for the site, Open others have a
	// breaker that is not closed, and the rest is busy. All are zero if nobody has counted.
	Proxies, Cooling, Open int
}

// Error is a sentence for people.
func (e *NoProxyError) Error() string {
	switch e.Reason {
	case Empty:
		return "the pool has no proxies"
	case Unmatched:
		return "no proxy of the pool matches what the job asks for"
	case Outage:
		return "all proxies of the pool fail: the network of this worker, or what all proxies depend on, is down"
	// The counts are set only if the candidates were counted, which costs a walk over them.
	case Unavailable:
		if e.Proxies > 0 {
			return e.counts()
		}
	}
	return "every proxy that can be used has an open breaker, cools down for this site or is busy"
}

// counts says why the proxies that match cannot be used.
func (e *NoProxyError) counts() string {
	reasons := []struct {
		n         int
		one, many string
	}{
		{e.Cooling, "cools down for this site after a ban or a Retry-After", "cool down for this site after a ban or a Retry-After"},
		{e.Open, "has an open breaker", "have open breakers"},
		{e.Proxies - e.Cooling - e.Open, "is busy", "are busy"},
	}
	var parts []string
	for _, r := range reasons {
		switch {
		case r.n == 1 && e.Proxies == 1:
			return "the only proxy that matches " + r.one
		case r.n == e.Proxies:
			return fmt.Sprintf("all %d proxies that match %s", r.n, r.many)
		case r.n == 1:
			parts = append(parts, "1 "+r.one)
		case r.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", r.n, r.many))
		}
	}
	return fmt.Sprintf("of %d proxies that match, %s", e.Proxies, strings.Join(parts, ", "))
}
