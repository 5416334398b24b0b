package config_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/config"
)

// lister serves a list of proxies, and counts how it was asked.
type lister struct {
	*httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc
	asked  []*http.Request
}

func newLister(t *testing.T) *lister {
	t.Helper()
	l := &lister{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		answer := l.answer
		l.asked = append(l.asked, r)
		l.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

// serve changes the answer.
func (l *lister) serve(answer http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// requests are those that came.
func (l *lister) requests() []*http.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.asked)
}

func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func ids(list []proxylist.Proxy) string {
	var out []string
	for _, p := range list {
		out = append(out, p.ID)
	}
	return strings.Join(out, " ")
}

func TestAListIsFetchedAsFilesAndSellersWriteIt(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // has no influence
	l := newLister(t)
	l.serve(body("\ufeff# bought\r\nhttp://192.0.2.1:80 id=a region=eu\r\n\r\n192.0.2.2:80:user:s3cret id=b\r\nuser:s3cret@192.0.2.3:80 id=c\r\n192.0.2.4:80 id=d"))
	c := config.Config{ProxiesURL: " " + l.URL + "/list?token=s3cret\n", UserAgent: "gofer/test"}
	list, err := c.FetchProxies(t.Context())
	if err != nil || ids(list) != "a b c d" {
		t.Fatalf("fetched %s, %v; want a b c d", ids(list), err)
	}
	if asked := l.requests()[0]; asked.URL.String() != "/list?token=s3cret" || asked.UserAgent() != "gofer/test" {
		t.Errorf("asked for %s as %q", asked.URL, asked.UserAgent())
	}
	if list, err := (&config.Config{}).FetchProxies(t.Context()); list != nil || err != nil {
		t.Errorf("without a URL: %v, %v", list, err)
	}
}

func TestAListThatIsNoneIsRefusedWithoutItsSecrets(t *testing.T) {
	l := newLister(t)
	for want, answer := range map[string]http.HandlerFunc{
		"GOFER_PROXIES_URL: the list is empty":                           body("# nothing\n\n"),
		"GOFER_PROXIES_URL: the list has more than 16777216 bytes":       body(strings.Repeat(strings.Repeat("#", 1023)+"\n", 16<<10+1)),
		"GOFER_PROXIES_URL: the server answers 503 Service Unavailable":  status(http.StatusServiceUnavailable),
		"GOFER_PROXIES_URL: the server answers 304 Not Modified":         status(http.StatusNotModified),
		"GOFER_PROXIES_URL: the server answers 204 No Content":           status(http.StatusNoContent),
		"GOFER_PROXIES_URL: line 2: the URL has no port":                 body("http://192.0.2.1:80\nhttp://s3cret@192.0.2.2\n"),
		"GOFER_PROXIES_URL: line 2: the same proxy as in line 1":         body("192.0.2.1:80:s3cret:x\n192.0.2.1:80:s3cret:y\n"),
		"GOFER_PROXIES_URL: net/http: HTTP/1.x transport connection bro": func(w http.ResponseWriter, r *http.Request) { hijack(w, r.URL.String()+"s3cret\r\n\r\n") },
		"GOFER_PROXIES_URL: unexpected EOF": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n192.0.2.1:80\n")
		},
		"GOFER_PROXIES_URL: malformed MIME header": func(w http.ResponseWriter, r *http.Request) { // while the body is read
			hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n192.0.2.1:80\n\r\n0\r\nno header "+r.URL.String()+"\r\n\r\n")
		},
		"a redirect, which is not followed": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://s3cret@192.0.2.1/", http.StatusFound)
		},
	} {
		l.serve(answer)
		c := config.Config{ProxiesURL: l.URL + "/s3cret?token=s3cret"}
		list, err := c.FetchProxies(t.Context())
		if err == nil || list != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%d proxies, %v; want %q and no secret", len(list), err, want)
		}
	}
}

// hijack sends bytes that no handler can.
func hijack(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = conn.Write([]byte(raw))
	_ = conn.Close()
}

func TestOfAPageInPlaceOfAListTheFirstLinesAreNamed(t *testing.T) {
	l := newLister(t)
	l.serve(body(strings.Repeat("<p>sign in</p>\n", 1000)))
	_, err := (&config.Config{ProxiesURL: l.URL}).FetchProxies(t.Context())
	if lines := config.Lines(err); len(lines) != 11 || lines[10] != "GOFER_PROXIES_URL: and 990 more lines" {
		t.Errorf("%q, want ten lines and the number of the others", lines)
	}
}

