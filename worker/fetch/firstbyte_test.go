package fetch_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// forever is a time that no attempt has.
const forever = 24 * time.Hour

// bay is a network in memory whose proxies p0, p1, … take a time for each step. A fetcher runs jobs in it in virtual time.
type bay struct {
	*testing.T
	dial, connect, handshake func(proxy string) time.Duration // nil: none
	first                    func(proxy, host string) time.Duration
	hints                    func(proxy string) time.Duration // time until an informational answer; nil: there is none
	upload                   func(c net.Conn, body io.Reader) // takes the body of a request; nil: at once
	answer                   func(proxy, page string) string  // the answer without its protocol; nil: 200 without a body

	pool    *rotation.Pool
	f       *fetch.Fetcher
	secret  tls.Certificate
	serving sync.WaitGroup

	mu       sync.Mutex
	attempts []jobs.Attempt
	retries  []jobs.RetryEvent
	opened   []string
	sent     int                      // bytes of answers
	pause    map[string]time.Duration // by proxy, before a body
}

// open makes a fetcher with n proxies.
func (b *bay) open(n int, change func(*fetch.Config, *jobs.Policy)) {
	b.pool = rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
	var list []proxylist.Proxy
	for i := range n {
		list = append(list, proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}})
	}
	b.pool.Replace(list)
	policy := jobs.DefaultPolicy()
	policy.Jitter = false
	cfg := fetch.Config{
		Pool: b.pool, Dial: b.connectTo, RetryBudget: -1, Worker: "w",
		Observer: fetch.Observer{
			AttemptEnded: func(a *jobs.Attempt, _ int64, _ string) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.attempts = append(b.attempts, *a)
			},
			RetryPlanned: func(e jobs.RetryEvent) { b.mu.Lock(); defer b.mu.Unlock(); b.retries = append(b.retries, e) },
			BreakersChanged: func(events []rotation.Event) {
				b.mu.Lock()
				defer b.mu.Unlock()
				for _, e := range events {
					if e.To == breaker.Open {
						b.opened = append(b.opened, e.ProxyID)
					}
				}
			},
		},
	}
	if change != nil {
		change(&cfg, &policy)
	}
	cfg.Policy = func() jobs.Policy { return policy }
	b.f = fetch.New(cfg)
}

func (b *bay) close() {
	b.f.Close()
	b.serving.Wait()
}

func (b *bay) connectTo(ctx context.Context, _, addr string) (net.Conn, error) {
	proxy, _, _ := strings.Cut(addr, ".")
	if b.dial != nil && !sleep(ctx, b.dial(proxy)) {
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	b.serving.Go(func() {
		defer func() { _ = server.Close() }()
		for in, more := bufio.NewReader(server), true; more; {
			more = b.serve(proxy, server, in)
		}
	})
	return client, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// hold waits for a time. It reports false if that is for ever, once the other end has closed the connection.
func hold(c net.Conn, d time.Duration) bool {
	if d == forever {
		_, _ = io.Copy(io.Discard, c)
		return false
	}
	time.Sleep(d)
	return true
}

// serve answers one request and reports whether another may follow.
func (b *bay) serve(proxy string, c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	if b.upload != nil {
		b.upload(c, req.Body)
	}
	_, _ = io.Copy(io.Discard, req.Body)
	if req.Method == http.MethodConnect {
		if b.connect != nil && !hold(c, b.connect(proxy)) {
			return false
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil || b.handshake != nil && !hold(c, b.handshake(proxy)) {
			return false
		}
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{b.secret}})
		if secure.Handshake() != nil {
			return false
		}
		return b.serve(proxy, secure, bufio.NewReader(secure))
	}
	if b.hints != nil {
		time.Sleep(b.hints(proxy))
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	}
	if !hold(c, b.first(proxy, req.Host)) {
		return false
	}
	head := "200 OK\r\nContent-Length: 0\r\n\r\n"
	if b.answer != nil {
		head = b.answer(proxy, req.Host+req.URL.Path)
	}
	head, body, _ := strings.Cut("HTTP/1.1 "+head, "\r\n\r\n")
	n, err := io.WriteString(c, head+"\r\n\r\n")
	if err == nil && body != "" {
		time.Sleep(b.pause[proxy])
		n, err = io.WriteString(c, body)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent += n
	return err == nil && !strings.Contains(head, "Connection: close")
}

// do runs a job to its end, waits included, and returns how long that took.
func (b *bay) do(payload string) (jobs.Result, time.Duration) {
	b.Helper()
	job, err := jobs.Decode("default", "j", []byte(payload))
	if err != nil {
		b.Error(err)
	}
	began := time.Now()
	return toTheEnd(b.T, b.f, &job), time.Since(began)
}

// acquaint makes the pool known: 50 sites answer once.
func (b *bay) acquaint(n int) {
	b.Helper()
	for i := range n {
		b.do(fmt.Sprintf("http://known%d.test/", i))
	}
}

// fast is a bay in which p0 is silent for jobs of slow.test only, and everything else takes 100 ms.
func fast(t *testing.T) *bay {
	t.Helper()
	return &bay{T: t, first: func(proxy, host string) time.Duration {
		if proxy == "p0" && host == "slow.test" {
			return forever
		}
		return 100 * time.Millisecond
	}}
}

func TestTheLearntFirstByteTimeoutTriesAnotherProxyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fast(t)
		b.open(2, nil)
		defer b.close()
		b.acquaint(50)
		result, took := b.do("http://slow.test/")
		if result.Outcome != jobs.Succeeded || result.AttemptCount != 2 || took < 2*time.Second || took > 2200*time.Millisecond {
			t.Errorf("%s after %d attempts in %s, want a success at the second one after 2 s and 100 ms", result.Outcome, result.AttemptCount, took)
		}
		a := b.attempts[50]
		if a.Fault != jobs.FaultUnclear || a.Phase != "wait" || !strings.Contains(a.Error, "no answer began within 2s") {
			t.Errorf("the attempt that was ended has fault %q, phase %q: %s", a.Fault, a.Phase, a.Error)
		}
		if len(b.retries) != 1 || b.retries[0].Delay != 0 {
			t.Errorf("retries %+v, want one without a delay", b.retries)
		}
	})
}

