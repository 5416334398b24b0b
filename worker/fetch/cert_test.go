package fetch_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

func TestProxyThatPutsInItsOwnCertificateRests(t *testing.T) {
	r := newRig(t, nil)
	forged := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	fake := r.script(func(_ int64, c net.Conn) { _ = tls.Server(c, forged).HandshakeContext(t.Context()) })
	evil := r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = func(string) string { return fake.String() } })
	r.use(evil.URL("http")+" id=evil", r.proxy(testenv.Good, nil).URL("http")+" id=good")
	for _, site := range []string{"example.com", "example.com", "example.com:8443", "example.com:8443"} {
		wantBody(t, r.do("https://"+site+"/ok"), "hello from "+site+"/ok\n")
	}
	if s, _ := r.pool.StatusOf("evil"); s.State != breaker.Open || time.Until(s.NextTest) < 5*time.Minute {
		t.Errorf("it is %v for %v, want open for long", s.State, time.Until(s.NextTest))
	}
	if s, _ := r.pool.StatusOf("good"); s.State != breaker.Closed {
		t.Errorf("the honest proxy is %v", s.State)
	}
}

func TestASiteWithOneBadCertificateOfTwoOpensNoProxy(t *testing.T) {
	r := newRig(t, nil)
	certificates := []tls.Certificate{selfSigned(t), r.secure.TLS.Certificates[0]}
	balancer := r.script(func(n int64, c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: certificates[n%2 : n%2+1]})
		if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		}
	})
	var lines []string
	for i := range 6 {
		p := r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = func(string) string { return balancer.String() } })
		lines = append(lines, fmt.Sprintf("%s id=p%d", p.URL("http"), i))
	}
	r.use(lines...)
	for range 5 {
		r.do("https://example.com/")
	}
	wantClosed(t, r.pool, 6)
}

// TestAGoodCertificateAcquitsAProxy has two targets with a bad server each; in between the proxy shows that it forges nothing.
func TestAGoodCertificateAcquitsAProxy(t *testing.T) {
	r := newRig(t, nil)
	bad := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	server := r.script(func(_ int64, c net.Conn) { _ = tls.Server(c, bad).HandshakeContext(t.Context()) })
	var broken atomic.Bool
	unlucky := r.proxy(testenv.Good, func(p *testenv.Proxy) {
		inner := p.Resolve
		p.Resolve = func(target string) string {
			if broken.Load() {
				return server.String()
			}
			return inner(target)
		}
	})
	r.use(unlucky.URL("http")+" id=unlucky", r.proxy(testenv.Good, nil).URL("http")+" id=lucky")
	for _, phase := range []struct {
		site   string
		broken bool
	}{{"example.com", true}, {"example.com:8444", false}, {"example.com:8443", true}} {
		broken.Store(phase.broken)
		for range 2 { // one of them begins with the unlucky proxy
			wantBody(t, r.do("https://"+phase.site+"/ok"), "hello from "+phase.site+"/ok\n")
		}
	}
	wantClosed(t, r.pool, 2)
}

// selfSigned is a certificate for example.com that nobody trusts.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOneProxyAloneCannotMakeACertificatePermanentlyBad(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = toExample(p.Resolve) })
	r.use(p.URL("http") + " id=p")
	o := r.do("https://wrong.test/ok")
	if o.Result.Error != jobs.ErrAttemptsExhausted || o.Result.AttemptCount != 3 {
		t.Errorf("result = %s after %d attempts, want attempts_exhausted after 3", o.Result.Error, o.Result.AttemptCount)
	}
}

func TestSecureProxyThatPrefersHTTP2StillWorks(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, func(p *testenv.Proxy) {
		p.TLS = &tls.Config{Certificates: r.secure.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	})
	r.use(p.URL("https") + " id=p")
	wantBody(t, r.do("http://shop.test/ok"), "hello from shop.test/ok\n")
	wantBody(t, r.do("https://example.com/ok"), "hello from example.com/ok\n")
}

func TestSecureProxyWithABadCertificateRests(t *testing.T) {
	r := newRig(t, nil)
	p := r.proxy(testenv.Good, func(p *testenv.Proxy) {
		p.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	})
	r.use(p.URL("https") + " id=p")
	if a, reason := r.judged("https://example.com/ok"); a.Fault != jobs.FaultProxy || reason != "proxy_tls" || a.Phase != "connect" {
		t.Errorf("fault %q, reason %q in phase %q (%s)", a.Fault, reason, a.Phase, a.Error)
	}
	if s, _ := r.pool.StatusOf("p"); s.State != breaker.Open {
		t.Errorf("the proxy is %v, want open", s.State)
	}
}
