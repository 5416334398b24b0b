package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// document is the part of the OpenAPI document that the test understands; schema are decoded as they stand.
type document struct {
	worker     *worker
	Paths      map[string]map[string]operation
	Components struct {
		Schemas   map[string]map[string]any
		Responses map[string]response
	}
}

type operation struct {
	Responses map[string]response
	Security  []map[string]any
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema map[string]any }
}

func readDocument(t *testing.T, w *worker) document {
	t.Helper()
	doc := document{worker: w}
	w.get(t, "/api/v1/openapi.json", &doc)
	return doc
}

// resolve follows references into the document's components, and into the schemas beside the document.
func (d document) resolve(s map[string]any) map[string]any {
	ref, ok := s["$ref"].(string)
	if !ok {
		return s
	}
	if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); ok {
		return d.resolve(d.Components.Schemas[name])
	}
	name, fragment, _ := strings.Cut(ref, "#/")
	var schema map[string]any
	if json.Unmarshal(d.worker.do(request("GET", "/api/v1/"+name, "")).Body.Bytes(), &schema) != nil {
		return nil
	}
	for key := range strings.SplitSeq(fragment, "/") {
		if key != "" {
			schema, _ = schema[key].(map[string]any)
		}
	}
	return schema
}

// check lists where a value is not what the schema says: types, required and unknown properties, enums.
func (d document) check(s map[string]any, v any, at string) (wrong []string) {
	s = d.resolve(s)
	if s == nil {
		return []string{at + ": no schema"}
	}
	if types := typesOf(s["type"]); len(types) > 0 && !slices.Contains(types, typeOf(v, types)) {
		return []string{fmt.Sprintf("%s: %v is no %v", at, v, types)}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		wrong = append(wrong, fmt.Sprintf("%s: %v is none of %v", at, v, enum))
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			wrong = append(wrong, d.check(s["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		wrong = append(wrong, d.checkObject(s, v, at)...)
	case string:
		if _, err := time.Parse(time.RFC3339, v); s["format"] == "date-time" && err != nil {
			wrong = append(wrong, at+": no time")
		}
	}
	return wrong
}

func (d document) checkObject(s, v map[string]any, at string) (wrong []string) {
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s.%s: missing", at, name))
		}
	}
	for name, value := range v {
		schema, known := properties[name].(map[string]any)
		if !known {
			schema, known = s["additionalProperties"].(map[string]any)
		}
		if known {
			wrong = append(wrong, d.check(schema, value, at+"."+name)...)
		} else if s["additionalProperties"] == false {
			wrong = append(wrong, fmt.Sprintf("%s.%s: not in the document", at, name))
		}
	}
	return wrong
}

func typesOf(v any) (types []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, name := range v {
			types = append(types, name.(string))
		}
	}
	return types
}

func typeOf(v any, wanted []string) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	case float64:
		if v == float64(int64(v)) && slices.Contains(wanted, "integer") {
			return "integer"
		}
	}
	return "number"
}

// fits compares an answer with what the document says about its operation and status.
func (d document) fits(t *testing.T, method, path string, rec *httptest.ResponseRecorder) {
	t.Helper()
	r, ok := d.Paths[path][strings.ToLower(method)].Responses[fmt.Sprint(rec.Code)]
	if !ok {
		t.Errorf("%s %s: the document has no %d", method, path, rec.Code)
		return
	}
	if r.Ref != "" {
		r = d.Components.Responses[strings.TrimPrefix(r.Ref, "#/components/responses/")]
	}
	kind, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
	content, ok := r.Content[kind]
	if !ok && len(r.Content)+rec.Body.Len() > 0 {
		t.Errorf("%s %s: the document has no %q for %d", method, path, kind, rec.Code)
	}
	if kind != "application/json" {
		return
	}
	var v any
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range d.check(content.Schema, v, method+" "+path) {
		t.Error(wrong)
	}
}

