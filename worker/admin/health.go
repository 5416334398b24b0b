package admin

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs/text"
)

// livez answers 200 as long as the process serves requests. It must not depend on NATS: restarting every worker while the
// servers are away would only add load.
func (a *admin) livez(w http.ResponseWriter, _ *http.Request) error {
	return writeText(w, http.StatusOK, "ok\n")
}

// readyz answers 200 if all checks are good, else 503 with those that are not. Text is the default; Accept:
// application/json asks for JSON.
func (a *admin) readyz(w http.ResponseWriter, r *http.Request) error {
	// Ready must not block: a probe that hangs counts as failed, and an orchestrator would restart or isolate a
	// good worker.
	ready, checks := a.ready()
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, status, readiness{ready, checks})
		return nil
	}
	var out strings.Builder
	for _, c := range checks {
		if !c.OK || r.URL.Query().Has("verbose") {
			// Details may hold texts of servers, so characters that control a terminal are replaced.
			fmt.Fprintf(&out, "[%s] %s: %s\n", map[bool]string{true: "+", false: "-"}[c.OK], c.Name, text.Printable(c.Detail))
		}
	}
	return writeText(w, status, out.String()+map[bool]string{true: "ready\n", false: "not ready\n"}[ready])
}

// readiness is the answer in JSON. Checks has all checks, those that are ok included.
type readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// ready runs the checks. Without checks the worker is ready.
func (a *admin) ready() (bool, []Check) {
	// The slice is not nil even if it is empty, because JSON needs [] and not null.
	checks := []Check{}
	if a.Ready != nil {
		checks = append(checks, a.Ready()...)
	}
	for _, c := range checks {
		if !c.OK {
			return false, checks
		}
	}
	return true, checks
}

// metricsPage answers GET /metrics, for Prometheus. The families are made in worker/metrics. Single proxies are
// named on request only, ?proxies=top&limit=50 or all: in a large pool they would be most of the page.
// The default keeps the number of series small and constant, whatever the pool's size.
func (a *admin) metricsPage(w http.ResponseWriter, r *http.Request) error {
	named := 0
	switch which := r.URL.Query().Get("proxies"); which {
	case "":
	case "all":
		named = math.MaxInt
	case "top":
		named = 50
		if limit := r.URL.Query().Get("limit"); limit != "" {
			n, err := strconv.Atoi(limit)
			if err != nil || n < 1 {
				return badRequest("limit: " + strconv.Quote(clip(limit)) + " is not a number above zero")
			}
			named = n
		}
	default:
		return badRequest("proxies: " + strconv.Quote(clip(which)) + " is neither top nor all")
	}
	if named > 0 {
		if !a.enterNamed(r.Context()) {
			return failure{status: http.StatusServiceUnavailable, code: "busy", message: "other pages with single proxies are being read; ask again"}
		}
		defer func() { <-a.named }()
	}
	// The version of the text format that Prometheus has read since 2014; newer scrapers accept it, too.
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(a.Metrics.Write(named)) // an error means that the client went away
	return nil
}

// maxNamed bounds the pages with single proxies that exist at the same time. Such a page of 100,000 proxies takes tens of
// megabytes until it is sent, and a client may read it slowly.
const maxNamed = 2

// enterNamed waits until fewer than maxNamed pages with single proxies are being written, as long as two pages take. It
// reports whether one more may be written.
func (a *admin) enterNamed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	select {
	case a.named <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// writeText writes plain text. An error of writing is ignored: the client went away.
func writeText(w http.ResponseWriter, status int, body string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // an error means that the client went away
	return nil
}
