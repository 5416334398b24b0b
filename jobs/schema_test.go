package jobs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gofer-mq/gofer/jobs"
)

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(jobs.Schema(name)))
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("test:"+name, document); err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	schema, err := compiler.Compile("test:" + name)
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	return schema
}

// matches is what a schema says about a JSON text; nil if it fits.
func matches(t *testing.T, schema *jsonschema.Schema, text string) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return schema.Validate(value)
}

// probe has JSON values of a member, at its bounds and beyond them.
type probe struct{ valid, invalid []string }

func texts(n int) string { return `"` + strings.Repeat("a", n) + `"` }

func times(n int, item string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
}

func policyProbes() map[string]probe {
	return map[string]probe{
		"max_attempts":         {[]string{"1", "10"}, []string{"0", "11", `"3"`, "1.5"}},
		"backoff_strategy":     {[]string{`"exponential"`, `"linear"`, `"fixed"`}, []string{`"Linear"`, `""`, "1"}},
		"base_delay":           {[]string{"0.1", "60", `"1s"`, `"1m"`, `"2"`}, []string{"0.09", "60.1", `"soon"`, "true"}},
		"multiplier":           {[]string{"1.1", "10"}, []string{"1.09", "10.1", `"2"`}},
		"max_backoff_delay":    {[]string{"1", "300", `"1m30s"`, `"1.5m"`}, []string{"0.9", "301", `"x"`}},
		"jitter":               {[]string{"true", "false"}, []string{"1", `"true"`}},
		"retry_status_codes":   {[]string{"[100,599]", "[]"}, []string{"[99]", "[600]", "503", `["503"]`}},
		"timeout":              {[]string{"0.5", `"5m"`, "100000"}, []string{"-1", `"never"`}},
		"retry_non_idempotent": {[]string{"true", "false"}, []string{"0"}},
		"hedge":                {[]string{`"auto"`, `"off"`, "0.2", `"200ms"`}, []string{"0", "-1", `"on"`, "true"}},
		"ban_status_codes":     {[]string{"[]", "[100,999]"}, []string{"[99]", "[1000]"}},
	}
}

func jobProbes() map[string]probe {
	meta := func(n int) string {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return "{" + strings.Join(pairs, ",") + "}"
	}
	return map[string]probe{
		"url": {
			[]string{`"http://a.test"`, `"HTTPS://A.test:8443/p?q=%20#f"`, `"http://[::1]/"`, `"http://a.test/` + strings.Repeat("a", jobs.MaxURLBytes-14) + `"`},
			[]string{`""`, `"a.test"`, `"ftp://a.test/"`, `"http:///a/"`, `"http://u:p@a.test/"`, `"http://@a.test/"`, `"http://a.test/\t"`, "1", texts(jobs.MaxURLBytes + 1), `"http://a.test/` + strings.Repeat("a", jobs.MaxURLBytes-13) + `"`},
		},
		"method":             {[]string{`"GET"`, `"patch"`, `"X-OWN"`}, []string{`"CONNECT"`, `"connect"`, `"A B"`, "1"}},
		"headers":            {[]string{`{"Accept":"a"}`, `{"X":["a","b"],"Y":[]}`, `{"Hosts":"a"}`, `{"Proxy":"a\tb"}`}, []string{`{"Host":"a"}`, `{"hOST":"a"}`, `{"proxy-X":"a"}`, `{"TE":"a"}`, `{"a b":"c"}`, `{"X":"a\nb"}`, `{"X":1}`, `{"X":[1]}`, `{"X":["a\u0000"]}`, "[]"}},
		"body":               {[]string{`"x"`}, []string{"1"}},
		"body_base64":        {[]string{`"eA=="`, `"eHg="`, `"eHh4"`}, []string{`"eA"`, `"e"`, `"*"`, "1"}},
		"timeout":            {[]string{"0", "600", `"10m"`, "0.5"}, []string{"-1", "600.5", `"1 day"`}},
		"first_byte_timeout": {[]string{`"auto"`, `"off"`, "0.2"}, []string{"0", "-1", `"no"`}},
		"not_before":         {[]string{`"2030-01-02T15:04:05Z"`, `"2261-01-01T00:00:00.5+01:00"`}, []string{`"2262-01-01T00:00:00Z"`, `"tomorrow"`, "1"}},
		"deadline":           {[]string{`"2030-01-02T15:04:05Z"`}, []string{`"2262-01-01T00:00:00Z"`, `"2030-01-02"`}},
		"retry":              {[]string{"{}"}, []string{`{"ban_status_codes":[]}`, `{"timeout":0}`, `{"x":1}`, "[]"}},
		"proxy":              {[]string{"{}", `{"direct":true,"region":""}`, `{"region_strict":true,"region":"DE"}`, `{"region_strict":false}`}, []string{`{"direct":true,"region":"DE"}`, `{"direct":true,"tags":["a"]}`, `{"region_strict":true}`, `{"region_strict":true,"region":""}`, `{"x":1}`}},
		"ban":                {[]string{"{}"}, []string{`{"x":1}`, "[]"}},
		"when_no_proxy":      {[]string{`"wait"`, `"fail"`}, []string{`"Wait"`, "true"}},
		"when_site_down":     {[]string{`"wait"`, `"fail"`}, []string{`"no"`}},
		"follow_redirects":   {[]string{"0", "50"}, []string{"-1", "51", `"1"`}},
		"max_body_bytes":     {[]string{"0", "1073741824"}, []string{"-1", `"1"`}},
		"meta":               {[]string{"{}", meta(32), `{"a":"b c"}`, `{"a":""}`}, []string{meta(33), `{"a b":"c"}`, `{"a":" b"}`, `{"a":"b "}`, `{"a":"b\n"}`, `{"a":1}`, `{"` + strings.Repeat("k", 65) + `":""}`}},
	}
}