// busyWorker has something in every list.
func busyWorker(t *testing.T, change func(*admin.Config)) *worker {
	t.Helper()
	w := newWorker(t, func(c *admin.Config) {
		at := time.Now().UTC()
		c.Operator.DeadGroups = func(context.Context) ([]admin.DeadGroup, uint64, error) {
			return []admin.DeadGroup{{Reason: "no_proxy", Site: "shop.test", Queue: "default", Count: 2, Oldest: at, Newest: at}}, 2, nil
		}
		if change != nil {
			change(c)
		}
	})
	w.pool.ForceOpen("p1", time.Minute, "test")
	w.pool.Avoid("p2", time.Now().Add(time.Minute), "w2")
	at := time.Now().Add(time.Minute)
	for range 5 {
		w.book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Reason: "timeout", Fault: jobs.FaultProxy, Duration: time.Second, Bytes: 7})
	}
	w.book.AddRetry(jobs.RetryEvent{JobID: "j1", Queue: "default", Kind: jobs.RetryInline, Delay: jobs.Duration(1500 * time.Millisecond)})
	w.book.AddJob(rollup.JobFact{ID: "j1", Queue: "default", Outcome: jobs.Succeeded, Attempts: 2, Policy: "exponential/3", Duration: time.Second})
	w.book.AddJob(rollup.JobFact{ID: "j2", Queue: "default", Outcome: jobs.Failed, Error: jobs.ErrNoProxy, Policy: "fixed/1"})
	w.book.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "p1", FromState: "closed", ToState: "open", NextTestTime: &at})
	return w
}

// example fills in the parameters of a path.
func example(path string) string {
	return strings.NewReplacer("{proxy_id}", "p1", "{queue}", "default", "{id}", "j1", "{name}", "w1", "{site}", "shop.test", "{schema}", "job").Replace(path)
}

func TestEveryOperationOfTheDocumentAnswersAsItSays(t *testing.T) {
	w := busyWorker(t, nil)
	unknown := strings.NewReplacer("{proxy_id}", "nobody", "{site}", "nobody.test", "{schema}", "nothing")
	doc := readDocument(t, w)
	for path, operations := range doc.Paths {
		for method := range operations {
			method = strings.ToUpper(method)
			if path == "/api/v1/live" {
				continue // endless; its events have a test of their own
			}
			doc.fits(t, method, path, w.do(request(method, example(path), "{}", header("Accept", "*/*"))))
			if unknown := unknown.Replace(path); unknown != path {
				doc.fits(t, method, path, w.do(request(method, unknown, "")))
			}
			if method == http.MethodPut {
				doc.fits(t, method, path, w.do(request(method, path, `{"x":1}`)))
			}
			if method != http.MethodGet {
				doc.fits(t, method, path, w.do(request(method, example(path), "", from("192.0.2.1:1"))))
			}
		}
	}
	doc.fits(t, "GET", "/readyz", w.do(request("GET", "/readyz", "", header("Accept", "application/json"))))
	doc.fits(t, "GET", "/metrics", w.do(request("GET", "/metrics?proxies=x", "")))
	doc.fits(t, "GET", "/api/v1/metrics/retries", w.do(request("GET", "/api/v1/metrics/retries?scope=x", "")))
}

func TestOnlyProbesAndMetricsAreOpenByTheDocument(t *testing.T) {
	remote := newWorker(t, func(c *admin.Config) { c.Addr, c.Token = ":9090", "s3cret" })
	doc := readDocument(t, newWorker(t, nil))
	for path, operations := range doc.Paths {
		for method, op := range operations {
			open := op.Security != nil && len(op.Security) == 0
			code := remote.do(request(strings.ToUpper(method), example(path), "{}")).Code
			if (code == http.StatusUnauthorized) == open {
				t.Errorf("%s %s without the token: got %d, and the document calls it open: %t", method, path, code, open)
			}
		}
	}
}
