package fetch

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/proxy"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// dialFunc opens a connection, as net.Dialer does.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// connectRefused is a proxy's response to CONNECT that opens no tunnel: any status but 2xx.
type connectRefused struct {
	status int
	header http.Header
}

func (e *connectRefused) Error() string { return "the proxy refused CONNECT" }

// errInner ends a direct fetch whose name resolves to an address that AllowPrivateTargets would have to permit.
var errInner = errors.New("the name leads to a private, loopback or link-local address")

// dial opens the connection to the proxy, or to the target of a direct fetch. The address of a target is checked after
// the name has been resolved, at the moment of the connection. A check before that could be evaded by a name that
// resolves to another address the second time (DNS rebinding).
func (c *conns) dial(ctx context.Context, via *url.URL, target string) (net.Conn, error) {
	if via != nil && c.proxyDial != nil {
		return c.proxyDial(ctx, "tcp", via.Host)
	}
	d := net.Dialer{KeepAlive: 30 * time.Second}
	if via != nil {
		return d.DialContext(ctx, "tcp", via.Host)
	}
	if !c.allowInner {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			host, _, err := net.SplitHostPort(address)
			if err != nil || jobs.ClassifyHost(host) != jobs.PublicAddress {
				return errInner
			}
			return nil
		}
	}
	return d.DialContext(ctx, "tcp", target)
}

// connect opens a connection to the target, through the proxy if there is one, and binds it to ctx: when ctx ends, reads
// and writes end. The error is an *openError.
func (x *exchanges) connect(ctx context.Context, rsa bool) (connLease, error) {
	c := x.run.f.conns
	nc, err := c.dial(x.withTrace(ctx, nil), x.proxy, x.target.HostPort())
	if err != nil {
		return connLease{}, x.proxyDialError(err)
	}
	b := &builder{exchanges: x, meter: &meter{Conn: nc, opening: true, reset: x.alone}, offer: offer{http1: c.http1Hosts.has(x.target), rsa: rsa}}
	release := http1.Bind(ctx, b.meter)
	cn, err := b.build(ctx, nc)
	if err == nil && cn.http2 != nil { // HTTP/2 reads all the time, and not only for this attempt
		if !release() {
			err = context.Cause(ctx)
		}
		release = func() bool { return true }
		_ = b.meter.SetDeadline(time.Time{})
	}
	if err != nil {
		release()
		_ = b.meter.Close()
		x.received += b.meter.received.Load()
		failure := &openError{error: err}
		if x.isHTTPProxy() {
			failure.otherProtocol = b.meter.classify(b.describesBody)
		}
		return connLease{}, failure
	}
	if x.target.Scheme() == "https" || !x.isHTTPProxy() {
		b.meter.opened() // else the first response is to show what the proxy speaks
	}
	return connLease{conn: cn, release: release}, nil
}

// isHTTPProxy reports whether the proxy speaks HTTP without TLS, so that its first bytes can be read.
func (x *exchanges) isHTTPProxy() bool { return x.proxy != nil && x.proxy.Scheme == "http" }

// proxyDialError marks an error as one of reaching the proxy. Without a proxy it returns the error as it is.
func (x *exchanges) proxyDialError(err error) error {
	if x.proxy == nil {
		return err
	}
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: err}
}

// builder makes a connection of HTTP out of one of TCP.
type builder struct {
	*exchanges
	meter         *meter
	offer         offer
	describesBody bool // the response to CONNECT describes a body, which no tunnel has
}

// build opens a tunnel where one is needed, and does the handshakes.
func (b *builder) build(ctx context.Context, socket net.Conn) (*conn, error) {
	nc, err := net.Conn(b.meter), error(nil)
	if b.proxy != nil && b.proxy.Scheme == "https" {
		b.addSpent(connecting) // dialling has ended: TLS with the proxy has a time of its own
		// A proxy that is offered HTTP/2 may accept it.
		if nc, err = b.secure(ctx, nc, b.proxy.Hostname(), offer{http1: true}); err != nil {
			return nil, b.proxyDialError(err)
		}
	}
	if b.proxy != nil {
		b.reachPhase(tunnelling)
	}
	switch secure := b.target.Scheme() == "https"; {
	case b.proxy != nil && strings.HasPrefix(b.proxy.Scheme, "socks"):
		err = b.socks(nc)
	case b.proxy != nil && secure:
		nc, err = b.tunnel(nc, socket)
	}
	if err != nil {
		return nil, err
	}
	cn := &conn{key: b.connKey(), meter: b.meter, ttl: b.ttl}
	if b.target.Scheme() == "https" {
		b.reachPhase(securing)
		secured, err := b.secure(ctx, nc, b.target.Hostname(), b.offer)
		if err != nil {
			return nil, err
		}
		if secured.ConnectionState().NegotiatedProtocol == "h2" {
			cn.http2, err = b.run.f.conns.openHTTP2(ctx, secured, b.target.HostPort())
			return cn, err
		}
		nc = secured
	}
	cn.http1 = http1.New(nc, socket, &b.run.f.conns.buffers)
	return cn, nil
}

