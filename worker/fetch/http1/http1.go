// Package http1 does one HTTP/1.1 exchange at a time on a connection that its caller owns.
//
// It starts a goroutine only to write a large request body. It makes no connection, sends no request twice and follows no
// redirect. It is as lenient as curl and browsers about the head of a response where that is
// harmless, and stricter than both about where a message ends: a connection that leaves any doubt is not used again.
//
// The head is read here and not by http.ReadResponse, which refuses responses that every browser reads, does not report what it
// repairs, and keeps neither the order nor the spelling of the fields. What http.ReadResponse accepts gives the same
// status, fields and body here; a fuzz test holds the two against each other.
package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// Error is what is wrong with a response, in words that hold no byte of it.
type Error string

// Error is the text of the constant.
func (e Error) Error() string { return string(e) }

// The errors of this package. Those of the connection are returned as they are.
const (
	ErrNotHTTP      Error = "it is not HTTP"
	ErrTLS          Error = "it is TLS, not HTTP"
	ErrStatus       Error = "malformed status"
	ErrHead         Error = "malformed header"
	ErrHeadTooLarge Error = "headers larger than 256 KiB"
	ErrLengths      Error = "more than one length"
	ErrLength       Error = "malformed length"
	ErrCoding       Error = "unknown transfer coding"
	ErrChunks       Error = "malformed chunks"
	// ErrNoAnswer comes with a response whose status is below 100, or 101 although nobody asked for it.
	ErrNoAnswer Error = "the status is that of no answer"
	// ErrEnded means that a reused connection closed before any byte of the response came. The server may not have seen the
	// request.
	ErrEnded Error = "the connection ended before an answer"
)

// Bounds against a server that sends heads without end.
const (
	maxHead     = 256 << 10 // of all heads of one exchange together, informational ones included
	maxFields   = 5000      // of one head, as many as curl reads: a field takes more memory than it has bytes
	readerBytes = 4 << 10
)

// Buffers are what exchanges read into and write from. The zero value is ready; it may be shared. An idle connection holds none.
type Buffers struct{ readers, bytes sync.Pool }

// reader returns a buffered reader of a connection; putReader takes it back.
func (b *Buffers) reader(from io.Reader) *bufio.Reader {
	if r, ok := b.readers.Get().(*bufio.Reader); ok {
		r.Reset(from)
		// Resetting keeps the buffer and drops what another connection left in it.
		return r
	}
	return bufio.NewReaderSize(from, readerBytes)
}

// putReader takes a reader back, and lets go of its connection. A reader that kept its connection would keep it in
// memory.
func (b *Buffers) putReader(r *bufio.Reader) {
	r.Reset(nil)
	b.readers.Put(r)
}

// take returns an empty buffer; put returns it to the pool. It is a pointer, because a slice would be allocated
// again by put.
func (b *Buffers) take() *[]byte {
	if p, ok := b.bytes.Get().(*[]byte); ok {
		return p
	}
	return new([]byte)
}

// put takes a buffer back. Nobody may use its bytes afterwards.
func (b *Buffers) put(p *[]byte) {
	// A buffer that grew for a rare head would keep that memory.
	if cap(*p) > maxHead {
		return // a rare one, not worth its memory
	}
	*p = (*p)[:0]
	b.bytes.Put(p)
}

// Bind makes reads and writes of a connection end when ctx does, and removes an earlier deadline. Release undoes that. If it
// reports false, ctx has ended: close the connection.
func Bind(ctx context.Context, conn net.Conn) (release func() bool) {
	// The timer of ctx is enough: a deadline of the connection would be two more for each exchange.
	_ = conn.SetDeadline(time.Time{})
	// AfterFunc costs no goroutine while ctx lives. A deadline in the past ends what is under way.
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past()) })
}

// past is a deadline that has passed. Not the zero time, which means no deadline.
func past() time.Time { return time.Unix(1, 0) }

// Conn is a connection to a server or to a proxy. It is used by one goroutine at a time. Its caller binds it to a context,
// and closes it after an error.
type Conn struct {
	net.Conn                 // carries the HTTP bytes: a *tls.Conn, if there is TLS
	control  syscall.RawConn // of the socket below it; nil if there is none
	buffers  *Buffers
	// used is set by the first exchange: then the server may have closed the connection while it was idle.
	used bool

	// Of the exchange under way:
	in      *bufio.Reader
	writing chan error // receives the result of writing a large body; nil if none is being written
}

// New makes a Conn of a connection on which nothing is buffered. socket is what lies below conn, or conn itself.
func New(conn, socket net.Conn, buffers *Buffers) *Conn {
	c := &Conn{Conn: conn, buffers: buffers}
	if s, ok := socket.(syscall.Conn); ok {
		c.control, _ = s.SyscallConn() // none of a socket that is closed
	}
	return c
}

