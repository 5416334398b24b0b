package http1

import (
	"crypto/tls"
	"errors"
	"os"
	"syscall"
	"time"
)

// quietWait is how long TLS may take to decode bytes that have already arrived.
const quietWait = time.Millisecond

// IsQuiet reports whether an idle connection still stands and nothing has come on it: bytes that came before a
// request are not its response. Control messages of TLS, such as a late session ticket, do not count. It changes the deadline of
// the connection. On a socket that is no syscall.Conn it knows only what has been read.
func (c *Conn) IsQuiet() bool {
	_, secure := c.Conn.(*tls.Conn)
	if secure && !c.readsNothing(past()) { // what TLS has read already
		return false
	}
	switch waiting := c.hasInput(); {
	case !waiting:
		return true
	case !secure:
		return false
	}
	return c.readsNothing(time.Now().Add(quietWait))
}

// readsNothing reports whether nothing can be read until a deadline.
func (c *Conn) readsNothing(deadline time.Time) bool {
	var one [1]byte
	_ = c.SetReadDeadline(deadline)
	// A byte that was read is lost, but then the connection is not used again.
	n, err := c.Read(one[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// hasInput reports whether the socket has something to read, be it the end or an error. It takes nothing away.
func (c *Conn) hasInput() (waiting bool) {
	if c.control == nil {
		return false
	}
	var one [1]byte
	err := c.control.Control(func(fd uintptr) {
		// MSG_PEEK leaves the byte where it is, and MSG_DONTWAIT returns at once.
		_, _, peekErr := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waiting = !errors.Is(peekErr, syscall.EAGAIN)
	})
	return waiting || err != nil
}
