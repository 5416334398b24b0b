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

// Mode is how a proxy behaves. It can be changed while the proxy runs.
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

// Proxy is a forward proxy: plain HTTP in absolute form, CONNECT, and SOCKS5 on the same port.
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

	mode     atomic.Int32
	Requests atomic.Int64 // plain requests and tunnels
	Conns    atomic.Int64 // connections accepted

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

// Set changes how the proxy behaves from the next connection or request on.
func (p *Proxy) Set(m Mode) { p.mode.Store(int32(m)) }

// Close ends every connection and waits for all of it.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.Conns.Add(1)
		p.wg.Go(func() {
			stop := context.AfterFunc(p.ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			p.serve(c)
		})
	}
}

func (p *Proxy) serve(c net.Conn) {
	switch Mode(p.mode.Load()) {
	case Refusing:
		if tcp, ok := c.(*net.TCPConn); ok {
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
	for p.http(c, in) {
	}
}

// silence reads until the peer goes.
func (p *Proxy) silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// http serves one request and reports whether another one may follow.
func (p *Proxy) http(c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	p.Requests.Add(1)
	mode, ok := p.admit(credentials(req.Header.Get("Proxy-Authorization")))
	switch {
	case mode == Unauthorized || !ok:
		return answer(c, req, http.StatusProxyAuthRequired, "credentials wanted\n")
	case mode == BadGateway:
		return answer(c, req, http.StatusBadGateway, "the proxy cannot reach the target\n")
	case mode == Banned:
		return answer(c, req, http.StatusForbidden, "Access denied: your address has been banned.\n")
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

func (p *Proxy) pause() {
	t := time.NewTimer(p.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// admit says how the proxy behaves towards a user, and whether it takes the user.
func (p *Proxy) admit(user, password string) (m Mode, ok bool) {
	if p.Exit != nil {
		return p.Exit(user, password)
	}
	return Mode(p.mode.Load()), p.User == "" || user == p.User && password == p.Password
}

// credentials are those of a Proxy-Authorization header; empty if there are none.
func credentials(header string) (user, password string) {
	encoded, isBasic := strings.CutPrefix(header, "Basic ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if !isBasic || err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(string(text), ":")
	return user, password
}

func answer(c net.Conn, req *http.Request, status int, text string) bool {
	_, _ = io.Copy(io.Discard, req.Body)
	resp := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: req}
	if req.Method == http.MethodConnect {
		resp.Request = nil
	}
	return resp.Write(c) == nil
}

// forward does one plain request on a connection of its own to the target.
func (p *Proxy) forward(c net.Conn, in io.Reader, req *http.Request, mode Mode) bool {
	up, err := p.dial(hostPort(req.URL.Host, "80"))
	if err != nil {
		return answer(c, req, http.StatusBadGateway, "the target cannot be reached\n")
	}
	defer func() { _ = up.Close() }()
	req.Header.Del("Proxy-Authorization")
	if err := req.Write(up); err != nil {
		return false
	}
	if p.Raw {
		p.join(c, in, up)
		return false
	}
	resp, err := http.ReadResponse(bufio.NewReader(up), req)
	if err != nil {
		return answer(c, req, http.StatusBadGateway, "the target answered badly\n")
	}
	defer func() { _ = resp.Body.Close() }()
	if mode == Cutting {
		resp.ContentLength = -1
		resp.TransferEncoding = nil
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nonly this")
		return false
	}
	return resp.Write(c) == nil && !resp.Close
}

// tunnel joins c with the target after it has said yes to the client, or says no.
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

// join copies bytes both ways until one side ends.
func (p *Proxy) join(c net.Conn, in io.Reader, up net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, in)
		_ = up.Close()
	})
	relay(c, up)
	wg.Wait()
}

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

func hostPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// Reset closes a connection with a reset instead of an orderly end.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// relay copies bytes, and passes a reset on as one.
func relay(to, from net.Conn) {
	if _, err := io.Copy(to, from); errors.Is(err, syscall.ECONNRESET) {
		Reset(to)
	}
	_ = to.Close()
}
