package jobs_test

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

func decode(payload string) (jobs.Job, error) {
	return jobs.Decode("default", "j1", []byte(payload))
}

func TestBareURLIsAJob(t *testing.T) {
	for _, payload := range []string{"https://example.com/a?b=c", "  https://example.com/a?b=c\r\n"} {
		job, err := decode(payload)
		if err != nil || job.URL != "https://example.com/a?b=c" || job.Method != "GET" || job.Redirects() != jobs.DefaultRedirects {
			t.Errorf("%q = %+v, %v; want a GET of the URL", payload, job, err)
		}
	}
}

func TestBareURLMayNameAnIPv6Address(t *testing.T) {
	if job, err := decode("http://[2001:db8::1]:8080/"); err != nil || job.Target().Port() != "8080" {
		t.Errorf("%+v, %v", job, err)
	}
}

func TestHostNamesOfOtherScriptsAreTaken(t *testing.T) {
	if _, err := decode("http://b\u00fccher.test/"); err != nil {
		t.Error(err)
	}
}

func TestEveryFieldOfAJobIsRead(t *testing.T) {
	job, err := decode(`{"url":"https://example.com/","method":"POST","headers":{"Accept":"text/html","X-Two":["a","b"]},"body":"hello",
		"timeout":"1.5s","first_byte_timeout":"2s","not_before":"2030-01-01T00:00:00Z","deadline":"2030-01-02T00:00:00Z",
		"retry":{"max_attempts":5,"backoff_strategy":"linear","base_delay":0.5,"multiplier":3,"max_backoff_delay":"10s","jitter":false,
		"retry_status_codes":[500],"timeout":60,"retry_non_idempotent":true,"hedge":"auto"},
		"proxy":{"tags":["a"],"region":"eu","region_strict":true,"session":"s"},"ban":{"statuses":[403],"body_regexp":"banned"},
		"when_no_proxy":"fail","follow_redirects":0,"max_body_bytes":1000,"meta":{"k":"v"}}`)
	if err != nil {
		t.Fatal(err)
	}
	p := job.Retry.ApplyTo(jobs.DefaultPolicy())
	want := jobs.Policy{
		MaxAttempts: 5, BackoffStrategy: jobs.Linear, BaseDelay: jobs.Duration(500 * time.Millisecond), Multiplier: 3,
		MaxBackoffDelay: jobs.Duration(10 * time.Second), RetryStatusCodes: []int{500}, Timeout: jobs.Duration(time.Minute), RetryNonIdempotent: true,
		Hedge: jobs.Auto, BanStatusCodes: []int{403},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("policy = %+v, want %+v", p, want)
	}
	if string(job.Content()) != "hello" || job.Timeout.Seconds() != 1.5 || job.FirstByteTimeout != jobs.AutoDuration(2*time.Second) || job.Redirects() != 0 || job.Ban.BodyRegexp != "banned" || job.Headers["X-Two"][1] != "b" {
		t.Errorf("job = %+v", job)
	}
}

// TestATimeMayHaveSmallLetters: RFC 3339, 5.6, allows them.
func TestATimeMayHaveSmallLetters(t *testing.T) {
	want := time.Date(2030, 1, 2, 15, 4, 5, 250_000_000, time.UTC)
	for _, written := range []string{"2030-01-02t15:04:05.25z", "2030-01-02T17:04:05.25+02:00", "2030-01-02\\u005415:04:05.250Z"} {
		job, err := decode(`{"url":"http://a.test/","not_before":"` + written + `"}`)
		if err != nil || !job.NotBefore.Equal(want) {
			t.Errorf("%s: got %v, %v; want %v", written, job, err, want)
		}
	}
}

