package fetch

import (
	"math"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/gofer-mq/gofer/jobs"
)

// backoff gives the delays of one run. It makes them when the first is asked for: most jobs need none.
type backoff struct {
	policy jobs.Policy
	made   int // attempts that were made before
	delays retry.Backoff
}

// Next is the next delay; stop tells that there is none.
func (b *backoff) Next() (delay time.Duration, stop bool) {
	if b.delays == nil {
		b.delays = newBackoff(b.policy, b.made)
	}
	return b.delays.Next()
}

// newBackoff is the policy's delays after the attempts that were made already: growth, then the cap, then jitter inside it, then
// the count. It has state and belongs to one run.
func newBackoff(p jobs.Policy, made int) retry.Backoff {
	var n float64
	b := retry.Backoff(retry.BackoffFunc(func() (time.Duration, bool) {
		n++
		return grow(p, n), false
	}))
	b = retry.WithCappedDuration(p.MaxBackoffDelay.Std(), b)
	if p.Jitter {
		b = retry.WithFullJitter(b)
	}
	left := max(0, p.MaxAttempts-1)
	b = retry.WithMaxRetries(uint64(left), b)
	for range made {
		b.Next()
	}
	return b
}

// grow is the n-th wait, from 1, before the cap. It saturates far above any cap instead of overflowing.
func grow(p jobs.Policy, n float64) time.Duration {
	d := p.BaseDelay.Seconds()
	switch p.BackoffStrategy {
	case jobs.Linear:
		d *= n
	case jobs.Exponential:
		d *= math.Pow(p.Multiplier, n-1)
	}
	return time.Duration(math.Min(d, 1e6) * float64(time.Second))
}
