package playground

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Mode is how a proxy behaves. It can be changed while the proxy runs. It is an int32, so that an atomic value
// holds it.
type Mode int32

// The modes.
const (
	Good         Mode = iota // does its work
	Slow                     // does it after Delay
	Refusing                 // closes every connection with a reset
	Silent                   // accepts and says nothing
	SilentAfter              // accepts the CONNECT, then says nothing
	Banned                   // answers 403 with a page of its own instead of the site's
	Unauthorized             // answers 407
	BadGateway               // answers 502
	Garbage                  // does not speak HTTP
	Cutting                  // cuts the body in its middle
)

// Proxy is a forward proxy: plain HTTP in absolute form, CONNECT, and SOCKS5 on the same port. The exported fields
// are set before Start and not changed later, except the counters.
type Proxy struct {
	// User and Password are demanded when User is not empty.
	User, Password string
	// Exit makes it a gateway: it says how the exit behaves that the credentials choose, and whether they are right. It is called
	// at each request or tunnel, by many goroutines, and User and Password are not demanded. Slow and later modes are understood.
	Exit func(user, password string) (mode Mode, ok bool)
	// Delay is that of Slow.
	Delay time.Duration
	// Resolve turns the name and port of a target into an address; nil, or "", means the target's own.
	Resolve func(hostPort string) string
	// TLS makes it a proxy that is spoken to over TLS.
	TLS *tls.Config
	// Raw makes it copy what a target sends to a plain request, byte by byte, and what the client sends afterwards. Without it
	// only valid messages pass.
	Raw bool

	// The mode is read at each connection and again at each request. The counters may be read at any time.
	mode     atomic.Int32
	Requests atomic.Int64 // plain requests and tunnels
	Conns    atomic.Int64 // connections accepted

	// Set by Start. ctx ends with Close, and closes all connections.
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// Start listens on addr ("127.0.0.1:0" for a free port) until Close.
func (p *Proxy) Start(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("start proxy: %w", err)
	}
	p.listener = l
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return nil
}

// Addr is where it listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is its proxy URL of a scheme, with the credentials it demands.
func (p *Proxy) URL(scheme string) string {
	if p.User == "" {
		return scheme + "://" + p.Addr()
	}
	return scheme + "://" + p.User + ":" + p.Password + "@" + p.Addr()
}

// Set changes how the proxy behaves from the next connection or request on. A request that is under way ends as it
// began.
func (p *Proxy) Set(m Mode) { p.mode.Store(int32(m)) }

// Close ends every connection and waits for all of it. It must follow a Start that succeeded.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.wg.Wait()
}

// accept serves each connection in a goroutine of its own, until the listener is closed.
func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.Conns.Add(1)
		p.wg.Go(func() {
			// Close of the proxy ends the connection, whatever serve waits for.
			stop := context.AfterFunc(p.ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			p.serve(c)
		})
	}
}

// serve does first what needs no request: modes that end a connection at once. Then the first byte tells SOCKS5
// from HTTP.
func (p *Proxy) serve(c net.Conn) {
	switch Mode(p.mode.Load()) {
	case Refusing:
		if tcp, ok := c.(*net.TCPConn); ok {
			// The deferred Close then sends a reset instead of the usual end.
			_ = tcp.SetLinger(0)
		}
		return
	case Silent:
		p.silence(c)
		return
	case Garbage:
		_, _ = io.WriteString(c, "+OK this is no HTTP\r\n")
		return
	}
	if p.TLS != nil {
		c = tls.Server(c, p.TLS)
		defer func() { _ = c.Close() }()
	}
	in := bufio.NewReader(c)
	if first, err := in.Peek(1); err != nil {
		return
	} else if first[0] == 5 {
		p.socks(c, in)
		return
	}
	// Plain requests may follow each other on one connection; a tunnel is the last.
	for p.http(c, in) {
	}
}

