package fetch_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// stretch is a network in memory between a worker and targets. Each hop of an attempt takes a connection of its own, and does
// what its plan says.
type stretch struct {
	hops   []hopPlan
	secure *tls.Config
	roots  *x509.CertPool

	mu       sync.Mutex
	dials    int  // hops that have been dialled
	repeated bool // the next dial is the second one of its hop
	wg       sync.WaitGroup
}

// handshakeFailure is the alert of a server that knows none of the offered suites (RFC 8446, 6).
const handshakeFailure = "\x15\x03\x01\x00\x02\x02\x28"

// hopPlan is what happens in one hop. The zero value is a hop in which everybody does his part at once.
type hopPlan struct {
	https  bool
	lookup error         // of the resolver
	looks  time.Duration // before the resolver answers
	dial   error         // of the connection to the proxy
	at     string        // the phase in which the proxy or the target does "does": lookup, dial, connect, tls, head, body
	does   string        // silent, hangs up, or what it sends instead
	takes  time.Duration // before the head of the answer
	more   string        // header fields of the answer
}

// stretches makes stretches whose TLS targets are trusted.
func stretches(t *testing.T) func(hops ...hopPlan) *stretch {
	t.Helper()
	cert := selfSigned(t)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return func(hops ...hopPlan) *stretch {
		return &stretch{hops: hops, secure: &tls.Config{Certificates: []tls.Certificate{cert}}, roots: roots}
	}
}

// url is where a hop leads.
func (s *stretch) url(hop int) string {
	if s.hops[hop].https {
		return fmt.Sprintf("https://example.com:%d/", 1000+hop)
	}
	return fmt.Sprintf("http://example.com:%d/", 1000+hop)
}

func (s *stretch) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	hop := s.dials
	plan := s.hops[hop]
	if plan.https && plan.at == "tls" && plan.does == handshakeFailure && !s.repeated {
		s.repeated = true // the handshake is tried again with other suites, on another connection
	} else {
		s.dials++
		s.repeated = false
	}
	s.mu.Unlock()
	trace := httptrace.ContextClientTrace(ctx)
	trace.DNSStart(httptrace.DNSStartInfo{})
	if plan.at == "lookup" {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", IsTimeout: true}}
	}
	time.Sleep(plan.looks)
	trace.DNSDone(httptrace.DNSDoneInfo{})
	switch {
	case plan.lookup != nil:
		return nil, &net.OpError{Op: "dial", Err: plan.lookup}
	case plan.dial != nil:
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", plan.dial)}
	case plan.at == "dial":
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	}
	client, pipe := net.Pipe()
	server := &posted{Conn: pipe, out: make(chan []byte, 1000)}
	s.wg.Go(func() { server.deliver() })
	s.wg.Go(func() {
		defer close(server.out)
		s.serve(server, hop)
	})
	return client, nil
}

// posted is the end of a pipe that can be written to although nobody reads, as that of a TCP connection can.
type posted struct {
	net.Conn
	out chan []byte
}

// Write keeps p until it is read.
func (p *posted) Write(b []byte) (int, error) {
	p.out <- append([]byte(nil), b...)
	return len(b), nil
}

func (p *posted) deliver() {
	for b := range p.out {
		_, _ = p.Conn.Write(b)
	}
	_ = p.Close()
}

