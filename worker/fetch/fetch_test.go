package fetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// rig is a fetcher with its proxies and a plain and a TLS origin, http://shop.test and https://example.com.
type rig struct {
	*testing.T
	plain, secure *testenv.Origin
	pool          *rotation.Pool
	cfg           fetch.Config
	f             *fetch.Fetcher

	mu       sync.Mutex
	retries  []jobs.RetryEvent
	breakers []rotation.Event
	reasons  []string
}

func newRig(t *testing.T, change func(*fetch.Config)) *rig {
	t.Helper()
	r := &rig{T: t, plain: testenv.StartOrigin(t, false), secure: testenv.StartOrigin(t, true)}
	r.pool = rotation.New(rotation.Config{Breaker: breaker.Config{}})
	roots := x509.NewCertPool()
	roots.AddCert(r.secure.Certificate())
	policy := jobs.DefaultPolicy()
	policy.BaseDelay, policy.Jitter = jobs.Duration(jobs.MinBaseDelay), false
	r.cfg = fetch.Config{
		Pool: r.pool, Policy: func() jobs.Policy { return policy }, RootCAs: roots, AttemptTimeout: 5 * time.Second, Worker: "w",
		Observer: fetch.Observer{
			RetryPlanned:    func(e jobs.RetryEvent) { r.mu.Lock(); defer r.mu.Unlock(); r.retries = append(r.retries, e) },
			BreakersChanged: func(e []rotation.Event) { r.mu.Lock(); defer r.mu.Unlock(); r.breakers = append(r.breakers, e...) },
			AttemptEnded: func(_ *jobs.Attempt, _ int64, reason string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.reasons = append(r.reasons, reason)
			},
		},
	}
	if change != nil {
		change(&r.cfg)
	}
	r.f = fetch.New(r.cfg)
	t.Cleanup(r.f.Close)
	return r
}

// proxy starts a proxy that knows where the two origins are.
func (r *rig) proxy(m testenv.Mode, change func(*testenv.Proxy)) *testenv.Proxy {
	r.Helper()
	p := &testenv.Proxy{Delay: 200 * time.Millisecond, Resolve: func(target string) string {
		switch {
		case strings.HasPrefix(target, "shop.test:"):
			return r.plain.Addr()
		case strings.HasPrefix(target, "example.com:"):
			return r.secure.Addr()
		}
		return ""
	}}
	if change != nil {
		change(p)
	}
	p.Set(m)
	if err := p.Start("127.0.0.1:0"); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(p.Close)
	return p
}

// use makes lines of a proxies file the pool.
func (r *rig) use(lines ...string) {
	r.Helper()
	list, err := proxylist.ParseList(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		r.Fatal(err)
	}
	r.pool.Replace(list)
}

// do decodes a job and runs it.
func (r *rig) do(payload string) *jobs.RunOutcome {
	r.Helper()
	return r.doWith(r.Context(), payload, jobs.Progress{})
}

func (r *rig) doWith(ctx context.Context, payload string, p jobs.Progress) *jobs.RunOutcome {
	r.Helper()
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		r.Fatal(err)
	}
	return r.f.Do(ctx, &job, &p)
}

func wantBody(t *testing.T, o *jobs.RunOutcome, want string) {
	t.Helper()
	if o.Kind != jobs.RunFinished || o.Result.Outcome != jobs.Succeeded || string(o.Result.Body) != want {
		t.Errorf("outcome = %d %s %s %d %q %v, want success with %q", o.Kind, o.Result.Outcome, o.Result.Error, o.Result.Status, o.Result.Body, o.Result.Attempts, want)
	}
}

func TestEveryKindOfProxyCarriesPlainAndTLSTargets(t *testing.T) {
	r := newRig(t, nil)
	proxyTLS := &tls.Config{Certificates: r.secure.TLS.Certificates}
	for _, scheme := range []string{"http", "https", "socks5", "socks5h"} {
		for _, user := range []string{"", "fetcher"} {
			p := r.proxy(testenv.Good, func(p *testenv.Proxy) {
				p.User, p.Password = user, "right"
				if scheme == "https" {
					p.TLS = proxyTLS
				}
			})
			r.use(p.URL(scheme) + " id=p")
			for range 3 {
				wantBody(t, r.do("http://shop.test/ok"), "hello from shop.test/ok\n")
				wantBody(t, r.do("https://example.com/ok"), "hello from example.com/ok\n")
			}
			// One connection for plain requests, or one tunnel, and one tunnel to the TLS target.
			if got := p.Conns.Load(); got != 2 {
				t.Errorf("%s user %q: %d connections for 6 requests, want 2", scheme, user, got)
			}
		}
	}
}

