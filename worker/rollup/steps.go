package rollup

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// The widths of the steps that a Book keeps, and how many of each, the running one included.
const (
	ShortStep  = 5 * time.Second
	ShortSteps = 25
	LongStep   = time.Minute
	LongSteps  = 61
)

// Step has the sums of a short interval. Steps of one width begin at multiples of the width, so steps of several workers with the
// same At can be merged.
type Step struct {
	// At is the step's start in seconds since 1970.
	At int64 `json:"at"`
	// Classes are the ended jobs by the class of their last status.
	Classes Classes `json:"classes"`
	// Failed counts the ended jobs that failed, Retries the announced retries.
	Failed  int64 `json:"failed"`
	Retries int64 `json:"retries"`
	// Latency has the durations of ended jobs that made an attempt.
	Latency Histogram `json:"latency"`
}

// Jobs is the number of ended jobs.
func (s *Step) Jobs() int64 {
	c := s.Classes
	return c.Status2xx + c.Status3xx + c.Status4xx + c.Status5xx + c.None
}

// Merge adds the counts of o. At stays.
func (s *Step) Merge(o *Step) {
	s.Classes.Merge(o.Classes)
	s.Failed += o.Failed
	s.Retries += o.Retries
	s.Latency.Merge(&o.Latency)
}

// Merge adds the counts of o.
func (c *Classes) Merge(o Classes) {
	c.Status2xx += o.Status2xx
	c.Status3xx += o.Status3xx
	c.Status4xx += o.Status4xx
	c.Status5xx += o.Status5xx
	c.None += o.None
}

// job counts an ended job.
func (s *Step) job(f JobFact) {
	count := &s.Classes.None
	switch jobs.StatusClass(f.Status) {
	case jobs.Class2xx:
		count = &s.Classes.Status2xx
	case jobs.Class3xx:
		count = &s.Classes.Status3xx
	case jobs.Class4xx:
		count = &s.Classes.Status4xx
	case jobs.Class5xx:
		count = &s.Classes.Status5xx
	}
	*count++
	if f.Outcome == jobs.Failed {
		s.Failed++
	}
	if f.Attempts > 0 {
		s.Latency.Observe(f.Duration)
	}
}

// steps is a ring of steps of one width: step n is at index n modulo the length. The lock of the Book guards it.
type steps struct {
	width int64 // seconds
	ring  []Step
}

// newSteps makes the empty ring of a width, which is ShortStep or LongStep.
func newSteps(width time.Duration) *steps {
	count := ShortSteps
	if width == LongStep {
		count = LongSteps
	}
	return &steps{width: int64(width / time.Second), ring: make([]Step, count)}
}

// at returns the step of a time; nil if the step is no longer kept.
func (s *steps) at(at time.Time) *Step {
	n := at.Unix() / s.width
	if now := time.Now().Unix() / s.width; n <= now-int64(len(s.ring)) || n < 0 {
		return nil
	}
	slot := &s.ring[n%int64(len(s.ring))]
	// The slot holds an older step, which is no longer kept.
	if slot.At != n*s.width {
		*slot = Step{At: n * s.width}
	}
	return slot
}

// eachStep applies a fact to the steps of its time, one of each width. The caller holds mu.
func (b *Book) eachStep(at time.Time, fact func(*Step)) {
	for _, s := range b.steps {
		if slot := s.at(at); slot != nil {
			fact(slot)
		}
	}
}

// Steps returns the newest steps of a width, at most count, oldest first. It leaves out the running step and steps in which
// nothing happened. The width is ShortStep or LongStep; for any other width the result is empty.
func (b *Book) Steps(width time.Duration, count int) []Step {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.steps[width]
	if s == nil {
		return nil
	}
	var out []Step
	now := time.Now().Unix() / s.width
	for n := now - int64(min(count, len(s.ring)-1)); n < now; n++ {
		slot := &s.ring[max(n, 0)%int64(len(s.ring))]
		if slot.At == n*s.width && (slot.Jobs() > 0 || slot.Retries > 0) {
			out = append(out, *slot)
		}
	}
	return out
}

// MarshalJSON writes a list: the sum in µs, then index and count of each bucket that is not empty.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	flat := []int64{h.sum}
	for i, n := range h.counts {
		if n != 0 {
			flat = append(flat, int64(i), n)
		}
	}
	return json.Marshal(flat)
}

// UnmarshalJSON reads the form of MarshalJSON. Data comes from another worker, so all numbers are checked.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var flat []int64
	if err := json.Unmarshal(data, &flat); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	*h = Histogram{}
	if len(flat) == 0 {
		return nil
	}
	if len(flat)%2 == 0 || flat[0] < 0 || flat[0] > maxValue {
		return errMalformed
	}
	h.sum = flat[0]
	// Pairs of an index and a count; the length was checked to be odd.
	for rest := flat[1:]; len(rest) > 0; rest = rest[2:] {
		if rest[0] < 0 || rest[0] >= buckets || rest[1] < 0 || rest[1] > maxValue {
			return errMalformed
		}
		h.counts[rest[0]] = rest[1]
	}
	return nil
}
