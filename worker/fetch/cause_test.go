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
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// behind is a proxy that leads all tunnels to what serves connections.
func (r *rig) behind(serve func(net.Conn)) string {
	r.Helper()
	target := r.script(func(_ int64, c net.Conn) { serve(c) }).String()
	return r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = func(string) string { return target } }).URL("http")
}

// certificate is one for example.com that its issuer signed itself.
func certificate(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour)}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// issued is a certificate for example.com of an issuer that nobody knows.
func issued(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	issuer := certificate(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "s3cret", nil, true, true, x509.KeyUsageCertSign
	})
	parent, err := x509.ParseCertificate(issuer.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour)}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, issuer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// framed serves HTTP/2 to the first request, by a function that gets its stream.
func (r *rig) framed(serve func(f *http2.Framer, stream uint32)) func(net.Conn) {
	config := r.secure.TLS.Clone()
	config.NextProtos = []string{"h2"}
	return func(c net.Conn) {
		s := tls.Server(c, config)
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

// TestAnAttemptNamesItsCause has what operators meet, and what they have to read to know it.
func TestAnAttemptNamesItsCause(t *testing.T) {
	says := func(text string) func(*rig) string { return func(r *rig) string { return r.replies(text) } }
	handshake := func(config func(*rig) *tls.Config) func(*rig) string {
		return func(r *rig) string {
			c := config(r)
			return r.behind(func(conn net.Conn) { _ = tls.Server(conn, c).HandshakeContext(r.Context()) })
		}
	}
	shows := func(change func(*x509.Certificate)) func(*rig) string {
		return handshake(func(r *rig) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{certificate(r.T, change)}}
		})
	}
	answer := func(status, rest, later string) func(*rig) string {
		return func(r *rig) string {
			return "http://" + r.script(func(_ int64, c net.Conn) {
				in := bufio.NewReader(c)
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, status+" 200 OK\r\n"+rest)
				if later != "" {
					_, _ = in.ReadByte()
					_, _ = io.WriteString(c, later)
				}
			}).String()
		}
	}
	tunnel := func(rest, later string) func(*rig) string { return answer("HTTP/1.1", rest, later) }
	secureProxy := func(cert func(*rig) tls.Certificate) func(*rig) string {
		return func(r *rig) string {
			config := &tls.Config{Certificates: []tls.Certificate{cert(r)}}
			return "https://" + r.script(func(_ int64, c net.Conn) { _ = tls.Server(c, config).HandshakeContext(r.Context()) }).String()
		}
	}
	socks := func(replies ...string) func(*rig) string {
		return func(r *rig) string {
			return "socks5://" + r.script(func(_ int64, c net.Conn) {
				for _, reply := range replies {
					if _, err := c.Read(make([]byte, 512)); err != nil {
						return
					}
					_, _ = io.WriteString(c, reply)
				}
			}).String()
		}
	}
	for name, c := range map[string]struct {
		url   string
		proxy func(*rig) string
		words string
		fault jobs.Fault
	}{
		"a NUL in a header":            {"http://shop.test/", says("HTTP/1.1 200 OK\r\nX: s3cret\x00words\r\nContent-Length: 2\r\n\r\nok"), "the answer cannot be read: malformed header", jobs.FaultUnclear},
		"headers of 300 KB":            {"http://shop.test/", says("HTTP/1.1 200 OK\r\n" + strings.Repeat("Set-Cookie: "+strings.Repeat("x", 1000)+"\r\n", 300) + "\r\n"), "headers larger than 256 KiB", jobs.FaultUnclear},
		"ICY":                          {"http://shop.test/", says("ICY 200 OK\r\ncontent-type:audio/mpeg\r\n\r\n" + strings.Repeat("x", 5000)), "the answer cannot be read: it is not HTTP", jobs.FaultUnclear},
		"SSH":                          {"http://shop.test/", says("SSH-2.0-OpenSSH_9.2\r\n"), "it is not HTTP", jobs.FaultUnclear},
		"a status of four digits":      {"http://shop.test/", says("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"), "malformed status", jobs.FaultUnclear},
		"two lengths":                  {"http://shop.test/", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"), "more than one length", jobs.FaultUnclear},
		"a transfer coding of its own": {"http://shop.test/", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: s3cret\r\n\r\nok"), "unknown transfer coding", jobs.FaultUnclear},
		"chunks that are none":         {"http://shop.test/", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\nok"), "malformed chunks", jobs.FaultUnclear},
		"an answer that was cut":       {"http://shop.test/", says("HTTP/1.1 200 OK\r\nConte"), "the answer was cut off: connection closed", jobs.FaultUnclear},
		"no common cipher": {"https://example.com/", handshake(func(r *rig) *tls.Config {
			return &tls.Config{Certificates: r.secure.TLS.Certificates, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}
		}), "the TLS handshake with the target failed: no common cipher (handshake failure)", jobs.FaultUnclear},
		"no common version": {"https://example.com/", handshake(func(r *rig) *tls.Config {
			return &tls.Config{Certificates: r.secure.TLS.Certificates, MaxVersion: tls.VersionTLS11}
		}), "no common version of TLS", jobs.FaultUnclear},
		"plain HTTP at a port for TLS": {"https://example.com/", func(r *rig) string {
			return r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = func(string) string { return r.plain.Addr() } }).URL("http")
		}, "the TLS handshake with the target failed: it does not speak TLS", jobs.FaultUnclear},
		"a plain proxy listed as https": {"https://example.com/", func(r *rig) string {
			return "https://" + r.script(func(_ int64, c net.Conn) {
				_, _ = c.Read(make([]byte, 5))
				_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			}).String()
		}, "TLS with the proxy failed: it does not speak TLS; list it as http://", jobs.FaultProxy},
		"a plain proxy that hangs up":    {"https://example.com/", func(r *rig) string { return r.proxy(testenv.Good, nil).URL("https") }, "TLS with the proxy failed: connection closed; if it does not speak TLS, list it as http://", jobs.FaultProxy},
		"a TLS proxy that sends alerts":  {"https://example.com/", says("\x15\x03\x01\x00\x02\x02\x28"), "the proxy speaks TLS: list it as https://", jobs.FaultProxy},
		"a TLS proxy that hangs up":      {"https://example.com/", says(""), "the proxy hung up instead of opening a tunnel; if the proxy speaks TLS, list it as https://", jobs.FaultUnclear},
		"a TLS proxy that answers":       {"https://example.com/", says("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "the proxy answered CONNECT with 400 Bad Request; if the proxy speaks TLS, list it as https://", jobs.FaultUnclear},
		"a TLS proxy and a plain target": {"http://shop.test/", says("\x15\x03\x01\x00\x02\x02\x28"), "the answer is TLS, not HTTP; if the proxy speaks TLS, list it as https://", jobs.FaultUnclear},
		"a page at once":                 {"https://example.com/", tunnel("Content-Type: text/html\r\n\r\n<html>s3cret login</html>", ""), "the proxy sent a page instead of a tunnel", jobs.FaultProxy},
		"a page behind a small http":     {"https://example.com/", answer("http/1.1", "Content-Type: text/html\r\n\r\n<html>s3cret login</html>", ""), "the proxy sent a page instead of a tunnel", jobs.FaultProxy},
		"a page afterwards":              {"https://example.com/", tunnel("Content-Type: text/html\r\nContent-Length: 25\r\n\r\n", "<html>s3cret login</html>"), "the proxy sent a page instead of a tunnel", jobs.FaultProxy},
		"a tunnel with a Content-Type":   {"https://example.com/", tunnel("Content-Type: text/html\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"), "it does not speak TLS", jobs.FaultUnclear},
		"other schemes to CONNECT":       {"https://example.com/", says("HTTP/1.1 407 No\r\nProxy-Authenticate: Digest realm=\"s3cret, Bearer\", nonce=s3cret\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"), "the proxy answered CONNECT with 407 Proxy Authentication Required: it offers Digest, NTLM, and gofer sends Basic", jobs.FaultProxy},
		"other schemes":                  {"http://shop.test/", says("HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate, s3cret x=y\r\nContent-Length: 0\r\n\r\n"), "(407): it offers Negotiate, and gofer sends Basic", jobs.FaultProxy},
		"other credentials":              {"http://shop.test/", says("HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate, Basic realm=x\r\nContent-Length: 0\r\n\r\n"), "the proxy wants other credentials (407)", jobs.FaultProxy},
		"an expired certificate":         {"https://example.com/", shows(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) }), "the target's certificate has expired, or the proxy put in its own", jobs.FaultUnclear},
		"a certificate of tomorrow":      {"https://example.com/", shows(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "the target's certificate is not valid yet, ", jobs.FaultUnclear},
		"another name": {"https://wrong.test/", func(r *rig) string {
			return r.proxy(testenv.Good, func(p *testenv.Proxy) { p.Resolve = toExample(p.Resolve) }).URL("http")
		}, "the target's certificate is for another name, ", jobs.FaultUnclear},
		"a self-signed certificate": {"https://example.com/", shows(func(*x509.Certificate) {}), "the target's certificate is self-signed, ", jobs.FaultUnclear},
		"an HTTP/2 connection that ends": {"https://example.com/", func(r *rig) string {
			return r.behind(r.framed(func(f *http2.Framer, _ uint32) {
				_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("s3cret"))
			}))
		}, "the connection broke in phase wait: HTTP/2 ENHANCE_YOUR_CALM", jobs.FaultUnclear},
		"an HTTP/2 stream that ends": {"https://example.com/", func(r *rig) string {
			return r.behind(r.framed(func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeInternal) }))
		}, "HTTP/2 INTERNAL_ERROR", jobs.FaultUnclear},
		"an HTTP/2 answer without a status": {"https://example.com/", func(r *rig) string {
			return r.behind(r.framed(func(f *http2.Framer, stream uint32) {
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block("x", "s3cret"), EndHeaders: true, EndStream: true})
			}))
		}, "malformed HTTP/2 answer", jobs.FaultUnclear},
		"a SOCKS proxy that speaks HTTP": {"http://shop.test/", func(r *rig) string {
			return "socks5://" + r.script(func(_ int64, c net.Conn) {
				_, _ = c.Read(make([]byte, 3))
				_, _ = io.WriteString(c, "HTTP/1.1 400 s3cret\r\n\r\n")
			}).String()
		}, "the SOCKS proxy failed: it does not speak SOCKS 5", jobs.FaultProxy},
		"an unknown issuer": {"https://example.com/", handshake(func(r *rig) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{issued(r.T, func(*x509.Certificate) {})}}
		}), "the target's certificate has an unknown issuer, ", jobs.FaultUnclear},
		"a name and an issuer that are wrong": {"https://example.com/", handshake(func(r *rig) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{issued(r.T, func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} })}}
		}), "the target's certificate is for another name, ", jobs.FaultUnclear},
		"a certificate that names nothing": {"https://example.com/", shows(func(c *x509.Certificate) { c.DNSNames = nil }), "the target's certificate is for another name, ", jobs.FaultUnclear},
		"a target that wants a certificate": {"https://example.com/", func(r *rig) string {
			config := &tls.Config{Certificates: r.secure.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert}
			return r.behind(func(c net.Conn) { _, _ = tls.Server(c, config).Read(make([]byte, 1)) })
		}, "a client certificate is wanted, or ours are not trusted (certificate required)", jobs.FaultUnclear},
		"a proxy whose certificate has expired": {"https://example.com/", secureProxy(func(r *rig) tls.Certificate {
			return certificate(r.T, func(c *x509.Certificate) {
				c.NotAfter = time.Now().Add(-24 * time.Hour)
				c.DNSNames = nil
				c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
			})
		}), "TLS with the proxy failed: its certificate has expired", jobs.FaultProxy},
		"a proxy whose certificate is for another name": {"https://example.com/", secureProxy(func(r *rig) tls.Certificate {
			return certificate(r.T, func(*x509.Certificate) {})
		}), "TLS with the proxy failed: its certificate is for another name", jobs.FaultProxy},
		"a proxy with a self-signed certificate": {"https://example.com/", secureProxy(func(r *rig) tls.Certificate {
			return certificate(r.T, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
		}), "TLS with the proxy failed: its certificate is self-signed", jobs.FaultProxy},
		"a proxy whose certificate has an unknown issuer": {"https://example.com/", secureProxy(func(r *rig) tls.Certificate {
			return issued(r.T, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
		}), "TLS with the proxy failed: its certificate has an unknown issuer", jobs.FaultProxy},
		"a SOCKS proxy that refuses credentials":       {"http://shop.test/", socks("\x05\x02", "\x01\x01"), "the SOCKS proxy failed: it wants other credentials", jobs.FaultProxy},
		"a SOCKS proxy that takes no such credentials": {"http://shop.test/", socks("\x05\xff", ""), "the SOCKS proxy failed: it wants credentials of another kind", jobs.FaultProxy},
		"a SOCKS proxy of version 4":                   {"http://shop.test/", socks("\x00\x5b\x00\x00\x00\x00\x00\x00", ""), "the SOCKS proxy failed: it does not speak SOCKS 5", jobs.FaultProxy},
		"a SOCKS proxy listed as http":                 {"http://shop.test/", says(""), "the proxy closed the connection without an answer; if the proxy speaks TLS, list it as https://, and if it speaks SOCKS, as socks5://", jobs.FaultUnclear},
		"a SOCKS proxy listed as http, CONNECT":        {"https://example.com/", says(""), "the proxy hung up instead of opening a tunnel; if the proxy speaks TLS, list it as https://, and if it speaks SOCKS, as socks5://", jobs.FaultUnclear},
		"nobody":                                       {"http://shop.test/", func(r *rig) string { return "http://" + nobody(r.T) }, "the proxy cannot be reached: connection refused", jobs.FaultProxy},
		"a body that is not gzip":                      {"http://shop.test/", says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\ns3cret"), "the body cannot be decoded: it is not what its Content-Encoding says", jobs.FaultUnclear},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.use(strings.Replace(c.proxy(r), "://", "://u:s3cret@", 1) + " id=p")
			o := r.do(fmt.Sprintf(`{"url":%q,"timeout":2,"headers":{"X-Key":"s3cret"},"retry":{"max_attempts":1}}`, c.url+"?key=s3cret"))
			if len(o.Result.Attempts) != 1 {
				t.Fatalf("%s %s with %d attempts", o.Result.Outcome, o.Result.Error, len(o.Result.Attempts))
			}
			a := o.Result.Attempts[0]
			if !strings.Contains(a.Error, c.words) || a.Fault != c.fault {
				t.Errorf("fault %q, %q in phase %s; want %q, %q", a.Fault, a.Error, a.Phase, c.fault, c.words)
			}
			if text := fmt.Sprintf("%+v %s %+v %+v", a, o.Result.Detail, r.retries, r.breakers); strings.Contains(text, "s3cret") {
				t.Errorf("a text holds what is secret or foreign: %s", text)
			}
		})
	}
}

