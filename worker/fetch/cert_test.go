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

// secured serves a page over TLS with a certificate, whatever its name.
func (r *rig) secured(certificate tls.Certificate) string {
	return r.script(func(_ int64, c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
		if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		}
	}).String()
}

// trusted is a site's certificate that the rig accepts.
func (r *rig) trusted(names ...string) tls.Certificate {
	r.Helper()
	good := certificateFor(r.T, names...)
	leaf, err := x509.ParseCertificate(good.Certificate[0])
	if err != nil {
		r.Fatal(err)
	}
	r.cfg.RootCAs.AddCert(leaf)
	return good
}

// issuedBy is a certificate that nobody trusts, with the name of its issuer.
func issuedBy(t *testing.T, issuer string) tls.Certificate {
	t.Helper()
	return certificate(t, func(c *x509.Certificate) { c.Subject.CommonName = issuer })
}

// leads is a proxy that finds each target where the function says.
func (r *rig) leads(id string, where func(target string) string) string {
	return r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = where }).URL("http") + " id=" + id
}

func TestAProxyThatReplacesCertificatesOfThreeDomainsRests(t *testing.T) {
	r := newRig(t, nil)
	names := []string{"a.test", "b.test", "www.b.test", "c.test"}
	good := r.secured(r.trusted(names...))
	fake := r.secured(issuedBy(t, "interceptor"))
	r.use(r.leads("evil", func(string) string { return fake }), r.leads("good", func(string) string { return good }))
	for i, name := range names {
		for range 2 { // one of them begins with the evil proxy
			wantBody(t, r.do("https://"+name+"/"), "ok")
		}
		want := breaker.Closed
		if i == len(names)-1 {
			want = breaker.Open
		}
		if s, _ := r.pool.StatusOf("evil"); s.State != want || want == breaker.Open && time.Until(s.NextTest) < 5*time.Minute {
			t.Errorf("after %s it is %v for %v, want %v, and open for long", name, s.State, time.Until(s.NextTest), want)
		}
	}
	if s, _ := r.pool.StatusOf("good"); s.State != breaker.Closed {
		t.Errorf("the honest proxy is %v", s.State)
	}
}

// Two sites show nine of ten proxies bad certificates, and a third site has different ones on its servers.
func TestTwoSitesWithBadCertificatesOpenNoProxy(t *testing.T) {
	r := newRig(t, nil)
	good := r.secured(r.trusted("evil1.test", "evil2.test", "c.test"))
	bad := r.secured(issuedBy(t, "evil"))
	var lines []string
	for i := range 10 {
		other := r.secured(issuedBy(t, fmt.Sprint("c ", i)))
		lines = append(lines, r.leads(fmt.Sprint("p", i), func(target string) string {
			switch {
			case i == 9:
				return good
			case target == "c.test:443":
				return other
			}
			return bad
		}))
	}
	r.use(lines...)
	for i := range 30 {
		site := []string{"evil1.test", "evil2.test", "c.test"}[i%3]
		r.do(fmt.Sprintf(`{"url":"https://%s/","retry":{"max_attempts":10}}`, site))
	}
	wantClosed(t, r.pool, 10)
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

// TestAGoodCertificateAcquitsAProxy has three domains with a bad server each; in between the proxy shows that it forges nothing.
func TestAGoodCertificateAcquitsAProxy(t *testing.T) {
	r := newRig(t, nil)
	good, bad := r.secured(r.trusted("a.test", "b.test", "c.test", "d.test")), r.secured(issuedBy(t, "bad"))
	var broken atomic.Bool
	unlucky := r.leads("unlucky", func(string) string {
		if broken.Load() {
			return bad
		}
		return good
	})
	r.use(unlucky, r.leads("lucky", func(string) string { return good }))
	for _, phase := range []struct {
		site   string
		broken bool
	}{{"a.test", true}, {"b.test", true}, {"c.test", false}, {"d.test", true}} {
		broken.Store(phase.broken)
		for range 2 { // one of them begins with the unlucky proxy
			wantBody(t, r.do("https://"+phase.site+"/"), "ok")
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
