package admin

import (
	"container/list"
	"net"
	"sync"
)

// Limit bounds the connections of a listener to limit, so that clients of the HTTP port cannot use up the descriptors that jobs
// need. Accept never waits for room: beyond the bound, the connection that has had no request for longest is closed for the new
// one; if all others have a request, the new one is closed. Serve it with a server of NewServer, which reports the requests.
// Closing the result closes l. limit must be above zero.
func Limit(l net.Listener, limit int) net.Listener {
	return &limited{Listener: l, limit: limit}
}

// limited is a listener with a bound.
type limited struct {
	net.Listener
	limit int

	mu    sync.Mutex // guards the fields below
	idle  list.List  // of *limitedConn without a request, the longest idle one in front
	conns int        // idle or not
}

// Accept returns the next connection for which there is room. It makes room by closing an idle connection, or closes the
// new one.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: conn, limit: l}
		surplus := l.add(c)
		if surplus == nil {
			return c, nil
		}
		// The connection is closed outside of the lock: a close may block, and setBusy of another one must not
		// wait for it.
		_ = surplus.Conn.Close()
		// If the new one was closed itself, the loop goes on with the next connection. An http.Server would
		// take an error of Accept for the listener's end.
		if surplus != c {
			return c, nil
		}
	}
}

// add counts a connection and returns the one to close for it, which is no longer counted.
func (l *limited) add(c *limitedConn) (surplus *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= l.limit {
		front := l.idle.Front()
		// All others have a request, and an answer must not be cut for a new connection.
		if front == nil {
			return c
		}
		surplus = front.Value.(*limitedConn)
		l.drop(surplus)
	}
	l.conns++
	// A new connection counts as idle until its first request: connections that send nothing are closed first.
	c.place = l.idle.PushBack(c)
	return surplus
}

// drop stops counting a connection. The caller holds the lock.
func (l *limited) drop(c *limitedConn) {
	if c.place != nil {
		l.idle.Remove(c.place)
		c.place = nil
	}
	// Close will be called for it later, and must not count it twice.
	c.dropped = true
	l.conns--
}

// limitedConn is a connection of a limited listener, whose lock guards the fields.
type limitedConn struct {
	net.Conn
	limit   *limited
	place   *list.Element // among the idle ones; nil while a request runs
	dropped bool          // it is no longer counted
}

// setBusy records that a request begins on the connection, or that it has ended. A connection that was dropped is ignored.
func (c *limitedConn) setBusy(busy bool) {
	c.limit.mu.Lock()
	defer c.limit.mu.Unlock()
	switch {
	// The connection was closed for another one while its request began. The request fails without further action.
	case c.dropped:
	case busy && c.place != nil:
		c.limit.idle.Remove(c.place)
		c.place = nil
	case !busy && c.place == nil:
		c.place = c.limit.idle.PushBack(c)
	}
}

// Close closes the connection and makes room for another. It may be called more than once, as net.Conn allows.
func (c *limitedConn) Close() error {
	c.limit.mu.Lock()
	if !c.dropped {
		c.limit.drop(c)
	}
	c.limit.mu.Unlock()
	return c.Conn.Close()
}

// SetWriteBuffer sets the write buffer of a TCP connection; other connections are left as they are. live needs it
// through net/http, which hands out the connection of this package only.
func (c *limitedConn) SetWriteBuffer(bytes int) error {
	if conn, ok := c.Conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		return conn.SetWriteBuffer(bytes)
	}
	return nil
}