// TestTheLearntFirstByteTimeoutHasExceptions asks for a site through p0, which is silent there. The attempt timeout is 20 s.
func TestTheLearntFirstByteTimeoutHasExceptions(t *testing.T) {
	const job = `{"url":"http://slow.test/"}`
	for name, c := range map[string]struct {
		job      string
		proxies  int
		acquaint int
		change   func(*fetch.Config, *jobs.Policy)
		want     time.Duration // the first attempt takes
	}{
		"none":                         {job: job, want: 2 * time.Second},
		"HEAD":                         {job: `{"url":"http://slow.test/","method":"HEAD"}`, want: 2 * time.Second},
		"another method":               {job: `{"url":"http://slow.test/","method":"PUT"}`, want: 20 * time.Second},
		"the last attempt":             {job: `{"url":"http://slow.test/","retry":{"max_attempts":1}}`, want: 20 * time.Second},
		"a named proxy":                {job: `{"url":"http://slow.test/","proxy":{"id":"p0"}}`, want: 20 * time.Second},
		"a pool of one":                {job: job, proxies: 1, want: 20 * time.Second},
		"48 answers":                   {job: job, acquaint: 48, want: 20 * time.Second},
		"off":                          {job: `{"url":"http://slow.test/","first_byte_timeout":"off"}`, want: 20 * time.Second},
		"off in the worker":            {job: job, change: func(c *fetch.Config, _ *jobs.Policy) { c.FirstByteTimeout = jobs.Off }, want: 20 * time.Second},
		"auto, off in the worker":      {job: `{"url":"http://slow.test/","first_byte_timeout":"auto"}`, change: func(c *fetch.Config, _ *jobs.Policy) { c.FirstByteTimeout = jobs.Off }, want: 2 * time.Second},
		"no longer than the attempt":   {job: `{"url":"http://slow.test/","timeout":1.5}`, want: 1500 * time.Millisecond},
		"a proxy that others may use":  {job: `{"url":"http://slow.test/","proxy":{"session":"s"}}`, proxies: 1, want: 20 * time.Second},
		"a duration":                   {job: `{"url":"http://slow.test/","first_byte_timeout":0.5}`, want: 500 * time.Millisecond},
		"a duration in the worker":     {job: job, change: func(c *fetch.Config, _ *jobs.Policy) { c.FirstByteTimeout = jobs.AutoDuration(3 * time.Second) }, want: 3 * time.Second},
		"a duration, the last attempt": {job: `{"url":"http://slow.test/","first_byte_timeout":3,"method":"POST","retry":{"max_attempts":1}}`, want: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := fast(t)
				b.open(cmp.Or(c.proxies, 2), func(cfg *fetch.Config, p *jobs.Policy) {
					cfg.AttemptTimeout = 20 * time.Second
					if c.change != nil {
						c.change(cfg, p)
					}
				})
				defer b.close()
				n := cmp.Or(c.acquaint, 50)
				b.acquaint(n) // an even number, so that the next one goes through p0
				b.do(c.job)
				i := slices.IndexFunc(b.attempts[n:], func(a jobs.Attempt) bool { return a.Proxy == "p0" })
				if i < 0 {
					t.Fatalf("no attempt through p0: %+v", b.attempts[n:])
				}
				if got := b.attempts[n+i].Duration.Std(); got < c.want || got > c.want+10*time.Millisecond {
					t.Errorf("the attempt through p0 took %s, want %s", got, c.want)
				}
			})
		})
	}
}

