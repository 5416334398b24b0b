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
			for _, direct := range []bool{false, true} {
				r := newRig(t, func(c *fetch.Config) { c.AllowDirect, c.AllowPrivateTargets = true, true })
				var asked, old atomic.Int64
				serve := r.either(func(f *http2.Framer, stream uint32) {
					asked.Add(1)
					ends(f, stream)
				}, &old)
				url := "https://example.com/"
				if direct {
					url = "https://" + r.script(func(_ int64, c net.Conn) { serve(c) }).String() + "/"
				} else {
					r.use(r.behind(serve) + " id=p")
				}
				o := r.do(fmt.Sprintf(`{"url":%q,"method":"POST","body":"x","timeout":1,"retry":{"max_attempts":2},"proxy":{"direct":%v}}`, url, direct))
				unprocessed := name != "stream" || code == http2.ErrCodeRefusedStream
				if again := asked.Load() > 1; again != unprocessed || o.Result.Outcome == jobs.Succeeded {
					t.Errorf("%v of a %s, direct %v: sent %d times (%s), want again %v", code, name, direct, asked.Load(), o.Result.Detail, unprocessed)
				}
			}
		}
	}
}

// TestAnHTTP2ResponseHasAStatusAndTheBodyOfItsStatus: net/http takes 000 and 1000, waits for the body that the length of a 304
// announces, and hands on a body where there is none.
func TestAnHTTP2ResponseHasAStatusAndTheBodyOfItsStatus(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		data   string // nothing ends the stream with the header
		status int    // 0 is a failure
		body   string
	}{
		"200":               {[]string{":status", "200"}, "ok", 200, "ok"},
		"999":               {[]string{":status", "999"}, "ok", 999, "ok"},
		"000":               {[]string{":status", "000"}, "ok", 0, ""},
		"1000":              {[]string{":status", "1000"}, "ok", 0, ""},
		"304":               {[]string{":status", "304"}, "", 304, ""},
		"304 with a length": {[]string{":status", "304", "content-length", "1000", "etag", "x"}, "", 304, ""},
		"204 with a length": {[]string{":status", "204", "content-length", "2"}, "", 204, ""},
		"204 with a body":   {[]string{":status", "204"}, "ok", 204, ""},
		"304 with a body":   {[]string{":status", "304", "content-length", "2"}, "ok", 304, ""},
	} {
		r := newRig(t, nil)
		r.use(r.behind(r.framed(func(f *http2.Framer, stream uint32) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(c.fields...), EndHeaders: true, EndStream: c.data == ""})
			if c.data != "" {
				_ = f.WriteData(stream, true, []byte(c.data))
			}
		})) + " id=p")
		o := r.do(`{"url":"https://example.com/","timeout":5,"retry":{"max_attempts":1}}`)
		failed := o.Result.Outcome != jobs.Succeeded
		if failed != (c.status == 0) || o.Result.Status != c.status || !failed && string(o.Result.Body) != c.body {
			t.Errorf("%s: %s %d %q, %s; want %d %q", name, o.Result.Outcome, o.Result.Status, o.Result.Body, o.Result.Detail, c.status, c.body)
		}
	}
}

func TestAnIdleHTTP2ConnectionThatAllowsNoStreamIsNotUsed(t *testing.T) {
	r := newRig(t, nil)
	var conns atomic.Int64
	serve := r.framed(func(f *http2.Framer, stream uint32) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "204"), EndHeaders: true, EndStream: true})
	})
	r.use(r.behind(func(c net.Conn) { conns.Add(1); serve(c) }) + " id=p")
	for range 2 {
		if o := r.do(`{"url":"https://example.com/","retry":{"max_attempts":1}}`); o.Result.Status != http.StatusNoContent {
			t.Errorf("%s %s, want the answer on another connection", o.Result.Outcome, o.Result.Detail)
		}
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestAnHTTP2RedirectWhoseBodyDoesNotEndCostsItsConnection(t *testing.T) {
	r := newRig(t, nil)
	var conns atomic.Int64
	r.use(r.behind(func(c net.Conn) {
		n := conns.Add(1)
		r.framed(func(f *http2.Framer, stream uint32) {
			fields := []string{":status", "302", "location", "/next"}
			if n > 1 {
				fields = []string{":status", "204"}
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(fields...), EndHeaders: true, EndStream: n > 1})
		})(c)
	}) + " id=p")
	if o := r.do(`{"url":"https://example.com/","retry":{"max_attempts":1}}`); o.Result.Status != http.StatusNoContent || conns.Load() != 2 {
		t.Errorf("%s %d %s over %d connections, want 204 over the second one", o.Result.Outcome, o.Result.Status, o.Result.Detail, conns.Load())
	}
}

