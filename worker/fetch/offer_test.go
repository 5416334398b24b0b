package fetch_test

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// either serves HTTP/2 by a function, and HTTP/1.1 by a page.
func (r *rig) either(serve func(f *http2.Framer, stream uint32), old *atomic.Int64) func(net.Conn) {
	config := r.secure.TLS.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	return func(c net.Conn) {
		s := tls.Server(c, config)
		if err := s.HandshakeContext(r.Context()); err != nil {
			return
		}
		if s.ConnectionState().NegotiatedProtocol != "h2" {
			for in := bufio.NewReader(s); ; {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				old.Add(1)
				_, _ = fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(body)+3, "old", body)
			}
		}
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(s, s)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.HeadersFrame); ok {
				serve(f, h.StreamID)
			}
		}
	}
}

func TestAServerThatWantsHTTP11GetsItAtOnceAndFromThenOn(t *testing.T) {
	for name, wants := range map[string]func(f *http2.Framer, stream uint32){
		"of a stream":     func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeHTTP11Required) },
		"of a connection": func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, http2.ErrCodeHTTP11Required, nil) },
	} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			r := newRig(t, nil)
			var asked, old atomic.Int64
			r.use(r.behind(r.either(func(f *http2.Framer, stream uint32) {
				asked.Add(1)
				wants(f, stream)
			}, &old)) + " id=p")
			for i := range 3 {
				o := r.do(fmt.Sprintf(`{"url":"https://example.com/","method":%q,"body":"x","retry":{"max_attempts":1}}`, method))
				if wantBody(t, o, "oldx"); o.Result.AttemptCount != 1 {
					t.Errorf("%s, %s %d: %d attempts", name, method, i, o.Result.AttemptCount)
				}
			}
			if asked.Load() != 1 || old.Load() != 3 {
				t.Errorf("%s, %s: %d requests by HTTP/2 and %d by HTTP/1.1, want 1 and 3", name, method, asked.Load(), old.Load())
			}
		}
	}
}

// TestAPostThatAnHTTP2ServerDidNotProcessIsSentAgain has every error code: of two of them RFC 9113 says what became of the
// request.
func TestAPostThatAnHTTP2ServerDidNotProcessIsSentAgain(t *testing.T) {
	for code := range http2.ErrCodeHTTP11Required {
		for name, ends := range map[string]func(f *http2.Framer, stream uint32){
			"stream":                   func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, code) },
			"connection, not received": func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, code, nil) },
		} {
			r := newRig(t, nil)
			var asked, old atomic.Int64
			r.use(r.behind(r.either(func(f *http2.Framer, stream uint32) {
				asked.Add(1)
				ends(f, stream)
			}, &old)) + " id=p")
			o := r.do(`{"url":"https://example.com/","method":"POST","body":"x","timeout":1,"retry":{"max_attempts":2}}`)
			unprocessed := name != "stream" || code == http2.ErrCodeRefusedStream
			if again := asked.Load() > 1; again != unprocessed || o.Result.Outcome == jobs.Succeeded {
				t.Errorf("%v of a %s: sent %d times (%s), want again %v", code, name, asked.Load(), o.Result.Detail, unprocessed)
			}
		}
	}
}

// rsaOnly serves TLS with an RSA key, by one suite, and notes what it is offered.
func (r *rig) rsaOnly(suite uint16, offers *[][]uint16) (serve func(net.Conn), root *x509.Certificate) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		r.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		r.Fatal(err)
	}
	root, err = x509.ParseCertificate(der)
	if err != nil {
		r.Fatal(err)
	}
	var mu sync.Mutex
	config := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			*offers = append(*offers, hello.CipherSuites)
			return nil, nil
		},
	}
	return func(c net.Conn) {
		s := tls.Server(c, config)
		if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		}
	}, root
}

func TestRSAKeyExchangeIsOfferedInASecondHandshakeOnly(t *testing.T) {
	for suite, fetched := range map[uint16]bool{
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256: true, tls.TLS_RSA_WITH_AES_256_CBC_SHA: true, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: true,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA: false, tls.TLS_RSA_WITH_RC4_128_SHA: false,
	} {
		for _, direct := range []bool{false, true} {
			var offers [][]uint16
			r := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets = true, true })
			serve, root := r.rsaOnly(suite, &offers)
			r.cfg.RootCAs.AddCert(root)
			r.use(r.behind(serve) + " id=p")
			job := `{"url":"https://example.com/","retry":{"max_attempts":1}}`
			if direct {
				target := r.script(func(_ int64, c net.Conn) { serve(c) })
				job = fmt.Sprintf(`{"url":"https://%s/","proxy":{"direct":true},"retry":{"max_attempts":1}}`, target)
			}
			o := r.do(job)
			if ok := o.Result.Outcome == jobs.Succeeded; ok != fetched && !direct {
				t.Errorf("%s: %s %s", tls.CipherSuiteName(suite), o.Result.Outcome, o.Result.Detail)
			}
			first := len(offers) > 0 && slices.ContainsFunc(offers[0], isRSA)
			second := len(offers) > 1 && slices.ContainsFunc(offers[1], isRSA)
			if needs := strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_RSA"); first || second != needs || len(offers) > 2 {
				t.Errorf("%s, direct %v: %d handshakes, with RSA key exchange in the first %v, in the second %v; want it in the second %v", tls.CipherSuiteName(suite), direct, len(offers), first, second, needs)
			}
			for _, offer := range offers {
				if slices.Contains(offer, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA) || slices.Contains(offer, tls.TLS_RSA_WITH_RC4_128_SHA) || slices.Contains(offer, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA) {
					t.Errorf("3DES or RC4 was offered")
				}
			}
		}
	}
}

func isRSA(suite uint16) bool { return strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_RSA_") }

// TestADirectFetchSpeaksHTTP2 keeps the handshake of direct fetches, which is made here, like that through tunnels.
func TestADirectFetchSpeaksHTTP2(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets = true, true })
	o := r.do(fmt.Sprintf(`{"url":"https://%s/echo","proxy":{"direct":true}}`, r.secure.Addr()))
	if !strings.Contains(string(o.Result.Body), `"HTTP/2.0"`) {
		t.Errorf("%s %s: %s", o.Result.Outcome, o.Result.Detail, o.Result.Body)
	}
}
