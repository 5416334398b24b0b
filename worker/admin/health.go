package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// livez answers as long as the process serves at all. It must not depend on NATS: to restart every worker while the
// servers are away would only add to it.
func (a *admin) livez(w http.ResponseWriter, _ *http.Request) error {
	return writeText(w, http.StatusOK, "ok\n")
}

func (a *admin) readyz(w http.ResponseWriter, r *http.Request) error {
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
			fmt.Fprintf(&out, "[%s] %s: %s\n", map[bool]string{true: "+", false: "-"}[c.OK], c.Name, text.Printable(c.Detail))
		}
	}
	return writeText(w, status, out.String()+map[bool]string{true: "ready\n", false: "not ready\n"}[ready])
}

type readiness struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

func (a *admin) ready() (bool, []Check) {
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

// metricsPage names proxies only on request: ?proxies=top&limit=50, or all.
func (a *admin) metricsPage(w http.ResponseWriter, r *http.Request) error {
	most := 0
	switch which := r.URL.Query().Get("proxies"); which {
	case "":
	case "all":
		most = math.MaxInt
	case "top":
		most = 50
		if limit := r.URL.Query().Get("limit"); limit != "" {
			n, err := strconv.Atoi(limit)
			if err != nil || n < 1 {
				return badRequest("limit: " + strconv.Quote(clip(limit)) + " is not a number above zero")
			}
			most = n
		}
	default:
		return badRequest("proxies: " + strconv.Quote(clip(which)) + " is neither top nor all")
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(a.Metrics.Write(most)) // nobody to tell when the client went away
	return nil
}

func writeText(w http.ResponseWriter, status int, body string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // nobody to tell when the client went away
	return nil
}
