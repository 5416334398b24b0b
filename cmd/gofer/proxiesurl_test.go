package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// proxyList serves a list of proxies to whoever knows the password; an empty list is an answer of 503. Its URL stands in a file.
func proxyList(t *testing.T) (serve func(list string), file string) {
	t.Helper()
	var list atomic.Pointer[string]
	list.Store(new(string))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if text := *list.Load(); text != "" && password == "s3cret" && r.URL.RawQuery == "token=s3cret" {
			_, _ = io.WriteString(w, text)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	file = filepath.Join(t.TempDir(), "url")
	url := strings.Replace(server.URL, "http://", "http://user:s3cret@", 1) + "/list?token=s3cret"
	if err := os.WriteFile(file, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(text string) { list.Store(&text) }, file
}

// TestAWorkerStartsWithoutItsListAndTakesItWhenItComes: a job that only a proxy of the list can serve waits for it.
func TestAWorkerStartsWithoutItsListAndTakesItWhenItComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	serve, file := proxyList(t)
	addr := freeAddr(t)
	setenv(t, "GOFER_PROXIES_URL_FILE", file)
	setenv(t, "GOFER_PROXIES_REFRESH", "100ms")
	p := w.worker(addr)
	page := func() string {
		_, text := w.get("http://" + addr + "/readyz?verbose")
		return text
	}
	testenv.Eventually(t, "the list that is missing to be told", func() bool {
		return strings.Contains(page(), "[+] proxies: 1 in the pool; the proxies cannot be read since ") && strings.Contains(page(), "GOFER_PROXIES_URL: the server answers 503")
	})
	w.publish("j1", job("/ok", map[string]any{"proxy": map[string]any{"region": "DE", "region_strict": true}}))
	testenv.Eventually(t, "the job to wait", func() bool {
		_, out, _ := gofer(t, "", "job", "j1")
		return strings.Contains(out, "a list of proxies was never read")
	})
	var out string
	testenv.Eventually(t, "gofer doctor to name the list that this environment and the worker miss", func() bool {
		var code int // a busy worker may answer too late
		code, out, _ = gofer(t, "", "doctor")
		return code == exitFailed && strings.Count(out, "GOFER_PROXIES_URL: the server answers 503") >= 2 &&
			strings.Contains(out, "a list of proxies cannot be read, and the last good one holds")
	})
	bought := w.startProxy(testenv.Good)
	serve("\ufeff# bought\r\n" + strings.TrimPrefix(bought.URL("http"), "http://") + " id=bought region=DE\r\n")
	if r := w.result("j1"); r.Outcome != jobs.Succeeded || r.Proxy != "bought" {
		t.Errorf("job j1: %s through %q, want the proxy of the list", r.Outcome, r.Proxy)
	}
	testenv.Eventually(t, "the end of the trouble", func() bool { return strings.Contains(page(), "[+] proxies: 2 in the pool\n") })
	serve("nothing@s3cret\n")
	testenv.Eventually(t, "a broken list to be told", func() bool {
		return strings.Contains(page(), "[+] proxies: 2 in the pool; ") && strings.Contains(page(), "GOFER_PROXIES_URL: line 1: ")
	})
	w.publish("j2", job("/ok", map[string]any{"proxy": map[string]any{"region": "FR", "region_strict": true}}))
	if r := w.result("j2"); r.Error != jobs.ErrNoProxy {
		t.Errorf("job j2: %s, want the end as no_proxy: the list was read", r.Outcome)
	}
	if text := page() + out + p.log.String(); strings.Contains(text, "s3cret") {
		t.Errorf("a secret is told:\n%s", text)
	}
}

// TestAWorkerTakesNoJobBeforeItsListWasAskedFor: a job that does not wait for a proxy would end at once.
func TestAWorkerTakesNoJobBeforeItsListWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	line := w.proxy.URL("http") + " id=listed\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-answer
		_, _ = io.WriteString(w, line)
	}))
	t.Cleanup(server.Close)
	free := sync.OnceFunc(func() { close(answer) })
	t.Cleanup(free) // Close waits for the handler
	setenv(t, "GOFER_PROXIES", "")
	setenv(t, "GOFER_PROXIES_URL", server.URL)
	w.start("worker")
	<-asked
	w.publish("j1", job("/ok", map[string]any{"when_no_proxy": "fail"}))
	_, page := w.get("http://" + getenv(t, "GOFER_HTTP_ADDR") + "/readyz?verbose")
	if !strings.Contains(page, "0 in the pool; a list of proxies is being fetched") {
		t.Errorf("while the list is fetched /readyz says\n%s", page)
	}
	free()
	if r := w.result("j1"); r.Outcome != jobs.Succeeded || r.Proxy != "listed" {
		t.Errorf("job j1: %s %s through %q, want the proxy of the list", r.Outcome, r.Error, r.Proxy)
	}
}

func TestAURLWithCredentialsIsRefusedInTheEnvironment(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	setenv(t, "GOFER_PROXIES_URL", "https://user:s3cret@lists.test/")
	for _, verb := range []string{"worker", "config check", "proxies ls"} {
		code, out, errOut := gofer(t, "", strings.Fields(verb)...)
		if code != exitConfig || !strings.Contains(errOut, "GOFER_PROXIES_URL_FILE") || strings.Contains(out+errOut, "s3cret") {
			t.Errorf("gofer %s: exit %d, %q; want %d, the remedy and no password", verb, code, errOut, exitConfig)
		}
	}
	_, file := proxyList(t)
	setenv(t, "GOFER_PROXIES_URL", "")
	setenv(t, "GOFER_PROXIES_URL_FILE", file)
	if code, out, errOut := gofer(t, "", "config", "show"); code != exitOK || !strings.Contains(out, "(set)") || strings.Contains(out+errOut, "s3cret") {
		t.Errorf("gofer config show: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := gofer(t, "", "config", "check"); code != exitOK {
		t.Errorf("gofer config check: exit %d, %q; want it to ask nobody", code, errOut)
	}
}
