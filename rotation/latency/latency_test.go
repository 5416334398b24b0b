package latency_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation/latency"
)

// weighted is a time and what it counts.
type weighted struct {
	time   time.Duration
	weight float64
}

// exact is the quantile of times by their weights.
func exact(times []weighted, q float64) time.Duration {
	slices.SortFunc(times, func(a, b weighted) int { return int(a.time - b.time) })
	total := 0.0
	for _, t := range times {
		total += t.weight
	}
	rest := total * q
	for _, t := range times {
		if rest -= t.weight; rest <= 0 {
			return t.time
		}
	}
	return times[len(times)-1].time
}

// isNear reports whether a quantile is within a tenth of the exact one, or of one a little above or below: samples leave gaps in
// which any time is as right as any other.
func isNear(got time.Duration, times []weighted, q float64) bool {
	const slack = 0.001
	low, high := exact(times, q-slack), exact(times, q+slack)
	return float64(got) >= 0.9*float64(low) && float64(got) <= 1.1*float64(high)
}

// drawSample draws from the kinds of distributions that sites have.
func drawSample(t *rapid.T) func(luck *rand.Rand) time.Duration {
	median := time.Duration(rapid.IntRange(20, 5000).Draw(t, "median in ms")) * time.Millisecond
	sigma := rapid.Float64Range(0.1, 1).Draw(t, "sigma")
	lognormal := func(luck *rand.Rand) time.Duration {
		return min(10*time.Minute, time.Duration(float64(median)*math.Exp(sigma*luck.NormFloat64())))
	}
	if rapid.Bool().Draw(t, "one mode") {
		return lognormal
	}
	slow, share := time.Duration(rapid.IntRange(2, 50).Draw(t, "times slower")), rapid.SampledFrom([]float64{0.002, 0.05, 0.3}).Draw(t, "slow share")
	return func(luck *rand.Rand) time.Duration {
		if d := lognormal(luck); luck.Float64() >= share {
			return d
		}
		return min(10*time.Minute, slow*lognormal(luck))
	}
}

func TestQuantilesAreWithinATenthOfThoseOfTheSample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tracker latency.Tracker
		draw, luck := drawSample(t), rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		n := rapid.SampledFrom([]int{1000, 5000, 20000}).Draw(t, "times")
		span := time.Duration(rapid.SampledFrom([]int{1, 60, 1200, 7200}).Draw(t, "seconds")) * time.Second
		now := time.Unix(0, 0)
		end := now.Add(span)
		var times []weighted
		for range n {
			now = now.Add(span / time.Duration(n))
			d := draw(luck)
			tracker.AddResponse("site", d, now)
			times = append(times, weighted{d, math.Exp2(-end.Sub(now).Minutes() / 10)})
		}
		for _, q := range []float64{0.5, 0.98, 0.99} {
			if got, known := tracker.Quantile("site", q, end); !known || !isNear(got, times, q) {
				t.Errorf("quantile %v is %v, %s; want %s within a tenth", q, known, got, exact(times, q))
			}
		}
	})
}

func TestATimeCountsHalfAfterTenMinutes(t *testing.T) {
	var tracker latency.Tracker
	start := time.Unix(0, 0)
	for range 10000 {
		tracker.AddResponse("site", 100*time.Millisecond, start)
	}
	for range 1000 {
		tracker.AddResponse("site", time.Second, start.Add(10*time.Minute))
	}
	for q, want := range map[float64]time.Duration{0.82: 100 * time.Millisecond, 0.85: time.Second} {
		got, _ := tracker.Quantile("site", q, start.Add(10*time.Minute))
		if ratio := got.Seconds() / want.Seconds(); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("quantile %v: got %s, want %s: 1,000 new times are a sixth of all", q, got, want)
		}
	}
}

// TestABusySiteKeepsTheHalfLife has so many times that no bin could count them one by one.
func TestABusySiteKeepsTheHalfLife(t *testing.T) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	for i := range 400_000 {
		if i%1000 == 0 {
			now = now.Add(time.Second) // 400 s in all
		}
		d := 100 * time.Millisecond
		if i < 40_000 {
			d = 3 * time.Second
		}
		tracker.AddResponse("site", d, now)
	}
	// The first 40 s are a tenth of the times, and count about 0.083 of all, because they are older.
	if got, _ := tracker.Quantile("site", 0.99, now); got < 2700*time.Millisecond {
		t.Errorf("the 99th percentile is %s, want the 3 s of the first 40 s", got)
	}
	if got, _ := tracker.Quantile("site", 0.9, now); got > 110*time.Millisecond {
		t.Errorf("the 90th percentile is %s, want 100 ms", got)
	}
}