func TestHTTP2DoesNotPinAJobToAnotherProxysTunnel(t *testing.T) {
	r := newRig(t, nil)
	var proxies []*testenv.Proxy
	var lines []string
	for i := range 4 {
		p := r.proxy(testenv.Good, nil)
		proxies = append(proxies, p)
		lines = append(lines, fmt.Sprintf("%s id=p%d", p.URL("http"), i))
	}
	r.use(lines...)
	used := map[string]int{}
	for range 40 {
		o := r.do("https://example.com/echo")
		if !strings.Contains(string(o.Result.Body), `"HTTP/2.0"`) {
			t.Fatalf("the target was not spoken to in HTTP/2: %s %v", o.Result.Body, o.Result.Attempts)
		}
		used[o.Result.Proxy]++
	}
	for i, p := range proxies {
		if got := used[fmt.Sprint("p", i)]; got != 10 || p.Requests.Load() != 1 {
			t.Errorf("proxy %d: %d jobs, %d tunnels; want 10 through one", i, got, p.Requests.Load())
		}
	}
}

func TestEncodingsAreDecodedAndBombsStop(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 1 << 20 })
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	for _, name := range []string{"gzip", "deflate", "br", "zstd"} {
		o := r.do("http://shop.test/" + name)
		wantBody(t, o, "encoded as "+name+"\n")
		if v := o.Result.Header.Get("Content-Encoding") + o.Result.Header.Get("Content-Length"); v != "" {
			t.Errorf("%s: the headers of the encoding are still there: %q", name, v)
		}
		if o := r.do("http://shop.test/bomb/" + name); o.Result.Error != jobs.ErrBodyTooLarge || len(o.Result.Body) != 0 {
			t.Errorf("bomb in %s = %s %s, want %s", name, o.Result.Outcome, o.Result.Error, jobs.ErrBodyTooLarge)
		}
	}
}

func TestRedirects(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, nil)
	r.use(p.URL("http") + " id=p")
	o := r.do("http://shop.test/redirect/3#part")
	wantBody(t, o, "the end\n")
	if o.Result.URL != "http://shop.test/redirect/0" || o.Result.AttemptCount != 1 {
		t.Errorf("final URL %s after %d attempts", o.Result.URL, o.Result.AttemptCount)
	}
	if o := r.do(`{"url":"http://shop.test/redirect/3","follow_redirects":0}`); o.Result.Status != http.StatusFound || o.Result.Outcome != jobs.Succeeded {
		t.Errorf("without following: %s %d, want the 302 itself", o.Result.Outcome, o.Result.Status)
	}
	if o := r.do(`{"url":"http://shop.test/redirect/3","follow_redirects":2}`); o.Result.Error != jobs.ErrTooManyRedirects {
		t.Errorf("one redirect too many = %s", o.Result.Error)
	}
	for _, target := range []string{"http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://0x7f.1/", "file:///etc/passwd", "http://localhost./"} {
		if o := r.do("http://shop.test/redirect-to?url=" + target); o.Result.Error != jobs.ErrTargetDenied {
			t.Errorf("redirect to %s = %s %s, want %s", target, o.Result.Outcome, o.Result.Error, jobs.ErrTargetDenied)
		}
	}
	o = r.do(`{"url":"http://shop.test/redirect-to?url=https://example.com/echo","method":"POST","body":"x","headers":{"Authorization":"secret","X-Key":"secret","Accept-Language":"de","User-Agent":"ua"}}`)
	if body := string(o.Result.Body); strings.Contains(body, "secret") || !strings.Contains(body, `"GET"`) || !strings.Contains(body, `"de"`) || !strings.Contains(body, `"ua"`) {
		t.Errorf("across origins the target saw %s", body)
	}
}