// serve is the proxy and the target behind it.
func (s *stretch) serve(c net.Conn, hop int) {
	plan, in := s.hops[hop], bufio.NewReader(c)
	odd := func(phase string) bool {
		if plan.at != phase {
			return false
		}
		switch plan.does {
		case "silent":
			_, _ = io.Copy(io.Discard, in)
		case "hangs up":
		default:
			_, _ = io.WriteString(c, plan.does)
			go func() { _, _ = io.Copy(io.Discard, in) }()
		}
		return true
	}
	if plan.https {
		if _, err := http.ReadRequest(in); err != nil || odd("connect") {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		if odd("tls") {
			return
		}
		secured := tls.Server(c, s.secure)
		if err := secured.HandshakeContext(context.Background()); err != nil {
			return
		}
		c, in = secured, bufio.NewReader(secured)
	}
	if _, err := http.ReadRequest(in); err != nil || odd("head") {
		return
	}
	time.Sleep(plan.takes)
	head := "HTTP/1.1 200 OK\r\n" + plan.more
	if hop+1 < len(s.hops) {
		head = "HTTP/1.1 302 Found\r\nLocation: " + s.url(hop+1) + "\r\n" + plan.more
	}
	if plan.at == "body" {
		_, _ = io.WriteString(c, head+"Content-Length: 5000\r\n\r\nMoved")
		odd("body")
		return
	}
	_, _ = io.WriteString(c, head+"Content-Length: 0\r\nConnection: close\r\n\r\n")
}

// run does one attempt and returns it, with what became of the proxy's breaker and the job.
func (s *stretch) run(extra string) (jobs.Attempt, rotation.Status, jobs.RunOutcome) {
	pool := rotation.New(rotation.Config{Breaker: breaker.Config{}})
	pool.Replace([]proxylist.Proxy{{ID: "p", URL: &url.URL{Scheme: "http", Host: "p.test:80"}}})
	var last jobs.Attempt
	f := fetch.New(fetch.Config{
		Pool: pool, Policy: jobs.DefaultPolicy, Dial: s.dial, RootCAs: s.roots, AttemptTimeout: 10 * time.Second,
		Observer: fetch.Observer{AttemptEnded: func(a *jobs.Attempt, _ int64, _ string) { last = *a }},
	})
	job, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":%q,"retry":{"max_attempts":1}%s}`, s.url(0), extra))
	if err != nil {
		panic(err)
	}
	o := f.Do(context.Background(), &job, &jobs.Progress{})
	f.Close()
	s.wg.Wait()
	status, _ := pool.StatusOf("p")
	return last, status, *o
}

// TestThePartyThatFailedIsAtFault goes through every hop, phase and party. Whoever did his part is never at fault.
func TestThePartyThatFailedIsAtFault(t *testing.T) {
	stretch := stretches(t)
	for name, c := range map[string]struct {
		plan hopPlan
		want jobs.Fault
	}{
		"the proxy takes no connection":          {hopPlan{at: "dial"}, jobs.FaultProxy},
		"the proxy refuses the connection":       {hopPlan{dial: syscall.ECONNREFUSED}, jobs.FaultProxy},
		"the proxy's network is unreachable":     {hopPlan{dial: syscall.ENETUNREACH}, jobs.FaultProxy},
		"the proxy's name does not exist":        {hopPlan{lookup: &net.DNSError{IsNotFound: true}}, jobs.FaultProxy},
		"the proxy answers CONNECT with garbage": {hopPlan{https: true, at: "connect", does: "garbage\r\n\r\n"}, jobs.FaultProxy},
		"the proxy or the target holds CONNECT":  {hopPlan{https: true, at: "connect", does: "silent"}, jobs.FaultUnclear},
		"the proxy or the target hangs up":       {hopPlan{https: true, at: "connect", does: "hangs up"}, jobs.FaultUnclear},
		"the target holds the handshake":         {hopPlan{https: true, at: "tls", does: "silent"}, jobs.FaultUnclear},
		"the target breaks the handshake":        {hopPlan{https: true, at: "tls", does: "hangs up"}, jobs.FaultUnclear},
		"the target speaks no TLS":               {hopPlan{https: true, at: "tls", does: "HTTP/1.1 400 Bad Request\r\n\r\n"}, jobs.FaultUnclear},
		"the target is silent":                   {hopPlan{at: "head", does: "silent"}, jobs.FaultUnclear},
		"the target is silent behind TLS":        {hopPlan{https: true, at: "head", does: "silent"}, jobs.FaultUnclear},
		"the target hangs up":                    {hopPlan{at: "head", does: "hangs up"}, jobs.FaultUnclear},
		"the target sends garbage":               {hopPlan{https: true, at: "head", does: "garbage\r\n\r\n"}, jobs.FaultUnclear},
		"the target's body stalls":               {hopPlan{at: "body", does: "silent"}, jobs.FaultUnclear},
		"the target's body is cut":               {hopPlan{https: true, at: "body", does: "hangs up"}, jobs.FaultUnclear},
		"the resolver is silent":                 {hopPlan{at: "lookup"}, jobs.FaultNone},
		"the resolver fails":                     {hopPlan{lookup: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}, jobs.FaultNone},
		"no descriptors are left here":           {hopPlan{dial: syscall.EMFILE}, jobs.FaultNone},
		"no descriptors are left on this host":   {hopPlan{dial: syscall.ENFILE}, jobs.FaultNone},
		"no buffers are left here":               {hopPlan{dial: syscall.ENOBUFS}, jobs.FaultNone},
		"no memory is left here":                 {hopPlan{dial: syscall.ENOMEM}, jobs.FaultNone},
		"no ports are left here":                 {hopPlan{dial: syscall.EADDRNOTAVAIL}, jobs.FaultNone},
	} {
		for hops := range 4 {
			for _, before := range []hopPlan{{}, {https: true}, {at: "body", does: "silent"}, {takes: time.Second}} {
				synctest.Test(t, func(t *testing.T) {
					plans := append(repeat(before, hops), c.plan)
					a, status, o := stretch(plans...).run("")
					if a.Fault != c.want || a.Error == "" {
						t.Errorf("%s at hop %d after %+v: fault %q (%s), want %q", name, hops, before, a.Fault, a.Error, c.want)
					}
					if c.want != jobs.FaultProxy && status.State != breaker.Closed {
						t.Errorf("%s at hop %d: the proxy is %v", name, hops, status.State)
					}
					if c.plan.at != "body" && (a.Status != 0 || o.Result.Status != 0) {
						t.Errorf("%s at hop %d: the attempt has status %d, the job %d; want none for a hop without an answer", name, hops, a.Status, o.Result.Status)
					}
				})
			}
		}
	}
}

func repeat(plan hopPlan, n int) (plans []hopPlan) {
	for range n {
		plans = append(plans, plan)
	}
	return plans
}

// TestTheTimeThatEachPartyTookDecides has a target that uses up nearly all of the time, and a proxy that is asked for the next
// hop when none is left.
func TestTheTimeThatEachPartyTookDecides(t *testing.T) {
	stretch := stretches(t)
	for name, c := range map[string]struct {
		takes time.Duration
		last  hopPlan
		want  jobs.Fault
	}{
		"the target took most, then the proxy is dialled":  {9 * time.Second, hopPlan{at: "dial"}, jobs.FaultUnclear},
		"the target took most, then a name is looked up":   {9 * time.Second, hopPlan{at: "lookup"}, jobs.FaultUnclear},
		"the target took little, then the proxy took most": {time.Second, hopPlan{at: "dial"}, jobs.FaultProxy},
		"the target took little, then the resolver":        {time.Second, hopPlan{at: "lookup"}, jobs.FaultNone},
		"all of them took some":                            {2 * time.Second, hopPlan{at: "dial", looks: 4500 * time.Millisecond}, jobs.FaultUnclear},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _, _ := stretch(hopPlan{takes: c.takes}, c.last).run("")
			if a.Fault != c.want {
				t.Errorf("%s: fault %q (%s), want %q", name, a.Fault, a.Error, c.want)
			}
		})
	}
}

