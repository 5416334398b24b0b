package admin_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/admin"
)

func TestAParameterThatIsMisspeltOrOfNoActIsRefused(t *testing.T) {
	purged := false
	w := newWorker(t, func(c *admin.Config) {
		c.Operator.PurgeLetters = func(context.Context, string) (uint64, error) { purged = true; return 1, nil }
		c.Operator.Letters = func(context.Context, func(admin.Letter) error) error { return nil }
	})
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/api/v1/jobs?staet=failed", `"staet": no such parameter, did you mean state?`},
		{"GET", "/api/v1/jobs?status=failed", `"status": no such parameter, did you mean state?`},
		{"GET", "/api/v1/jobs?state=failed;queue=low", "the query cannot be read"},
		{"HEAD", "/api/v1/metrics/retries?scop=worker", ""},
		{"POST", "/api/v1/dead/purge?queue=low", `"queue": no such parameter`},
	} {
		answer := w.do(request(c.method, c.path, `{"all": true}`))
		if answer.Code != http.StatusBadRequest || !strings.Contains(strings.ReplaceAll(answer.Body.String(), `\"`, `"`), c.want) {
			t.Errorf("%s %s: got %d, %s; want 400 and %s", c.method, c.path, answer.Code, answer.Body, c.want)
		}
	}
	if purged {
		t.Error("letters were purged by a request that was refused")
	}
	for _, path := range []string{"/readyz?probe=1", "/livez?a=b", "/metrics?target=x", "/?utm_source=x", "/api/v1/metrics/retries?hours=24", "/api/v1/jobs?rnd=7"} {
		if answer := w.do(request("GET", path, "")); answer.Code == http.StatusBadRequest {
			t.Errorf("%s: got %d, %s; want the parameter to be ignored", path, answer.Code, answer.Body)
		}
	}
}