func TestBlame(t *testing.T) {
	type want struct {
		fault  jobs.Fault
		phase  string
		reason string
	}
	for name, c := range map[string]struct {
		mode   testenv.Mode
		scheme string
		url    string
		extra  string
		change func(*testenv.Proxy)
		want   want
	}{
		"refused":               {mode: testenv.Refusing, url: "http://shop.test/ok"},
		"refused, TLS":          {mode: testenv.Refusing, url: "https://example.com/ok"},
		"silent":                {mode: testenv.Silent, url: "http://shop.test/ok", want: want{jobs.FaultUnclear, "wait", "timeout"}},
		"silent to CONNECT":     {mode: testenv.Silent, url: "https://example.com/ok", want: want{jobs.FaultUnclear, "proxy", "timeout"}},
		"silent to SOCKS":       {mode: testenv.Silent, scheme: "socks5", url: "http://shop.test/ok", want: want{jobs.FaultUnclear, "proxy", "timeout"}},
		"silent in the tunnel":  {mode: testenv.SilentAfter, url: "https://example.com/ok", want: want{jobs.FaultUnclear, "tls", "timeout"}},
		"407":                   {mode: testenv.Unauthorized, url: "http://shop.test/ok", want: want{jobs.FaultProxy, "done", "proxy_auth"}},
		"407 to CONNECT":        {mode: testenv.Unauthorized, url: "https://example.com/ok", want: want{jobs.FaultProxy, "proxy", "proxy_auth"}},
		"banned":                {mode: testenv.Banned, url: "http://shop.test/ok", extra: `,"ban":{"body_regexp":"banned"}`, want: want{jobs.FaultPair, "done", "ban"}},
		"banned from CONNECT":   {mode: testenv.Banned, url: "https://example.com/ok", want: want{jobs.FaultPair, "proxy", "proxy_refused"}},
		"502 of a plain target": {mode: testenv.BadGateway, url: "http://shop.test/ok", want: want{jobs.FaultUnclear, "done", "status_5xx"}},
		"502 to CONNECT":        {mode: testenv.BadGateway, url: "https://example.com/ok", want: want{jobs.FaultUnclear, "proxy", "proxy_refused"}},
		"503 out of a tunnel":   {url: "https://example.com/status/503", want: want{jobs.FaultTarget, "done", "status_5xx"}},
		"429":                   {url: "https://example.com/status/429", want: want{jobs.FaultPair, "done", "status_429"}},
		"no HTTP":               {mode: testenv.Garbage, url: "https://example.com/ok", want: want{jobs.FaultProxy, "proxy", "proxy_protocol"}},
		"cut body":              {mode: testenv.Cutting, url: "http://shop.test/ok", want: want{jobs.FaultUnclear, "body", "truncated"}},
		"no target for SOCKS":   {scheme: "socks5", url: "http://shop.test/ok", change: func(p *testenv.Proxy) { p.Resolve = toNobody }, want: want{jobs.FaultUnclear, "proxy", "proxy_protocol"}},
		"wrong SOCKS password":  {scheme: "socks5", url: "http://shop.test/ok", change: func(p *testenv.Proxy) { p.User, p.Password = "u", "other" }, want: want{jobs.FaultProxy, "proxy", "proxy_auth"}},
		"wrong password":        {url: "http://shop.test/ok", change: func(p *testenv.Proxy) { p.User, p.Password = "u", "other" }, want: want{jobs.FaultProxy, "done", "proxy_auth"}},
		"wrong certificate":     {url: "https://wrong.test/ok", change: func(p *testenv.Proxy) { p.Resolve = toExample(p.Resolve) }, want: want{jobs.FaultUnclear, "tls", "tls"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			p := r.proxy(c.mode, c.change)
			scheme := c.scheme
			if scheme == "" {
				scheme = "http"
			}
			r.use(scheme + "://u:s3cret-pass@" + p.Addr() + " id=p")
			o := r.do(fmt.Sprintf(`{"url":%q,"timeout":0.4,"headers":{"X-Key":"s3cret-key"},"retry":{"max_attempts":1}%s}`, c.url+"?key=s3cret-query", c.extra))
			if o.Result.Error != jobs.ErrAttemptsExhausted || len(o.Result.Attempts) != 1 {
				t.Fatalf("result = %s %s, %v", o.Result.Outcome, o.Result.Error, o.Result.Attempts)
			}
			a := o.Result.Attempts[0]
			got := want{a.Fault, a.Phase, r.reasons[0]}
			if c.want == (want{}) && a.Fault != jobs.FaultNone {
				got = want{} // a reset comes in whatever phase it comes
			}
			if got != c.want {
				t.Errorf("blame = %v (%s), want %v", got, a.Error, c.want)
			}
			if said := fmt.Sprintf("%+v %+v %+v", o.Result.Attempts, o.Result.Detail, r.breakers); strings.Contains(said, "s3cret") || strings.Contains(said, "u:") {
				t.Errorf("a secret was said: %s", said)
			}
			tripped := len(r.breakers) > 0 && r.breakers[0].To == breaker.Open
			if c.want.reason == "proxy_auth" && !tripped {
				t.Errorf("refused credentials did not rest the proxy")
			}
		})
	}
}