// block is a header block of HTTP/2 with these fields.
func block(namesAndValues ...string) []byte {
	var b strings.Builder
	encoder := hpack.NewEncoder(&b)
	for pair := range slices.Chunk(namesAndValues, 2) {
		_ = encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]})
	}
	return []byte(b.String())
}

// A proxy that relayed a response speaks what it is listed with, so a site that hangs up gives no reason to doubt that.
func TestAProxyThatWorksIsNotSaidToNeedAnotherScheme(t *testing.T) {
	r := newRig(t, nil)
	silent := r.script(func(_ int64, c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }).String()
	r.use(r.proxy(testenv.Good, func(p *testenv.Proxy) {
		sites := p.Resolve
		p.Raw, p.Resolve = true, func(target string) string {
			if strings.HasPrefix(target, "mute.test") {
				return silent
			}
			return sites(target)
		}
	}).URL("http") + " id=p")
	const hint = "list it as"
	mute := func() string {
		return r.do(`{"url":"http://mute.test/","retry":{"max_attempts":1}}`).Result.Attempts[0].Error
	}
	if text := mute(); !strings.Contains(text, hint) {
		t.Fatalf("through a proxy that has relayed nothing: %q, want the hint at another scheme", text)
	}
	wantBody(t, r.do("http://shop.test/ok"), "hello from shop.test/ok\n")
	if text := mute(); text == "" || strings.Contains(text, hint) {
		t.Errorf("through a proxy that works: %q, want no hint at another scheme", text)
	}
	r.use(r.site(func(req *http.Request) string {
		if strings.HasSuffix(req.RequestURI, "/mute") {
			return ""
		}
		return "HTTP/1.1 302 Found\r\nLocation: /mute\r\nContent-Length: 0\r\n\r\n"
	}) + " id=redirects")
	if text := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":1}}`).Result.Attempts[0].Error; text == "" || strings.Contains(text, hint) {
		t.Errorf("through a proxy that has relayed a redirect of the same attempt: %q, want no hint at another scheme", text)
	}
}
