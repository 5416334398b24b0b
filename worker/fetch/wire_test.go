package fetch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// script serves each connection of a listener by a function, until the test ends.
func (r *rig) script(serve func(n int64, c net.Conn)) net.Addr {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var n atomic.Int64
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				defer func() { _ = c.Close() }()
				serve(n.Add(1), c)
			})
		}
	})
	r.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr()
}

// replies is a script that reads one request a connection and says a text.
func (r *rig) replies(text string) string {
	return "http://" + r.script(func(_ int64, c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}).String()
}

// judged is one attempt of a job and its reason.
func (r *rig) judged(url string) (a jobs.Attempt, reason string) {
	r.Helper()
	o := r.do(fmt.Sprintf(`{"url":%q,"timeout":1,"retry":{"max_attempts":1}}`, url))
	if len(o.Result.Attempts) != 1 {
		r.Fatalf("%s: %s %s with %d attempts, want one that failed", url, o.Result.Outcome, o.Result.Error, len(o.Result.Attempts))
	}
	return o.Result.Attempts[0], r.reasons[len(r.reasons)-1]
}

func TestWhatAProxySaysOfItselfDecides(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		fault  jobs.Fault
		reason string
	}{
		"squid cannot resolve":     {"503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0", jobs.FaultTarget, "connect"},
		"squid 5, no such name":    {"500 Internal Server Error\r\nX-Squid-Error: ERR_CANNOT_FORWARD 0", jobs.FaultUnclear, "proxy_refused"},
		"RFC 9209, target refused": {"502 Bad Gateway\r\nProxy-Status: p; error=connection_refused", jobs.FaultTarget, "connect"},
		"RFC 9209, its own fault":  {"500 Oh\r\nProxy-Status: p; error=proxy_internal_error", jobs.FaultProxy, "proxy_refused"},
		"RFC 9209, at its limit":   {"503 Busy\r\nProxy-Status: p; error=connection_limit_reached", jobs.FaultProxy, "proxy_refused"},
		"says nothing":             {"504 Gateway Timeout", jobs.FaultUnclear, "proxy_refused"},
		"tinyproxy, no target":     {"500 Unable to connect", jobs.FaultUnclear, "proxy_refused"},
		"method not allowed":       {"405 Method Not Allowed", jobs.FaultPair, "proxy_refused"},
		"privoxy, no such name":    {"404 No such domain", jobs.FaultUnclear, "proxy_refused"},
		"unauthorized":             {"401 Unauthorized", jobs.FaultProxy, "proxy_auth"},
	} {
		r := newRig(t, nil)
		r.use(r.replies("HTTP/1.1 "+c.answer+"\r\nContent-Length: 0\r\n\r\n") + " id=p")
		if a, reason := r.judged("https://example.com/ok"); a.Fault != c.fault || reason != c.reason || a.Phase != "proxy" {
			t.Errorf("%s: fault %q, reason %q in phase %q (%s), want %q, %q in phase proxy", name, a.Fault, reason, a.Phase, a.Error, c.fault, c.reason)
		}
	}
}

func TestProxyThatIsTooBusyForATunnelRestsAsLongAsItAsks(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.replies("HTTP/1.1 429 Slow down\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n") + " id=p")
	r.judged("https://example.com/ok")
	s, _ := r.pool.StatusOf("p")
	if rest := time.Until(s.NextTest); s.State != breaker.Open || rest < 80*time.Second || rest > 3*time.Minute {
		t.Errorf("state %v for %v, want open for about 90 s", s.State, rest)
	}
}

func TestSocksRepliesAreSorted(t *testing.T) {
	for reply, want := range map[byte]struct {
		fault  jobs.Fault
		reason string
	}{
		1: {jobs.FaultUnclear, "proxy_protocol"}, 2: {jobs.FaultPair, "proxy_refused"}, 3: {jobs.FaultTarget, "connect"},
		4: {jobs.FaultTarget, "connect"}, 5: {jobs.FaultTarget, "connect"}, 6: {jobs.FaultTarget, "connect"},
		7: {jobs.FaultProxy, "proxy_protocol"}, 8: {jobs.FaultUnclear, "proxy_protocol"},
		9: {jobs.FaultUnclear, "proxy_protocol"}, 0xf0: {jobs.FaultUnclear, "proxy_protocol"}, 0xff: {jobs.FaultUnclear, "proxy_protocol"},
	} {
		r := newRig(t, nil)
		addr := r.script(func(_ int64, c net.Conn) {
			greeting, request := make([]byte, 3), make([]byte, 7+len("shop.test"))
			_, _ = io.ReadFull(c, greeting)
			_, _ = c.Write([]byte{5, 0})
			_, _ = io.ReadFull(c, request)
			_, _ = c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
		})
		r.use("socks5h://" + addr.String() + " id=p")
		if a, reason := r.judged("http://shop.test/ok"); a.Fault != want.fault || reason != want.reason {
			t.Errorf("reply %d: fault %q, reason %q (%s), want %q, %q", reply, a.Fault, reason, a.Error, want.fault, want.reason)
		}
	}
}

