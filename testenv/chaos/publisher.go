package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// rawJob is what a hostile publisher sends. In the payload and the id, ID stands for an id of its own and URL for a sound page.
type rawJob struct {
	payload   string
	id        string // empty means ID
	headers   nats.Header
	waits     time.Duration
	cancelled bool
	twice     bool
	sound     bool
}

// heavyPattern compiles to tens of megabytes, or takes minutes to match, where nothing bounds it.
func heavyPattern() string { return strings.Repeat("(x|a{1,990})", 80)[:500] }

func rawJobs() []rawJob {
	out := rawPayloads()
	out = append(out, rawTimes()...)
	out = append(out, rawTargets()...)
	for _, id := range []string{
		"a.b.ID", "*.ID", "ID.*", "ID.>", "ID.", ".ID", "ID..x", "ID%20", "é-ID", "ID\x1b]0;pwned\x07", "\xff\xfe-ID", "ID/../x", strings.Repeat("i", 600) + "ID",
	} {
		out = append(out, rawJob{id: id, payload: "URL"})
	}
	for _, header := range []nats.Header{
		{"Gofer-Job-Seq": {"1"}, "Gofer-Progress": {"{}"}, "Gofer-Replay-Of": {"default/x"}, "Gofer-Outcome": {"succeeded"}},
		{"Nats-Schedule": {"@at 2030-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"gofer.results.default.ID"}},
		{"Nats-TTL": {"1s"}}, {"Nats-Rollup": {"all"}}, {"Nats-Expected-Last-Subject-Sequence": {"7"}}, {"Nats-Expected-Stream": {"GOFER_RESULTS"}},
		{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}}, {"Nats-Incr": {"1"}}, {"X": {strings.Repeat("h", 30_000)}},
	} {
		out = append(out, rawJob{payload: "URL", headers: header})
	}
	return out
}

func rawPayloads() (out []rawJob) {
	for _, payload := range []string{
		"", "{", "null", "\xff\xfe", "not a URL", "URL\tURL", `{"url":"URL","url":"URL"}`, `{"url":"URL","unknown":1}`, `{"url":["URL"]}`, `{"url":"URL"} {"url":"URL"}`,
		`{"url":` + strings.Repeat("[", 100_000), `{"meta":` + strings.Repeat(`{"a":`, 100_000), `{"url":"URL","body":"` + strings.Repeat("b", 700<<10) + `","method":"PUT"}`,
		`{"url":"URL","body":"` + strings.Repeat("b", 800<<10) + `"}`, `{"url":"URL","headers":{"X":"` + strings.Repeat("h", 600<<10) + `"}}`,
		`{"url":"URL","meta":` + metaOf(33, 8) + `}`, `{"url":"URL","meta":` + metaOf(32, 300) + `}`, `{"url":"URL","meta":{"a":"\u0000"}}`, `{"url":"URL","meta":{"a":"\u202e\u009b31m"}}`,
		`{"url":"http://evil.test/sound/ID","ban":{"body_regexp":"` + heavyPattern() + `"},"timeout":1,"retry":{"max_attempts":1}}`,
		`{"url":"http://evil.test/endless-body/ID","ban":{"body_regexp":"(x+x+)+y"},"timeout":1,"retry":{"max_attempts":1}}`,
		`{"url":"http://evil.test/sound/ID","ban":{"body_regexp":"("},"timeout":1}`, `{"url":"URL","ban":{"statuses":[` + strings.Repeat("200,", 50_000) + `200]},"retry":{"max_attempts":1}}`,
		`{"url":"URL","method":"CONNECT"}`, `{"url":"URL","method":"A B\r\nX: y"}`, `{"url":"URL","headers":{"A\r\nB":"c"}}`, `{"url":"URL","headers":{"Host":"other.test","Transfer-Encoding":"chunked"}}`,
		`{"url":"URL","proxy":{"id":"nobody"}}`, `{"url":"URL","proxy":{"tags":["none"]},"when_no_proxy":"wait"}`, `{"url":"URL","proxy":{"direct":true}}`,
		`{"url":"URL","max_body_bytes":1,"retry":{"max_attempts":1}}`, `{"url":"URL","max_body_bytes":9223372036854775807,"follow_redirects":50}`,
		`{"url":"URL","retry":{"max_attempts":1e9}}`, `{"url":"URL","retry":{"timeout":1e-9}}`, `{"url":"URL","timeout":1e-9,"retry":{"max_attempts":1}}`, `{"url":"URL","timeout":9223372036.854776}`,
	} {
		out = append(out, rawJob{payload: payload})
	}
	return append(out,
		rawJob{payload: "URL", sound: true, twice: true},
		rawJob{payload: `{"url":"URL","meta":` + metaOf(32, 240) + `}`, sound: true},
		rawJob{payload: `{"url":"URL","headers":{"Range":"bytes=0-","Expect":"100-continue","Accept-Encoding":"identity"}}`, twice: true},
	)
}

// rawTimes are times at their bounds. Those of the far future are cancelled, or expire before.
func rawTimes() []rawJob {
	return []rawJob{
		{payload: `{"url":"URL","not_before":"2261-12-31T23:59:59Z"}`, cancelled: true},
		{payload: `{"url":"URL","not_before":"2261-12-31T23:59:59.999999999+00:00","deadline":"SOON"}`, waits: 2 * time.Second},
		{payload: `{"url":"URL","not_before":"2262-01-01T00:00:00Z"}`}, {payload: `{"url":"URL","not_before":"9999-12-31T23:59:59Z"}`},
		{payload: `{"url":"URL","not_before":"0001-01-01T00:00:00Z"}`, sound: true}, {payload: `{"url":"URL","not_before":"0000-01-01T00:00:00Z"}`},
		{payload: `{"url":"URL","not_before":"1969-12-31T23:59:59Z","deadline":"2261-12-31T23:59:59Z"}`, sound: true},
		{payload: `{"url":"URL","deadline":"1970-01-01T00:00:00Z"}`}, {payload: `{"url":"URL","not_before":"SOON","deadline":"SOON"}`, waits: 2 * time.Second},
		{payload: `{"url":"URL","not_before":"SOON"}`, waits: 2 * time.Second, sound: true},
	}
}

// rawTargets lead nowhere.
func rawTargets() (out []rawJob) {
	for _, u := range append(deniedURLs("80"), "http://"+deadSite+"/", "http://"+strings.Repeat("a.", 126)+"test/", "http://"+soundSite+":0/", "http://"+soundSite+":99999/",
		"ftp://"+soundSite+"/", "http://user:secret@"+soundSite+"/", "http://"+soundSite+"/"+strings.Repeat("a", 8200)) {
		out = append(out, rawJob{payload: u}, rawJob{payload: `{"url":` + quoted(u) + `,"retry":{"max_attempts":1}}`})
	}
	return out
}

// metaOf is a meta object of n keys with values of so many bytes.
func metaOf(n, size int) string {
	meta := map[string]string{}
	for i := range n {
		meta[fmt.Sprintf("k%02d", i)] = strings.Repeat("v", size)
	}
	return quoted(meta)
}

func quoted(v any) string {
	text, _ := json.Marshal(v) // what is quoted here are maps and strings
	return string(text)
}

// rawOrder is the job with an id, a URL and times of its own.
func rawOrder(w *world, n int, r rawJob) order {
	id := fmt.Sprintf("raw-%06d", n)
	soon := time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339Nano)
	payload := strings.NewReplacer("URL", w.origin.url(id), "ID", id, "SOON", soon).Replace(r.payload)
	if r.id != "" {
		id = strings.Replace(r.id, "ID", id, 1)
	}
	header := nats.Header{nats.MsgIdHdr: {nuid.Next()}}
	for name, values := range r.headers {
		header[name] = []string{strings.ReplaceAll(values[0], "ID", id)}
	}
	return order{
		id: id, raw: &nats.Msg{Subject: "gofer.jobs.default." + id, Header: header, Data: []byte(payload)},
		waits: r.waits, cancelled: r.cancelled, twice: r.twice, sound: r.sound,
	}
}

// hashed is the id under which the result of a job is published if no message can carry its own.
func hashed(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "invalid-" + hex.EncodeToString(sum[:6])
}