func proxyProbes() map[string]probe {
	return map[string]probe{
		"tags":          {[]string{"[]", times(16, `"t"`), "[" + texts(64) + "]"}, []string{times(17, `"t"`), `[""]`, `["a,b"]`, "[" + texts(65) + "]", `["\u0001"]`}},
		"region":        {[]string{`"DE"`, texts(64)}, []string{texts(65), `"\u0001"`, "1"}},
		"region_strict": {[]string{"false"}, []string{`"no"`}},
		"session":       {[]string{texts(128)}, []string{texts(129), `"\u0085"`}},
		"id":            {[]string{texts(64), `"metrics1"`}, []string{texts(65), `"a b"`, `"metrics"`}},
		"direct":        {[]string{"true", "false"}, []string{"1"}},
	}
}

func banProbes() map[string]probe {
	pattern := probe{[]string{`"(?i)captcha"`, texts(512)}, []string{texts(513), "1"}}
	return map[string]probe{
		"statuses": {[]string{"[]", "[100,999]"}, []string{"[99]", "[1000]"}}, "body_regexp": pattern, "not_body_regexp": pattern,
		"min_bytes": {[]string{"0", "5"}, []string{"-1"}}, "redirect_to_regexp": pattern,
	}
}

// inJob is a job with one member of one of its objects.
func inJob(object, name, value string) string {
	if object == "" && name == "url" {
		return `{"url":` + value + `}`
	}
	member := fmt.Sprintf("%q:%s", name, value)
	if object != "" {
		member = fmt.Sprintf("%q:{%s}", object, member)
	}
	return `{"url":"http://a.test/",` + member + `}`
}

// TestASchemaAcceptsWhatAWorkerAccepts probes every member of a job and of a policy with values at its bounds and beyond.
func TestASchemaAcceptsWhatAWorkerAccepts(t *testing.T) {
	job, policy := compile(t, "job"), compile(t, "policy")
	decodeJob := func(text string) error { _, err := jobs.Decode("default", "j1", []byte(text)); return err }
	decodePolicy := func(text string) error { _, err := jobs.DecodePolicy([]byte(text), jobs.DefaultPolicy()); return err }
	retry := policyProbes()
	delete(retry, "ban_status_codes")
	for _, c := range []struct {
		object string
		fields []jobs.Field
		probes map[string]probe
		schema *jsonschema.Schema
		decode func(string) error
	}{
		{"", jobs.JobFields(), jobProbes(), job, decodeJob},
		{"proxy", jobs.ProxyFields(), proxyProbes(), job, decodeJob},
		{"ban", jobs.BanFields(), banProbes(), job, decodeJob},
		{"retry", jobs.PolicyFields()[:len(jobs.PolicyFields())-1], retry, job, decodeJob},
		{"policy", jobs.PolicyFields(), policyProbes(), policy, decodePolicy},
	} {
		for _, f := range c.fields {
			p, ok := c.probes[f.Name]
			if !ok || len(p.valid) == 0 || len(p.invalid) == 0 {
				t.Errorf("%s %s has no values to be tried", c.object, f.Name)
			}
			for i, value := range slices.Concat(p.valid, p.invalid) {
				text := inJob(c.object, f.Name, value)
				if c.object == "policy" {
					text = fmt.Sprintf("{%q:%s}", f.Name, value)
				}
				want := i < len(p.valid)
				if err := matches(t, c.schema, text); (err == nil) != want {
					t.Errorf("schema: %.200s: got %v, want valid: %t", text, err, want)
				}
				if err := c.decode(text); (err == nil) != want {
					t.Errorf("worker: %.200s: got %v, want valid: %t", text, err, want)
				}
			}
		}
	}
}