func TestAnHTTP2ConnectionThatWasIdleTakesALargeBody(t *testing.T) {
	r := newRig(t, nil)
	var conns atomic.Int64
	serve := r.framed(func(f *http2.Framer, stream uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200"), EndHeaders: true})
		for i := range 20 {
			_ = f.WriteData(stream, i == 19, make([]byte, 10<<10))
		}
	})
	r.use(r.behind(func(c net.Conn) { conns.Add(1); serve(c) }) + " id=p")
	for range 3 {
		if o := r.do(`{"url":"https://example.com/","retry":{"max_attempts":1}}`); len(o.Result.Body) != 200<<10 {
			t.Errorf("%s %s: %d bytes, want 200 KiB", o.Result.Outcome, o.Result.Detail, len(o.Result.Body))
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A frame of a type that nobody knows, a ping, and a DATA frame of padding alone carry nothing of an answer.
func TestAnHTTP2AnswerOfFramesThatCarryNothingHasABound(t *testing.T) {
	for name, c := range map[string]struct {
		frames int // 64 MiB of them
		flood  func(f *http2.Framer, stream uint32) error
	}{
		"unknown frames": {4 << 10, func(f *http2.Framer, _ uint32) error { return f.WriteRawFrame(0xfe, 0, 0, make([]byte, 16<<10)) }},
		"padding": {256 << 10, func(f *http2.Framer, stream uint32) error {
			return f.WriteDataPadded(stream, false, nil, make([]byte, 255))
		}},
	} {
		for _, begun := range []bool{false, true} {
			if name == "padding" && !begun {
				continue
			}
			r := newRig(t, nil)
			r.use(r.behind(r.framed(func(f *http2.Framer, stream uint32) {
				if begun {
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200"), EndHeaders: true})
				}
				for n := 0; n < c.frames; n++ {
					if c.flood(f, stream) != nil {
						break
					}
				}
				_ = f.WriteData(stream, true, nil)
			})) + " id=p")
			o := r.do(`{"url":"https://example.com/","timeout":600,"max_body_bytes":1000,"retry":{"max_attempts":1}}`)
			if !strings.Contains(o.Result.Detail, "more than any answer needs") || o.Result.Bytes > 16<<20 {
				t.Errorf("%s, answer begun %v: %s %s after %d bytes, want an end after few more than 4 MiB", name, begun, o.Result.Outcome, o.Result.Detail, o.Result.Bytes)
			}
		}
	}
}

func TestAnIdleHTTP2ConnectionTakesNoFlood(t *testing.T) {
	r := newRig(t, nil)
	taken := make(chan int64)
	r.use(r.behind(r.framed(func(f *http2.Framer, stream uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "204"), EndHeaders: true, EndStream: true})
		n := int64(0)
		for n < 1<<30 && f.WriteRawFrame(0xfe, 0, 0, make([]byte, 16<<10)) == nil { // a frame of a type that nobody knows
			n += 16 << 10
		}
		taken <- n
	})) + " id=p")
	if o := r.do(`{"url":"https://example.com/","retry":{"max_attempts":1}}`); o.Result.Status != http.StatusNoContent {
		t.Fatalf("%s %s", o.Result.Outcome, o.Result.Detail)
	}
	if n := <-taken; n > 64<<20 { // what the buffers of the sockets take, and not all of it
		t.Errorf("an idle connection took %d bytes", n)
	}
}

func TestInformationalAnswersOfHTTP2HaveABound(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		count  int
		ok     bool
	}{
		"a hundred":              {[]string{":status", "102"}, 100, true},
		"without end, and empty": {[]string{":status", "102"}, 1 << 16, false},
		"without end, and large": {[]string{":status", "103", "link", strings.Repeat("x", 10<<10)}, 1 << 16, false},
	} {
		r := newRig(t, nil)
		r.use(r.behind(r.framed(func(f *http2.Framer, stream uint32) {
			for range c.count {
				if f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(c.fields...), EndHeaders: true}) != nil {
					return
				}
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200"), EndHeaders: true, EndStream: true})
		})) + " id=p")
		o := r.do(`{"url":"https://example.com/","timeout":600,"retry":{"max_attempts":1}}`)
		if ok := o.Result.Outcome == jobs.Succeeded; ok != c.ok || !ok && !strings.Contains(o.Result.Detail, "malformed HTTP/2 answer") {
			t.Errorf("%s: %s %s, want a success: %v", name, o.Result.Outcome, o.Result.Detail, c.ok)
		}
		if o.Result.Bytes > 64<<20 { // what is on its way when the connection is closed counts, too
			t.Errorf("%s: %d bytes received", name, o.Result.Bytes)
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

// Up to TLS 1.2 a server refuses a client without a certificate by the alert that also says that there is no common suite.
func TestAClientCertificateThatIsWantedIsNamedAndNoMatterOfSuites(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var handshakes atomic.Int64
		r := newRig(t, nil)
		config := &tls.Config{Certificates: []tls.Certificate{r.trusted("example.com")}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: version}
		r.use(r.behind(func(c net.Conn) {
			handshakes.Add(1)
			_ = tls.Server(c, config).HandshakeContext(t.Context())
		}) + " id=p")
		o := r.do(`{"url":"https://example.com/","retry":{"max_attempts":1}}`)
		if text := o.Result.Attempts[0].Error; !strings.Contains(text, "a client certificate is wanted") {
			t.Errorf("%s: %q, want the client certificate named", tls.VersionName(version), text)
		}
		if n := handshakes.Load(); n != 1 {
			t.Errorf("%s: %d handshakes, want 1: other suites help nobody", tls.VersionName(version), n)
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