func TestCredentialsOfAListStandInAFile(t *testing.T) {
	const secret = "https://user:s3cret@lists.test/list"
	file := writeFile(t, "url", "\ufeff"+secret+"\n")
	c, err := config.Load(config.Environment{"GOFER_PROXIES_URL_FILE": file})
	if err != nil || c.ProxiesURL != secret {
		t.Fatalf("%q, %v; want what the file holds", c.ProxiesURL, err)
	}
	for _, v := range config.Variables() {
		if value, _ := c.Show(v); strings.Contains(value, "s3cret") {
			t.Errorf("%s is shown as %q", v.Name, value)
		}
	}
	for want, env := range map[string]config.Environment{
		"GOFER_PROXIES_URL: it has a user or a password":               {"GOFER_PROXIES_URL": secret},
		"GOFER_PROXIES_URL, GOFER_PROXIES_URL_FILE: both are set":      {"GOFER_PROXIES_URL": "https://lists.test/s3cret", "GOFER_PROXIES_URL_FILE": file},
		"GOFER_PROXIES_URL: neither https nor http on loopback":        {"GOFER_PROXIES_URL": "http://lists.test/s3cret"},
		"GOFER_PROXIES_URL: neither https nor http on loopback: every": {"GOFER_PROXIES_URL": "file://localhost/s3cret"},
		"GOFER_PROXIES_URL: not an absolute https URL":                 {"GOFER_PROXIES_URL": "lists.test/s3cret"},
		"GOFER_PROXIES_URL: not an absolute https URL of":              {"GOFER_PROXIES_URL": "https://lists.test/%zzs3cret"},
		"GOFER_PROXIES_REFRESH: not between 0.1s and 24h":              {"GOFER_PROXIES_REFRESH": "25h"},
	} {
		_, err := config.Load(env)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %v; want %q and no secret", env, err, want)
		}
	}
	for _, ok := range []string{"https://lists.test/", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost:8080/list"} {
		if _, err := config.Load(config.Environment{"GOFER_PROXIES_URL": ok}); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

// taken is one call of use.
type taken struct{ list, err string }

// watch collects what WatchProxies calls use with.
func watch(t *testing.T, c *config.Config, own []proxylist.Proxy) func() []taken {
	t.Helper()
	var mu sync.Mutex
	var calls []taken
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.WatchProxies(ctx, own, func(list []proxylist.Proxy, err error) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, taken{ids(list), fmt.Sprint(err)})
		})
	}()
	t.Cleanup(func() { stop(); <-done })
	return func() []taken {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls)
	}
}

func TestTheLastGoodListStaysUntilAGoodOneComes(t *testing.T) {
	l := newLister(t)
	own, err := proxylist.ParseList(strings.NewReader("http://192.0.2.9:80 id=own\nhttp://192.0.2.8:80 id=a\n"))
	if err != nil {
		t.Fatal(err)
	}
	fetched, err := proxylist.ParseList(strings.NewReader("http://192.0.2.1:80 id=a\n"))
	if err != nil {
		t.Fatal(err)
	}
	if all := config.JoinProxies(own, fetched); len(all) != 2 || all[0].Addr() != "http://192.0.2.8:80" {
		t.Errorf("joined: %v, want the own proxy a", all)
	}
	l.serve(status(http.StatusBadGateway))
	calls := watch(t, &config.Config{ProxiesURL: l.URL, ProxiesRefresh: jobs.Duration(100 * time.Millisecond)}, own)
	step := func(what string, want taken, answer http.HandlerFunc) {
		t.Helper()
		before := len(calls())
		l.serve(answer)
		testenv.Eventually(t, what, func() bool {
			now := calls()
			return slices.Contains(now[min(before, len(now)):], want)
		})
	}
	step("the failure", taken{"", "GOFER_PROXIES_URL: the server answers 502 Bad Gateway"}, status(http.StatusBadGateway))
	step("the first list, in which the own proxy wins", taken{"a b own", "<nil>"}, body("http://192.0.2.1:80 id=a\nhttp://192.0.2.2:80 id=b\n"))
	step("a broken list", taken{"", "GOFER_PROXIES_URL: line 1: neither a URL nor host:port, host:port:user:password or user:password@host:port"}, body("broken\n"))
	step("an empty list", taken{"", "GOFER_PROXIES_URL: the list is empty"}, body("\n"))
	step("the next list", taken{"c own a", "<nil>"}, body("http://192.0.2.3:80 id=c\n"))
}

// TestAListIsAskedForOnlyIfItChanged looks at the conditions of the requests, and that what has not changed is not told again.
func TestAListIsAskedForOnlyIfItChanged(t *testing.T) {
	l := newLister(t)
	l.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"one"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		if r.Header.Get("If-None-Match") == `"one"` && r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte("192.0.2.1:80 id=a"))
	})
	calls := watch(t, &config.Config{ProxiesURL: l.URL, ProxiesRefresh: jobs.Duration(100 * time.Millisecond)}, nil)
	testenv.Eventually(t, "several requests", func() bool { return len(l.requests()) > 3 })
	if asked := l.requests(); asked[0].Header.Get("If-None-Match") != "" || asked[1].Header.Get("If-None-Match") != `"one"` {
		t.Errorf("conditions: %q and %q", asked[0].Header, asked[1].Header)
	}
	if got := calls(); len(got) != 1 || got[0] != (taken{"a", "<nil>"}) {
		t.Errorf("told %v, want the list once", got)
	}
}

// TestAListThatCannotBeFetchedIsTriedAgainSoonerThanAGoodOne has a clock of its own: nobody listens at the address, so no real
// connection is waited for.
func TestAListThatCannotBeFetchedIsTriedAgainSoonerThanAGoodOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		begin := time.Now()
		var at []time.Duration
		c := config.Config{ProxiesURL: "http://127.0.0.1:1/", ProxiesRefresh: jobs.Duration(5 * time.Minute)}
		go c.WatchProxies(ctx, nil, func(list []proxylist.Proxy, err error) {
			at = append(at, time.Since(begin))
			if list != nil || err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("told %v, %v", list, err)
			}
		})
		time.Sleep(25 * time.Minute)
		stop()
		synctest.Wait()
		if len(at) < 11 || len(at) > 14 {
			t.Fatalf("tried at %v", at)
		}
		for i, pause := 1, time.Second; i < len(at); i, pause = i+1, min(2*pause, 5*time.Minute) {
			if got := at[i] - at[i-1]; got > pause || got < pause-pause/10-time.Millisecond {
				t.Errorf("pause %d is %s, want %s less a tenth at most", i, got, pause)
			}
		}
	})
}
