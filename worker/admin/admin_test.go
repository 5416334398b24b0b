package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// worker is a handler and what stands behind it.
type worker struct {
	http.Handler
	book   *rollup.Book
	pool   *rotation.Pool
	policy jobs.Policy
	since  time.Time
	reset  []string
}

// newWorker makes a handler over a pool of p1 and p2; change may alter its configuration.
func newWorker(tb testing.TB, change func(*admin.Config)) *worker {
	tb.Helper()
	w := &worker{book: rollup.NewBook(), policy: jobs.DefaultPolicy(), pool: newPool(tb, "http://192.0.2.1:3128 id=p1\nhttp://user:secret@192.0.2.2:3128 id=p2\n")}
	gauges := someGauges()
	gauges.Book = func() *rollup.Book { return w.book }
	next := time.Now().Add(time.Minute).UTC()
	c := admin.Config{
		Addr: "127.0.0.1:9090", Worker: "w1", Version: "1.2.3", Pool: w.pool, Book: w.book, Metrics: metrics.New(gauges),
		Sites: func(limit int) ([]admin.Site, int) {
			all := []admin.Site{{
				Site: "shop.test", State: "resting", Reason: "failures", NextTestTime: &next, LastStateChange: &next, Attempts: 4, Failures: map[string]int64{"target": 3},
				LastError: "no answer", LastErrorAt: &next,
			}, {Site: "other.test", State: "new", Failures: map[string]int64{}}}
			return all[:min(limit, len(all))], len(all)
		},
		Site: func(name string) (admin.Site, bool) {
			return admin.Site{Site: name, State: "up", Reason: "reset", Failures: map[string]int64{}}, name == "shop.test"
		},
		ResetSite:    func(_ context.Context, name string) (bool, error) { return name == "shop.test", nil },
		Ready:        func() []admin.Check { return []admin.Check{{Name: "nats", OK: true, Detail: "connected"}} },
		Policy:       func() (jobs.Policy, time.Time) { return w.policy, w.since },
		SetPolicy:    func(_ context.Context, p jobs.Policy) error { w.policy, w.since = p, time.Now(); return nil },
		ResetPolicy:  func(context.Context) error { w.policy, w.since = jobs.DefaultPolicy(), time.Time{}; return nil },
		ResetBreaker: func(_ context.Context, id string) error { w.reset = append(w.reset, id); w.pool.Reset(id); return nil },
	}
	if change != nil {
		change(&c)
	}
	w.Handler = admin.New(c)
	return w
}

func newPool(tb testing.TB, lines string) *rotation.Pool {
	tb.Helper()
	list, err := proxylist.ParseList(strings.NewReader(lines))
	if err != nil {
		tb.Fatal(err)
	}
	pool := rotation.New(rotation.Config{})
	pool.Replace(list)
	return pool
}

// someGauges are those of a worker with seven slots that runs two jobs.
func someGauges() metrics.Gauges {
	return metrics.Gauges{
		Slots:    func() int { return 7 },
		InFlight: func() map[string]int { return map[string]int{"default": 2, "lost": 1} },
		EachProxy: func() iter.Seq2[string, string] {
			return func(yield func(string, string) bool) { _ = yield("p00000", "closed") && yield("p00001", "closed") }
		},
		Backlog: func() map[string]metrics.Backlog {
			return map[string]metrics.Backlog{"default": {Pending: 5, AckPending: 6}}
		},
	}
}

// request is one from a local program; edit makes it another one.
func request(method, path, body string, edit ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "127.0.0.1:9090"
	for _, e := range edit {
		e(r)
	}
	return r
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func (w *worker) do(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

// get asks for a path and decodes the answer.
func (w *worker) get(t *testing.T, path string, into any) {
	t.Helper()
	rec := w.do(request("GET", path, ""))
	if rec.Code != http.StatusOK {
		t.Fatalf("GET %s: got %d %s", path, rec.Code, rec.Body)
	}
	if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, rec.Body)
	}
}

// fetch asks a real server; the caller closes the body.
func fetch(tb testing.TB, client *http.Client, url string) *http.Response {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	return response
}

type problem struct {
	Error, Message string
	Details        []string
}

