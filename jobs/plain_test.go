package jobs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// ordinary is a job as many publishers write it.
const ordinary = `{"url":"https://example.com/search?q=tea","headers":{"Accept-Language":"en","X-Trace":["a","b"]},
	"retry":{"max_attempts":5,"base_delay":"1s"},"meta":{"order":"4711"}}`

// withEscapes is the same JSON with an escape in the names of its members: such a text is read by encoding/json.
func withEscapes(payload string) string {
	for _, name := range []string{
		"url", "method", "headers", "body", "body_base64", "timeout", "not_before", "deadline", "retry", "proxy", "ban", "when_no_proxy", "follow_redirects",
		"max_body_bytes", "meta", "max_attempts", "base_delay", "tags", "region", "statuses", "a", "Accept",
	} {
		payload = strings.ReplaceAll(payload, `"`+name+`"`, fmt.Sprintf(`"\u%04x%s"`, name[0], name[1:]))
	}
	return payload
}

// read is what becomes of a payload, as text.
func read(payload string) string {
	job, err := decode(payload)
	if invalid, ok := errors.AsType[*jobs.InvalidError](err); ok {
		return fmt.Sprint(len(invalid.Reasons), " reasons") // they quote the payload
	}
	again, err := job.Encode()
	return fmt.Sprintf("%s %v %q", again, err, job.Content())
}

func wantReadAlike(t *testing.T, payload string) {
	t.Helper()
	if len(payload) > jobs.MaxJobBytes/2 {
		return
	}
	if plain, escaped := read(payload), read(withEscapes(payload)); plain != escaped {
		t.Errorf("%q is read as\n%s\nand with escapes as\n%s", payload, plain, escaped)
	}
}

// FuzzAJobIsReadAlikeHoweverItsNamesAreWritten compares the pass that reads ordinary jobs with encoding/json.
func FuzzAJobIsReadAlikeHoweverItsNamesAreWritten(f *testing.F) {
	f.Add(ordinary)
	for _, value := range []string{
		`1`, `-1`, `01`, `1.5e3`, `"1s"`, `"a" "b"`, `null`, `nul`, `true`, `tru`, `{}`, `[]`, `[1]`, `[1,]`, `{"a":1,"a":2}`, `{"a":"b"}`, `{"a":null}`, `{"a":[null]}`, `["a"]`, `{"a":["b","c"]}`,
		`{"a":[}]`, `{"a":{]}`, `"` + "\t" + `"`, `"` + "\x7f\xc3" + `"`, `[{"a":"}"}]`, ``, `"`, `{"max_attempts":3,"max_attempts":4}`, `{"max_attempts":3 , "base_delay" : 2}`, `{"tags":["x"],"region":"DE"}`,
		`2030-01-02T15:04:05Z`, `"2030-01-02T15:04:05Z"`, `"YQ=="`, `"url"`,
	} {
		for _, name := range []string{"url", "method", "headers", "body", "body_base64", "timeout", "not_before", "retry", "proxy", "ban", "follow_redirects", "max_body_bytes", "meta", "other"} {
			f.Add(`{"url":"http://a.test/","` + name + `":` + value + `}`)
			f.Add(`{ "` + name + `" : ` + value + ` , "url":"http://a.test/" } `)
		}
	}
	for _, text := range []string{`{"url":"http://a.test/",}`, `{,"url":"http://a.test/"}`, `{"url":"http://a.test/"}}`, `{"url":"http://a.test/"} x`, `{"url"}`, `{"url":}`, `{"url":"http://a.test/"`, `{url:"http://a.test/"}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		// A URL has no names, although it may have quotes.
		if strings.HasPrefix(strings.TrimSpace(payload), "{") {
			wantReadAlike(t, payload)
		}
	})
}

func TestATextThatIsNoJSONIsSaidNothingElseOf(t *testing.T) {
	for _, field := range []string{`"":00`, `"meta":{"a":"b"},"":00`, `"retry":{"timeout":nul}`, `"retry":{"base_delay":tru}`, `"retry":{"backoff_strategy":nul}`, `"first_byte_timeout":nul`} {
		job, err := decode(`{"url":"0",` + field + `}`)
		if job.URL != "" || job.Meta != nil {
			t.Errorf("%s: a part of it was read: %+v", field, job)
		}
		invalid, ok := errors.AsType[*jobs.InvalidError](err)
		if !ok || len(invalid.Reasons) != 1 || !strings.HasPrefix(invalid.Reasons[0], "not a JSON object") {
			t.Errorf("%s: %v; want only that it is not a JSON object", field, err)
		}
	}
}

func BenchmarkDecodeOrdinary(b *testing.B) {
	for name, payload := range map[string]string{"plain": ordinary, "escaped": withEscapes(ordinary)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jobs.Decode("default", "j1", []byte(payload)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
