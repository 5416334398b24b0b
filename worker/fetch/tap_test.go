package fetch_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// seen is one request as it came over the wire.
type seen struct {
	connect string // the target of CONNECT
	sni     string
	target  string // of the request line, or :path
	host    string // or :authority
	spaces  int    // in the request line
}

// wire is a proxy that plays every origin, with every certificate, and notes what it is asked.
type wire struct {
	protocol    string // of tunnels
	certificate tls.Certificate
	answer      func(n int) string // the head of the nth answer, from 0

	mu   sync.Mutex
	seen []seen
}

// tap starts a wire and makes it the only proxy. names are what its certificate is for.
func (r *rig) tap(protocol string, answer func(n int) string, names ...string) *wire {
	r.Helper()
	w := &wire{protocol: protocol, answer: answer, certificate: certificateFor(r.T, names...)}
	leaf, err := x509.ParseCertificate(w.certificate.Certificate[0])
	if err != nil {
		r.Fatal(err)
	}
	r.cfg.RootCAs.AddCert(leaf)
	r.use("http://" + r.script(func(_ int64, c net.Conn) { w.serve(c) }).String() + " id=wire")
	return w
}

func certificateFor(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// note keeps a request and returns the head of its answer.
func (w *wire) note(s seen) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
	return w.answer(len(w.seen) - 1)
}

func (w *wire) serve(c net.Conn) {
	in := bufio.NewReader(c)
	line, host := readHead(in)
	if target, isConnect := strings.CutPrefix(line, "CONNECT "); isConnect {
		target, _, _ = strings.Cut(target, " ")
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		w.tunnel(c, target)
		return
	}
	w.reply(c, line, seen{host: host})
}

func (w *wire) tunnel(c net.Conn, target string) {
	s := seen{connect: target}
	secure := tls.Server(c, &tls.Config{NextProtos: []string{w.protocol}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.sni = hello.ServerName
		return &w.certificate, nil
	}})
	if secure.Handshake() != nil {
		return
	}
	if w.protocol == "h2" {
		w.serveHTTP2(secure, s)
		return
	}
	line, host := readHead(bufio.NewReader(secure))
	s.host = host
	w.reply(secure, line, s)
}

// serveHTTP2 answers one request frame by frame: the servers of Go refuse a path with a lone percent sign.
func (w *wire) serveHTTP2(c net.Conn, s seen) {
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil || framer.WriteSettings() != nil {
		return
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if head, isHead := frame.(*http2.MetaHeadersFrame); isHead {
			s.target, s.host = head.PseudoValue("path"), head.PseudoValue("authority")
			w.note(s)
			const status200 = "\x88" // of the static table (RFC 7541, appendix A)
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: head.StreamID, BlockFragment: []byte(status200), EndStream: true, EndHeaders: true})
		}
	}
}

func (w *wire) reply(c net.Conn, line string, s seen) {
	s.spaces = strings.Count(line, " ")
	s.target = strings.TrimSuffix(strings.TrimPrefix(line, "GET "), " HTTP/1.1")
	_, _ = io.WriteString(c, "HTTP/1.1 "+w.note(s)+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// readHead reads one request's head without a parser that might repair it.
func readHead(in *bufio.Reader) (line, host string) {
	line, _ = in.ReadString('\n')
	for {
		field, err := in.ReadString('\n')
		if err != nil || strings.TrimSpace(field) == "" {
			return strings.TrimRight(line, "\r\n"), host
		}
		if value, found := strings.CutPrefix(field, "Host: "); found {
			host = strings.TrimRight(value, "\r\n")
		}
	}
}