// refusal checks that the answer is an error of that status and decodes it.
func refusal(t *testing.T, rec *httptest.ResponseRecorder, status int) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != status || p.Error == "" || p.Message == "" || p.Details == nil {
		t.Errorf("got %d %s, want %d with error, message and details", rec.Code, rec.Body, status)
	}
	return p
}

func TestPolicyIsReadReplacedWholeAndReset(t *testing.T) {
	w := newWorker(t, nil)
	if got := w.do(request("GET", "/api/v1/retry/policy", "")).Body.String(); !strings.Contains(got, `"updated_at":null`) || !strings.Contains(got, `"base_delay":1,`) {
		t.Errorf("policy of the environment: got %s", got)
	}
	w.policy.MaxAttempts = 9
	rec := w.do(request("PUT", "/api/v1/retry/policy", `{"backoff_strategy":"fixed","base_delay":"1.5s"}`))
	if rec.Code != http.StatusOK || w.policy.BackoffStrategy != jobs.Fixed || w.policy.BaseDelay.Seconds() != 1.5 || w.policy.MaxAttempts != 3 {
		t.Errorf("PUT: got %d %s and policy %+v, want fixed, 1.5 s, the rest by default", rec.Code, rec.Body, w.policy)
	}
	read := w.do(request("GET", "/api/v1/retry/policy", "")).Body.String()
	if rec.Body.String() != read {
		t.Errorf("PUT answered %s, a GET afterwards %s", rec.Body, read)
	}
	if again := w.do(request("PUT", "/api/v1/retry/policy", read)); again.Code != http.StatusOK {
		t.Errorf("PUT of what GET gave: got %d %s", again.Code, again.Body)
	}
	if rec := w.do(request("DELETE", "/api/v1/retry/policy", "")); rec.Code != http.StatusNoContent || w.policy.BackoffStrategy != jobs.Exponential {
		t.Errorf("DELETE: got %d and policy %+v", rec.Code, w.policy)
	}
}

func TestInvalidPolicyIsRefusedWithEveryReason(t *testing.T) {
	w := newWorker(t, nil)
	rec := w.do(request("PUT", "/api/v1/retry/policy", `{"max_attempts":11,"backoff_strategy":"quadratic","colour":"red"}`))
	if p := refusal(t, rec, http.StatusBadRequest); len(p.Details) != 3 {
		t.Errorf("details: got %q, want three", p.Details)
	}
	for _, body := range []string{"", "no", "[]", "null", " null\n", `{"x":1}`, `{"updated_at":1,"x":1}`} {
		refusal(t, w.do(request("PUT", "/api/v1/retry/policy", body)), http.StatusBadRequest)
	}
	refusal(t, w.do(request("PUT", "/api/v1/retry/policy", strings.Repeat(" ", 70_000))), http.StatusRequestEntityTooLarge)
	if w.policy.MaxAttempts != 3 {
		t.Errorf("policy: got %+v, want it unchanged", w.policy)
	}
}