// TestATunnelThatTakesLongIsNobodysFaultForSure has more time than the minute that the library gives a CONNECT.
func TestATunnelThatTakesLongIsNobodysFaultForSure(t *testing.T) {
	stretch := stretches(t)
	synctest.Test(t, func(t *testing.T) {
		a, _, _ := stretch(hopPlan{https: true, at: "connect", does: "silent"}).run(`,"timeout":300`)
		if a.Fault != jobs.FaultUnclear {
			t.Errorf("fault %q (%s), want unclear", a.Fault, a.Error)
		}
	})
}

func TestARedirectIsFollowedFromItsHead(t *testing.T) {
	stretch := stretches(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, _, o := stretch(hopPlan{at: "body", does: "silent"}, hopPlan{https: true, at: "body", does: "silent"}, hopPlan{}).run("")
		if o.Result.Outcome != jobs.Succeeded || time.Since(began) > time.Second {
			t.Errorf("%s %s after %v, want that nobody waits for the bodies of redirects", o.Result.Outcome, o.Result.Detail, time.Since(began))
		}
	})
}

func TestEvery2xxOpensATunnel(t *testing.T) {
	r := newRig(t, nil)
	for _, status := range []string{"200 OK", "201 Created", "202 Accepted", "204 No Content", "226 IM Used", "299 Whatever"} {
		addr := r.script(func(_ int64, c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\n\r\n")
			up, err := net.Dial("tcp", r.secure.Addr())
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
			_, _ = io.Copy(c, up)
		})
		r.use("http://" + addr.String() + " id=p" + status[:3])
		wantBody(t, r.do("https://example.com/ok"), "hello from example.com/ok\n")
	}
}

// TestAProxyThatForwardsAtOnceIsNeverAtFault has targets that do anything, over any number of hops. Their alert is not the one
// after which another handshake follows: that would meet the plan of the next hop.
func TestAProxyThatForwardsAtOnceIsNeverAtFault(t *testing.T) {
	stretch := stretches(t)
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			var plans []hopPlan
			for range rapid.IntRange(1, 6).Draw(t, "hops") {
				plan := hopPlan{
					https: rapid.Bool().Draw(t, "https"),
					takes: rapid.SampledFrom([]time.Duration{0, 0, time.Second, 4 * time.Second, 9 * time.Second, 11 * time.Second}).Draw(t, "takes"),
					more:  rapid.SampledFrom([]string{"", "Retry-After: 900\r\n", "Proxy-Authenticate: Basic\r\n", "Proxy-Status: x; error=proxy_internal_error\r\n"}).Draw(t, "more"),
				}
				if rapid.IntRange(0, 2).Draw(t, "odd") == 0 {
					plan.at = rapid.SampledFrom([]string{"tls", "head", "body"}).Draw(t, "at")
					plan.does = rapid.SampledFrom([]string{
						"silent", "hangs up", "garbage\r\n\r\n", "\x15\x03\x01\x00\x02\x02\x50", "\x16\x03\x03\x00\x00", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\nX\r\n\r\n",
						"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nProxy-Status: x; error=proxy_internal_error\r\n\r\n", "HTTP/1.1 503 Busy\r\nX-Squid-Error: ERR_CONNECT_FAIL 0\r\nContent-Length: 9\r\n\r\n",
						"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
						"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
					}).Draw(t, "does")
				}
				plans = append(plans, plan)
			}
			a, status, _ := stretch(plans...).run("")
			if a.Fault == jobs.FaultProxy || status.State != breaker.Closed {
				t.Fatalf("%+v: fault %q in phase %s (%s), the proxy is %v", plans, a.Fault, a.Phase, a.Error, status.State)
			}
		})
	})
}
