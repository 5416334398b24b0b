package fetch_test

import (
	"fmt"
	"math/big"
	"net/http"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

func TestRetryAfterIsReadAsSecondsOrDate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for want, values := range map[time.Duration][]string{
		0: {"", "-5", "soon", "0", "0.0", "NaN", "Wed, 31 Dec 2025 23:59:59 GMT", "Thu, 99 Jan 2026 00:00:00 GMT", "-1s", "0x10", "1_0"},
		7: {"7", " 7 ", "\t7", "6.5", "6.0000000001", "+7", "7.", "\"7\"", "7s", "6500ms", "7e0"},
		30: {
			"Thu, 01 Jan 2026 00:00:30 GMT", "Thu, 01 Jan 2026 00:00:30 UTC", "Thu, 1 Jan 2026 00:00:30 +0000", "Thu, 01 Jan 2026 02:00:30 +0200", "thu, 01 jan 2026 00:00:30 gmt",
			"Thu, 01 Jan 2026 00:00:30 +0000 (UTC)", "Thursday, 01-Jan-26 00:00:30 GMT", "Thu, 01-Jan-2026 00:00:30 GMT", "Thu Jan  1 00:00:30 2026", "Thu Jan 1 00:00:30 UTC 2026",
			"01 Jan 2026 00:00:30 GMT", "Thu, 01 Jan 2026 00:00:30", "Thu,  01  Jan 2026 00:00:30 GMT", "Wed, 31 Dec 2025 16:00:30 PST", "Thu, 01 Jan 2026 00:00:30 GMT+00:00",
			"2026-01-01T00:00:30Z", "2026-01-01T01:00:30+01:00", "2026-01-01 00:00:30", "2026-01-01 00:00:30 UTC", "2026-01-01T00:00:30", "Thu, 01 Jan 2026 02:00:30 +02", "2025-12-31 19:00:30 -05",
		},
		900: {"9999999999999999999999", "3600", "1e9", "900.1", "1e999", "24h", "Fri, 02 Jan 2026 00:00:00 GMT", strings.Repeat("9", 400)},
	} {
		for _, value := range values {
			if got := fetch.RetryAfter(value, now); got != want*time.Second {
				t.Errorf("%q = %v, want %v", value, got, want*time.Second)
			}
		}
	}
}

// FuzzRetryAfter compares with a reference: decimal numbers rounded up, and the dates that HTTP or mail know.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{
		"5", "-1", "9999999999", "1.7", "Thu, 01 Jan 2026 00:10:59 GMT", "Thursday, 01-Jan-26 00:00:30 GMT", "Thu Jan  1 00:00:30 2026", "1e9", "",
		"Thu, 1 Jan 2026 00:10:59 +0100 (CET)", "Thu, 01 Jan 2026 00:10:59 UTC", "1 Jan 2026 00:01 EST",
		"Thu, 1 Jan 2026 00:10 +00", "Thu, 1 Jan 2026 01:10:59 +01", "1 Jan 2100 0:00 +000000", "1 Jan 27 0:00 UT000A", "1 Jan 2100 0:00 +0000 (0)",
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := fetch.RetryAfter(value, now)
		if got < 0 || got > 15*time.Minute {
			t.Fatalf("%q = %v, want it between 0 and 15 min", value, got)
		}
		if want, ok := lenient(value, now); ok && got != min(max(0, want), 15*time.Minute) {
			t.Fatalf("%q = %v, the reference has %v", value, got, want)
		}
	})
}

// decimal is a number whose fraction a float64 holds well enough to round it up.
var decimal = regexp.MustCompile(`^[0-9]{1,300}(\.[0-9]{1,9})?$`)

// plainDate is a date of RFC 5322 that mail.ParseDate reads whole. That parser also reads odd texts, and passes over a part of
// them.
var plainDate = regexp.MustCompile(`^([A-Za-z]{3}, )?[0-9]{1,2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}(:[0-9]{2})? ([A-Za-z]+|[+-][0-9]{2}([0-9]{2})?)( \(.*\))?$`)

// lenient is what other clients make of a value.
func lenient(value string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	if decimal.MatchString(value) {
		seconds, _ := new(big.Rat).SetString(value)
		if seconds.Cmp(big.NewRat(1000, 1)) > 0 {
			return time.Hour, true
		}
		whole, rest := new(big.Int).QuoRem(seconds.Num(), seconds.Denom(), new(big.Int))
		if rest.Sign() > 0 {
			whole.Add(whole, big.NewInt(1))
		}
		return time.Duration(whole.Int64()) * time.Second, true
	}
	if at, err := http.ParseTime(strings.Replace(value, " UTC", " GMT", 1)); err == nil {
		return at.Sub(now), true
	}
	at, err := mail.ParseDate(value)
	if err != nil || !plainDate.MatchString(value) {
		return 0, false
	}
	zone, offset := at.Zone()
	known := zone == "" || zone == "GMT" || zone == "UTC" || zone == "UT" || zone == "+00" || zone == "-00" || offset != 0
	return at.Sub(now), known
}

func TestAnAttemptWaitsForAFractionOrAnOddDate(t *testing.T) {
	in := func(d time.Duration) string {
		return time.Now().UTC().Add(d).Format("Mon, 02 Jan 2006 15:04:05") + " UTC"
	}
	for _, value := range []string{"1.7", in(4 * time.Second)} {
		r := newRig(t, nil)
		r.use(r.replies(fmt.Sprintf("HTTP/1.1 429 Too Many Requests\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n", value)) + " id=p")
		if o := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":2,"timeout":"1.9s"}}`); o.Result.Error != jobs.ErrTimedOut || o.Result.AttemptCount != 1 {
			t.Errorf("%s: %s after %d attempts, want no other attempt within 1.9 s", value, o.Result.Error, o.Result.AttemptCount)
		}
	}
}
