package fetch

import (
	"context"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// connLease is a connection in use, the bytes that its meter showed before, and the function that unbinds it from the
// context: it reports false if the context ended. giveBack releases each lease exactly once.
type connLease struct {
	*conn
	before  int64
	release func() bool
}

// idle takes an idle connection for a request that may be sent twice. found is false if there is none, or if the request
// may not. The connection is bound to ctx until the lease is released. An idle connection may have been closed
// by its peer a moment ago. Then the request is sent a second time on a new one, which only an idempotent
// request survives.
func (x *exchanges) idle(ctx context.Context) (l connLease, found bool) {
	if x.run.nonIdempotent() {
		return connLease{}, false
	}
	cn := x.reusable()
	if cn == nil {
		return connLease{}, false
	}
	l = connLease{conn: cn, before: cn.meter.received.Load(), release: func() bool { return true }}
	// A connection of HTTP/2 is read by its own goroutine for several attempts, so no attempt's context may
	// close it.
	if cn.http1 != nil {
		l.release = http1.Bind(ctx, cn.meter)
	}
	return l, true
}

// giveBack counts what was received, and makes the connection idle again or closes it. A connection of HTTP/1.1 is idle
// again only if the whole response was read, because the rest would be taken for the next response. HTTP/2 keeps
// exchanges apart.
func (x *exchanges) giveBack(l connLease, reusable bool) {
	x.stall.stop()
	if x.resp != nil {
		_ = x.resp.Body.Close()
		reusable = reusable && (l.http2 != nil && !x.resp.Close || x.resp.Reusable())
	}
	// The meter counts for the connection, so an attempt's share is the difference.
	x.received += l.meter.received.Load() - l.before
	x.ended = l.meter.ended.Load()
	// release is called in any case, because it ends the goroutine that watches the context. If the context ended
	// first, the connection has a deadline in the past and cannot be used again.
	if !l.release() || !reusable {
		l.close()
		return
	}
	x.keep(l.conn)
}

// keep makes a connection idle. If the attempt is alone, its connection waits only for the next exchange of this attempt:
// each attempt through such a gateway leaves by another exit.
func (x *exchanges) keep(cn *conn) {
	if !x.alone {
		x.run.f.conns.put(cn)
		return
	}
	// An attempt has at most one such connection; another one is closed.
	x.closeKept()
	x.kept = cn
}

// reusable returns an idle connection to the target; nil if there is none.
func (x *exchanges) reusable() *conn {
	if !x.alone {
		return x.run.f.conns.pop(x.connKey())
	}
	cn := x.kept
	// A redirect to another host cannot use it. It stays kept, since a later redirect may come back.
	if cn == nil || cn.key != x.connKey() || !cn.isAlive() {
		return nil
	}
	x.kept = nil
	return cn
}

// closeKept closes the connection that waits for the attempt's next exchange, if there is one.
func (x *exchanges) closeKept() {
	if x.kept != nil {
		x.kept.close()
		x.kept = nil
	}
}
