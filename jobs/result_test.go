package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

func TestSucceededResultComesBackFromItsMessage(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600000000, time.UTC)
	r := jobs.Result{
		Queue: "q", ID: "j", Outcome: jobs.Succeeded, Status: 404, URL: "http://a.test/b", AttemptCount: 2, Bytes: 300, Proxy: "p",
		Duration: 1500 * time.Millisecond, Worker: "w", FinishedAt: at, JobSeq: 7, Meta: map[string]string{"Case": "kept"},
		Header: http.Header{"Content-Type": {"text/html"}, "Set-Cookie": {"a=1", "b=2"}, "Connection": {"close"}, "Proxy-Status": {"x"}, "Content-Length": {"5"}},
		Body:   []byte("hello"),
	}
	header, payload, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Gofer-Job-Id": "j", "Gofer-Queue": "q", "Gofer-Outcome": "succeeded", "Gofer-Status": "404", "Gofer-Url": "http://a.test/b",
		"Gofer-Attempts": "2", "Gofer-Bytes": "300", "Gofer-Proxy": "p", "Gofer-Duration": "1.5", "Gofer-Worker": "w",
		"Gofer-Finished-At": "2026-01-02T03:04:05.6Z", "Gofer-Meta-Case": "kept", "Http-Content-Type": "text/html", "Http-Content-Length": "5",
	} {
		if got := header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("header %s = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"Gofer-Error", "Http-Connection", "Http-Proxy-Status", "Content-Type", "Gofer-Object"} {
		if v, there := header[name]; there {
			t.Errorf("header %s = %q, want it absent", name, v)
		}
	}
	if got := header["Http-Set-Cookie"]; !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Errorf("repeated header = %q", got)
	}
	back := jobs.ParseResult(header, payload)
	if back.ID != r.ID || back.Status != r.Status || back.Duration != r.Duration || !back.FinishedAt.Equal(at) || back.JobSeq != 7 ||
		back.Meta["Case"] != "kept" || string(back.Body) != "hello" || back.Header.Get("Content-Type") != "text/html" {
		t.Errorf("read back = %+v", back)
	}
}

func TestFailedResultIsAProblemDocumentWithItsAttempts(t *testing.T) {
	r := jobs.Result{Queue: "q", ID: "j", Outcome: jobs.Failed, Error: jobs.ErrAttemptsExhausted, Detail: "all failed", AttemptCount: 1, Attempts: []jobs.Attempt{{
		Attempt: 1, Proxy: "p", Region: "eu", StartedAt: time.Unix(0, 0).UTC(), Duration: jobs.Duration(time.Second), Status: 503, Phase: "done", Fault: jobs.FaultTarget, Error: "busy",
	}}}
	header, payload, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	if got := header["Content-Type"]; len(got) != 1 || got[0] != "application/problem+json" {
		t.Errorf("Content-Type = %q", got)
	}
	var doc struct {
		Type, Title, Detail, Error string
		Attempts                   []map[string]any
	}
	if err := json.Unmarshal(payload, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Error != "attempts_exhausted" || doc.Title == "" || doc.Type == "" || len(doc.Attempts) != 1 {
		t.Fatalf("problem = %s", payload)
	}
	for _, key := range []string{"attempt", "proxy", "region", "started_at", "duration", "status", "phase", "fault", "error"} {
		if _, there := doc.Attempts[0][key]; !there {
			t.Errorf("an attempt has no %q: %v", key, doc.Attempts[0])
		}
	}
	if back := jobs.ParseResult(header, payload); back.Detail != "all failed" || len(back.Attempts) != 1 || back.Attempts[0].Fault != jobs.FaultTarget {
		t.Errorf("read back = %+v", back)
	}
}

// natsHeaderBytes is how a server counts a header block.
func natsHeaderBytes(h map[string][]string) int {
	n := len("NATS/1.0\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}

func TestNoResultOfAValidJobIsTooLargeToStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		meta := map[string]string{}
		left := jobs.MaxMetaBytes
		for i := range jobs.MaxMetaKeys {
			key := fmt.Sprintf("%02d%s", i, strings.Repeat("k", rapid.IntRange(0, 62).Draw(t, "key")))
			value := strings.Repeat("v", rapid.IntRange(0, max(0, left-len(key))).Draw(t, "value"))
			if left -= len(key) + len(value); left < 0 {
				break
			}
			meta[key] = value
		}
		header := http.Header{}
		for i := range rapid.IntRange(0, 300).Draw(t, "headers") {
			header.Add(fmt.Sprintf("X-%d", i%50), strings.Repeat("h", rapid.IntRange(0, 20000).Draw(t, "size")))
		}
		r := jobs.Result{
			Queue: strings.Repeat("q", 32), ID: strings.Repeat("i", 128), Outcome: jobs.Succeeded, URL: "http://a.test/" + strings.Repeat("u", jobs.MaxURLBytes-14),
			Meta: meta, Header: header, Worker: strings.Repeat("w", 128), Proxy: strings.Repeat("p", 64), FinishedAt: time.Now(),
		}
		message, _, err := r.Message()
		if err != nil {
			t.Fatal(err)
		}
		if n := natsHeaderBytes(message); n > 60<<10 {
			t.Fatalf("the headers of a result have %d bytes, a server takes 64 KiB", n)
		}
		total := 0
		for _, values := range header {
			for _, v := range values {
				total += len(v)
			}
		}
		if truncated := message["Gofer-Headers-Truncated"] != nil; total > 17<<10 && !truncated {
			t.Fatalf("%d bytes of headers, and nothing says that some are missing", total)
		}
	})
}

