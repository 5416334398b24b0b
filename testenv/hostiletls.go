package testenv

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/cmd/gofer/playground"
)

// spoilTLS answers a client that begins a TLS handshake, each in another way.
func (h *Hostile) spoilTLS(c net.Conn) {
	record := func(kind byte, size int, content string) string {
		head := []byte{kind, 3, 3, 0, 0}
		binary.BigEndian.PutUint16(head[3:], uint16(size))
		return string(head) + content
	}
	const alert, handshake, data = 21, 22, 23
	switch h.handshakes.Add(1) % 12 {
	case 0: // says nothing
		h.hold(c)
	case 1:
		playground.Reset(c)
	case 2: // an orderly end, at once
	case 3:
		send(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	case 4:
		send(c, record(alert, 2, "\x02\x28")) // handshake_failure
	case 5:
		h.repeat(c, record(alert, 2, "\x01\x5a"), 1<<20, time.Millisecond) // warnings without end
	case 6:
		send(c, record(handshake, 65535, strings.Repeat("h", 65535))) // larger than a record may be
	case 7:
		send(c, record(handshake, 8, "\x02\x00\x00\x04ABCD")) // a short ServerHello
	case 8:
		send(c, record(handshake, 4, "\x0b\xff\xff\xff")) // certificates of 16 MiB
		h.repeat(c, record(handshake, 16384, strings.Repeat("c", 16384)), 32<<20, 0)
	case 9:
		h.repeat(c, record(handshake, 0, ""), 1<<20, time.Millisecond) // empty records without end
	case 10:
		send(c, record(data, 3, "abc"))
	case 11: // half a record, then nothing
		send(c, record(handshake, 1000, "\x02\x00"))
		h.hold(c)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c, 1<<20) // bytes that nobody read would make the end a reset
}
