package outlier

import (
	"math"
	"math/bits"
	"time"
)

// evidence is what is known of one proxy. The zero value knows nothing.
type evidence struct {
	generation   uint32  // of the index: Remove advances it
	relayed      seconds // when the proxy relayed a response last
	streakSince  seconds // the value of relayed when the streak began
	streak       uint16  // consecutive failures at unknown sites
	failedProbes uint8   // probes that failed at unknown sites since the breaker was last open
	recent       recent
}

// extendStreak counts a failure at an unknown site and returns the length of the streak. An attempt that began before the
// proxy's last relayed response belongs to no streak.
func (e *evidence) extendStreak(began time.Duration) int {
	if began < time.Duration(e.relayed)*time.Second {
		return 0
	}
	if e.streakSince != e.relayed {
		e.streak, e.streakSince = 0, e.relayed
	}
	e.streak = min(e.streak, math.MaxUint16-1) + 1
	return int(e.streak)
}

// seconds is a time on the caller's clock in whole seconds, plus one. Zero means never.
type seconds uint32

func secondsOf(at time.Duration) seconds { return seconds(at/time.Second) + 1 }

// within reports whether the time is at most d ago, to a second.
func (s seconds) within(d, now time.Duration) bool {
	return s != 0 && now-time.Duration(s)*time.Second <= d
}

// recent is how a proxy's last eight attempts ended.
type recent struct {
	good uint8 // one bit an attempt, the latest lowest; 1 for a good end
	n    uint8 // attempts, at most 8
}

func (r *recent) add(good bool) {
	r.good <<= 1
	if good {
		r.good |= 1
	}
	r.n = min(r.n+1, 8)
}

// last reports whether the latest attempt ended well.
func (r recent) last() bool { return r.good&1 == 1 }

// failsMostly reports whether, with one more failure, three in four of the last nine attempts failed, or of all if there
// were fewer.
func (r recent) failsMostly() bool {
	failed := 1 + int(r.n) - bits.OnesCount8(r.good)
	return 4*failed > 3*int(r.n)
}