func TestBreakersAreListedAndReset(t *testing.T) {
	w := newWorker(t, nil)
	w.pool.ForceOpen("p2", time.Minute, "test")
	var list struct {
		Breakers []admin.Breaker `json:"circuit_breakers"`
	}
	w.get(t, "/api/v1/circuit-breakers", &list)
	i := slices.IndexFunc(list.Breakers, func(b admin.Breaker) bool { return b.ProxyID == "p2" })
	if len(list.Breakers) != 2 || i < 0 || list.Breakers[i].State != "open" || list.Breakers[i].NextTestTime == nil || list.Breakers[1-i].NextTestTime != nil {
		t.Fatalf("breakers: got %+v, want p2 open and p1 not", list.Breakers)
	}
	if list.Breakers[i].FailureThreshold != 5 || list.Breakers[i].WindowDuration.Seconds() != 60 || list.Breakers[i].TimeoutDuration.Seconds() != 30 {
		t.Errorf("breaker's settings: got %+v", list.Breakers[i])
	}
	var one admin.Breaker
	w.get(t, "/api/v1/circuit-breakers/p2", &one)
	if rec := w.do(request("POST", "/api/v1/circuit-breakers/p2/reset", "")); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"state":"closed"`) {
		t.Errorf("reset: got %d %s, want the closed breaker", rec.Code, rec.Body)
	}
	if one.State != "open" || !slices.Equal(w.reset, []string{"p2"}) {
		t.Errorf("before the reset: got %s; reset: got %v", one.State, w.reset)
	}
	refusal(t, w.do(request("GET", "/api/v1/circuit-breakers/nobody", "")), http.StatusNotFound)
	refusal(t, w.do(request("POST", "/api/v1/circuit-breakers/nobody/reset", "")), http.StatusNotFound)
}

func TestBreakerTellsWhoFoundItsProxyDead(t *testing.T) {
	w := newWorker(t, nil)
	w.pool.Avoid("p2", time.Now().Add(time.Minute), "w2")
	var avoided, other map[string]any
	w.get(t, "/api/v1/circuit-breakers/p2", &avoided)
	w.get(t, "/api/v1/circuit-breakers/p1", &other)
	if avoided["avoided_until"] == nil || avoided["avoided_by"] != "w2" || avoided["state"] != "closed" {
		t.Errorf("got %v, want it closed and avoided until a time by the word of w2", avoided)
	}
	if len(other) != 8 {
		t.Errorf("got %v, want no word of who avoids it", other)
	}
}

func TestStatisticsAreThoseOfTheBook(t *testing.T) {
	w := newWorker(t, nil)
	w.book.AddAttempt(rollup.AttemptFact{Proxy: "p1", Reason: "timeout", Fault: jobs.FaultProxy, Duration: time.Second, Bytes: 7})
	w.book.AddRetry(jobs.RetryEvent{})
	w.book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 2, Policy: "exponential/3", Duration: time.Second})
	w.book.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "p1", FromState: "closed", ToState: "open"})
	for path, want := range map[string]string{
		"/api/v1/metrics/retries":                    `{"total_retries":1,"success_by_attempt":{"2":1},"circuit_breaker_events_count":1,"retention_hours":168}`,
		"/api/v1/metrics/retries/by-proxy?hours=1":   `{"proxies":{"p1":{"proxy_id":"p1","total_attempts":1,"success_count":0,"failure_count":1,"avg_latency":1,"bytes":7,"circuit_breaker_opens":1,"classes":{"2xx":0,"3xx":0,"4xx":0,"5xx":0,"none":1}}}}`,
		"/api/v1/metrics/retries/by-policy":          `{"policies":{"exponential/3":{"total_requests":1,"success_rate":1}}}`,
		"/api/v1/metrics/retries/timeseries?hours=1": `"total_requests":1,"total_retries":1,"success_rate":1,"avg_latency":1,`,
		"/api/v1/circuit-breakers/metrics?hours=1":   `{"events":[{"proxy_id":"p1","from_state":"closed","to_state":"open",`,
	} {
		if got := w.do(request("GET", path, "")).Body.String(); !strings.Contains(got, want) {
			t.Errorf("GET %s:\ngot  %s\nwant %s", path, got, want)
		}
	}
	var series struct {
		Points []rollup.Point `json:"data_points"`
	}
	w.get(t, "/api/v1/metrics/retries/timeseries", &series)
	if len(series.Points) != 24 {
		t.Errorf("points by default: got %d, want 24", len(series.Points))
	}
}

func TestHoursAndScopeOutOfRangeAreBadRequests(t *testing.T) {
	w := newWorker(t, nil)
	for _, path := range []string{"/api/v1/circuit-breakers/metrics", "/api/v1/metrics/retries/timeseries", "/api/v1/metrics/retries/by-proxy", "/api/v1/metrics/retries/by-policy"} {
		for _, query := range []string{"hours=0", "hours=169", "hours=-1", "hours=x", "hours=", "hours=1.5", "scope=planet"} {
			refusal(t, w.do(request("GET", path+"?"+query, "")), http.StatusBadRequest)
		}
		for _, query := range []string{"hours=1", "hours=168", "scope=worker", "scope=cluster"} {
			if rec := w.do(request("GET", path+"?"+query, "")); rec.Code != http.StatusOK {
				t.Errorf("GET %s?%s: got %d", path, query, rec.Code)
			}
		}
	}
}

func TestClusterIsTheDefaultScope(t *testing.T) {
	fleet := rollup.NewBook()
	fleet.AddRetry(jobs.RetryEvent{})
	w := newWorker(t, func(c *admin.Config) { c.Cluster = func(context.Context) (*rollup.Book, error) { return fleet, nil } })
	for query, want := range map[string]string{"": `"total_retries":1`, "?scope=cluster": `"total_retries":1`, "?scope=worker": `"total_retries":0`} {
		if got := w.do(request("GET", "/api/v1/metrics/retries"+query, "")).Body.String(); !strings.Contains(got, want) {
			t.Errorf("retries%s: got %s, want %s", query, got, want)
		}
	}
	broken := newWorker(t, func(c *admin.Config) {
		c.Cluster = func(context.Context) (*rollup.Book, error) { return nil, errors.New("no responders") }
	})
	refusal(t, broken.do(request("GET", "/api/v1/metrics/retries", "")), http.StatusServiceUnavailable)
}

func TestFailedChangeIsUnavailable(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.ResetPolicy = func(context.Context) error { return errors.New("no responders") }
		c.ResetBreaker = nil
	})
	if p := refusal(t, w.do(request("DELETE", "/api/v1/retry/policy", "")), http.StatusServiceUnavailable); !strings.Contains(p.Message, "no responders") {
		t.Errorf("message: got %q, want the cause", p.Message)
	}
	refusal(t, w.do(request("POST", "/api/v1/circuit-breakers/p1/reset", "")), http.StatusNotImplemented)
}

func TestARequestThatNATSDoesNotAnswerSaysSo(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) {
		c.ResetPolicy = func(context.Context) error { return fmt.Errorf("look for waiting jobs: %w", context.DeadlineExceeded) }
	})
	p := refusal(t, w.do(request("DELETE", "/api/v1/retry/policy", "")), http.StatusServiceUnavailable)
	if !strings.HasSuffix(p.Message, "look for waiting jobs: the NATS server did not answer in time") {
		t.Errorf("message: got %q, want that NATS did not answer", p.Message)
	}
}

func TestOtherVerbsAndPathsAreRefusedInJSON(t *testing.T) {
	w := newWorker(t, nil)
	for path, allow := range map[string]string{
		"/api/v1/retry/policy": "DELETE, GET, PUT, HEAD", "/livez": "GET, HEAD", "/": "GET, HEAD", "/api/v1/circuit-breakers/p1/reset": "POST",
	} {
		rec := w.do(request("PATCH", path, ""))
		refusal(t, rec, http.StatusMethodNotAllowed)
		if got := rec.Header().Get("Allow"); got != allow {
			t.Errorf("PATCH %s: got Allow %q, want %q", path, got, allow)
		}
	}
	for _, path := range []string{"/nothing", "/api/v1/nothing", "/page/nothing.js", "/page/..%2fadmin.go", "/api/v1/circuit-breakers/p1/nothing"} {
		rec := w.do(request("GET", path, ""))
		refusal(t, rec, http.StatusNotFound)
		for _, name := range []string{"X-Content-Type-Options", "Content-Security-Policy", "Cache-Control", "Referrer-Policy"} {
			if rec.Header().Get(name) == "" {
				t.Errorf("GET %s: the answer lacks %s", path, name)
			}
		}
	}
}

func TestReadinessSaysWhy(t *testing.T) {
	checks := []admin.Check{{Name: "nats", OK: true, Detail: "connected"}, {Name: "results", OK: true, Detail: "can be stored"}}
	w := newWorker(t, func(c *admin.Config) { c.Ready = func() []admin.Check { return checks } })
	if rec := w.do(request("GET", "/readyz", "")); rec.Code != http.StatusOK || rec.Body.String() != "ready\n" {
		t.Errorf("ready: got %d %q", rec.Code, rec.Body)
	}
	checks[1] = admin.Check{Name: "results", Detail: "the stream is full"}
	rec := w.do(request("GET", "/readyz?verbose", ""))
	if short := w.do(request("GET", "/readyz", "")); short.Code != http.StatusServiceUnavailable || short.Body.String() != "[-] results: the stream is full\nnot ready\n" {
		t.Errorf("not ready, without verbose: got %d %q, want 503 and the check that fails", short.Code, short.Body)
	}
	if want := "[+] nats: connected\n[-] results: the stream is full\nnot ready\n"; rec.Code != http.StatusServiceUnavailable || rec.Body.String() != want {
		t.Errorf("not ready: got %d %q, want 503 %q", rec.Code, rec.Body, want)
	}
	rec = w.do(request("GET", "/readyz", "", header("Accept", "application/json")))
	if want := `{"ready":false,"checks":[{"name":"nats","ok":true,"detail":"connected"},{"name":"results","ok":false,"detail":"the stream is full"}]}`; strings.TrimSpace(rec.Body.String()) != want {
		t.Errorf("as JSON: got %s, want %s", rec.Body, want)
	}
	if rec := w.do(request("GET", "/livez", "")); rec.Code != http.StatusOK {
		t.Errorf("liveness while not ready: got %d, want 200", rec.Code)
	}
}

// slowReader takes an answer when the test lets it.
type slowReader struct {
	*httptest.ResponseRecorder
	reading, finish chan struct{}
}

func (s slowReader) Write(p []byte) (int, error) {
	s.reading <- struct{}{}
	<-s.finish
	return s.ResponseRecorder.Write(p)
}

func TestSlowReadersHoldFewPagesWithSingleProxies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, nil)
		reading, finish := make(chan struct{}), make(chan struct{})
		for range 2 {
			go w.ServeHTTP(slowReader{httptest.NewRecorder(), reading, finish}, request("GET", "/metrics?proxies=all", ""))
			<-reading
		}
		refusal(t, w.do(request("GET", "/metrics?proxies=top&limit=1", "")), http.StatusServiceUnavailable)
		if rec := w.do(request("GET", "/metrics", "")); rec.Code != http.StatusOK {
			t.Errorf("the page without single proxies: got %d, want 200", rec.Code)
		}
		close(finish)
		if rec := w.do(request("GET", "/metrics?proxies=all", "")); rec.Code != http.StatusOK {
			t.Errorf("the page after the slow ones: got %d, want 200", rec.Code)
		}
	})
}

func TestMetricsPageNamesProxiesOnRequest(t *testing.T) {
	w := newWorker(t, nil)
	for query, want := range map[string]int{"": 0, "?proxies=all": 2, "?proxies=top": 2, "?proxies=top&limit=1": 1} {
		rec := w.do(request("GET", "/metrics"+query, ""))
		if got := strings.Count(rec.Body.String(), "gofer_proxy_state{"); got != want || rec.Code != http.StatusOK {
			t.Errorf("metrics%s: got %d with %d proxies, want %d", query, rec.Code, got, want)
		}
	}
	refusal(t, w.do(request("GET", "/metrics?proxies=top&limit=0", "")), http.StatusBadRequest)
	refusal(t, w.do(request("GET", "/metrics?proxies=mine", "")), http.StatusBadRequest)
	zipped := w.do(request("GET", "/metrics", "", header("Accept-Encoding", "gzip")))
	if got := zipped.Header().Get("Content-Encoding"); got != "gzip" {
		t.Errorf("encoding: got %q, want gzip", got)
	}
}

func TestNoAnswerShowsACredential(t *testing.T) {
	w := newWorker(t, nil)
	for _, path := range []string{"/", "/metrics?proxies=all", "/api/v1/circuit-breakers", "/api/v1/circuit-breakers/p2", "/api/v1/metrics/retries/by-proxy", "/readyz?verbose"} {
		if body := w.do(request("GET", path, "")).Body.String(); strings.Contains(body, "secret") {
			t.Errorf("GET %s shows the proxy's password", path)
		}
	}
}

// BenchmarkDayOverHTTP asks for 24 hours of 10,000 requests an hour through 1,000 proxies.
func BenchmarkDayOverHTTP(b *testing.B) {
	w := newWorker(b, nil)
	for i := range 240_000 {
		at := time.Now().Add(-time.Duration(240_000-i) * 360 * time.Millisecond)
		w.book.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%04d", i%1000), Status: 200, Duration: time.Second, At: at})
		w.book.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1, Policy: "exponential/3", At: at})
	}
	server := httptest.NewServer(w)
	defer server.Close()
	for _, query := range []string{"retries", "retries/timeseries?hours=24", "retries/by-proxy?hours=24", "retries/by-policy?hours=24"} {
		b.Run(query, func(b *testing.B) {
			for b.Loop() {
				read(b, server.URL+"/api/v1/metrics/"+query, "identity")
			}
		})
	}
}
