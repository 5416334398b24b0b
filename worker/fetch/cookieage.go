package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxCookieAge is the longest time that a cookie is kept for, in seconds, as in browsers (RFC 6265bis, 5.5). The jar counts in
// nanoseconds: a cookie that is set for some hundred years would have expired.
const maxCookieAge = 400 * 24 * 60 * 60

// readAttributes sets how long a cookie is kept and where it is sent, by its attributes as browsers read them. net/http reads
// dates in two forms only, so a cookie that a site deletes by another one would be sent on. The last attribute of a name counts.
func readAttributes(cookie *http.Cookie, attributes string) {
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		value = strings.Trim(value, " \t")
		switch strings.ToLower(strings.Trim(name, " \t")) {
		case "max-age":
			if seconds, ok := cookieSeconds(value); ok {
				cookie.MaxAge = seconds
			}
		case "expires":
			if at, ok := cookieDate(value); ok {
				cookie.Expires = at
			}
		case "domain":
			cookie.Domain = value
		case "path":
			cookie.Path = value
		case "secure":
			cookie.Secure = true
		}
	}
}

// cookieSeconds reads a Max-Age (RFC 6265bis, 5.6.2). The result is below zero if the cookie is to be deleted.
func cookieSeconds(value string) (seconds int, ok bool) {
	digits := strings.TrimPrefix(value, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	number, _ := strconv.ParseInt(value, 10, 64) // digits alone; beyond all numbers it is the largest one, or the smallest
	if number <= 0 {
		return -1, true
	}
	return int(min(number, maxCookieAge)), true
}

// cookieDate reads a date as browsers do (RFC 6265, 5.1.1): its parts may come in any order, each is taken once, and what is none
// of them is passed over. So is the zone.
func cookieDate(value string) (at time.Time, ok bool) {
	clock, day, month, year := []int(nil), 0, time.Month(0), -1
	for token := range strings.FieldsFuncSeq(value, isDateDelimiter) {
		parts, isClock := clockOf(token)
		number, size, _ := leadingNumber(token)
		name, isMonth := monthOf(token)
		switch {
		case clock == nil && isClock:
			clock = parts
		case day == 0 && (size == 1 || size == 2):
			day = number
		case month == 0 && isMonth:
			month = name
		case year < 0 && size >= 2 && size <= 4:
			year = number
		}
	}
	if clock == nil || month == 0 {
		return time.Time{}, false
	}
	switch {
	case year >= 70 && year <= 99:
		year += 1900
	case year >= 0 && year <= 69:
		year += 2000
	}
	at = time.Date(year, month, day, clock[0], clock[1], clock[2], 0, time.UTC)
	// A day that its month does not have, no day, and an hour beyond the day are another day in at.
	return at, at.Day() == day && year >= 1601 && clock[1] < 60 && clock[2] < 60
}

// clockOf reads the time of the day that begins a token: hours, minutes and seconds.
func clockOf(token string) (parts []int, ok bool) {
	for range 3 {
		number, size, rest := leadingNumber(token)
		if size < 1 || size > 2 {
			return nil, false
		}
		parts = append(parts, number)
		if token, ok = strings.CutPrefix(rest, ":"); !ok && len(parts) < 3 {
			return nil, false
		}
	}
	return parts, true
}

// leadingNumber is the number that begins a text, the count of its digits, and what follows. More digits than a year has are
// counted only.
func leadingNumber(text string) (number, size int, rest string) {
	rest = strings.TrimLeft(text, "0123456789")
	size = len(text) - len(rest)
	number, _ = strconv.Atoi(text[:min(size, 4)])
	return number, size, rest
}

// monthOf is the month whose name begins a token, in any case.
func monthOf(token string) (month time.Month, ok bool) {
	for month = time.January; month <= time.December; month++ {
		if name := month.String()[:3]; len(token) >= len(name) && strings.EqualFold(token[:len(name)], name) {
			return month, true
		}
	}
	return 0, false
}

// isDateDelimiter reports whether a character stands between the parts of a date.
func isDateDelimiter(c rune) bool {
	return c == '\t' || c >= ' ' && c <= '/' || c >= ';' && c <= '@' || c >= '[' && c <= '`' || c >= '{' && c <= '~'
}