func TestDeadIdleConnectionIsReplacedWithinTheAttempt(t *testing.T) {
	r := newRig(t, nil)
	// It answers once a connection as if there could be more, and hangs up over the second request.
	addr := r.script(func(_ int64, c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = http.ReadRequest(in)
	})
	r.use("http://" + addr.String() + " id=p")
	for i := range 4 {
		o := r.do(`{"url":"http://shop.test/","method":"PUT","body":"twice"}`)
		if wantBody(t, o, "ok"); o.Result.AttemptCount != 1 {
			t.Errorf("job %d: %d attempts, want 1", i, o.Result.AttemptCount)
		}
	}
}

func TestPostNeverMeetsAnIdleConnection(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, nil)
	r.use(p.URL("http") + " id=p")
	for range 3 {
		wantBody(t, r.do(`{"url":"http://shop.test/bytes/2","method":"POST","body":"x"}`), "xx")
	}
	if got := p.Conns.Load(); got != 3 {
		t.Errorf("%d connections for 3 POSTs, want one each", got)
	}
	wantBody(t, r.do("http://shop.test/bytes/2"), "xx")
	if got := p.Conns.Load(); got != 3 {
		t.Errorf("%d connections after a GET, want it to use one that is there", got)
	}
}

func TestFailoverWaitsWhenNoOtherProxyMayBeUsed(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Refusing, nil).URL("http")+" id=bad tags=x", r.proxy(testenv.Good, nil).URL("http")+" id=good")
	for _, choice := range []string{`{"id":"bad"}`, `{"tags":["x"]}`} {
		r.retries = nil
		r.do(`{"url":"http://shop.test/ok","proxy":` + choice + `,"retry":{"backoff_strategy":"fixed"}}`)
		if got := fmt.Sprint(r.delays()); got != "[100 100]" {
			t.Errorf("%s: waits %s, want full ones before the same proxy again", choice, got)
		}
	}
	for _, id := range []string{"bad", "good"} {
		if s, _ := r.pool.StatusOf(id); s.Inflight != 0 {
			t.Errorf("%s: %d in flight after all", id, s.Inflight)
		}
	}
}

func TestBanGoesToAnotherProxyAtOnceWhateverRetryAfterSays(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.replies("HTTP/1.1 429 Banned\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n")+" id=banned", r.proxy(testenv.Good, nil).URL("http")+" id=good")
	for range 2 {
		wantBody(t, r.do(`{"url":"http://shop.test/ok","ban":{"statuses":[429]}}`), "hello from shop.test/ok\n")
	}
	if got := fmt.Sprint(r.delays()); got != "[0]" {
		t.Errorf("waits %s, want one failover at once and then no pick of the banned proxy", got)
	}
}

func TestTargetThatSays407ShutsNoProxy(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http")+" id=a", r.proxy(testenv.Good, nil).URL("http")+" id=b")
	o := r.do("https://example.com/status/407")
	if used := o.Result.Attempts; o.Result.Error != jobs.ErrAttemptsExhausted || len(used) < 2 || used[0].Proxy == used[1].Proxy {
		t.Errorf("407 out of a tunnel: kind %d, %q, attempts %+v; want both proxies tried before the end", o.Kind, o.Result.Error, used)
	}
	for _, id := range []string{"a", "b"} {
		if s, _ := r.pool.StatusOf(id); s.State != breaker.Closed {
			t.Errorf("%s is %v", id, s.State)
		}
	}
	wantBody(t, r.do("http://shop.test/ok"), "hello from shop.test/ok\n")
}

func TestBytesCountEverythingThatCameIn(t *testing.T) {
	r := newRig(t, nil)
	const refusal = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
	r.use(r.replies(refusal) + " id=p")
	o := r.do(`{"url":"https://example.com/ok","retry":{"max_attempts":3}}`)
	if o.Result.Bytes != 3*int64(len(refusal)) {
		t.Errorf("%d bytes, want 3 refusals of %d", o.Result.Bytes, len(refusal))
	}
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	r.use(r.replies(answer) + " id=q")
	if o := r.do("http://shop.test/"); o.Result.Bytes != int64(len(answer)) {
		t.Errorf("%d bytes, want %d", o.Result.Bytes, len(answer))
	}
}