// TestAnAttemptGoesOnWhileNoOtherProxyCanBeUsed has a second proxy that takes one attempt at a time, and is busy for 10 s.
func TestAnAttemptGoesOnWhileNoOtherProxyCanBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fast(t)
		first := b.first
		b.first = func(proxy, host string) time.Duration {
			if host == "long.test" {
				return 10 * time.Second
			}
			return first(proxy, host)
		}
		b.open(2, nil)
		defer b.close()
		b.pool.Replace([]proxylist.Proxy{
			{ID: "p0", URL: &url.URL{Scheme: "http", Host: "p0.test:80"}}, {ID: "p1", URL: &url.URL{Scheme: "http", Host: "p1.test:80"}, MaxInflight: 1},
		})
		b.acquaint(201) // so many that the long one is no hundredth of them
		var long sync.WaitGroup
		long.Go(func() { b.do(`{"url":"http://long.test/","first_byte_timeout":"off"}`) })
		synctest.Wait()
		if result, took := b.do("http://slow.test/"); result.AttemptCount != 2 || took < 10*time.Second || took > 12*time.Second {
			t.Errorf("%d attempts in %s, want the first one to end soon after the other proxy is free, at 10 s", result.AttemptCount, took)
		}
		long.Wait()
	})
}

// TestEachStepHasTheFirstByteTimeoutToItself has a bound of 3 s. Four steps that take 2.9 s each are no reason to end an attempt.
func TestEachStepHasTheFirstByteTimeoutToItself(t *testing.T) {
	slow := func(d time.Duration) func(string) time.Duration { return func(string) time.Duration { return d } }
	for name, c := range map[string]struct {
		change func(*bay)
		phase  string
	}{
		"dialling":                      {func(b *bay) { b.dial = slow(forever) }, "connect"},
		"CONNECT":                       {func(b *bay) { b.connect = slow(forever) }, "proxy"},
		"TLS":                           {func(b *bay) { b.handshake = slow(forever) }, "tls"},
		"first byte":                    {func(b *bay) { b.first = func(string, string) time.Duration { return forever } }, "wait"},
		"first byte behind early hints": {func(b *bay) { b.hints = slow(200 * time.Millisecond) }, "wait"},
		"none":                          {func(*bay) {}, "done"},
	} {
		t.Run(name, func(t *testing.T) {
			secret := certificateFor(t, "slow.test")
			roots := x509.NewCertPool()
			leaf, err := x509.ParseCertificate(secret.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			roots.AddCert(leaf)
			synctest.Test(t, func(t *testing.T) {
				b := &bay{T: t, secret: secret, dial: slow(2900 * time.Millisecond), connect: slow(2900 * time.Millisecond), handshake: slow(2900 * time.Millisecond)}
				b.first = func(string, string) time.Duration { return 2900 * time.Millisecond }
				c.change(b)
				b.open(1, func(cfg *fetch.Config, _ *jobs.Policy) { cfg.RootCAs = roots })
				defer b.close()
				b.do(`{"url":"https://slow.test/","first_byte_timeout":3,"timeout":60,"retry":{"max_attempts":1}}`)
				if a := b.attempts[0]; a.Phase != c.phase {
					t.Errorf("the attempt ended in phase %q after %s, want %q: %s", a.Phase, a.Duration, c.phase, a.Error)
				}
			})
		})
	}
}

func TestAnUploadThatIsInvitedHasNoFirstByteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(string, string) time.Duration { return 2900 * time.Millisecond }}
		b.upload = func(c net.Conn, _ io.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			time.Sleep(10 * time.Second)
		}
		b.open(1, nil)
		defer b.close()
		for _, size := range []int{1, 200 << 10} { // a small body is sent with the head
			result, _ := b.do(fmt.Sprintf(`{"url":"http://slow.test/","method":"PUT","body":%q,"first_byte_timeout":3,"timeout":60,"retry":{"max_attempts":1}}`, strings.Repeat("x", size)))
			if succeeded := result.Outcome == jobs.Succeeded; succeeded != (size > 1) {
				t.Errorf("%d bytes: %s %s, want a success only if the upload takes the time", size, result.Outcome, result.Detail)
			}
		}
	})
}

