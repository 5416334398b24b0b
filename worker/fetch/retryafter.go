package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that a target may ask for.
const maxRetryAfter = 15 * time.Minute

// RetryAfter reads a Retry-After header, in seconds or as a date (RFC 9110, 10.2.3), as a wait from now between nothing and
// 15 minutes. What cannot be read, or lies in the past, is no wait.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		// Compared as a number of seconds: as a duration a large one would overflow into the past.
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}
