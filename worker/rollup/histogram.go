package rollup

import (
	"math"
	"math/bits"
	"time"
)

// buckets is the number of buckets of a Histogram: 8 to each doubling, from 1 µs to 4.7 hours.
const buckets = 256

// Histogram counts durations. The width of a bucket is an eighth of its power of two, so a quantile is at most 6.25 % off. Merge
// adds histograms. The zero value is empty and ready. Only one goroutine may use a Histogram at a time. The buckets are an array,
// so that a copy of an hour needs no allocation.
type Histogram struct {
	counts [buckets]int64
	sum    int64 // µs
}

// Observe counts d. A negative d counts as zero.
func (h *Histogram) Observe(d time.Duration) {
	us := max(d.Microseconds(), 0)
	h.counts[bucketOf(us)]++
	h.sum += us
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.sum += o.sum
}

// Count returns how many durations were observed.
func (h *Histogram) Count() (n int64) {
	for _, c := range h.counts {
		n += c
	}
	return n
}

// Mean returns the exact mean; zero if nothing was observed.
func (h *Histogram) Mean() time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	return time.Duration(h.sum/n) * time.Microsecond
}

// Quantile returns the middle of the bucket that has the quantile q, 0 ≤ q ≤ 1; zero if nothing was observed. A quantile of
// merged histograms has the same error, unlike a mean of quantiles.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(h.Count())))
	seen := int64(0)
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen >= rank {
			low, high := bucketBounds(i)
			return time.Duration(low+high) * time.Microsecond / 2
		}
	}
	return 0
}

// bucketOf returns the bucket of a number of µs by its four highest bits: the position of the leading bit selects a power of two,
// and the next three bits select an eighth of it.
func bucketOf(us int64) int {
	if us < 8 {
		return int(us)
	}
	shift := bits.Len64(uint64(us)) - 4
	return min((shift+1)*8+int(us>>shift)-8, buckets-1)
}

// bucketBounds returns the lowest value of bucket i and the lowest value of the next bucket, in µs.
func bucketBounds(i int) (low, high int64) {
	if i < 8 {
		return int64(i), int64(i) + 1
	}
	shift := i/8 - 1
	low = int64(8+i%8) << shift
	return low, low + 1<<shift
}