func TestBadJobsAreRefusedWithTheReason(t *testing.T) {
	for payload, want := range map[string]string{
		"":                          "empty",
		"hello":                     "neither an absolute URL nor a JSON object",
		`["http://a.test/"]`:        "neither an absolute URL nor a JSON object",
		"/relative":                 "neither an absolute URL nor a JSON object",
		"file:///etc/passwd":        "not an absolute http or https URL",
		"http://user:pw@a.test/":    "user information",
		"http://a.test:99999/":      "port",
		"http:///path":              "no host",
		"{":                         "unexpected end",
		"{}":                        "url: required",
		`{"url":"http://a.test/"}x`: "invalid character",
		`{"Url":"http://a.test/"}`:  `"Url": unknown field, did you mean url?`,
		`{"ulr":"http://a.test/"}`:  `"ulr": unknown field, did you mean url?`,
		`{"url":"http://a.test/","proxy":{"tag":["a"]}}`:    `proxy."tag": unknown field, did you mean tags?`,
		`{"url":"http://a.test/","proxy":{"colour":"red"}}`: `proxy."colour": unknown field`,
		`{"url":"http://a.test/","retry":{"tries":3}}`:      `retry."tries": unknown field`,
		`{"url":7}`: "url: a JSON number is not what belongs here",
		`{"url":"http://a.test/","headers":{"a b":"c"}}`:                       "not a header name",
		`{"url":"http://a.test/","headers":{"A":"b\r\nHost: evil"}}`:           "control characters",
		`{"url":"http://a.test/","headers":{"Host":"evil"}}`:                   "set by the connection",
		`{"url":"http://a.test/","headers":{"Proxy-Authorization":"x"}}`:       "set by the connection",
		`{"url":"http://a.test/","method":"CONNECT"}`:                          "CONNECT",
		`{"url":"http://a.test/","body":"a","body_base64":"Yg=="}`:             "only one of the two",
		`{"url":"http://a.test/","timeout":"11m"}`:                             "timeout",
		`{"url":"http://a.test/","timeout":"soon"}`:                            "not a duration",
		`{"url":"http://a.test/","first_byte_timeout":0}`:                      "not above zero",
		`{"url":"http://a.test/","first_byte_timeout":"-1ns"}`:                 "not above zero",
		`{"url":"http://a.test/","first_byte_timeout":"Auto"}`:                 `or "auto" or "off"`,
		`{"url":"http://a.test/","first_byte_timeout":true}`:                   "first_byte_timeout",
		`{"url":"http://a.test/","deadline":"tomorrow"}`:                       `deadline: "tomorrow" is not a time such as 2030-01-02T15:04:05Z`,
		`{"url":"http://a.test/","deadline":2030}`:                             `deadline: "2030" is not a time`,
		`{"url":"http://a.test/","deadline":"2030-01-02T15:04:05+24:00"}`:      "is not a time",
		`{"url":"http://a.test/","deadline":"2030-01-02 15:04:05Z"}`:           "is not a time",
		`{"url":"http://a.test/","deadline":"2030-01-02T5:04:05Z"}`:            "is not a time",
		`{"url":"http://a.test/","deadline":"2030-01-02T15:04:05,5Z"}`:         "is not a time",
		`{"url":"http://a.test/","retry":{"hedge":0}}`:                         "retry.hedge",
		`{"url":"http://a.test/","retry":{"max_attempts":11}}`:                 "retry.max_attempts",
		`{"url":"http://a.test/","retry":{"base_delay":0.01}}`:                 "retry.base_delay",
		`{"url":"http://a.test/","retry":{"retry_status_codes":[99]}}`:         "retry.retry_status_codes",
		`{"url":"http://a.test/","ban":{"body_regexp":"("}}`:                   "ban.body_regexp",
		`{"url":"http://a.test/","ban":{"statuses":[42]}}`:                     "ban.statuses",
		`{"url":"http://a.test/","when_no_proxy":"pray"}`:                      "when_no_proxy",
		`{"url":"http://a.test/","when_site_down":"pray"}`:                     "when_site_down",
		`{"url":"http://a.test/","follow_redirects":-1}`:                       "follow_redirects",
		`{"url":"http://a.test/","max_body_bytes":-1}`:                         "max_body_bytes",
		`{"url":"http://a.test/","meta":{"a b":"c"}}`:                          "meta: key",
		`{"url":"http://a.test/","meta":{"a":"b\nc"}}`:                         "control characters",
		`{"url":"http://a.test/","meta":{"a":7}}`:                              "meta",
		`{"url":"http://a.test/","meta":{"a":" b"}}`:                           "begins or ends with a blank",
		`{"url":"http://a.test/","meta":{"a":"b "}}`:                           "begins or ends with a blank",
		`{"url":"http://a.test/","meta":{"a":"\\\ud83d"}}`:                     "half of a character",
		`{"url":"http://a.test/","meta":{"a":"\ude00\ud83d"}}`:                 "half of a character",
		`{"url":"http://a.test/","body":"\ud83dx"}`:                            "half of a character",
		`{"url":"http://a.test/","body":"\uD83D\\uDE00"}`:                      "half of a character",
		`{"url":"http://a.test/","meta":{"a":null}}`:                           "not a string",
		`{"url":"http://a.test/","meta":{"a":"b","a":"c"}}`:                    "more than once",
		`{"url":"http://a.test/","url":"http://b.test/"}`:                      "more than once",
		`{"url":"http://a.test/","retry":{"jitter":true,"jitter":false}}`:      `retry."jitter": given more than once`,
		`{"url":"http://a.test/","retry":7}`:                                   "retry: not a JSON object",
		`{"url":"http://a.test/","headers":{"A":"b","A":"c"}}`:                 "more than once",
		`{"url":"http://a.test/","headers":{"A":null}}`:                        "neither a string nor a list",
		`{"url":"http://a.test/","headers":{"A":["b",null]}}`:                  "neither a string nor a list",
		`{"url":"http://a.test/","not_before":"2262-01-01T00:00:00Z"}`:         "not_before: the year",
		`{"url":"http://a.test/","proxy":{"direct":true,"id":"p"}}`:            "proxy.direct",
		`{"url":"http://a.test/","proxy":{"id":"metrics"}}`:                    "proxy.id",
		`{"url":"http://a.test/","proxy":{"tags":["a,b"]}}`:                    "has a comma",
		`{"url":"http://a.test/","proxy":{"tags":["a",""]}}`:                   "is empty",
		`{"url":"http://a.test/","proxy":{"region_strict":true}}`:              "proxy.region_strict",
		`{"url":"http://a.test/","body":"` + strings.Repeat("x", 1<<20) + `"}`: "at most 786432",
		"http://a.test/" + strings.Repeat("x", 9000):                           "longer than 8192 bytes",
		"http://a.test/\xff": "not UTF-8",
	} {
		_, err := decode(payload)
		var invalid *jobs.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want a reason with %q", payload, err, want)
		}
	}
}

