package fetch_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// gateway is a proxy with an exit for each word.
type gateway struct {
	*testenv.Proxy
	behave func(n int, region string) testenv.Mode // of the n-th word, from 1 on

	mu    sync.Mutex
	words []string // in the order in which they came first
}

const gatePassword = "gate-s3cret"

// gateway starts a gateway that takes "user-WORD-cc-REGION", and refuses a region with a dash in front.
func (r *rig) gateway(behave func(n int, region string) testenv.Mode, change func(*testenv.Proxy)) *gateway {
	r.Helper()
	g := &gateway{behave: behave}
	g.Proxy = r.proxy(testenv.Good, func(p *testenv.Proxy) {
		p.Exit = g.exit
		if change != nil {
			change(p)
		}
	})
	return g
}

func (g *gateway) exit(user, password string) (testenv.Mode, bool) {
	word, region, _ := strings.Cut(strings.TrimPrefix(user, "user-"), "-cc-")
	if password != gatePassword || strings.HasPrefix(region, "no") {
		return testenv.Good, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := slices.Index(g.words, word) + 1
	if n == 0 {
		g.words = append(g.words, word)
		n = len(g.words)
	}
	return g.behave(n, region), true
}

func (g *gateway) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.words)
}

func (g *gateway) line(scheme string) string {
	return scheme + "://user-{session}-cc-{region}:" + gatePassword + "@" + g.Addr() + " id=gate region=us"
}

func always(m testenv.Mode) func(int, string) testenv.Mode {
	return func(int, string) testenv.Mode { return m }
}

func TestEachAttemptThroughAGatewayHasAWordAndAConnectionOfItsOwn(t *testing.T) {
	r := newRig(t, nil)
	for _, scheme := range []string{"http", "https", "socks5"} {
		g := r.gateway(always(testenv.Good), func(p *testenv.Proxy) {
			if scheme == "https" {
				p.TLS = &tls.Config{Certificates: r.secure.TLS.Certificates}
			}
		})
		r.use(g.line(scheme))
		for i, url := range []string{"http://shop.test/ok", "https://example.com/ok", "http://shop.test/ok", "https://example.com/ok"} {
			o := r.do(url)
			words := g.seen()
			if o.Result.Outcome != jobs.Succeeded || len(words) != i+1 || o.Result.Exit != words[i] || o.Result.Attempts[0].Exit != words[i] || o.Result.Attempts[0].Region != "us" {
				t.Errorf("%s: job %d ended as %s %q through exit %q; the gateway saw %q", scheme, i, o.Result.Outcome, o.Result.Detail, o.Result.Exit, words)
			}
		}
		if n := g.Conns.Load(); n != 4 || r.f.IdleConns() != 0 {
			t.Errorf("%s: %d connections for 4 attempts, %d kept; want 4 and none", scheme, n, r.f.IdleConns())
		}
	}
}

func TestAGatewayWithoutWordsHasAConnectionForEachAttempt(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, nil)
	r.use(p.URL("http") + " id=turns gateway=yes")
	for range 3 {
		if o := r.do("http://shop.test/ok"); o.Result.Outcome != jobs.Succeeded || o.Result.Exit != "" {
			t.Errorf("ended as %s through exit %q, want success without a word", o.Result.Outcome, o.Result.Exit)
		}
	}
	if n := p.Conns.Load(); n != 3 || r.f.IdleConns() != 0 {
		t.Errorf("%d connections for 3 attempts, %d kept; want 3 and none", n, r.f.IdleConns())
	}
}

func TestAttemptsOfOneSessionShareItsConnection(t *testing.T) {
	r := newRig(t, nil)
	g := r.gateway(always(testenv.Good), nil)
	r.use(g.line("http"))
	exits := map[string]string{}
	for _, session := range []string{"a", "a", "b", "a", "b"} {
		o := r.do(`{"url":"http://shop.test/ok","proxy":{"session":"` + session + `"}}`)
		if before := exits[session]; o.Result.Exit == "" || before != "" && before != o.Result.Exit {
			t.Errorf("session %s leaves through %q, before through %q", session, o.Result.Exit, before)
		}
		exits[session] = o.Result.Exit
	}
	if n := g.Conns.Load(); n != 2 || exits["a"] == exits["b"] {
		t.Errorf("%d connections and exits %v of two sessions, want two of each", n, exits)
	}
}