func TestASchemaRefusesUnknownMembersWhereAWorkerDoes(t *testing.T) {
	for name, text := range map[string]string{"job": `{"url":"http://a.test/","x":1}`, "policy": `{"x":1}`} {
		if matches(t, compile(t, name), text) == nil {
			t.Errorf("%s accepts %s", name, text)
		}
	}
	if matches(t, compile(t, "job"), `{"method":"GET"}`) == nil || matches(t, compile(t, "job"), `{"url":"http://a.test/","body":"a","body_base64":"eA=="}`) == nil {
		t.Error("a job without url, or with two bodies, is accepted")
	}
}

// numbers are those of a text: "0.1–60 s" has two.
func numbers(text string) (all []float64) {
	for _, found := range regexp.MustCompile(`\d[\d.]*`).FindAllString(strings.ReplaceAll(text, ",", ""), -1) {
		n, _ := strconv.ParseFloat(strings.TrimSuffix(found, "."), 64)
		all = append(all, n)
	}
	return all
}

// keywords are the values of some keywords anywhere in a schema, as JSON reads them.
func keywords(t *testing.T, schema any, names ...string) (all []any) {
	t.Helper()
	data, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if slices.Contains(names, key) {
					all = append(all, v[key])
				}
				walk(v[key])
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(value)
	return all
}

// TestTheWordsOfATableAndItsSchemaSayTheSame compares ranges, choices and defaults with what stands in the documents.
func TestTheWordsOfATableAndItsSchemaSayTheSame(t *testing.T) {
	for name, fields := range tables() {
		for _, f := range fields {
			if len(f.Schema) == 0 {
				t.Errorf("%s %s has no schema", name, f.Name)
			}
			if from, to, ok := strings.Cut(f.Bounds, "–"); ok && len(numbers(from)) > 0 {
				want := []any{numbers(from)[len(numbers(from))-1], numbers(to)[0]}
				low, high := keywords(t, f.Schema, "minimum", "minLength"), keywords(t, f.Schema, "maximum", "maxLength")
				if got := slices.Concat(low, high); !slices.Equal(got, want) && !strings.Contains(f.Bounds, "{") {
					t.Errorf("%s %s: the schema has the bounds %v, the table %q", name, f.Name, got, f.Bounds)
				}
			}
			if f.Type == "object" {
				continue // its members have a table of their own
			}
			for _, choice := range keywords(t, f.Schema, "enum") {
				for _, word := range choice.([]any) {
					if !strings.Contains(f.Bounds, fmt.Sprintf("`%s`", word)) {
						t.Errorf("%s %s: the table's %q lacks %v", name, f.Name, f.Bounds, word)
					}
				}
			}
			checkDefault(t, name, f)
		}
	}
}

func checkDefault(t *testing.T, name string, f jobs.Field) {
	t.Helper()
	got, has := f.Schema["default"]
	vague := regexp.MustCompile("^(required|none|now|any proxy|the fleet's.*|`GOFER_.*)$").MatchString(f.Default)
	switch {
	case has == vague:
		t.Errorf("%s %s: the schema has the default %v, the table %q", name, f.Name, got, f.Default)
	case has && strings.Trim(fmt.Sprint(got), "[]") != strings.TrimSuffix(strings.ReplaceAll(strings.Trim(f.Default, "`"), ",", ""), " s"):
		t.Errorf("%s %s: the schema has the default %v, the table %q", name, f.Name, got, f.Default)
	}
}

