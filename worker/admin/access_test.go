package admin_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/admin"
)

const reset = "/api/v1/circuit-breakers/p1/reset"

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
func basic(password string) func(*http.Request) {
	return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+password)))
}

func TestChangeWithoutATokenIsTakenOnlyFromThisMachine(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want int
	}{
		"a local program":     {func(*http.Request) {}, 200},
		"localhost":           {host("localhost:9090"), 200},
		"IPv6":                {func(r *http.Request) { from("[::1]:5")(r); host("[::1]:9090")(r) }, 200},
		"IPv6 without a port": {host("[::1]"), 200},
		"its own page": {func(r *http.Request) {
			header("Origin", "http://127.0.0.1:9090")(r)
			header("Sec-Fetch-Site", "same-origin")(r)
		}, 200},
		"its own page, older browser":   {header("Origin", "http://127.0.0.1:9090"), 200},
		"another machine":               {from("192.0.2.7:5"), 403},
		"another name for this machine": {host("rebound.example:9090"), 403},
		"localhost of somebody":         {host("localhost.example"), 403},
		"no host":                       {host(""), 403},
		"a reverse proxy":               {header("X-Forwarded-For", "192.0.2.7"), 403},
		"a reverse proxy, RFC 7239":     {header("Forwarded", "for=192.0.2.7"), 403},
		"a reverse proxy, host":         {header("X-Forwarded-Host", "x"), 403},
		"another site":                  {header("Sec-Fetch-Site", "cross-site"), 403},
		"the same site":                 {header("Sec-Fetch-Site", "same-site"), 403},
		"another origin":                {header("Origin", "http://evil.example"), 403},
		"another port":                  {header("Origin", "http://127.0.0.1:8080"), 403},
		"a sandboxed page":              {header("Origin", "null"), 403},
	} {
		if got := newWorker(t, nil).do(request("POST", reset, "", c.edit)); got.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", name, got.Code, got.Body, c.want)
		}
	}
}

func TestProfileIsNotTakenForAnotherSitesPage(t *testing.T) {
	for site, want := range map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403} {
		got := newWorker(t, nil).do(request("GET", "/debug/pprof/goroutine", "", header("Sec-Fetch-Site", site)))
		if got.Code != want {
			t.Errorf("profile for a page of %q: got %d, want %d", site, got.Code, want)
		}
	}
}

func TestChangeNeedsTheTokenThatIsSet(t *testing.T) {
	w := newWorker(t, func(c *admin.Config) { c.Token = "s3cret" })
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want int
	}{
		"none":                     {func(*http.Request) {}, 401},
		"the right one":            {header("Authorization", "Bearer s3cret"), 200},
		"the right one, from afar": {func(r *http.Request) { header("Authorization", "bearer s3cret")(r); from("192.0.2.7:5")(r) }, 200},
		"a wrong one":              {header("Authorization", "Bearer s3cre"), 401},
		"an empty one":             {header("Authorization", "Bearer "), 401},
		"as a password":            {basic("s3cret"), 401},
		"right, from another site": {func(r *http.Request) {
			header("Authorization", "Bearer s3cret")(r)
			header("Sec-Fetch-Site", "cross-site")(r)
		}, 403},
		"no scheme":                 {header("Authorization", "s3cret"), 401},
		"right, by a reverse proxy": {func(r *http.Request) { header("Authorization", "Bearer s3cret")(r); header("X-Forwarded-For", "x")(r) }, 200},
	} {
		got := w.do(request("POST", reset, "", c.edit))
		if got.Code != c.want {
			t.Errorf("token %s: got %d %s, want %d", name, got.Code, got.Body, c.want)
		}
		if challenge := got.Header().Get("WWW-Authenticate"); (challenge != "") != (c.want == 401) {
			t.Errorf("token %s: got challenge %q with %d", name, challenge, got.Code)
		}
	}
}

