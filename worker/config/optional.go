package config

import (
	"math"

	"github.com/gofer-mq/gofer/jobs"
)

// optionalDuration is a duration, or off. The zero value is the duration 0, not off, so a bound that was forgotten
// is refused by check.
type optionalDuration jobs.Duration

// off is no bound. Packages for which zero means the default use a negative duration for it. No written duration has
// this value.
const off optionalDuration = math.MinInt64

// UnmarshalText reads off or a duration.
func (d *optionalDuration) UnmarshalText(written []byte) error {
	if string(written) == "off" {
		*d = off
		return nil
	}
	return (*jobs.Duration)(d).UnmarshalText(written)
}
