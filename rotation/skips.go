package rotation

import (
	"math"
	"time"

	"github.com/gofer-mq/gofer/rotation/outlier"
)

// skips is what one pick leaves out although it is available: the proxies that failed the job, those that cool down for its host
// and, unless useAvoided, those that another worker found dead.
type skips struct {
	exclude       excluded
	cooldowns     *hostCooldowns // for all jobs
	banned        *hostCooldowns // for jobs with the same ban
	ban           uint64         // zero leaves out none of these
	last          *hostCooldowns // for all jobs, unless useLast
	useLast       bool
	useAvoided    bool
	beside        bool  // the pick does not move the position of round_robin
	skipProbeable bool  // sessions leave out probeable proxies
	need          *Need // leaves out the gateways that cannot serve it; nil if there are no gateways
	now           time.Duration
	judge         *outlier.Judge // leaves out the proxies that are not reliable now; nil leaves out none
	relayed       bool           // the judge leaves out those that relayed nothing within a minute instead
}

// findCooldowns finds the cooldowns of a host.
func (f *skips) findCooldowns(p *Pool, host string) {
	f.cooldowns = p.cooldowns.of(cooldownKey{host: host})
	if f.ban != 0 {
		f.banned = p.cooldowns.of(cooldownKey{host, f.ban})
	}
	if !f.useLast {
		f.last = p.cooldowns.of(cooldownKey{host, UsedLast})
	}
}

// hasLast reports whether the pick leaves out proxies that it may use last.
func (f *skips) hasLast() bool { return f.ban == FleetBan && f.banned.size() > 0 || f.last.size() > 0 }

// takeLast makes the pick use them.
func (f *skips) takeLast() {
	f.last, f.useLast = nil, true
	if f.ban == FleetBan {
		f.ban, f.banned = 0, nil
	}
}

// isBanned reports whether a proxy must not be used for a job with this ban.
func (f *skips) isBanned(e *entry) bool { return f.ban != FleetBan && f.banned.has(e) }

// skip reports whether the pick leaves a proxy out. The cheap tests come first.
func (f skips) skip(e *entry) bool {
	if f.need != nil && !e.serves(f.need) {
		return true
	}
	return f.cooldowns.has(e) || f.banned.has(e) || f.last.has(e) || f.exclude.has(e) || f.judge != nil && f.isDoubtful(e)
}

// isDoubtful reports whether the pick leaves a proxy out because it wants only reliable proxies, or only those that
// relayed lately.
func (f skips) isDoubtful(e *entry) bool {
	if f.relayed {
		return !f.judge.RelayedWithin(e.index, time.Minute, f.now)
	}
	return !f.judge.Reliable(e.index, f.now)
}

// canTake reports whether a session's proxy can be taken now.
func (f skips) canTake(e *entry, now time.Duration) bool {
	c, _ := e.class(now)
	return (c == available || c == probeable && !f.skipProbeable || c != unavailable && f.useAvoided) && !f.skip(e)
}

// onlyReliable also leaves out the proxies whose latest attempt failed, or that relayed no response lately.
func (f skips) onlyReliable(judge *outlier.Judge, now time.Duration) skips {
	f.judge, f.now = judge, now
	return f
}

// onlyRelayed also leaves out the proxies that relayed no response within the last minute.
func (f skips) onlyRelayed(judge *outlier.Judge, now time.Duration) skips {
	f.judge, f.now, f.relayed = judge, now, true
	return f
}

// maxSets bounds the filters whose sets are kept. The set that was unused for the longest time is dropped.
const maxSets = 256

// maxPool keeps indexes within int32.
const maxPool = math.MaxInt32 / 2