func TestASlowSiteAmongFastOnesSucceedsAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(_, host string) time.Duration {
			if host == "slow.test" {
				return 5 * time.Second
			}
			return 100 * time.Millisecond
		}}
		b.open(5, nil)
		defer b.close()
		b.acquaint(200)
		for i := range 100 {
			result, took := b.do("http://slow.test/")
			b.do(fmt.Sprintf("http://known%d.test/", i%50))
			if result.Outcome != jobs.Succeeded {
				t.Fatalf("job %d: %s", i, result.Error)
			}
			if i >= 5 && result.AttemptCount != 1 {
				t.Errorf("job %d took %d attempts and %s, want one: the site is known to be slow", i, result.AttemptCount, took)
			}
		}
		if len(b.opened) > 0 {
			t.Errorf("breakers opened: %q", b.opened)
		}
	})
}

func TestASiteThatSlowsDownIsNotCutOffForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := &bay{T: t, first: func(_, host string) time.Duration {
			if host == "slows.test" && time.Since(began) > 5*time.Minute {
				return 25 * time.Second
			}
			return 100 * time.Millisecond
		}}
		b.open(5, nil)
		defer b.close()
		for time.Since(began) < 5*time.Minute {
			b.do("http://slows.test/")
		}
		for i := range 100 {
			if result, _ := b.do("http://slows.test/"); result.Outcome != jobs.Succeeded {
				t.Fatalf("job %d: %s", i, result.Error)
			}
		}
		if result, _ := b.do("http://slows.test/"); result.AttemptCount != 1 {
			t.Errorf("the hundredth job that took 25 s needed %d attempts, want one", result.AttemptCount)
		}
	})
}

// TestASiteThatSlowsDownIsNotCutOffFromJobsInAHurry: the jobs end before the last attempt, which has no learnt bound, could tell
// that the site has become slower.
func TestASiteThatSlowsDownIsNotCutOffFromJobsInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		b := &bay{T: t, first: func(string, string) time.Duration {
			if slow {
				return 5 * time.Second
			}
			return 100 * time.Millisecond
		}}
		b.open(10, nil)
		defer b.close()
		b.acquaint(100)
		slow = true
		for range 30 {
			if result, _ := b.do(`{"url":"http://slow.test/","retry":{"max_attempts":2,"timeout":6}}`); result.Outcome == jobs.Succeeded {
				return
			}
		}
		t.Error("30 jobs failed, want the bound to grow beyond the 5 s that the site takes now")
	})
}

func TestASilentProxyIsFoundByTheLearntTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(proxy, _ string) time.Duration {
			if proxy == "p3" {
				return forever
			}
			return 100 * time.Millisecond
		}}
		b.open(10, nil)
		defer b.close()
		for i := range 400 {
			b.do(fmt.Sprintf("http://site%d.test/", i%20))
		}
		if !slices.Equal(b.opened[:min(1, len(b.opened))], []string{"p3"}) {
			t.Errorf("breakers opened: %q, want that of the silent proxy", b.opened)
		}
	})
}

// TestAPublisherOpensNoBreakerByAShortFirstByteTimeout has jobs that allow their proxies 10 ms.
func TestAPublisherOpensNoBreakerByAShortFirstByteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(string, string) time.Duration { return 100 * time.Millisecond }}
		b.dial = func(string) time.Duration { return 50 * time.Millisecond }
		b.open(5, nil)
		defer b.close()
		for i := range 200 {
			b.do(fmt.Sprintf("http://site%d.test/", i%20))
			b.do(fmt.Sprintf(`{"url":"http://site%d.test/","first_byte_timeout":0.01,"retry":{"max_attempts":10}}`, i%20))
		}
		if len(b.opened) > 0 {
			t.Errorf("breakers opened: %q", b.opened)
		}
	})
}

