package breaker

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Config is how a breaker judges. The zero value is usable.
type Config struct {
	// FailureThreshold is how many failures within Window open the breaker; zero means 5.
	FailureThreshold int
	// Window is how long a failure counts; zero means 60 s.
	Window time.Duration
	// OpenTimeout is how long the first opening lasts; zero means 30 s. It doubles with each opening in a row, and a window
	// spent closed takes one doubling back.
	OpenTimeout time.Duration
	// MaxOpenTimeout caps the doubling; zero means 10 min.
	MaxOpenTimeout time.Duration
	// Jitter is the part of the open time that is added at random, so that breakers that opened together are not probed
	// together; zero means 0.2, below zero none. It never makes an open time shorter.
	Jitter float64
	// Probes is how many calls may be under way while half-open, Successes how many of them close the breaker; zero
	// means 1.
	Probes, Successes int
	// ProbeLease is how long a probe may take before its place is given to another; zero means 35 s.
	ProbeLease time.Duration
	// DistinctTargets is from how many different targets the failures in the window must come; zero means 2, and it is never
	// more than FailureThreshold. A failure without a target counts as one of its own. It keeps one dead target from opening
	// everything that leads to it.
	DistinctTargets int
}

func (c Config) filled() Config {
	c.FailureThreshold = positive(c.FailureThreshold, 5)
	c.Window = positive(c.Window, time.Minute)
	c.OpenTimeout = positive(c.OpenTimeout, 30*time.Second)
	c.MaxOpenTimeout = max(positive(c.MaxOpenTimeout, 10*time.Minute), c.OpenTimeout)
	c.Jitter = max(0, cmp.Or(c.Jitter, 0.2))
	c.Probes = positive(c.Probes, 1)
	c.Successes = positive(c.Successes, 1)
	c.ProbeLease = positive(c.ProbeLease, 35*time.Second)
	c.DistinctTargets = min(positive(c.DistinctTargets, 2), c.FailureThreshold)
	return c
}

func positive[T int | time.Duration](value, fallback T) T {
	if value > 0 {
		return value
	}
	return fallback
}

// openTime is how long an opening lasts that follows so many in a row.
func (c *Config) openTime(openings int) time.Duration {
	d := c.OpenTimeout
	for range openings {
		// Halving the cap rather than doubling the time cannot overflow.
		if d > c.MaxOpenTimeout/2 {
			d = c.MaxOpenTimeout
			break
		}
		d *= 2
	}
	return d + time.Duration(rand.Float64()*c.Jitter*float64(d))
}