func TestRedirectsOfAnAttemptStayAtItsExit(t *testing.T) {
	r := newRig(t, nil)
	g := r.gateway(always(testenv.Good), nil)
	r.use(g.line("http"))
	wantBody(t, r.do("http://shop.test/redirect/3"), "the end\n")
	if n := len(g.seen()); n != 1 || g.Conns.Load() != 1 {
		t.Errorf("%d words and %d connections for an attempt with three redirects, want one of each", n, g.Conns.Load())
	}
}

// The side that closes a connection first keeps its port for a minute, unless it resets the connection.
func TestAConnectionOfOneAttemptKeepsNoPort(t *testing.T) {
	for line, reset := range map[string]bool{" id=turns gateway=yes": true, " id=p": false} {
		r := newRig(t, nil)
		ended := make(chan error, 1)
		r.use("http://" + r.script(func(_ int64, c net.Conn) {
			in := bufio.NewReader(c)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
			_, err := in.ReadByte()
			ended <- err
		}).String() + line)
		wantBody(t, r.do("http://shop.test/"), "ok")
		if err := <-ended; errors.Is(err, syscall.ECONNRESET) != reset {
			t.Errorf("%s: the connection ended by %v, want a reset: %v", line, err, reset)
		}
	}
}

func TestARedirectToAnotherSiteLeavesTheConnectionOfItsAttempt(t *testing.T) {
	r := newRig(t, nil)
	config := &tls.Config{Certificates: []tls.Certificate{r.trusted("a.test", "b.test")}}
	r.use("http://" + r.script(func(_ int64, c net.Conn) {
		connect, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		s := tls.Server(c, config)
		for in := bufio.NewReader(s); ; {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			said := req.Host + " through " + connect.Host
			if req.URL.Path == "/" {
				said = "moved\r\n"
				_, _ = fmt.Fprintf(s, "HTTP/1.1 302 Found\r\nLocation: https://b.test/end\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
				continue
			}
			_, _ = fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
		}
	}).String() + " id=turns gateway=yes")
	wantBody(t, r.do("https://a.test/"), "b.test through b.test:443")
}

func TestARetryGoesThroughAnotherExitOfTheSameGateway(t *testing.T) {
	for _, url := range []string{"http://shop.test/ok", "https://example.com/ok"} {
		for _, session := range []string{"", "cart"} {
			for _, bad := range []testenv.Mode{testenv.BadGateway, testenv.Refusing, testenv.Banned} {
				r := newRig(t, nil)
				g := r.gateway(func(n int, _ string) testenv.Mode {
					if n <= 2 {
						return bad
					}
					return testenv.Good
				}, nil)
				r.use(g.line("http"))
				job := fmt.Sprintf(`{"url":%q,"proxy":{"session":%q},"retry":{"max_attempts":3}}`, url, session)
				if session == "" {
					job = fmt.Sprintf(`{"url":%q,"retry":{"max_attempts":3}}`, url)
				}
				o := r.do(job)
				words := g.seen()
				if o.Result.Outcome != jobs.Succeeded || o.Result.AttemptCount != 3 || len(words) != 3 || o.Result.Exit != words[2] {
					t.Errorf("%s, session %q, mode %d: %s after %d attempts through %q; want success through the third word: %+v", url, session, bad, o.Result.Outcome, o.Result.AttemptCount, words, o.Result.Attempts)
				}
				if again := r.do(job); session != "" && again.Result.Exit != words[2] {
					t.Errorf("%s, mode %d: the session goes on through %q, want %q, which worked", url, bad, again.Result.Exit, words[2])
				}
				wantClosed(t, r.pool, 1)
			}
		}
	}
}

func TestAnAnswerThatEveryExitGetsIsTheResult(t *testing.T) {
	r := newRig(t, nil)
	r.use(r.gateway(always(testenv.Banned), nil).line("http"))
	o := r.do(`{"url":"http://shop.test/ok","retry":{"max_attempts":3}}`)
	if o.Result.Outcome != jobs.Succeeded || o.Result.Status != 403 || o.Result.AttemptCount != 3 {
		t.Errorf("ended as %s %d after %d attempts, want the 403 after three", o.Result.Outcome, o.Result.Status, o.Result.AttemptCount)
	}
}

func TestARefusedRegionIsNobodysFaultAndAnotherProxyIsTried(t *testing.T) {
	for _, url := range []string{"http://shop.test/ok", "https://example.com/ok"} {
		for _, scheme := range []string{"http", "socks5"} {
			r := newRig(t, nil)
			g := r.gateway(always(testenv.Good), nil)
			r.use(g.line(scheme), r.proxy(testenv.Good, nil).URL("http")+" id=plain")
			for _, region := range []string{"nowhere", "noland"} {
				for range 4 {
					o := r.do(`{"url":"` + url + `","proxy":{"region":"` + region + `"}}`)
					if o.Result.Outcome != jobs.Succeeded || o.Result.Proxy != "plain" || o.Result.AttemptCount != 2 || o.Result.Attempts[0].Fault != jobs.FaultNone {
						t.Errorf("%s over %s: %s through %s, %+v; want the other proxy after a refusal that is nobody's fault", url, scheme, o.Result.Outcome, o.Result.Proxy, o.Result.Attempts)
					}
				}
			}
			wantClosed(t, r.pool, 2)
			if !slices.Contains(r.reasons, "region_refused") {
				t.Errorf("%s over %s: reasons %q, want region_refused among them", url, scheme, r.reasons)
			}
		}
	}
}

func TestWrongCredentialsOpenAGateway(t *testing.T) {
	for name, regions := range map[string][]string{"the owner's region": {""}, "three regions": {"noa", "nob", "noc"}} {
		r := newRig(t, nil)
		g := r.gateway(always(testenv.Good), nil)
		r.use(strings.Replace(g.line("http"), gatePassword, "wr0ng", 1))
		for i, region := range regions {
			r.do(`{"url":"https://example.com/ok","proxy":{"region":"` + region + `"},"retry":{"max_attempts":1},"when_no_proxy":"fail"}`)
			want := breaker.Closed
			if i == len(regions)-1 {
				want = breaker.Open
			}
			if s := r.pool.Status()[0]; s.State != want {
				t.Errorf("%s: %s after region %q was refused, want %s", name, s.State, region, want)
			}
		}
	}
}

func TestNothingShowsTheCredentialsOfAnExit(t *testing.T) {
	r := newRig(t, nil)
	var texts []string
	for _, mode := range []testenv.Mode{testenv.Good, testenv.BadGateway, testenv.Refusing, testenv.Garbage, testenv.Cutting} {
		g := r.gateway(always(mode), nil)
		r.use(g.line("http"))
		for _, job := range []string{"http://shop.test/ok", `{"url":"https://example.com/ok","proxy":{"region":"nowhere","session":"s"}}`} {
			o := toTheEnd(t, r.f, decode(t, job))
			header, payload, err := o.Message()
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, fmt.Sprintf("%v %s %+v", header, payload, o))
		}
	}
	events, err := json.Marshal(r.retries)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(texts, string(events), fmt.Sprintf("%+v %+v", r.breakers, r.pool.Status())) {
		if strings.Contains(text, gatePassword) || strings.Contains(text, "user-") || strings.Contains(text, "-cc-") {
			t.Errorf("credentials of a gateway are shown: %s", text)
		}
	}
}

