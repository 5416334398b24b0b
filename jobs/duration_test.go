package jobs_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

// TestDurationIsWhatWasWrittenOrRefused: none comes out with another sign, or far from the number of seconds that was written.
func TestDurationIsWhatWasWrittenOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seconds := rapid.OneOf(rapid.Float64(), rapid.Float64Range(9223372036.8, 9223372036.9), rapid.Float64Range(-1e10, 1e10)).Draw(t, "seconds")
		format := rapid.SampledFrom([]string{"%v", "%e", "%f", "%.9f"}).Draw(t, "format")
		written := fmt.Sprintf(format, seconds)
		got, err := jobs.ParseDuration(written)
		if err != nil {
			if math.Abs(seconds) < 9223372036 {
				t.Fatalf("%s is refused: %v", written, err)
			}
			return
		}
		if off := math.Abs(got.Seconds() - seconds); off > 1e-6*max(1, math.Abs(seconds)) {
			t.Fatalf("%s is read as %s, %v s off", written, got, off)
		}
	})
}

func TestLongestDurationIsRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2562047h47m16.854775807s": math.MaxInt64, "9223372036": 9223372036 * time.Second, "9223372036.854774": 9223372036854774784,
	} {
		if got, err := jobs.ParseDuration(text); got != want || err != nil {
			t.Errorf("%s = %d, %v; want %d", text, got, err, want)
		}
	}
}
