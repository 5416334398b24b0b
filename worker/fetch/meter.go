package fetch

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// maxIdleBytes is how much may come on a connection while it is idle. HTTP/2 reads and answers frames all the time, for nobody's
// use and in nobody's time.
const maxIdleBytes = 64 << 10

// errFlooded ends a connection on which more comes than it is allowed.
var errFlooded = errors.New("more than any answer needs")

// maxFirstBytes is how much is kept of what a proxy sends before its tunnel is open.
const maxFirstBytes = 4 << 10

// meter counts what is received on a connection, and keeps the beginning while the connection is being opened.
type meter struct {
	net.Conn
	reset    bool // Close resets the connection
	received atomic.Int64
	ended    atomic.Bool  // the other end closed it, or it broke
	limit    atomic.Int64 // of received; zero means none

	mu      sync.Mutex // guards opening and first
	opening bool
	first   []byte
}

// Read counts the bytes and notes whether the other end closed the connection. Errors that gofer causes itself, by
// closing the connection or by a deadline, are not noted.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.received.Add(int64(n)); n > 0 {
		m.keep(p[:n])
	}
	if limit := m.limit.Load(); limit > 0 && m.received.Load() > limit {
		return 0, errFlooded
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		m.ended.Store(true)
	}
	return n, err
}

// Close closes the connection. With reset set it sends RST instead of FIN: gateways without sessions need a connection
// for each attempt, the side that closes first keeps its port for a minute (RFC 9293, 3.6.1), and Linux has no more than
// 28,000 ports for one address.
func (m *meter) Close() error {
	if socket, ok := m.Conn.(interface{ SetLinger(seconds int) error }); ok && m.reset {
		_ = socket.SetLinger(0)
	}
	return m.Conn.Close()
}

// allow bounds what may come from now on.
func (m *meter) allow(bytes int64) { m.limit.Store(m.received.Load() + bytes) }

// keep keeps the first bytes that arrive, maxFirstBytes at most, while the connection is being opened. classify reads
// them later.
func (m *meter) keep(p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opening {
		m.first = append(m.first, p[:min(len(p), maxFirstBytes-len(m.first))]...)
	}
}

// opened drops the first bytes: the connection is open, and they are no longer needed.
func (m *meter) opened() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opening, m.first = false, nil
}

// otherProtocol is what a peer sent in place of what it was asked for.
type otherProtocol uint8

const (
	otherUnknown otherProtocol = iota // neither of the others
	otherTLS                          // where HTTP was spoken
	otherPage                         // text behind a CONNECT that was agreed to
)

// classify examines the first bytes from a proxy of plain HTTP. typed says that its response to CONNECT describes a
// body, as an error page does. Without that, bytes that are no TLS may also be the target's.
func (m *meter) classify(typed bool) otherProtocol {
	m.mu.Lock()
	defer m.mu.Unlock()
	if isTLSRecord(m.first) {
		return otherTLS
	}
	head, rest, found := bytes.Cut(m.first, []byte("\r\n\r\n"))
	if typed && found && beginsHTTP(head) && len(rest) > 0 && !isTLSRecord(rest) && !beginsHTTP(rest) {
		return otherPage
	}
	return otherUnknown
}

// beginsHTTP reports whether bytes begin as a status line does, in any case: package http1 accepts each.
func beginsHTTP(b []byte) bool { return len(b) >= 5 && bytes.EqualFold(b[:5], []byte("HTTP/")) }

// isTLSRecord reports whether bytes begin as an alert or a handshake does (RFC 8446, 5.1).
func isTLSRecord(b []byte) bool { return len(b) >= 2 && (b[0] == 21 || b[0] == 22) && b[1] == 3 }

// openError is why no connection could be opened, and what came instead.
type openError struct {
	error
	otherProtocol otherProtocol
}

// Unwrap returns the cause.
func (e *openError) Unwrap() error { return e.error }