func TestEventsHaveTheKeysOfTheContract(t *testing.T) {
	next := time.Now()
	for want, event := range map[string]any{
		"job_id queue attempt max_attempts proxy status fault error delay next_attempt_at kind worker at": jobs.RetryEvent{},
		"proxy_id from_state to_state timestamp reason failure_count next_test_time worker":               jobs.BreakerEvent{NextTestTime: &next},
	} {
		data, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		keys := strings.Fields(want)
		if len(got) != len(keys) {
			t.Errorf("%T has the keys of %s, want %s", event, data, want)
		}
		for _, key := range keys {
			if _, there := got[key]; !there {
				t.Errorf("%T has no %s", event, key)
			}
		}
	}
}

func TestProgressTravelsInAHeader(t *testing.T) {
	p := jobs.Progress{JobSeq: 9, Attempts: []jobs.Attempt{{Attempt: 1, Error: "line\nbreak"}}, Bytes: 5, Started: time.Unix(5, 0).UTC()}
	value, err := p.Encode()
	if err != nil || strings.ContainsAny(value, "\r\n") {
		t.Fatalf("%q, %v; want one line", value, err)
	}
	back, err := jobs.ParseProgress(value)
	if err != nil || back.JobSeq != 9 || back.Attempts[0].Error != "line\nbreak" || !back.Started.Equal(p.Started) {
		t.Errorf("read back = %+v, %v", back, err)
	}
}

func TestAJobThatWaitedEndsAtTheURLOfItsLastAttempt(t *testing.T) {
	job, err := jobs.Decode("default", "j", []byte("http://shop.test/"))
	if err != nil {
		t.Fatal(err)
	}
	for carried, want := range map[string]string{"": "http://shop.test/", "https://www.shop.test/end?q=\\": "https://www.shop.test/end?q=\\"} {
		p := jobs.Progress{URL: carried}
		value, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if p, err = jobs.ParseProgress(value); err != nil || p.Result(&job, time.Now()).URL != want {
			t.Errorf("%q: got %q, %v; want %q", carried, p.Result(&job, time.Now()).URL, err, want)
		}
		if brief := p.Brief(); brief.URL != "" {
			t.Errorf("the short progress has the URL %q", brief.URL)
		}
	}
	if p, err := jobs.ParseProgress(`{"url":"http://shop.test/\r\nGofer-Status: 200"}`); err == nil {
		t.Errorf("got %+v, want a URL with a line break refused", p)
	}
}

func TestAPolicyIsAnObject(t *testing.T) {
	for _, text := range []string{"null", " null\n", "[]", "3", `"x"`, ""} {
		if p, err := jobs.DecodePolicy([]byte(text), jobs.DefaultPolicy()); err == nil || !strings.Contains(err.Error(), "not a JSON object") {
			t.Errorf("%q: got %v, %v; want it refused", text, p, err)
		}
	}
}