func TestACertificateThatTwoExitsShowIsTheTargets(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.RootCAs = x509.NewCertPool() })
	r.use(r.gateway(always(testenv.Good), nil).line("http"))
	o := r.do(`{"url":"https://example.com/ok","retry":{"max_attempts":6}}`)
	if o.Result.Error != jobs.ErrPermanent || o.Result.AttemptCount != 2 {
		t.Errorf("ended as %s after %d attempts, want permanent after two exits", o.Result.Error, o.Result.AttemptCount)
	}
	wantClosed(t, r.pool, 1)
}

// TestTwoExitsWithoutWordsAreTwoWhateverTheirAttemptsCost lets proxies begin to fail, so that an attempt which may be due to that
// costs its job nothing and leaves its number to the one beside it.
func TestTwoExitsWithoutWordsAreTwoWhateverTheirAttemptsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		b := &bay{T: t, secret: certificateFor(t, "shop.test"), first: func(string, string) time.Duration { return 100 * time.Millisecond },
			handshake: func(string) time.Duration { return time.Second }}
		b.open(0, func(c *fetch.Config, _ *jobs.Policy) {
			c.RootCAs = x509.NewCertPool()
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dead.Load() && !strings.HasPrefix(addr, "gate") {
					return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
				}
				return b.connectTo(ctx, network, addr)
			}
		})
		defer b.close()
		list := []proxylist.Proxy{{ID: "gate", Tags: []string{"gate"}, Gateway: true, URL: &url.URL{Scheme: "http", Host: "gate.test:80"}}}
		for i := range 4 {
			list = append(list, proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}})
		}
		b.pool.Replace(list)
		b.acquaint(100)
		b.do("http://shop.test:443/")
		dead.Store(true)
		for i := range 8 {
			if b.pool.MayBeOutage() {
				break
			}
			b.do(fmt.Sprintf(`{"url":"http://shop.test/","proxy":{"id":"p%d"},"when_no_proxy":"fail","retry":{"max_attempts":1}}`, i%4))
		}
		if !b.pool.MayBeOutage() {
			t.Fatal("no outage is suspected")
		}
		result, took := b.do(`{"url":"https://shop.test/","proxy":{"tags":["gate"]},"retry":{"hedge":0.5,"max_attempts":3}}`)
		if result.Error != jobs.ErrPermanent || took != 1500*time.Millisecond {
			t.Errorf("%s (%s) after %s, want permanent after 1.5 s: two exits show the certificate", result.Error, result.Detail, took)
		}
	})
}