// silence reads until the peer goes. So a client that gives up frees the goroutine.
func (p *Proxy) silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// http serves one request and reports whether another one may follow. It reads from in and writes to c: both are
// the connection to the client.
func (p *Proxy) http(c net.Conn, in *bufio.Reader) bool {
	// A client that has closed its connection ends it here.
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	// Counted before it is answered, also if it is refused.
	p.Requests.Add(1)
	mode, ok := p.admit(credentials(req.Header.Get("Proxy-Authorization")))
	switch {
	case mode == Unauthorized || !ok:
		return answer(c, req, http.StatusProxyAuthRequired, "credentials wanted\n")
	// Modes that answer instead of the target come first, then those that only delay or break off.
	case mode == BadGateway:
		return answer(c, req, http.StatusBadGateway, "the proxy cannot reach the target\n")
	case mode == Banned:
		return answer(c, req, http.StatusForbidden, "Access denied: your address has been banned.\n")
	// Only an Exit refuses here: a mode of the whole proxy has refused before the request was read.
	case mode == Refusing:
		Reset(c)
		return false
	case mode == Silent:
		p.silence(c)
		return false
	case mode == Slow:
		p.pause()
	}
	if req.Method == http.MethodConnect {
		p.tunnel(c, in, req.Host, mode, "HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return false
	}
	return p.forward(c, in, req, mode)
}

// pause waits for Delay, or until the proxy is closed.
func (p *Proxy) pause() {
	t := time.NewTimer(p.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// admit says how the proxy behaves towards a user, and whether it takes the user. An Exit decides both, a proxy
// without one knows a single user.
func (p *Proxy) admit(user, password string) (m Mode, ok bool) {
	if p.Exit != nil {
		return p.Exit(user, password)
	}
	return Mode(p.mode.Load()), p.User == "" || user == p.User && password == p.Password
}

// credentials are those of a Proxy-Authorization header; empty if there are none. Other schemes than Basic count as
// none.
func credentials(header string) (user, password string) {
	encoded, isBasic := strings.CutPrefix(header, "Basic ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if !isBasic || err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(string(text), ":")
	return user, password
}

// answer sends a response of the proxy itself, and reports whether the connection can be used again. The request's
// body is read first, since the next request follows it.
func answer(c net.Conn, req *http.Request, status int, text string) bool {
	_, _ = io.Copy(io.Discard, req.Body)
	resp := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: req}
	if req.Method == http.MethodConnect {
		resp.Request = nil
	}
	return resp.Write(c) == nil
}

// forward does one plain request on a connection of its own to the target. It reports whether another request may
// follow on c.
func (p *Proxy) forward(c net.Conn, in io.Reader, req *http.Request, mode Mode) bool {
	up, err := p.dial(hostPort(req.URL.Host, "80"))
	if err != nil {
		return answer(c, req, http.StatusBadGateway, "the target cannot be reached\n")
	}
	defer func() { _ = up.Close() }()
	// The credentials are the proxy's and must not reach the target.
	req.Header.Del("Proxy-Authorization")
	if err := req.Write(up); err != nil {
		return false
	}
	if p.Raw {
		p.join(c, in, up)
		return false
	}
	// A target that speaks no HTTP is the target's fault, and the response says so.
	resp, err := http.ReadResponse(bufio.NewReader(up), req)
	if err != nil {
		return answer(c, req, http.StatusBadGateway, "the target answered badly\n")
	}
	defer func() { _ = resp.Body.Close() }()
	if mode == Cutting {
		// It promises more than it sends, so the client notices that the body is cut.
		resp.ContentLength = -1
		resp.TransferEncoding = nil
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nonly this")
		return false
	}
	return resp.Write(c) == nil && !resp.Close
}

// tunnel joins c with the target after it has said yes to the client, or says no. yes and no are those of the
// protocol in which the client has asked.
func (p *Proxy) tunnel(c net.Conn, in io.Reader, target string, mode Mode, yes, no string) {
	if mode == SilentAfter {
		_, _ = io.WriteString(c, yes)
		p.silence(c)
		return
	}
	up, err := p.dial(target)
	if err != nil {
		_, _ = io.WriteString(c, no)
		return
	}
	defer func() { _ = up.Close() }()
	if _, err := io.WriteString(c, yes); err != nil {
		return
	}
	p.join(c, in, up)
}

// join copies bytes both ways until one side ends. It returns when both directions have ended. in may hold bytes of
// c that were read in advance.
func (p *Proxy) join(c net.Conn, in io.Reader, up net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, in)
		_ = up.Close()
	})
	relay(c, up)
	wg.Wait()
}

// dial connects to a target, at the address that Resolve gives. The connection also ends with the proxy.
func (p *Proxy) dial(target string) (net.Conn, error) {
	if p.Resolve != nil {
		if addr := p.Resolve(target); addr != "" {
			target = addr
		}
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(p.ctx, "tcp", target)
	if err == nil {
		context.AfterFunc(p.ctx, func() { _ = c.Close() })
	}
	return c, err
}

// hostPort adds the default port to a host without one. The brackets of an IPv6 address are put on by JoinHostPort.
func hostPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// Reset closes a connection with a reset instead of an orderly end. Tests use it, too.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// relay copies bytes, and passes a reset on as one. Otherwise a client would take a broken response for a complete
// one.
func relay(to, from net.Conn) {
	if _, err := io.Copy(to, from); errors.Is(err, syscall.ECONNRESET) {
		Reset(to)
	}
	_ = to.Close()
}