func TestReadsNeedTheTokenOnlyWhereOthersReachTheWorker(t *testing.T) {
	for name, c := range map[string]struct {
		addr, path string
		edit       func(*http.Request)
		want       int
	}{
		"loopback, no token":      {"127.0.0.1:9090", "/api/v1/circuit-breakers", func(*http.Request) {}, 200},
		"everywhere, no token":    {":9090", "/api/v1/circuit-breakers", func(*http.Request) {}, 401},
		"everywhere, page":        {":9090", "/", header("Accept", "text/html"), 401},
		"everywhere, live":        {":9090", "/api/v1/live", func(*http.Request) {}, 401},
		"everywhere, metrics":     {":9090", "/metrics", func(*http.Request) {}, 200},
		"everywhere, liveness":    {":9090", "/livez", func(*http.Request) {}, 200},
		"everywhere, readiness":   {":9090", "/readyz", func(*http.Request) {}, 200},
		"everywhere, token":       {"0.0.0.0:9090", "/api/v1/circuit-breakers", header("Authorization", "Bearer s3cret"), 200},
		"everywhere, password":    {"0.0.0.0:9090", "/", basic("s3cret"), 200},
		"everywhere, wrong":       {"0.0.0.0:9090", "/", basic("other"), 401},
		"one interface, no token": {"192.0.2.1:9090", "/api/v1/openapi.json", func(*http.Request) {}, 401},
	} {
		w := newWorker(t, func(cfg *admin.Config) { cfg.Token, cfg.Addr = "s3cret", c.addr })
		got := w.do(request("GET", c.path, "", c.edit))
		if got.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", name, got.Code, got.Body, c.want)
		}
		if strings.Contains(got.Body.String(), "s3cret") {
			t.Errorf("%s: the answer holds the token", name)
		}
	}
}

// TestReadsOnALoopbackListenerNeedALoopbackHost guards against DNS rebinding, whether a token is set or not.
func TestReadsOnALoopbackListenerNeedALoopbackHost(t *testing.T) {
	none := func(*http.Request) {}
	for name, c := range map[string]struct {
		token, path, host string
		edit              func(*http.Request)
		want              int
	}{
		"address":                      {"", "/api/v1/retry/policy", "127.0.0.1:9090", none, 200},
		"another loopback address":     {"", "/api/v1/retry/policy", "127.9.9.9", none, 200},
		"localhost":                    {"", "/", "LocalHost:9090", none, 200},
		"IPv6":                         {"", "/", "[::1]:9090", none, 200},
		"rebound name":                 {"", "/api/v1/retry/policy", "evil.test:9090", none, 403},
		"rebound name, page":           {"", "/", "evil.test:9090", none, 403},
		"rebound name, part of a page": {"", "/page/app.js", "evil.test", none, 403},
		"rebound name, live":           {"", "/api/v1/live", "evil.test:9090", none, 403},
		"localhost of somebody":        {"", "/", "localhost.evil.test", none, 403},
		"no host":                      {"", "/", "", none, 403},
		"rebound name, liveness":       {"", "/livez", "evil.test:9090", none, 200},
		"rebound name, metrics":        {"", "/metrics", "evil.test:9090", none, 200},
		"token, address":               {"s3cret", "/", "127.0.0.1:9090", none, 200},
		"token, rebound name":          {"s3cret", "/", "evil.test:9090", none, 401},
		"token given, rebound name":    {"s3cret", "/", "gofer.example:9090", header("Authorization", "Bearer s3cret"), 200},
		"password given, rebound name": {"s3cret", "/", "gofer.example:9090", basic("s3cret"), 200},
		"no token set, an empty given": {"", "/", "evil.test", header("Authorization", "Bearer "), 403},
	} {
		w := newWorker(t, func(cfg *admin.Config) { cfg.Token = c.token })
		over, end := context.WithCancel(t.Context())
		end() // a live stream that is let in sends one event
		asked := func(r *http.Request) { *r = *r.WithContext(over) }
		if got := w.do(request("GET", c.path, "", asked, host(c.host), c.edit)); got.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", name, got.Code, got.Body, c.want)
		}
	}
}

func TestBindToOthersWithoutATokenIsRefused(t *testing.T) {
	for addr, fine := range map[string]bool{
		"127.0.0.1:9090": true, "localhost:0": true, "[::1]:9090": true, "127.8.8.8:1": true,
		":9090": false, "0.0.0.0:9090": false, "[::]:9090": false, "192.0.2.1:9090": false, "worker.example:9090": false,
	} {
		err := admin.CheckBind(addr, "")
		if (err == nil) != fine {
			t.Errorf("CheckBind(%q) without a token: got %v", addr, err)
		}
		if err != nil && !errors.Is(err, admin.ErrNoToken) {
			t.Errorf("CheckBind(%q): got %q, want an ErrNoToken", addr, err)
		}
		if err := admin.CheckBind(addr, "s3cret"); err != nil {
			t.Errorf("CheckBind(%q) with a token: got %v", addr, err)
		}
	}
	if err := admin.CheckBind("9090", "s3cret"); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("CheckBind of no address: got %v", err)
	}
}
