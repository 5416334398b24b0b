package breaker

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// Config says when a breaker opens and for how long. The zero value is usable.
type Config struct {
	// FailureThreshold is the number of failures within Window that open the breaker; zero means 5.
	FailureThreshold int
	// Window is how long a failure counts; zero means 60 s.
	Window time.Duration
	// OpenTimeout is the first open time; zero means 30 s. It doubles with each opening in a row. Each Window that the breaker is
	// closed undoes one doubling.
	OpenTimeout time.Duration
	// MaxOpenTimeout is the longest open time, before jitter; zero means 10 min.
	MaxOpenTimeout time.Duration
	// Jitter is the largest share of the open time that is added at random, so that breakers that opened together are not
	// probed together. Zero means 0.2, a negative value means none. Jitter never shortens an open time.
	Jitter float64
	// Probes is how many probes may run at once, Successes how many must succeed to close the breaker; zero means 1.
	Probes, Successes int
	// ProbeLease is how long a probe may run before another one gets its place; zero means 35 s.
	ProbeLease time.Duration
	// DistinctTargets is how many different targets the failures in the window must have; zero means 2, and FailureThreshold
	// is the upper bound. A failure without a target counts as a target of its own. So one dead target does not open the
	// breaker of everything that leads to it.
	DistinctTargets int
}

func (c Config) withDefaults() Config {
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

// openTime returns the open time after a number of openings in a row.
func (c *Config) openTime(openings int) time.Duration {
	d := c.OpenTimeout
	for range openings {
		// Half of the cap is compared, because twice the time might overflow.
		if d > c.MaxOpenTimeout/2 {
			d = c.MaxOpenTimeout
			break
		}
		d *= 2
	}
	return d + time.Duration(rand.Float64()*c.Jitter*float64(d))
}