func TestAGatewayThatCannotBeReachedIsAtFaultItself(t *testing.T) {
	r := newRig(t, nil)
	g := r.gateway(always(testenv.Good), nil)
	r.use(g.line("http"))
	g.Close()
	for range 5 {
		r.do(`{"url":"http://shop.test/ok","retry":{"max_attempts":1}}`)
	}
	if s := r.pool.Status()[0]; s.State != breaker.Open {
		t.Errorf("%s after five refused connections, want open", s.State)
	}
}

// gateInMemory is a fetcher whose one gateway answers each request through an exit as serve says.
func gateInMemory(t *testing.T, line string, serve func(proxy, host string) string) (f *fetch.Fetcher, pool *rotation.Pool, dials *atomic.Int64, done func()) {
	t.Helper()
	var served sync.WaitGroup
	list, err := proxylist.ParseList(strings.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	dials = new(atomic.Int64)
	dial := memory(&served, serve)
	pool = rotation.New(rotation.Config{})
	pool.Replace(list)
	f = fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, addr)
	}})
	return f, pool, dials, func() { f.Close(); served.Wait() }
}

func TestTheConnectionOfAnIdleSessionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, dials, done := gateInMemory(t, "http://user-{session}:pw@gate.test:80 id=gate session_ttl=5s", func(_, _ string) string { return "200 OK" })
		defer done()
		want := int64(1)
		for _, idle := range []time.Duration{0, 4 * time.Second, 4 * time.Second, 6 * time.Second, time.Second} {
			time.Sleep(idle)
			if idle > 5*time.Second {
				want++
			}
			if o := f.Do(t.Context(), decode(t, `{"url":"http://good.test/","proxy":{"session":"s"}}`), &jobs.Progress{}); o.Result.Outcome != jobs.Succeeded || dials.Load() != want {
				t.Errorf("after %s: %s over connection %d, want success over connection %d", idle, o.Result.Outcome, dials.Load(), want)
			}
		}
		time.Sleep(30 * time.Second)
		if n := f.IdleConns(); n != 0 {
			t.Errorf("%d connections are open 30 s after the last job, want none", n)
		}
	})
}