// TestReasonsHoldNoPasswords: results, logs and dead letters show them. A name may be what somebody put there by mistake.
func TestReasonsHoldNoPasswords(t *testing.T) {
	const secret = "s3cret"
	for payload, want := range map[string]string{
		`{"url":"http://a.test/","proxy":{"id":"http://user:s3cret@p.test:8080"}}`:     `proxy.id: "…@p.test:8080"`,
		`{"url":"http://a.test/","proxy":{"tags":["http://u:s3cret@p.test:1,b"]}}`:     `proxy.tags: "…@p.test:1,b"`,
		`{"url":"http://a.test/","headers":{"Authorization: Bearer s3cret":""}}`:       `headers: "Authorization:…" is not a header name`,
		`{"url":"http://a.test/","http://user:s3cret@p.test":1}`:                       `"…@p.test": unknown field`,
		`{"url":"http://a.test/","method":"GET http://user:s3cret@a.test/"}`:           `method: "GET …@a.test/"`,
		`{"url":"http://a.test/","when_no_proxy":"http://user:s3cret@p.test:8080"}`:    `when_no_proxy: "…@p.test:8080"`,
		`{"url":"http://a.test/","meta":{"proxy http://user:s3cret@p.test:8080":"x"}}`: `meta: key "proxy …@p.test:8080"`,
	} {
		_, err := decode(payload)
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", payload, err, want)
		}
	}
	_, err := decode(`{"url":"http://a.test/","meta":{"a":"` + strings.Repeat("x", jobs.MaxMetaBytes+1) + `"}}`)
	if err == nil || strings.Contains(err.Error(), "control") || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a long value of meta: %v, want its length alone", err)
	}
}

