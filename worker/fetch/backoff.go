package fetch

import (
	"math"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/gofer-mq/gofer/jobs"
)

// backoff holds the delays of one run. They are made when the first is asked for, because most jobs need none.
type backoff struct {
	policy *jobs.Policy
	made   int // attempts in the job's history before this run; as many delays are used up
	delays retry.Backoff
}

// Next returns the delay before the next retry. stop means that the policy allows no more retries. It is called
// once for each retry, whatever caused it, so that the delays keep their order.
func (b *backoff) Next() (delay time.Duration, stop bool) {
	if b.delays == nil {
		b.delays = newBackoff(b.policy, b.made)
	}
	return b.delays.Next()
}

// newBackoff is the policy's delays after the attempts that were made already: growth, then the cap, then the jitter,
// then the count. It has state and belongs to one run. The order of the wrappers matters: the cap bounds the grown
// delay, the jitter only shortens it, and the count comes last, so that skipped delays count as well.
func newBackoff(p *jobs.Policy, made int) retry.Backoff {
	var n float64
	b := retry.Backoff(retry.BackoffFunc(func() (time.Duration, bool) {
		n++
		return grow(p, n), false
	}))
	b = retry.WithCappedDuration(p.MaxBackoffDelay.Std(), b)
	if p.Jitter {
		b = retry.WithFullJitter(b)
	}
	// The first attempt is no retry, hence one less.
	left := max(0, p.MaxAttempts-1)
	b = retry.WithMaxRetries(uint64(left), b)
	// go-retry counts from the first delay. A run that continues a job skips those that earlier runs have used.
	for range made {
		b.Next()
	}
	return b
}

// grow returns the n-th delay, counted from 1, before the cap. It stops at 1e6 seconds, which is far above any cap,
// because a larger float would overflow a Duration.
func grow(p *jobs.Policy, n float64) time.Duration {
	// Floats do not overflow as Durations do: 2^1000 is still a number here, and the cap follows.
	d := p.BaseDelay.Seconds()
	switch p.BackoffStrategy {
	case jobs.Linear:
		d *= n
	case jobs.Exponential:
		d *= math.Pow(p.Multiplier, n-1)
	}
	return time.Duration(math.Min(d, 1e6) * float64(time.Second))
}