// toExample leads wrong.test to the origin whose certificate is for another name.
func toExample(resolve func(string) string) func(string) string {
	return func(target string) string { return resolve(strings.Replace(target, "wrong.test", "example.com", 1)) }
}

// toNobody leads every target to a port that nothing listens on.
func toNobody(string) string { return "127.0.0.1:1" }

func TestCertificateRefusedThroughTwoProxiesIsPermanent(t *testing.T) {
	r := newRig(t, nil)
	change := func(p *testenv.Proxy) { p.Resolve = toExample(p.Resolve) }
	r.use(r.proxy(testenv.Good, change).URL("http")+" id=a", r.proxy(testenv.Good, change).URL("http")+" id=b")
	o := r.do(`{"url":"https://wrong.test/ok","retry":{"max_attempts":9}}`)
	if o.Result.Error != jobs.ErrPermanent || o.Result.AttemptCount != 2 || o.Result.Attempts[0].Proxy == o.Result.Attempts[1].Proxy {
		t.Errorf("result = %s after %v, want permanent after two proxies", o.Result.Error, o.Result.Attempts)
	}
}

func TestEachPhaseIsTimed(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Slow, nil).URL("http") + " id=slow")
	o := r.do(`{"url":"https://example.com/slow/150","ban":{"statuses":[200]},"retry":{"max_attempts":1}}`)
	if len(o.Result.Attempts) != 1 {
		t.Fatalf("attempts = %v", o.Result.Attempts)
	}
	a := o.Result.Attempts[0]
	var sum jobs.Duration
	for _, d := range a.Phases {
		sum += d
	}
	// The proxy takes 200 ms for the tunnel, the target 150 ms for its answer.
	if a.Phases["proxy"].Seconds() < 0.2 || a.Phases["wait"].Seconds() < 0.15 || a.Phases["tls"] == 0 || sum > a.Duration {
		t.Errorf("phases = %v of %v", a.Phases, a.Duration)
	}
}

func TestFinalAnswersAreFinal(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.proxy(testenv.Good, nil).URL("http") + " id=p")
	for _, status := range []int{200, 404, 403, 500} {
		o := r.do(fmt.Sprintf("http://shop.test/status/%d", status))
		if o.Result.Outcome != jobs.Succeeded || o.Result.Status != status || o.Result.AttemptCount != 1 {
			t.Errorf("%d = %s %d after %d attempts, want it as it is", status, o.Result.Outcome, o.Result.Status, o.Result.AttemptCount)
		}
	}
}

func TestTarpitsLeaveNothingBehind(t *testing.T) {
	r := newRig(t, nil)
	tarpit := r.proxy(testenv.Silent, nil)
	before, files := runtime.NumGoroutine(), openFiles(t)
	var lines []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("%s://u%d:p@%s id=t%d", []string{"http", "socks5"}[i%2], i, tarpit.Addr(), i))
	}
	r.use(lines...)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				r.do(`{"url":"https://example.com/ok","timeout":0.2,"retry":{"max_attempts":1}}`)
			}
		})
	}
	wg.Wait()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); ; <-tick.C {
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g <= before+10 && f <= files+10 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 1,000 silent proxies: %d goroutines (before %d), %d open files (before %d)", g, before, f, files)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("skipped: no /proc here: %v", err)
	}
	return len(list)
}
