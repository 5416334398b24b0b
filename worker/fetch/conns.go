package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	maxHeaderBytes = 256 << 10
	userAgent      = "gofer"
)

// conns are the connections to proxies and, where a tunnel is needed, through them. Each belongs to one attempt at a time.
// They come from Transports by NewClientConn, whose deadline is the attempt's from the first dial on: a proxy that says
// nothing cannot outlive it, which Transport.RoundTrip would allow (a minute for CONNECT, for ever with SOCKS).
type conns struct {
	transports map[offer]*http.Transport
	oldHosts   hosts // of which HTTP/1.1 is to be spoken
	max        int
	perKey     int
	timeout    time.Duration
	allowInner bool
	proxyDial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil means the network

	mu   sync.Mutex
	idle map[string][]*conn
	n    int
	stop chan struct{}
	done sync.WaitGroup
}

// conn is one connection.
type conn struct {
	*http.ClientConn
	key   string
	meter *meter
	since time.Time // when it became idle
}

func newConns(cfg Config) *conns {
	c := &conns{max: cfg.MaxIdle, perKey: cfg.IdlePerKey, timeout: cfg.IdleTimeout, allowInner: cfg.AllowPrivateTargets, proxyDial: cfg.Dial, idle: map[string][]*conn{}, transports: map[offer]*http.Transport{}, stop: make(chan struct{})}
	for _, o := range []offer{{}, {http1: true}, {rsa: true}, {http1: true, rsa: true}} {
		c.transports[o] = c.newTransport(cfg, o)
	}
	c.done.Go(c.reap)
	return c
}

// newTransport makes a Transport for one offer.
func (c *conns) newTransport(cfg Config, o offer) *http.Transport {
	t := &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return routeOf(r.Context()).proxy, nil },
		DialContext:            c.dial,
		DialTLSContext:         c.dialTLS,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12, CipherSuites: o.suites()},
		ForceAttemptHTTP2:      !o.http1,
		Protocols:              o.protocols(),
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ProxyConnectHeader:     http.Header{"User-Agent": {userAgent}},
		OnProxyConnectResponse: func(ctx context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			routeOf(ctx).typed = resp.Header.Get("Content-Type") != "" || resp.ContentLength > 0
			if resp.StatusCode/100 == 2 { // RFC 9110, 9.3.6; net/http wants the first of them
				resp.StatusCode = http.StatusOK
				return nil
			}
			return &connectRefused{status: resp.StatusCode, header: resp.Header}
		},
	}
	return t
}

// connectRefused is a proxy's answer to CONNECT that opens no tunnel. net/http alone would keep only its text.
type connectRefused struct {
	status int
	header http.Header
}

func (e *connectRefused) Error() string { return "the proxy refused CONNECT" }

// route is what a dial has to know.
type route struct {
	proxy *url.URL // nil when direct
	tls   *tls.Config
	meter *meter
	typed bool // the answer to CONNECT describes a body, which no tunnel has
}

type routeKey struct{}

func routeOf(ctx context.Context) *route {
	r, _ := ctx.Value(routeKey{}).(*route)
	if r == nil {
		// No dial of ours is without one; this proxy leads nowhere.
		return &route{proxy: &url.URL{Scheme: "http", Host: "127.0.0.1:0"}}
	}
	return r
}

// dial opens the connection to the proxy, or to the target of a direct fetch. Only of the latter the address is checked: it
// is then known to what the name leads, whatever it led to before.
func (c *conns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r := routeOf(ctx)
	nc, err := c.reach(ctx, r, network, addr)
	if err != nil {
		return nil, err
	}
	r.meter = &meter{Conn: nc, opening: true}
	return r.meter, nil
}