func TestASiteIsKnownFromTenTimes(t *testing.T) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	for i := range 49 {
		tracker.AddResponse(fmt.Sprint("site", i), time.Second, now)
	}
	if _, known := tracker.Quantile("site0", 0.99, now); known {
		t.Error("the pool is known from 49 answers, want 50")
	}
	for i := range 10 {
		if got, _ := tracker.Quantile("slow", 0.5, now); got > 2*time.Second {
			t.Errorf("after %d times of the slow site: got %s, want the pool's", i, got)
		}
		tracker.AddResponse("slow", 20*time.Second, now)
	}
	if got, _ := tracker.Quantile("slow", 0.5, now); got < 18*time.Second {
		t.Errorf("after 10 times of the slow site: got %s, want its own 20 s", got)
	}
	if got, _ := tracker.Quantile("slow", 0.5, now.Add(11*time.Minute)); got > 2*time.Second {
		t.Errorf("11 min later: got a median of %s, want the pool's: fewer than ten times are left of the site", got)
	}
}

func TestWhatWasWaitedInVainCountsForTheSiteOnly(t *testing.T) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	for range 100 {
		tracker.AddResponse("fast", 100*time.Millisecond, now)
	}
	for range 30 {
		tracker.AddTimeout("slow", 4*time.Second, now)
	}
	if got, known := tracker.Quantile("slow", 0.99, now); !known || got < 3600*time.Millisecond {
		t.Errorf("the slow site: got %s, want 4 s", got)
	}
	if got, _ := tracker.Quantile("other", 0.99, now); got > 110*time.Millisecond {
		t.Errorf("the pool: got %s, want the 100 ms of what was answered", got)
	}
	if tracker.HasAnsweredWithin("slow", time.Hour) || !tracker.HasAnsweredWithin("fast", 100*time.Millisecond) || tracker.HasAnsweredWithin("fast", 99*time.Millisecond) {
		t.Error("want that only the fast site has answered, in 100 ms and not before")
	}
}

func TestTheBusiestSitesAreKept(t *testing.T) {
	tracker := latency.Tracker{MaxSites: 1000}
	now := time.Unix(0, 0)
	for i := range 100_000 {
		now = now.Add(10 * time.Millisecond)
		tracker.AddResponse(fmt.Sprint("busy", i%300), time.Second, now)
		tracker.AddResponse(fmt.Sprint("once", i), 100*time.Millisecond, now)
	}
	if n := tracker.Len(); n != 1000 {
		t.Errorf("%d sites are remembered, want 1000", n)
	}
	for i := range 300 {
		name := fmt.Sprint("busy", i)
		if got, _ := tracker.Quantile(name, 0.5, now); got < 900*time.Millisecond {
			t.Errorf("%s was forgotten for sites that were asked once", name)
		}
	}
}

func TestASiteTakesAtMost200Bytes(t *testing.T) {
	const n = latency.DefaultMaxSites
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("site", i)
	}
	tracker := new(latency.Tracker)
	before := heap()
	for _, name := range names {
		tracker.AddResponse(name, time.Second, time.Unix(0, 0))
	}
	if got := float64(heap()-before) / n; got > 200 {
		t.Errorf("a site takes %.1f bytes, want at most 200", got)
	}
	runtime.KeepAlive(tracker)
	runtime.KeepAlive(names)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAKnownSiteCostsNoAllocation(t *testing.T) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	tracker.AddResponse("site", time.Second, now)
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Second)
		tracker.AddResponse("site", time.Second, now)
		tracker.AddTimeout("site", time.Second, now)
		tracker.Quantile("site", 0.99, now)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkAnswered(b *testing.B) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tracker.AddResponse("site", time.Duration(i%1000)*time.Millisecond, now.Add(time.Duration(i)*time.Millisecond))
	}
}

func BenchmarkQuantile(b *testing.B) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	for i := range 1000 {
		tracker.AddResponse("site", time.Duration(i)*time.Millisecond, now)
	}
	b.ReportAllocs()
	for b.Loop() {
		tracker.Quantile("site", 0.99, now)
	}
}

func TestATimeThatIsDiscountedCountsAThirtySecond(t *testing.T) {
	var tracker latency.Tracker
	now := time.Unix(0, 0)
	for range 880 {
		tracker.AddResponse("site", 100*time.Millisecond, now)
	}
	for range 120 { // a little more than 0.4 % in the end
		tracker.AddTimeout("site", 4*time.Second, now)
		tracker.DiscountTimeout("site", 4*time.Second, now)
	}
	tracker.DiscountTimeout("unknown", 4*time.Second, now)
	for q, want := range map[float64]time.Duration{0.99: 100 * time.Millisecond, 0.998: 4 * time.Second} {
		got, _ := tracker.Quantile("site", q, now)
		if ratio := got.Seconds() / want.Seconds(); ratio < 0.9 || ratio > 1.1 {
			t.Errorf("quantile %v: got %s, want %s", q, got, want)
		}
	}
}