// Watch has functions that report how far an exchange has come. Nil functions are not called.
type Watch struct {
	// Sent is called when the last byte of the request has been written, perhaps by another goroutine than that of Do.
	Sent func()
	// FirstByte is called when the first byte of a response has come, also of an informational one.
	FirstByte func()
	// Informational is called when a response with a status of 1xx has come. The final one has not begun then.
	Informational func()
}

// sent calls Sent, if it is set; informational and firstByte do so for the other two.
func (w Watch) sent() {
	if w.Sent != nil {
		w.Sent()
	}
}

func (w Watch) informational() {
	if w.Informational != nil {
		w.Informational()
	}
}

func (w Watch) firstByte() {
	if w.FirstByte != nil {
		w.FirstByte()
	}
}

// Do sends a request and reads the head of its response. The caller reads the body, and closes it before the next exchange.
// After an error there is nothing to close but the connection; only with ErrNoAnswer there is a response too, without a body.
func (c *Conn) Do(req *Request, watch Watch) (*Response, error) {
	// Only a connection that was used before may have been closed by its server meanwhile. ErrEnded is only for
	// such a connection, because only then may the request be sent again.
	kept := c.used
	c.used = true
	c.in = c.buffers.reader(c.Conn)
	resp, err := c.exchange(req, watch, kept)
	if err != nil {
		c.finish()
	}
	return resp, err
}

// exchange sends and receives. A server may respond and close before it has read all of the request, so an error of sending
// counts only if no response comes.
func (c *Conn) exchange(req *Request, watch Watch, kept bool) (*Response, error) {
	sendErr := c.send(req, watch)
	// Time is over, so no response is waited for.
	if errors.Is(sendErr, os.ErrDeadlineExceeded) {
		return nil, sendErr
	}
	// A server may answer and close before it has read the request.
	if _, err := c.in.Peek(1); err != nil {
		err = c.cause(sendErr, err)
		if kept && !errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w: %w", ErrEnded, err)
		}
		return nil, err
	}
	resp, err := c.receive(req, watch, sendErr)
	if err != nil && sendErr != nil {
		return nil, sendErr
	}
	return resp, err
}

// cause is why no response came: sending failed earlier than reading did, if it failed. Both errors mostly have the
// same origin; the one of sending is earlier.
func (c *Conn) cause(sendErr, readErr error) error {
	// The background write may have failed before the read did, and tells more.
	if sendErr == nil && c.writing != nil {
		select {
		case sendErr = <-c.writing:
			c.writing = nil
		default:
		}
	}
	if sendErr != nil {
		return sendErr
	}
	return readErr
}

// receive reads heads up to that of the final response. maxHead ends an endless series of informational responses. Their number
// has no bound of its own: a server may say every few seconds that it is still at work (RFC 2518, 10.1).
func (c *Conn) receive(req *Request, watch Watch, sendErr error) (*Response, error) {
	// An error of sending leaves it open how much the server has read.
	left, ambiguous := maxHead, sendErr != nil
	for {
		if _, err := c.in.Peek(1); err == nil { // readHead reports an error
			watch.firstByte()
		}
		h, err := c.readHead(&left)
		if err != nil {
			return nil, err
		}
		ambiguous = ambiguous || h.ambiguous
		switch {
		case h.status >= 100 && h.status < 200 && h.status != http.StatusSwitchingProtocols && req.Method != http.MethodConnect:
			// It has no body, whatever it says (RFC 9110, 15.2).
			ambiguous = ambiguous || len(h.lengths)+len(h.codings) > 0
		case h.status < 200 && req.Method != http.MethodConnect:
			return h.response(nil), ErrNoAnswer
		default:
			return c.response(req, h, ambiguous)
		}
		watch.informational()
	}
}

// finish ends an exchange, and reports whether the whole request was sent and nothing lies behind the response. A
// second call does nothing and returns false.
func (c *Conn) finish() bool {
	if c.in == nil {
		return false
	}
	// Bytes behind the response belong to no request.
	clean := c.in.Buffered() == 0
	c.buffers.putReader(c.in)
	c.in = nil
	return c.join() && clean
}

// Detach ends an exchange that opened a tunnel, and returns the connection within it. What came behind the response belongs
// to the tunnel (RFC 9110, 9.3.6). The Conn must not be used afterwards.
func (c *Conn) Detach() net.Conn {
	early := make([]byte, c.in.Buffered())
	// The bytes are in the buffer, so the read does not block.
	_, _ = io.ReadFull(c.in, early)
	c.finish()
	if len(early) == 0 {
		return c.Conn
	}
	return &tunnel{Conn: c.Conn, early: early}
}

// tunnel is a connection of which something was read before.
type tunnel struct {
	net.Conn
	early []byte
}

// Read reads what was read before, and then from the connection. Early bytes are returned alone, so that Read never
// blocks while it has some.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) == 0 {
		return t.Conn.Read(p)
	}
	n := copy(p, t.early)
	t.early = t.early[n:]
	return n, nil
}
