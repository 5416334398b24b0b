package config

import (
	"cmp"
	"math"
	"reflect"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// longest is the longest time that a Duration holds.
const longest = time.Duration(math.MaxInt64)

// bound says which durations a variable takes. The zero value of high is no upper bound.
type bound struct {
	low, high time.Duration
	// says is the bound as text, and example a value that it allows.
	says, example string
}

// durationBound is the bound of a variable that holds a duration; false for any other variable. check and fill both use it, so
// that a text that is no duration and a duration out of range get the same bound.
func durationBound(name string) (bound, bool) {
	const day = 24 * time.Hour
	const upTo = "above 0s and at most 2562047h"
	switch name {
	case "GOFER_ATTEMPT_TIMEOUT":
		return bound{100 * time.Millisecond, jobs.MaxAttemptTimeout, "between 0.1s and 10m", "30s"}, true
	case "GOFER_STALL_TIMEOUT":
		return bound{100 * time.Millisecond, jobs.MaxAttemptTimeout, "off, or between 0.1s and 10m", "30s"}, true
	case "GOFER_FIRST_BYTE_TIMEOUT":
		return bound{1, 0, "auto or off, or " + upTo, "5s"}, true
	case "GOFER_RETRY_HEDGE":
		return bound{1, 0, "auto or off, or " + upTo, "500ms"}, true
	case "GOFER_MAX_WAIT":
		return bound{1, 0, upTo, "24h"}, true
	case "GOFER_SITE_MAX_WAIT":
		return bound{1, 0, upTo, "3m"}, true
	case "GOFER_DRAIN_TIMEOUT":
		return bound{time.Second, 0, "between 1s and 2562047h", "30s"}, true
	case "GOFER_RETRY_BASE_DELAY":
		return bound{jobs.MinBaseDelay, jobs.MaxBaseDelay, "between 0.1s and 60s", "1s"}, true
	case "GOFER_RETRY_MAX_BACKOFF_DELAY":
		return bound{jobs.MinMaxBackoffDelay, jobs.MaxMaxBackoffDelay, "between 1s and 300s", "30s"}, true
	case "GOFER_RETRY_TIMEOUT":
		return bound{0, 0, "0s, which means none, or " + upTo, "5m"}, true
	case "GOFER_RESULTS_MAX_AGE":
		return bound{time.Minute, 876000 * time.Hour, "between 60s and 876000h, 100 years", "24h"}, true
	case "GOFER_PROXIES_REFRESH", "GOFER_HEALTH_CHECK_INTERVAL", "GOFER_BREAKER_WINDOW", "GOFER_BREAKER_TIMEOUT":
		return bound{100 * time.Millisecond, day, "between 0.1s and 24h", "30s"}, true
	case "GOFER_BREAKER_MAX_TIMEOUT":
		return bound{100 * time.Millisecond, day, "between 0.1s and 24h", "10m"}, true
	}
	return bound{}, false
}

// holds reports whether a duration lies within the bound.
func (b bound) holds(d time.Duration) bool {
	return d >= b.low && d <= cmp.Or(b.high, longest)
}

// String is the end of a reason.
func (b bound) String() string { return b.says + ", such as " + b.example }

// checkDurations lists the variables whose durations are out of range. Words, such as off, were read by fill.
func (c *Config) checkDurations() (reasons []string) {
	eachVariable(reflect.ValueOf(c).Elem(), func(v Variable, field reflect.Value) {
		b, _ := durationBound(v.Name)
		ok := true
		switch d := field.Interface().(type) {
		case jobs.Duration:
			ok = b.holds(d.Std())
		case optionalDuration:
			ok = d == off || b.holds(time.Duration(d))
		}
		if !ok {
			reasons = append(reasons, v.Name+": not "+b.String())
		}
	})
	return reasons
}
