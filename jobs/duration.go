package jobs

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs/text"
)

// Duration is a time.Duration that is read as a Go string ("1.5s") or as a number of seconds, in JSON and in the
// environment, and written as a number of seconds. The zero value is no time at all.
type Duration time.Duration

// Std is the standard library's view of d.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Seconds is d as a decimal number of seconds.
func (d Duration) Seconds() float64 { return time.Duration(d).Seconds() }

// String is the Go notation of d, such as "1.5s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes d as a number of seconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return []byte(formatSeconds(time.Duration(d))), nil
}

// UnmarshalJSON reads a Go duration string or a number of seconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	written := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := unmarshal(data, &written); err != nil {
			return err
		}
	}
	return d.UnmarshalText([]byte(written))
}

// UnmarshalText reads a Go duration string or a number of seconds.
func (d *Duration) UnmarshalText(written []byte) error {
	v, err := ParseDuration(string(written))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// ErrTooLong is what ParseDuration's error wraps when the text is a duration that no time.Duration can hold.
var ErrTooLong = errors.New("too long: the longest duration is 2562047h, 292 years")

// ParseDuration reads "1.5s", "2m" or "1.5", the last one in seconds. Errors: ErrTooLong, or one that says how to write it.
func ParseDuration(written string) (time.Duration, error) {
	written = strings.TrimSpace(written)
	// The number is tried first: ParseDuration of the library demands a unit.
	if seconds, err := text.Float(written); err == nil || errors.Is(err, strconv.ErrRange) {
		nanoseconds := math.Round(seconds * 1e9)
		// 2⁶³ is the first float that int64 cannot hold; converted, it would come out negative.
		if err != nil || math.Abs(nanoseconds) >= 1<<63 {
			return 0, fmt.Errorf("%q is %w", clip(written, 40), ErrTooLong)
		}
		return time.Duration(nanoseconds), nil
	}
	if v, err := time.ParseDuration(written); err == nil {
		return v, nil
	}
	// The parser's error does not tell; with zeros for digits only what is not a duration is refused again.
	zeros := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return '0'
		}
		return r
	}, written)
	if _, err := time.ParseDuration(zeros); err == nil {
		return 0, fmt.Errorf("%q is %w", clip(written, 40), ErrTooLong)
	}
	return 0, fmt.Errorf(`%q is not a duration: write "1.5s", "2m" or a number of seconds`, clip(written, 40))
}

// parseTime reads a time of RFC 3339. The library's parser takes hours of one digit, a comma before the fraction and an offset of
// 24 h, and refuses the small letters of section 5.6.
func parseTime(written string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, strings.ToUpper(written))
	_, offset := at.Zone()
	if err != nil || written[13] != ':' || strings.Contains(written, ",") || max(offset, -offset) >= 24*3600 {
		return time.Time{}, noTime(written)
	}
	return at, nil
}

// noTime is the reason for a text that is no time.
func noTime(written string) error {
	return fmt.Errorf("%q is not a time such as 2030-01-02T15:04:05Z", clip(written, 40))
}

// formatSeconds writes d in seconds, without trailing zeros and without an exponent.
func formatSeconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

// clip shortens a text for an error message; input is quoted there and must stay readable. What could be user and password is
// left out: reasons stand in results and logs.
func clip(long string, limit int) string {
	long = text.HideUserInfo(long)
	if len(long) <= limit {
		return long
	}
	// A cut within a character would make the error invalid UTF-8.
	for limit > 0 && !utf8.RuneStart(long[limit]) {
		limit--
	}
	return long[:limit] + "…"
}
