package fetch

import (
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// maxHeaderBytes bounds the header of a response, in bytes; the text of http2Text names it.
const maxHeaderBytes = 256 << 10

// conns are the connections to proxies and, where a tunnel is needed, through them. Each belongs to one attempt
// at a time. The limits are max in all and perKey for one key. A connection that is in use is in none of the
// lists.
type conns struct {
	roots      *x509.CertPool
	http2      *http.Transport // speaks HTTP/2 on a connection that is given to it
	http1Hosts hosts           // hosts that require HTTP/1.1
	buffers    http1.Buffers
	max        int
	perKey     int
	timeout    time.Duration
	allowInner bool
	proxyDial  dialFunc // nil means the network

	mu   sync.Mutex            // guards idle, n, and the closing of stop
	idle map[connKey]*idleList // some of them may be empty
	n    int
	stop chan struct{}
	done sync.WaitGroup
}

// conn is one connection, either of HTTP/1.1 or of HTTP/2. Exactly one of http1 and http2 is set. Whoever took
// it from conns owns it until put or close.
type conn struct {
	http1 *http1.Conn
	http2 *http.ClientConn
	key   connKey
	meter *meter
	since time.Time     // when it became idle
	ttl   time.Duration // how long it may be idle; zero means as long as any
}

// isAlive reports whether an idle connection can carry another exchange. HTTP/2 notices the end of a connection by
// itself, and a server that allows no stream at present: a request would wait for it until its time is over. Nobody reads an idle
// connection of HTTP/1.1, so its socket is asked whether something has come: whatever comes unasked, an end or bytes, makes it
// unusable.
func (cn *conn) isAlive() bool {
	// A gateway closes idle connections by its own rule: a connection near its end could lose a request.
	if cn.ttl > 0 && !cn.since.IsZero() && time.Since(cn.since) > cn.ttl {
		return false
	}
	if cn.http2 != nil {
		return cn.http2.Available() > 0
	}
	return cn.http1.IsQuiet()
}

// close closes the connection without waiting for its peer.
func (cn *conn) close() {
	if cn.http2 != nil {
		_ = cn.http2.Close()
		return
	}
	// Closes the socket below TLS: Close of TLS waits up to 5 s for a peer that does not read.
	_ = cn.meter.Close()
}

// newConns starts the goroutine that closes connections that were idle for too long; close ends it.
func newConns(cfg Config) *conns {
	c := &conns{
		max: cfg.MaxIdle, perKey: cfg.IdlePerKey, timeout: cfg.IdleTimeout, allowInner: cfg.AllowPrivateTargets, proxyDial: cfg.Dial, roots: cfg.RootCAs, http2: newHTTP2(),
		idle: map[connKey]*idleList{}, stop: make(chan struct{}),
	}
	// One goroutine examines all connections; one for each would be thousands.
	c.done.Go(c.reap)
	return c
}

// connKey names what a connection can be used for: the proxy with its user, the target, and the version of HTTP. A proxy takes
// plain requests for any target on one connection, but a late response of one site, or a proxy that only copies bytes,
// would answer a request for another site. It is comparable, because it is a map key. The password is part of it, since
// gateways choose an exit by it.
type connKey struct {
	proxyScheme, proxyHost, user, password string // empty when direct
	scheme, host, port                     string
	http1Only                              bool // only HTTP/1.1 is spoken
}

// connKey names the connections that the next exchange can use.
func (x *exchanges) connKey() connKey {
	p := connKey{scheme: x.target.Scheme(), host: x.target.Hostname(), port: x.target.Port(), http1Only: x.run.f.conns.http1Hosts.has(x.target)}
	if x.proxy != nil {
		p.proxyScheme, p.proxyHost, p.user = x.proxy.Scheme, x.proxy.Host, x.proxy.User.Username()
		p.password, _ = x.proxy.User.Password()
	}
	return p
}

// pop removes and returns the youngest idle connection of a key that is alive; nil if there is none. The youngest is the
// least likely to have ended. Connections that have ended are closed on the way. It asks isAlive without the
// lock, since that is a system call.
func (c *conns) pop(key connKey) *conn {
	for {
		cn := c.take(key)
		if cn == nil || cn.isAlive() {
			return cn
		}
		cn.close()
	}
}

// idleList holds the idle connections of a key, the youngest last.
type idleList struct{ conns []*conn }

// take removes and returns the youngest idle connection of a key without examining it; nil if there is none.
func (c *conns) take(key connKey) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[key]
	if list == nil || len(list.conns) == 0 {
		return nil
	}
	last := len(list.conns) - 1
	cn := list.conns[last]
	// The slot is cleared, so that the array does not keep a closed connection in memory.
	list.conns[last] = nil
	list.conns = list.conns[:last]
	c.n--
	if last == 0 && len(c.idle) > 2*c.max { // else reap forgets the list: most connections come back at once
		delete(c.idle, key)
	}
	return cn
}

// list returns the list of a key, and makes one if there is none. The caller holds mu.
func (c *conns) list(key connKey) *idleList {
	list := c.idle[key]
	if list == nil {
		list = new(idleList)
		c.idle[key] = list
	}
	return list
}

// put makes a connection idle, or closes it when there are enough. The connection is closed after the lock is
// released: closing may block.
func (c *conns) put(cn *conn) {
	c.mu.Lock()
	full := c.n >= c.max || c.closed()
	if !full {
		list := c.list(cn.key)
		if full = len(list.conns) >= c.perKey; !full {
			cn.since = time.Now()
			if cn.http2 != nil { // nobody reads an idle connection of HTTP/1.1
				cn.meter.allow(maxIdleBytes)
			}
			list.conns = append(list.conns, cn)
			c.n++
		}
	}
	c.mu.Unlock()
	if full {
		cn.close()
	}
}

// closed reports whether close was called. The result holds while the caller holds mu. Under mu no connection
// is put after close has emptied the lists.
func (c *conns) closed() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// idleCount counts the idle connections, those included that expire examines.
func (c *conns) idleCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// reap closes the connections that have been idle for too long, until close.
func (c *conns) reap() {
	// A quarter of the timeout bounds how much too long a connection stays. NewTicker panics below one.
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

// expire closes the connections that became idle before a time, and those that have ended since. It examines them without
// the lock. Meanwhile nobody can take them, and those that become idle form lists of their own, which are joined at the
// end.
func (c *conns) expire(before time.Time) {
	c.mu.Lock()
	all := c.idle
	c.idle = map[connKey]*idleList{} // n counts all of them still
	c.mu.Unlock()
	closed := 0
	for _, list := range all {
		// The list is filtered in place: fresh never overtakes the position that is read.
		fresh := list.conns[:0]
		for _, cn := range list.conns {
			if cn.since.Before(before) || !cn.isAlive() {
				cn.close()
				closed++
				continue
			}
			fresh = append(fresh, cn)
		}
		list.conns = fresh
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n -= closed
	for key, old := range all {
		if len(old.conns) > 0 {
			list := c.list(key)
			list.conns = append(old.conns, list.conns...) // the younger connections stay at the end
		}
	}
}

// close closes all idle connections and waits for the goroutine of reap. A connection that is put back later is closed at
// once. close must be called once only.
func (c *conns) close() {
	c.mu.Lock()
	close(c.stop)
	c.mu.Unlock()
	c.done.Wait()
	// The time in the future makes every connection old.
	c.expire(time.Now().Add(time.Hour))
}