func TestHostsThatCannotBeLookedUpMakeAJobInvalid(t *testing.T) {
	for host, valid := range map[string]bool{
		strings.Repeat("a.", 124) + "test": true, strings.Repeat("a.", 124) + "test.": true, strings.Repeat("a.", 125) + "test": false,
		"a_b.test": true, "b\u00fccher.test": true, "a_b.\u24dbocalhost": true, "\u200d.test": false, "\u00ad": false,
	} {
		if _, err := jobs.Decode("q", "a", []byte("http://"+host+"/")); (err == nil) != valid {
			t.Errorf("%.40q with %d bytes: %v, want valid %v", host, len(host), err, valid)
		}
	}
}

func TestMethodsAreInCapitalsHoweverTheyAreWritten(t *testing.T) {
	for method, want := range map[string]string{"": "GET", "post": "POST", "Patch": "PATCH", "delete": "DELETE", "purge": "purge"} {
		job, err := decode(`{"url":"http://a.test/","method":"` + method + `"}`)
		if err != nil || job.Method != want {
			t.Errorf("%q is %q, %v; want %q", method, job.Method, err, want)
		}
	}
}

func TestNamesThatCannotStandInASubjectMakeAJobInvalid(t *testing.T) {
	for _, name := range [][2]string{{"UPPER", "a"}, {"q", "a.b"}, {"q", "a*"}, {"q", ""}, {"", "a"}, {"q", strings.Repeat("x", 129)}, {strings.Repeat("q", 33), "a"}} {
		if _, err := jobs.Decode(name[0], name[1], []byte("http://a.test/")); err == nil {
			t.Errorf("queue %q with id %q was accepted", name[0], name[1])
		}
	}
}

func TestEveryReasonIsListedAtOnceAndNoSecretIsPrinted(t *testing.T) {
	const secret = "s3cret"
	_, err := decode(`{"url":"ftp://a.test/?key=` + secret + `","headers":{"Authorization":"` + secret + `\u0000"},"timeout":"` + "1h" + `","colour":"` + secret + `",
		"retry":{"max_attempts":99,"multiplier":1},"meta":{"k":"` + secret + `\u0007"}}`)
	var invalid *jobs.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"colour", "url:", "headers:", "timeout:", "retry.max_attempts:", "retry.multiplier:", "meta:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no reason for %s in %q", want, invalid.Reasons)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("a secret was printed: %v", err)
	}
}

func TestEachFaultOfAFieldHasItsReason(t *testing.T) {
	_, err := decode(`{"url":"http://a.test/","headers":{"Host":"a","Te":"b","X Y":"c"},"meta":{"a b":"","c d":""}}`)
	var invalid *jobs.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Reasons) != 5 {
		t.Errorf("got %v, want the three headers and the two keys", err)
	}
}

func TestNothingIsSaidOfTheFieldsOfWhatCannotBeRead(t *testing.T) {
	for _, payload := range []string{"{", `{"url":"http://a.test/"} {}`, "{\"url\":\"\xff\"}", `{"body":"` + strings.Repeat("x", 1<<20) + `"}`} {
		_, err := decode(payload)
		var invalid *jobs.InvalidError
		if !errors.As(err, &invalid) || len(invalid.Reasons) != 1 {
			t.Errorf("%.40q: got %v, want one reason", payload, err)
		}
	}
}

