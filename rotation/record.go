package rotation

import (
	"math/bits"
	"time"
)

// record is what the performance strategy knows of a proxy: how its last 100 attempts ended, and how long answers take.
type record struct {
	ends [2]uint64 // a bit an attempt, 1 for a good end
	// latency is a moving mean of good ends, in nanoseconds; zero while there is none.
	latency float32
	next    uint8 // the bit of the next one
	n       uint8 // up to recorded
}

const (
	recorded   = 100
	provenFrom = 10 // attempts
)

func (r *record) proven() bool { return r.n >= provenFrom }

func (r *record) add(good bool, latency time.Duration) {
	word, bit := &r.ends[r.next/64], uint64(1)<<(r.next%64)
	*word &^= bit
	if good {
		*word |= bit
		r.latency = float32(mix(float64(r.latency), latency))
	}
	r.next = (r.next + 1) % recorded
	r.n = min(r.n+1, recorded)
}

// mix moves a mean an eighth of the way.
func mix(mean float64, sample time.Duration) float64 {
	if mean == 0 {
		return float64(sample)
	}
	return mean + (float64(sample)-mean)/8
}

// score is 0.7 × success rate + 0.3 × (1 − normalised latency), from 0 to 1. A proxy without a history counts as good and of
// the pool's pace; the latency is normalised against that pace, at which it counts a half.
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
	return 0.7*float64(good+2)/float64(r.n+2) + 0.3*(1-slow)
}
