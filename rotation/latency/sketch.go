package latency

import (
	"math"
	"time"
)

const (
	// binCount bins, each binGrowth times as wide as the one before, cover the times from shortest to longest. The middle of a
	// bin is at most 9 % away from any time in it.
	binCount  = 68
	binGrowth = 1.188
	shortest  = 5 * time.Millisecond
	longest   = 10 * time.Minute

	// halfLife is the age at which a time counts half as much as a new one.
	halfLife = 10 * time.Minute

	// firstWeight is what the first time of a sketch counts, in units of a bin. The weight of new times grows with the time, so
	// that those before it need no change. Beyond maxWeight all is scaled down.
	firstWeight, maxWeight = 64, 4096
)

// sketch is a histogram of times with logarithmic bins, in which new times weigh more than old ones (forward decay: Cormode and
// others, "Forward decay", 2009). The zero value is empty.
type sketch struct {
	bins   [binCount]uint16
	weight float32 // what a time that is added at the time at counts; zero in an empty sketch
	number float32 // how many times there are, the older ones in part
	at     uint32  // in seconds
}

// add takes in a time at a second. dice rounds what a bin cannot hold exactly.
func (s *sketch) add(d time.Duration, second uint32, dice *dice) {
	s.age(second, dice)
	s.number++
	i := binOf(d)
	count := dice.round(s.weight)
	for uint32(s.bins[i])+count > math.MaxUint16 {
		s.scale(0.5, dice)
		count = dice.round(s.weight)
	}
	s.bins[i] += uint16(count)
}

// remove takes a part of a time back that was added a moment ago.
func (s *sketch) remove(d time.Duration, part float32, second uint32, dice *dice) {
	s.age(second, dice)
	i := binOf(d)
	s.number = max(0, s.number-part)
	s.bins[i] -= min(s.bins[i], uint16(dice.round(s.weight*part)))
}

// age makes the times that are there older.
func (s *sketch) age(second uint32, dice *dice) {
	if s.weight == 0 {
		s.weight, s.at = firstWeight, second
	}
	if second <= s.at {
		return
	}
	growth := math.Exp2(float64(second-s.at) / halfLife.Seconds())
	s.at = second
	s.number = float32(float64(s.number) / growth)
	if weight := float64(s.weight) * growth; weight <= maxWeight {
		s.weight = float32(weight)
		return
	}
	s.scale(firstWeight/float64(s.weight)/growth, dice)
	s.weight = firstWeight
}

// scale makes all weights smaller by a factor.
func (s *sketch) scale(factor float64, dice *dice) {
	s.weight = float32(float64(s.weight) * factor)
	for i, count := range s.bins {
		if count > 0 {
			s.bins[i] = uint16(dice.round(float32(float64(count) * factor)))
		}
	}
}

// numberAt is how many times there are at a second, the older ones in part.
func (s *sketch) numberAt(second uint32) float64 {
	return float64(s.number) * math.Exp2(-float64(max(second, s.at)-s.at)/halfLife.Seconds())
}

// quantile returns the time that a share q of the times does not exceed, and false if there are none.
func (s *sketch) quantile(q float64) (time.Duration, bool) {
	total := uint32(0)
	for _, count := range s.bins {
		total += uint32(count)
	}
	if total == 0 {
		return 0, false
	}
	rest := float64(total) * q
	for i, count := range s.bins {
		if rest -= float64(count); rest <= 0 {
			return middleOf(i), true
		}
	}
	return longest, true
}

// binOf is the bin of a time.
func binOf(d time.Duration) int {
	if d <= shortest {
		return 0
	}
	return min(int(math.Log(float64(d)/float64(shortest))/math.Log(binGrowth)), binCount-1)
}

// middleOf is the time that is, in proportion, as far from one end of a bin as from the other.
func middleOf(bin int) time.Duration {
	return time.Duration(float64(shortest) * math.Pow(binGrowth, float64(bin)) * 2 * binGrowth / (1 + binGrowth))
}

// dice rounds numbers up as often as their fraction says, so that sums stay right. The zero value is ready. Its numbers are those
// of Marsaglia, "Xorshift RNGs", 2003.
type dice uint64

// round returns the whole number below or above x.
func (d *dice) round(x float32) uint32 {
	whole := uint32(x)
	if fraction := x - float32(whole); fraction > 0 && d.next() < fraction {
		whole++
	}
	return whole
}

// next draws a number from 0 to 1.
func (d *dice) next() float32 {
	n := uint64(*d)
	if n == 0 {
		n = 0x9e3779b97f4a7c15
	}
	n ^= n << 13
	n ^= n >> 7
	n ^= n << 17
	*d = dice(n)
	return float32(n>>40) / (1 << 24)
}
