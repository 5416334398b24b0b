package jobs_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"
	"unicode/utf16"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

// drawText draws a text of up to most bytes without control characters and commas, with no blank at either end.
func drawText(t *rapid.T, least, most int, label string) string {
	pattern := rapid.StringOfN(rapid.RuneFrom([]rune("aZ09-_ .;:=\"'\\/<>%|\u00a0\u00fc\u2028\ufeff\U0001f600")), least, most, most)
	return pattern.Filter(func(s string) bool { return s == "" || s[0] != ' ' && s[len(s)-1] != ' ' }).Draw(t, label)
}

// drawJob draws a job in which every field is set.
func drawJob(t *rapid.T) jobs.Job {
	duration := func(label string) jobs.Duration {
		return jobs.Duration(rapid.Int64Range(int64(time.Second), int64(jobs.MaxAttemptTimeout)).Draw(t, label))
	}
	at := time.Unix(0, rapid.Int64Range(1, 9e18).Draw(t, "time")).UTC()
	job := jobs.Job{
		Queue: "default", ID: "j1",
		URL:     "http://a.test/" + rapid.StringMatching(`[a-z%|'"<> ]{0,20}x`).Draw(t, "url"),
		Method:  rapid.SampledFrom([]string{"POST", "purge", "M-SEARCH", "get-it"}).Draw(t, "method"),
		Headers: jobs.Headers{"x-ONE": {"a", drawText(t, 1, 20, "value")}, "X-One": {"b"}},
		Timeout: duration("timeout"), FirstByteTimeout: rapid.SampledFrom([]jobs.AutoDuration{jobs.Auto, jobs.Off, jobs.AutoDuration(duration("first byte"))}).Draw(t, "first byte timeout"), NotBefore: at, Deadline: at.Add(time.Hour),
		Retry: &jobs.Override{MaxAttempts: new(rapid.IntRange(1, 10).Draw(t, "attempts"))},
		Proxy: jobs.ProxyChoice{
			Tags: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, 1, 16, "tag") }), 1, 16).Draw(t, "tags"), Region: drawText(t, 1, 16, "region"),
			RegionStrict: true, Session: drawText(t, 1, 32, "session"), ID: "p-1",
		},
		Ban: &jobs.Ban{
			Statuses: []int{rapid.IntRange(100, 999).Draw(t, "status")}, BodyRegexp: "(?i)captcha|\\x{fc}", NotBodyRegexp: "</html>",
			MinBytes: rapid.Int64Range(0, 1000).Draw(t, "min_bytes"), RedirectToRegexp: "/blocked",
		},
		WhenNoProxy:     jobs.NoProxyFail,
		WhenSiteDown:    jobs.SiteDownFail,
		FollowRedirects: new(rapid.IntRange(0, 50).Draw(t, "redirects")),
		MaxBodyBytes:    rapid.Int64Range(1, 1<<40).Draw(t, "bytes"),
		Meta:            map[string]string{"a": drawText(t, 0, 50, "meta"), "A": drawText(t, 1, 50, "meta")},
	}
	if rapid.Bool().Draw(t, "as text") {
		job.Body = rapid.StringN(1, 50, -1).Draw(t, "body")
	} else {
		job.BodyBase64 = rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "body")
	}
	return job
}

func TestEachFieldOfAValidJobArrivesAsItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := drawJob(t)
		payload, err := job.Encode()
		if err != nil {
			t.Fatalf("%+v: %v", job, err)
		}
		arrived, err := jobs.Decode(job.Queue, job.ID, payload)
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		given, got := reflect.ValueOf(job), reflect.ValueOf(arrived)
		for i := range given.NumField() {
			field := given.Type().Field(i)
			if !field.IsExported() || field.Name == "Ban" || field.Name == "Trace" { // a trace is in the headers
				continue
			}
			if a, b := given.Field(i).Interface(), got.Field(i).Interface(); !reflect.DeepEqual(a, b) {
				t.Errorf("%s: got %+v, want %+v", field.Name, b, a)
			}
			body := field.Name == "Body" || field.Name == "BodyBase64"
			if given.Field(i).IsZero() && !body {
				t.Errorf("%s is not set: nothing is tested of it", field.Name)
			}
		}
		want, _ := json.Marshal(job.Ban)
		if got, _ := json.Marshal(arrived.Ban); string(got) != string(want) || arrived.Ban.Key() == 0 {
			t.Errorf("Ban: got %s with key %d, want %s and a key", got, arrived.Ban.Key(), want)
		}
		if again, err := arrived.Encode(); err != nil || string(again) != string(payload) {
			t.Errorf("encoded again: got %s, %v, want %s", again, err, payload)
		}
	})
}

// A publisher may write any character of a JSON string as an escape.
func TestEscapesOfAJSONStringAreCharacters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.StringOf(rapid.RuneFrom([]rune("a\\\"u/\u00fc\u2028\ufffd\U0001f600"))).Draw(t, "text")
		text, err := json.Marshal(map[string]string{"url": "http://a.test/", "body": want})
		if err != nil {
			t.Fatal(err)
		}
		escaped := []byte{}
		for _, r := range string(text) {
			if r >= 0x80 {
				for _, unit := range utf16.Encode([]rune{r}) {
					escaped = fmt.Appendf(escaped, `\u%04x`, unit)
				}
				continue
			}
			escaped = append(escaped, byte(r))
		}
		if job, err := decode(string(escaped)); err != nil || job.Body != want {
			t.Errorf("%s: got %q, %v, want %q", escaped, job.Body, err, want)
		}
	})
}

func TestABackslashBeforeALetterUIsNoEscapeOfACharacter(t *testing.T) {
	if job, err := decode(`{"url":"http://a.test/","body":"\\ud83d \\\\ude00"}`); err != nil || job.Body != `\ud83d \\ude00` {
		t.Errorf("got %q, %v", job.Body, err)
	}
}