func TestNullIsAsGoodAsAbsent(t *testing.T) {
	job, err := decode(`{"url":"http://a.test/","timeout":null,"headers":null,"retry":{"base_delay":null},"meta":null,"deadline":null}`)
	if err != nil || job.Timeout != 0 || job.Retry.BaseDelay != nil || !job.Deadline.IsZero() {
		t.Errorf("got %+v, %v; want the defaults", job, err)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"url":"http://a.test/"`)
	for i := range 10000 {
		b.WriteString(`,"f` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + `":1`)
		if b.Len() > 700000 {
			break
		}
	}
	_, err := decode(b.String() + "}")
	if err == nil || len(err.Error()) > 20000 {
		t.Errorf("%d bytes of reasons, want them bounded", len(err.Error()))
	}
}

func TestDurationsAreTextOrSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{`"1.5s"`: 1500 * time.Millisecond, "1.5": 1500 * time.Millisecond, `"2"`: 2 * time.Second, "0.1": 100 * time.Millisecond} {
		var d jobs.Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || d.Std() != want {
			t.Errorf("%s = %v, %v; want %v", text, d, err, want)
		}
	}
	for text, tooLong := range map[string]bool{
		"1e300": true, `"1e999"`: true, `"9999999999999999"`: true, `"2562048h"`: true, `"-9999999999999999999999h1m"`: true,
		"9223372036.854776": true, "-9223372036.854776": true, `"9223372036.8547758079"`: true, "9.223372036854776e9": true,
		`"Inf"`: false, `"-infinity"`: false, `"0x1p4"`: false, `"1_0"`: false,
		`"soon"`: false, `"9999999999999999999999x"`: false, "true": false, `"NaN"`: false, `""`: false,
	} {
		var d jobs.Duration
		if err := json.Unmarshal([]byte(text), &d); err == nil || errors.Is(err, jobs.ErrTooLong) != tooLong {
			t.Errorf("%s was read as %v, %v; want a refusal, for its length: %v", text, d, err, tooLong)
		}
	}
	if out, err := json.Marshal(jobs.Duration(1500 * time.Millisecond)); err != nil || string(out) != "1.5" {
		t.Errorf("1.5s is written as %s, %v; want 1.5", out, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"https://example.com/", `{"url":"http://a.test/","headers":{"A":["b"]},"retry":{"base_delay":"1s"},"meta":{"a":"b"}}`,
		`{"url":"http://a.test/","not_before":"2030-01-01T00:00:00Z","proxy":{"tags":["x"]},"ban":{"body_regexp":"a+"}}`, "{", "", "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		job, err := jobs.Decode("default", "j1", payload)
		if err != nil {
			var invalid *jobs.InvalidError
			if !errors.As(err, &invalid) || len(invalid.Reasons) == 0 {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		again, err := job.Encode()
		if err != nil {
			t.Fatalf("a decoded job cannot be encoded: %v", err)
		}
		second, err := jobs.Decode("default", "j1", again)
		if err != nil || second.URL != job.URL || second.Method != job.Method || !maps.Equal(second.Meta, job.Meta) {
			t.Fatalf("encoded and decoded: %+v, %v; want %+v", second, err, job)
		}
	})
}

func FuzzDecodePolicy(f *testing.F) {
	f.Add([]byte(`{"max_attempts":5,"base_delay":"2s","retry_status_codes":[500]}`))
	f.Add([]byte(`{"max_attempts":0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := jobs.DecodePolicy(data, jobs.DefaultPolicy())
		if err == nil && len(p.Reasons()) > 0 {
			t.Fatalf("an invalid policy was accepted: %v", p.Reasons())
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	kib := `{"url":"https://example.com/products/1","headers":{"Accept":"text/html"},"meta":{"pad":"` + strings.Repeat("x", 900) + `"}}`
	for name, payload := range map[string]string{"url": "https://example.com/products/1", "json-1KiB": kib} {
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
