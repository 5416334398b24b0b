package rotation

import (
	"math/bits"
	"time"
)

// record is what the performance strategy knows about a proxy: how its last 100 attempts ended, and how long
// responses took. It is small on purpose: there is one in each entry, and picks read it.
type record struct {
	ends    [2]uint64 // one bit an attempt, 1 for a good end
	latency float32   // moving mean of good attempts, in nanoseconds; zero without one
	next    uint8     // the bit of the next attempt
	n       uint8     // attempts, at most recordSize
}

const (
	recordSize = 100
	provenFrom = 10 // attempts
)

// isProven reports whether enough attempts are known to judge the proxy by them.
func (r *record) isProven() bool { return r.n >= provenFrom }

// add records how an attempt ended. latency counts only for a good end.
func (r *record) add(good bool, latency time.Duration) {
	word, bit := &r.ends[r.next/64], uint64(1)<<(r.next%64)
	// The bit of the attempt 100 ago is overwritten, whatever it was.
	*word &^= bit
	if good {
		*word |= bit
		r.latency = float32(movingMean(float64(r.latency), latency))
	}
	r.next = (r.next + 1) % recordSize
	r.n = min(r.n+1, recordSize)
}

// movingMean moves a mean an eighth of the way to a sample.
func movingMean(mean float64, sample time.Duration) float64 {
	if mean == 0 {
		return float64(sample)
	}
	// Old samples lose half of their weight after five newer ones.
	return mean + (float64(sample)-mean)/8
}

// score is 0.7 × success rate + 0.3 × (1 − normalised latency), from 0 to 1. The latency is normalised against the pool's
// pace, where it counts a half. A proxy without a record counts as good and as fast as the pool.
func (r *record) score(pace float64) float64 {
	good := bits.OnesCount64(r.ends[0]) + bits.OnesCount64(r.ends[1])
	latency := float64(r.latency)
	if latency == 0 {
		latency = pace
	}
	slow := 0.5
	if pace > 0 {
		slow = latency / (latency + pace)
	}
	// Two good ends are added, so a new proxy scores like a good one and a single failure does not ruin it.
	return 0.7*float64(good+2)/float64(r.n+2) + 0.3*(1-slow)
}