func TestTooManyRequestsToTheGatewayOpenNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, pool, _, done := gateInMemory(t, "http://user-{session}:pw@gate.test:80 id=gate", func(_, _ string) string { return "429 Too Many Requests" })
		defer done()
		for range 20 {
			begin := time.Now()
			r := toTheEnd(t, f, decode(t, `{"url":"https://good.test/","retry":{"max_attempts":2,"jitter":false}}`))
			if r.Error != jobs.ErrAttemptsExhausted || time.Since(begin) < time.Second {
				t.Errorf("ended as %s after %s, want two attempts a second apart", r.Error, time.Since(begin))
			}
		}
		wantClosed(t, pool, 1)
	})
}

func TestASilentExitIsGivenUpForAnotherOfTheSameGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		f, pool, _, done := gateInMemory(t, "http://user-{session}:pw@gate.test:80 id=gate", func(_, host string) string {
			if host != "" && asked.Add(1) == 101 {
				time.Sleep(time.Hour)
			}
			return "200 OK"
		})
		defer done()
		for range 100 {
			f.Do(t.Context(), decode(t, "http://good.test/"), &jobs.Progress{})
		}
		begin := time.Now()
		r := toTheEnd(t, f, decode(t, "http://good.test/"))
		if took := time.Since(begin); r.Outcome != jobs.Succeeded || r.AttemptCount != 2 || took > 4*time.Second {
			t.Errorf("ended as %s after %d attempts and %s, want success through another exit within seconds", r.Outcome, r.AttemptCount, took)
		}
		wantClosed(t, pool, 1)
	})
}

func TestABusySiteMovesNoSession(t *testing.T) {
	for _, busy := range []string{"429 Too Many Requests", "503 Service Unavailable"} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64
			f, _, _, done := gateInMemory(t, "http://user-{session}:pw@gate.test:80 id=gate", func(_, host string) string {
				if host != "" && asked.Add(1) == 2 {
					return busy
				}
				return "200 OK"
			})
			defer done()
			job := `{"url":"http://good.test/","proxy":{"session":"s"}}`
			first := toTheEnd(t, f, decode(t, job))
			second := toTheEnd(t, f, decode(t, job))
			if second.Outcome != jobs.Succeeded || second.AttemptCount != 2 || second.Exit != first.Exit || second.Attempts[0].Exit != first.Exit {
				t.Errorf("%s: %s after %d attempts, %+v; want a retry through the exit %s", busy, second.Outcome, second.AttemptCount, second.Attempts, first.Exit)
			}
		})
	}
}

func TestOthersHearOfAnExitThatBrings502WhenTheNextOneDoesNot(t *testing.T) {
	for mode, want := range map[testenv.Mode]uint32{testenv.BadGateway: 0, testenv.Refusing: 1, testenv.Banned: 1} {
		r := newRig(t, func(c *fetch.Config) {
			c.Pool = rotation.New(rotation.Config{Exits: exits.Config{Share: true}})
		})
		r.pool = r.cfg.Pool
		g := r.gateway(func(n int, _ string) testenv.Mode {
			if n == 1 {
				return mode
			}
			return testenv.Good
		}, nil)
		r.use(g.line("http"))
		shared := func() uint32 {
			for _, key := range r.pool.ChangedSessions(1) {
				state, _ := r.pool.SessionState(key)
				return state.Current()
			}
			return 0
		}
		r.do(`{"url":"http://shop.test/ok","proxy":{"session":"s"},"retry":{"max_attempts":1}}`)
		if got := shared(); got != want {
			t.Errorf("mode %d: generation %d is shared after one attempt, want %d", mode, got, want)
		}
		r.do(`{"url":"http://shop.test/ok","proxy":{"session":"s"},"retry":{"max_attempts":1}}`)
		if got := shared(); got != 1 {
			t.Errorf("mode %d: generation %d is shared after the next exit worked, want 1", mode, got)
		}
	}
}