// secure does a TLS handshake with the other end, the proxy or the target. name is checked against the certificate. An
// error of a handshake leaves closing to the caller.
func (b *builder) secure(ctx context.Context, nc net.Conn, name string, o offer) (*tls.Conn, error) {
	asked := false
	secured := tls.Client(nc, &tls.Config{
		RootCAs: b.run.f.conns.roots, MinVersion: tls.VersionTLS12, CipherSuites: o.suites(), NextProtos: o.protocols(), ServerName: name,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return new(tls.Certificate), nil // none, as without this function
		},
	})
	err := secured.HandshakeContext(ctx)
	if err != nil && asked {
		err = &uncertified{err}
	}
	return secured, err
}

// uncertified is the end of a handshake whose server had asked for a client certificate, which gofer has not. Up to TLS 1.2 the
// alert is then the one that also says that there is no common suite (RFC 5246, 7.4.6).
type uncertified struct{ error }

// Unwrap returns the error of the handshake.
func (e *uncertified) Unwrap() error { return e.error }

// tunnel asks an HTTP proxy for a tunnel. Any 2xx opens it (RFC 9110, 9.3.6).
func (b *builder) tunnel(nc, socket net.Conn) (net.Conn, error) {
	target := b.target.HostPort()
	c := http1.New(nc, socket, &b.run.f.conns.buffers)
	resp, err := c.Do(&http1.Request{
		Method: http.MethodConnect, Target: target, Host: target, Header: http.Header{"User-Agent": {b.run.f.cfg.UserAgent}}, ProxyAuthorization: basicAuth(b.proxy),
	}, http1.Watch{})
	if err != nil {
		return nil, err
	}
	b.describesBody = resp.Header.Get("Content-Type") != "" || resp.ContentLength > 0
	if resp.StatusCode/100 != 2 {
		_ = resp.Body.Close()
		return nil, &connectRefused{status: resp.StatusCode, header: resp.Header}
	}
	return c.Detach(), nil
}

// basicAuth is the value of Proxy-Authorization for a proxy with a user, or "".
func basicAuth(via *url.URL) string {
	if via.User == nil {
		return ""
	}
	password, _ := via.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password))
}

// socks asks a SOCKS5 proxy for a tunnel (RFC 1928). The connection's own deadline bounds it.
func (b *builder) socks(nc net.Conn) error {
	var auth *proxy.Auth
	if b.proxy.User == nil {
		nc = &unauthenticated{Conn: nc}
	}
	if user := b.proxy.User; user != nil {
		password, _ := user.Password()
		auth = &proxy.Auth{User: user.Username(), Password: password}
	}
	dialer, err := proxy.SOCKS5("tcp", b.proxy.Host, auth, dialledConn{nc})
	if err == nil {
		_, err = dialer.Dial("tcp", b.target.HostPort())
	}
	return err
}

// unauthenticated is a connection to a SOCKS5 proxy to which no credentials are offered. The library goes on with whatever method
// the proxy chooses; one that was not offered reads here as none that is acceptable (RFC 1928, 3).
type unauthenticated struct {
	net.Conn
	read int // bytes so far
}

// Read reads from the connection. The second byte of all is the method.
func (u *unauthenticated) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if at := 1 - u.read; at >= 0 && at < n && p[at] != 0 {
		p[at] = 0xff
	}
	u.read += n
	return n, err
}

// dialledConn is a dialer that returns one open connection.
type dialledConn struct{ net.Conn }

// Dial returns the connection.
func (r dialledConn) Dial(string, string) (net.Conn, error) { return r.Conn, nil }