func TestEachRedirectHasTheFirstByteTimeoutToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bay{T: t, first: func(string, string) time.Duration { return 2 * time.Second }, answer: func(_, page string) string {
			if page == "a.test/" {
				return "302 Found\r\nLocation: http://b.test/\r\nContent-Length: 0\r\n\r\n"
			}
			return "200 OK\r\nContent-Length: 0\r\n\r\n"
		}}
		b.open(1, nil)
		defer b.close()
		if result, _ := b.do(`{"url":"http://a.test/","first_byte_timeout":3,"retry":{"max_attempts":1}}`); result.Outcome != jobs.Succeeded {
			t.Errorf("%s %s, want a success: each answer came after 2 s", result.Outcome, result.Detail)
		}
		for _, site := range []string{"a.test", "b.test"} {
			if times := b.pool.Times(); !times.HasAnsweredWithin(site, 2100*time.Millisecond) || times.HasAnsweredWithin(site, 1900*time.Millisecond) {
				t.Errorf("the time of %s is not what its own answer took", site)
			}
		}
	})
}

// TestAProxyThatASiteIsSilentToDoesNotRaiseItsBound has a site that is silent to one proxy of fifteen, which works for others.
// Each attempt through it is ended after the 2 s at which the first one was.
func TestAProxyThatASiteIsSilentToDoesNotRaiseItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever)
		b.open(15, nil)
		defer b.close()
		b.acquaint(100)
		ended := 0
		for i := range 600 {
			result, took := b.do("http://slow.test/")
			b.do(fmt.Sprintf("http://known%d.test/", i%50))
			ended += result.AttemptCount - 1
			if took > 2500*time.Millisecond {
				t.Fatalf("job %d took %s after %d attempts, want at most one end after 2 s", i, took, result.AttemptCount)
			}
		}
		if ended < 10 {
			t.Errorf("%d attempts were ended early, want at least 10", ended)
		}
	})
}

// TestSilentProxiesDoNotRaiseTheBoundOfASiteThatIsAskedOften has two silent proxies of fifteen, and twenty jobs at once: some
// have been ended early and have no answer yet at each moment.
func TestSilentProxiesDoNotRaiseTheBoundOfASiteThatIsAskedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := takes(t, forever, forever)
		b.open(15, nil)
		defer b.close()
		b.acquaint(100)
		ended := 0
		for i := range 30 {
			var wave sync.WaitGroup
			var mu sync.Mutex
			for range 20 {
				wave.Go(func() {
					result, took := b.do("http://slow.test/")
					mu.Lock()
					defer mu.Unlock()
					ended += result.AttemptCount - 1
					if took > 4500*time.Millisecond {
						t.Errorf("a job of wave %d took %s after %d attempts, want at most two ends after 2 s", i, took, result.AttemptCount)
					}
				})
			}
			wave.Wait()
			b.acquaint(20)
		}
		if ended < 20 {
			t.Errorf("%d attempts were ended early, want at least 20", ended)
		}
	})
}

// TestAnEarlierResponseExcusesNoLaterEnd: each job is answered 429 at once, and then its site takes 5 s.
func TestAnEarlierResponseExcusesNoLaterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		isSlow, asked := false, atomic.Int32{}
		b := &bay{T: t, first: func(string, string) time.Duration {
			if n := asked.Add(1); isSlow && n > 1 {
				return 5 * time.Second
			}
			return 100 * time.Millisecond
		}, answer: func(string, string) string {
			if isSlow && asked.Load() == 1 {
				return "429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
			}
			return "200 OK\r\nContent-Length: 0\r\n\r\n"
		}}
		b.open(10, nil)
		defer b.close()
		b.acquaint(100)
		isSlow = true
		for range 7 {
			asked.Store(0)
			if result, _ := b.do(`{"url":"http://slow.test/","retry":{"max_attempts":3,"base_delay":0.1,"timeout":6}}`); result.Outcome == jobs.Succeeded {
				return
			}
		}
		t.Error("seven jobs failed, want the bound to grow beyond the 5 s that the site takes now")
	})
}
