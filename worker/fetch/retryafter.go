package fetch

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that a target may ask for.
const maxRetryAfter = 15 * time.Minute

// RetryAfter reads a Retry-After header, in seconds or as a date (RFC 9110, 10.2.3), as a delay from now between zero
// and 15 minutes. It reads what lenient clients read: fractions, which are rounded up, and dates in many forms, with or
// without a day of the week and in any zone. What cannot be read, or lies in the past, is no wait.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.Trim(value, " \t\"'")
	if seconds, ok := parseSeconds(value); ok {
		// Compared as a number of seconds: as a duration a large one would overflow into the past.
		return time.Duration(math.Ceil(min(max(0, seconds), maxRetryAfter.Seconds()))) * time.Second
	}
	at, ok := parseDate(value)
	if !ok {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// parseSeconds reads a decimal number, or a Go duration such as "90s". A number too large for a float is infinite, which
// the caller bounds.
func parseSeconds(value string) (float64, bool) {
	if strings.Trim(value, "0123456789.eE+-") == "" {
		seconds, err := strconv.ParseFloat(value, 64)
		return seconds, err == nil || math.IsInf(seconds, 0)
	}
	d, err := time.ParseDuration(value)
	return d.Seconds(), err == nil
}

// parseDate reads a date in any of the forms of RFC 9110, 5.6.7, RFC 5322 and RFC 3339, and similar forms: the zone may
// be missing, or stand anywhere.
func parseDate(value string) (time.Time, bool) {
	value, _, _ = strings.Cut(strings.ToUpper(value), "(") // a comment, such as the name of the zone
	value = strings.TrimRight(value, " \t")
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00"} {
		if at, err := time.Parse(layout, value); err == nil {
			return at, true
		}
	}
	offset, words := "", []string(nil)
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(" \t,", r) }) {
		switch zone := zoneOffset(word); {
		case zone != "" && offset == "":
			offset = zone
		case zone == "" && !isWeekday(word):
			words = append(words, word)
		}
	}
	if offset == "" {
		offset = "+0000"
		if n := len(words); n > 0 && strings.Trim(words[n-1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			words = words[:n-1] // an unknown zone
		}
	}
	value = strings.Join(append(words, offset), " ")
	for _, layout := range []string{
		"2 Jan 2006 15:04:05 -0700", "2 Jan 06 15:04:05 -0700", "2-Jan-06 15:04:05 -0700", "2-Jan-2006 15:04:05 -0700", "2 Jan 2006 15:04 -0700",
		"2 Jan 06 15:04 -0700", "Jan 2 15:04:05 2006 -0700", "Jan 2 2006 15:04:05 -0700", "2006-01-02T15:04:05 -0700", "2006-01-02 15:04:05 -0700",
	} {
		if at, err := time.Parse(layout, value); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// isWeekday reports whether a word in upper case is a day of the week, in full or short.
func isWeekday(word string) bool {
	for day := range time.Saturday + 1 {
		if name := strings.ToUpper(day.String()); word == name || word == name[:3] || word == name[:3]+"." {
			return true
		}
	}
	return false
}

// zoneOffset is the offset that a word names (RFC 5322, 4.3); empty if it names none.
func zoneOffset(word string) string {
	switch word {
	case "GMT", "UTC", "UT", "Z":
		return "+0000"
	case "EDT":
		return "-0400"
	case "EST", "CDT":
		return "-0500"
	case "CST", "MDT":
		return "-0600"
	case "MST", "PDT":
		return "-0700"
	case "PST":
		return "-0800"
	}
	word = strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(word, "GMT"), "UTC"), ":", "")
	switch {
	case len(word) < 3 || word[0] != '+' && word[0] != '-':
		return ""
	case len(word) == 3: // hours alone (ISO 8601)
		return word + "00"
	}
	return word
}