func (c *conns) reach(ctx context.Context, r *route, network, addr string) (net.Conn, error) {
	if r.proxy != nil && c.proxyDial != nil {
		nc, err := c.proxyDial(ctx, network, addr)
		if trace := httptrace.ContextClientTrace(ctx); trace != nil {
			trace.ConnectDone(network, addr, err) // as net.Dialer does
		}
		return nc, err
	}
	d := net.Dialer{KeepAlive: 30 * time.Second}
	if r.proxy == nil && !c.allowInner {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			host, _, err := net.SplitHostPort(address)
			if err != nil || jobs.ClassifyHost(host) != jobs.PublicAddress {
				return errInner
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, addr)
}

var errInner = errors.New("the name leads to a private, loopback or link-local address")

// dialTLS is dial and the handshake with whom it reached. net/http would offer HTTP/2 to a proxy too, which a proxy that
// speaks it accepts, and then send it a CONNECT of HTTP/1.1.
func (c *conns) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := c.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := routeOf(ctx).tls.Clone()
	config.ServerName, _, _ = net.SplitHostPort(addr)
	if routeOf(ctx).proxy != nil {
		config.NextProtos, config.CipherSuites = []string{"http/1.1"}, nil
	}
	secured := tls.Client(nc, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return secured, nil
}

// open makes a connection to u through proxy. received is what came in before it failed.
func (c *conns) open(ctx context.Context, proxy *url.URL, u jobs.URL, rsa bool) (cn *conn, received int64, err error) {
	t := c.transports[offer{http1: c.oldHosts.has(u.HostPort()), rsa: rsa}]
	r := &route{proxy: proxy, tls: t.TLSClientConfig}
	cc, err := t.NewClientConn(context.WithValue(ctx, routeKey{}, r), u.Scheme(), u.HostPort())
	switch {
	case err == nil:
		if u.Scheme() == "https" || proxy == nil || proxy.Scheme != "http" {
			r.meter.opened() // else the first answer is to show what the proxy speaks
		}
		return &conn{ClientConn: cc, key: c.key(proxy, u), meter: r.meter}, 0, nil
	case r.meter != nil:
		failure := &openError{error: err}
		if proxy != nil && proxy.Scheme == "http" {
			failure.heard = r.meter.classify(r.typed)
		}
		return nil, r.meter.received.Load(), failure
	}
	return nil, 0, err
}

// key names what a connection can be used for: the proxy with its user, the target, and the version of HTTP. A proxy takes
// plain requests for any target on one connection, but what one site sends late, or a proxy that only copies bytes, would
// answer for another.
func (c *conns) key(proxy *url.URL, u jobs.URL) string {
	target := u.Scheme() + "://" + u.HostPort()
	if c.oldHosts.has(u.HostPort()) {
		target += " HTTP/1.1"
	}
	if proxy == nil {
		return target
	}
	return proxy.String() + " " + target
}

// pop is the youngest idle connection of that key that still stands.
func (c *conns) pop(key string) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[key]
	for len(list) > 0 {
		cn := list[len(list)-1]
		list = list[:len(list)-1]
		c.n--
		if cn.Err() == nil {
			c.keep(key, list)
			return cn
		}
	}
	c.keep(key, list)
	return nil
}

func (c *conns) keep(key string, list []*conn) {
	if len(list) == 0 {
		delete(c.idle, key)
		return
	}
	c.idle[key] = list
}

// put makes a connection idle, or closes it when there are enough.
func (c *conns) put(cn *conn) {
	c.mu.Lock()
	full := c.n >= c.max || len(c.idle[cn.key]) >= c.perKey || c.closed()
	if !full {
		cn.since = time.Now()
		c.idle[cn.key] = append(c.idle[cn.key], cn)
		c.n++
	}
	c.mu.Unlock()
	if full {
		_ = cn.Close()
	}
}

func (c *conns) closed() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *conns) idleCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// reap closes the connections that have been idle for too long, until close.
func (c *conns) reap() {
	tick := time.NewTicker(max(c.timeout/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case now := <-tick.C:
			c.expire(now.Add(-c.timeout))
		}
	}
}

// expire closes the connections that became idle before a time.
func (c *conns) expire(before time.Time) {
	var old []*conn
	c.mu.Lock()
	for key, list := range c.idle {
		fresh := list[:0]
		for _, cn := range list {
			if cn.since.Before(before) || cn.Err() != nil {
				old = append(old, cn)
				continue
			}
			fresh = append(fresh, cn)
		}
		c.n -= len(list) - len(fresh)
		c.keep(key, fresh)
	}
	c.mu.Unlock()
	for _, cn := range old {
		_ = cn.Close()
	}
}

func (c *conns) close() {
	c.mu.Lock()
	close(c.stop)
	c.mu.Unlock()
	c.done.Wait()
	c.expire(time.Now().Add(time.Hour))
}