// TestTheDefaultsOfTheSchemasAreThoseOfTheProgram builds a document of all defaults and compares it with an empty one.
func TestTheDefaultsOfTheSchemasAreThoseOfTheProgram(t *testing.T) {
	defaults := func(fields []jobs.Field) []byte {
		all := map[string]any{}
		for _, f := range fields {
			if value, ok := f.Schema["default"]; ok {
				all[f.Name] = value
			}
		}
		data, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	odd := jobs.Policy{MaxAttempts: 9, BackoffStrategy: jobs.Linear, BaseDelay: 1, MaxBackoffDelay: 1, RetryNonIdempotent: true}
	got, err := jobs.DecodePolicy(defaults(jobs.PolicyFields()), odd)
	if err != nil || !reflect.DeepEqual(got, jobs.DefaultPolicy()) {
		t.Errorf("got %+v %v, want %+v", got, err, jobs.DefaultPolicy())
	}
	var bare, full jobs.Job
	if err := json.Unmarshal(defaults(jobs.JobFields()), &full); err != nil {
		t.Fatal(err)
	}
	if full.Redirects() != bare.Redirects() || full.WhenNoProxy != jobs.NoProxyWait || full.WhenSiteDown != jobs.SiteDownWait {
		t.Errorf("got %+v", full)
	}
	decoded, err := jobs.Decode("default", "j1", []byte("http://a.test/"))
	if err != nil || decoded.Method != full.Method {
		t.Errorf("method: got %q %v, want %q", decoded.Method, err, full.Method)
	}
}

func TestTheMessagesOfTheREADMEFitTheirSchemas(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, example := range regexp.MustCompile("(?s)```json\n(.*?)\n```").FindAllSubmatch(data, -1) {
		text, name := string(example[1]), ""
		for start, kind := range map[string]string{
			`{"url"`: "job", `{"type"`: "problem", `{"job_id": "j1", "queue": "default", "attempt"`: "retry-event", `{"proxy_id"`: "breaker-event",
			`{"site"`: "site-event", `{"worker"`: "pool-event", `{"job_id": "j1", "queue": "default", "job_seq"`: "duplicate-event",
		} {
			if strings.HasPrefix(text, start) {
				name = kind
			}
		}
		if name == "" {
			t.Errorf("of no kind: %s", text)
			continue
		}
		seen[name]++
		if err := matches(t, compile(t, name), text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if len(seen) != 7 {
		t.Errorf("got examples of %v, want all seven kinds", seen)
	}
}

// TestWhatGoferWritesFitsItsSchema checks zero values and full ones.
func TestWhatGoferWritesFitsItsSchema(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6000000, time.UTC)
	attempt := jobs.Attempt{Attempt: 1, StartedAt: at, Phase: "connect", Fault: jobs.FaultProxy, Phases: map[string]jobs.Duration{"connect": 1}, Exit: "a", Hedge: true}
	failed := jobs.Result{
		Queue: "default", ID: "j1", Outcome: jobs.Failed, Error: jobs.ErrNoProxy, FinishedAt: at, Attempts: []jobs.Attempt{attempt, {Attempt: 2, Phase: "done"}},
		Worker: "w", Omitted: []string{"meta", "url"}, JobSeq: 7, Status: 503, Proxy: "p", Exit: "e",
	}
	fetched := jobs.Result{
		Queue: "default", ID: "j1", Outcome: jobs.Succeeded, Status: 200, URL: "http://a.test/", FinishedAt: at, Object: "b/c", ObjectDigest: "SHA-256=x_-=",
		Truncated: true, Meta: map[string]string{"k": "v"}, Header: map[string][]string{"X": {"a", "b"}},
	}
	for _, r := range []jobs.Result{failed, fetched} {
		header, payload, err := r.Message()
		if err != nil {
			t.Fatal(err)
		}
		check(t, "result", header)
		if r.Outcome == jobs.Failed {
			check(t, "problem", json.RawMessage(payload))
			header["Gofer-Outcome"] = []string{"succeeded"}
			if data, _ := json.Marshal(header); matches(t, compile(t, "result"), string(data)) == nil {
				t.Error("a result that succeeded with an error is accepted")
			}
		}
	}
	check(t, "retry-event", jobs.RetryEvent{JobID: "j1", Queue: "default", Attempt: 1, MaxAttempts: 3, Kind: jobs.RetryScheduled})
	check(t, "breaker-event", jobs.BreakerEvent{ProxyID: "p", FromState: "closed", ToState: "open", NextTestTime: &at})
	check(t, "site-event", jobs.SiteEvent{FromState: "new", ToState: "resting"})
	check(t, "pool-event", jobs.PoolEvent{})
	check(t, "duplicate-event", jobs.DuplicateEvent{JobID: "j1", Queue: "default"})
	check(t, "policy", jobs.DefaultPolicy())
}

func check(t *testing.T, name string, message any) {
	t.Helper()
	data, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := matches(t, compile(t, name), string(data)); err != nil {
		t.Errorf("%s %s: %v", name, data, err)
	}
}

func TestEveryNameHasASchemaAndNoOther(t *testing.T) {
	for _, name := range jobs.SchemaNames() {
		compile(t, name)
		if !bytes.Equal(jobs.Schema(name), jobs.Schema(name)) {
			t.Errorf("%s differs from one call to the next", name)
		}
	}
	if jobs.Schema("x") != nil || !slices.IsSorted(jobs.SchemaNames()) {
		t.Error("an unknown name has a schema, or the names are not sorted")
	}
}