func TestPolicyNamesAndBounds(t *testing.T) {
	p := jobs.DefaultPolicy()
	if reasons := p.Reasons(); len(reasons) != 0 || p.Name() != "exponential/3" || !p.IsRetryable(503) || p.IsRetryable(500) {
		t.Errorf("default policy %s: %q", p.Name(), reasons)
	}
	_, err := jobs.DecodePolicy([]byte(`{"max_attempts":0,"backoff_strategy":"hope","colour":1,"multiplier":"two","base_delay":"1h"}`), p)
	invalid, ok := errors.AsType[*jobs.InvalidError](err)
	if !ok || len(invalid.Reasons) != 5 {
		t.Fatalf("%v, want five reasons", err)
	}
	for _, want := range []string{`"colour": unknown`, "max_attempts: 0 ", "backoff_strategy: ", "multiplier: a JSON string ", "base_delay: 1h"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func ExampleDecode() {
	job, err := jobs.Decode("default", "j1", []byte(`{"url":"https://example.com/","timeout":"5s"}`))
	fmt.Println(job.Method, job.URL, job.Timeout, err)
	_, err = jobs.Decode("default", "j1", []byte(`{"url":"/relative","timeout":"11m"}`))
	fmt.Println(err)
	// Output:
	// GET https://example.com/ 5s <nil>
	// url: not an absolute http or https URL: write http:// or https:// in front of the host; timeout: 11m0s is not between 0 and 10m0s
}

func TestHeadersThatAConnectionNamesEndThere(t *testing.T) {
	r := jobs.Result{Queue: "q", ID: "j", Outcome: jobs.Succeeded, Header: http.Header{"Connection": {"close, X-Hop"}, "X-Hop": {"1"}, "X-End": {"2"}}}
	h, _, err := r.Message()
	if err != nil || h["Http-X-Hop"] != nil || h["Http-Connection"] != nil || len(h["Http-X-End"]) != 1 {
		t.Errorf("headers %v, %v", h, err)
	}
}

func TestOnlyA2xxAnswerOfASucceededJobIsOK(t *testing.T) {
	for _, c := range []struct {
		outcome string
		status  int
		want    bool
	}{
		{jobs.Succeeded, 200, true}, {jobs.Succeeded, 299, true}, {jobs.Succeeded, 199, false}, {jobs.Succeeded, 300, false},
		{jobs.Succeeded, 404, false}, {jobs.Failed, 200, false}, {jobs.Cancelled, 0, false}, {"", 200, false},
	} {
		if got := (jobs.Result{Outcome: c.outcome, Status: c.status}).OK(); got != c.want {
			t.Errorf("%q with status %d: got %v, want %v", c.outcome, c.status, got, c.want)
		}
	}
}

// TestDurationRunsFromTheFirstAttempt, whatever the job waited for before, and in whichever order attempts ended.
func TestDurationRunsFromTheFirstAttempt(t *testing.T) {
	now := time.Now()
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	for name, test := range map[string]struct {
		progress jobs.Progress
		want     time.Duration
	}{
		"nothing was done":                      {jobs.Progress{}, 0},
		"a wait for the site and no attempt":    {jobs.Progress{Started: ago(9), SiteSince: ago(9)}, 0},
		"a wait for the site, then an attempt":  {jobs.Progress{Started: ago(9), Attempts: []jobs.Attempt{{StartedAt: ago(2)}}}, 2 * time.Second},
		"the second attempt ended first":        {jobs.Progress{Started: ago(4), Attempts: []jobs.Attempt{{StartedAt: ago(3)}, {StartedAt: ago(4)}}}, 4 * time.Second},
		"an attempt that is in no list":         {jobs.Progress{Started: ago(5)}, 5 * time.Second},
		"attempts whose times were not carried": {jobs.Progress{Started: ago(5), Attempts: []jobs.Attempt{{}, {StartedAt: ago(1)}}}, 5 * time.Second},
	} {
		if got := test.progress.Result(&jobs.Job{}, now).Duration; got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