func TestBodyThatAnnouncesItsSizeIsNotRead(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 1000 })
	r.use(r.replies("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"+strings.Repeat("x", 999)) + " id=p")
	if o := r.do("http://shop.test/"); o.Result.Error != jobs.ErrBodyTooLarge || o.Result.AttemptCount != 1 {
		t.Errorf("result = %s after %d attempts, want body_too_large from what the header says", o.Result.Error, o.Result.AttemptCount)
	}
	if o := r.do(`{"url":"http://shop.test/","method":"HEAD"}`); o.Result.Outcome != jobs.Succeeded || o.Result.Header.Get("Content-Length") != "5000000" {
		t.Errorf("HEAD = %s %s %v", o.Result.Outcome, o.Result.Error, o.Result.Header)
	}
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=q")
	if o := r.do(`{"url":"http://shop.test/bytes/3","max_body_bytes":1001}`); o.Result.Error != jobs.ErrInvalidJob || len(o.Result.Reasons) != 1 {
		t.Errorf("a bound above the worker's: %s %q, want it refused", o.Result.Error, o.Result.Reasons)
	}
	if o := r.do(`{"url":"http://shop.test/bytes/100","max_body_bytes":99}`); o.Result.Error != jobs.ErrBodyTooLarge {
		t.Errorf("a job's own bound: %s", o.Result.Error)
	}
	wantBody(t, r.do(`{"url":"http://shop.test/bytes/3","max_body_bytes":3}`), "xxx")
}

func TestRequestHeadersOfTheJobGoAsTheyAre(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	for headers, want := range map[string]string{
		`{}`:                                    `"Accept-Encoding":["gzip, deflate, br, zstd"]`,
		`{"range":"bytes=0-9"}`:                 `"Accept-Encoding":["identity"]`,
		`{"accept-encoding":"gzip"}`:            `"Accept-Encoding":["gzip"]`,
		`{"x-list":["a","b"],"user-agent":"u"}`: `"X-List":["a","b"]`,
	} {
		o := r.do(`{"url":"http://shop.test/echo","headers":` + headers + `}`)
		if !strings.Contains(string(o.Result.Body), want) {
			t.Errorf("headers %s: the target saw %s, want %s", headers, o.Result.Body, want)
		}
	}
}

func TestABanOfARedirectIsABan(t *testing.T) {
	r := newRig(t, nil)
	banned := r.replies("HTTP/1.1 302 Found\r\nLocation: http://shop.test/captcha\r\nContent-Length: 0\r\n\r\n")
	r.use(banned+" id=a", r.replies("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")+" id=b")
	for range 2 {
		wantBody(t, r.do(`{"url":"http://shop.test/","ban":{"statuses":[302]}}`), "ok")
	}
}

// The proxy copies bytes: whatever it was asked first is where everything on that connection goes.
func TestNoSiteAnswersForAnother(t *testing.T) {
	r := newRig(t, nil)
	addr := r.script(func(_ int64, c net.Conn) {
		first := ""
		for in := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if first == "" {
				first = req.Host
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(first), first)
		}
	})
	r.use("http://" + addr.String() + " id=p")
	for range 2 {
		wantBody(t, r.do("http://a.test/"), "a.test")
		wantBody(t, r.do("http://b.test/"), "b.test")
	}
}

func TestASessionStaysWhenItsTargetFails(t *testing.T) {
	r := newRig(t, nil)
	var lines []string
	for i := range 4 {
		lines = append(lines, fmt.Sprintf("%s id=p%d", r.proxy(testenv.Good, nil).URL("http"), i))
	}
	r.use(lines...)
	before := r.do(`{"url":"https://example.com/ok","proxy":{"session":"alice"}}`).Result.Proxy
	o := r.do(`{"url":"https://example.com/flaky/1?key=k","proxy":{"session":"alice"}}`)
	after := r.do(`{"url":"https://example.com/ok","proxy":{"session":"alice"}}`).Result.Proxy
	if o.Result.Proxy != before || after != before || o.Result.AttemptCount != 2 {
		t.Errorf("the session went from %s to %s and %s, %d attempts, because its target answered 503 once", before, o.Result.Proxy, after, o.Result.AttemptCount)
	}
}

func TestNamesOfOtherScriptsGoOutAsTheyAreLookedUp(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.replies("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") + " id=p")
	if o := r.do("http://B\u00fccher.\uff54est:8080/"); o.Result.URL != "http://xn--bcher-kva.test:8080/" {
		t.Errorf("asked for %s", o.Result.URL)
	}
}
