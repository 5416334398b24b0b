package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// The error codes of HTTP/2 (RFC 9113, 7) that a client can obey.
const (
	refusedStream  = 0x7 // the request was not processed
	http11Required = 0xd
)

// maxHTTP2Overhead is how much may come during an exchange of HTTP/2 besides four times its largest body: heads, and frames that
// carry nothing. net/http reads any number of those, and a metered proxy bills them. HTTP/1.1 has bounds of its own.
const maxHTTP2Overhead = 4 << 20

// http2Codes returns the names of the codes; the index is the code (RFC 9113, 7).
func http2Codes() []string {
	return []string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
		"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
}

// http2Name returns the name of a code in RFC 9113, or the number of an unknown one. It never holds text of the peer.
func http2Name(code uint32) string {
	if names := http2Codes(); int(code) < len(names) {
		return names[code]
	}
	return "error " + strconv.FormatUint(uint64(code), 10)
}

// streamError has the fields of net/http's own type, so that errors.As converts that into it.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error: " + http2Name(e.Code) }

// http2Code returns the code of a stream or of a connection that ended with an error. net/http exports no type for errors
// of connections, so their texts are read.
func http2Code(err error) (code uint32, ok bool) {
	if err == nil {
		return 0, false
	}
	if stream, isStream := errors.AsType[streamError](err); isStream {
		return stream.Code, true
	}
	name := http2CodeText(innermost(err).Error())
	for code, known := range http2Codes() {
		if name == known {
			return uint32(code), true
		}
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(name, "unknown error code 0x"), 16, 32)
	return uint32(number), err == nil
}

// http2CodeText is the name of a code where a text of net/http has it.
func http2CodeText(text string) string {
	for _, p := range []struct{ before, from, to string }{
		{"http2: server sent GOAWAY", "ErrCode=", ","}, {"http2: Transport received GOAWAY", "ErrCode:", "\n"},
		{"http2: connection error: ", "error: ", ":"}, {"connection error: ", "error: ", ":"},
	} {
		if strings.HasPrefix(text, p.before) {
			_, name, _ := strings.Cut(text, p.from)
			name, _, _ = strings.Cut(name, p.to)
			return name
		}
	}
	return ""
}

// isMalformedHTTP2 reports whether gofer's side ended a stream, because of what the server sent.
func isMalformedHTTP2(err error) bool {
	stream, ok := errors.AsType[streamError](err)
	return ok && stream.Cause != nil && stream.Cause.Error() != "received from peer"
}

// isUnprocessed reports whether the server said that it did not process the request, so that any request may be sent
// again (RFC 9113, 8.7). GOAWAY says so of streams above the last one that it names.
func isUnprocessed(err error) bool {
	code, ok := http2Code(err)
	text := innermost(err).Error()
	// GOAWAY is for a stream above the last one that the server has taken.
	return ok && code == refusedStream || strings.HasPrefix(text, "http2: Transport received GOAWAY") ||
		strings.HasPrefix(text, "http2: Transport received Server's graceful shutdown GOAWAY")
}

// checkHTTP2 refuses a response whose status is none, which net/http takes over HTTP/2, and takes away the body of one that has
// none by rule. net/http waits there for as many bytes as a Content-Length says, which a 304 may have (RFC 9113, 8.1.1).
func checkHTTP2(resp *http.Response) error {
	switch status := resp.StatusCode; {
	case status < http.StatusOK, status > 999:
		_ = resp.Body.Close()
		return http1.ErrStatus
	case status == http.StatusNoContent, status == http.StatusNotModified:
		_ = resp.Body.Close() // which ends the stream, if the server sends a body all the same
		resp.Body, resp.ContentLength = http.NoBody, 0
	}
	return nil
}

// givenKey is the key of a context's value: the connection that a Transport uses.
type givenKey struct{}

// newHTTP2 makes a Transport that dials nothing: it speaks HTTP/2 on the connection that its context carries. So net/http
// never chooses a proxy or opens a connection by itself.
func newHTTP2() *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, ok := ctx.Value(givenKey{}).(net.Conn)
			if !ok {
				return nil, net.ErrClosed
			}
			return nc, nil
		},
		// Received data that is not read yet takes memory outside the memory budget.
		HTTP2:             &http.HTTP2Config{MaxReceiveBufferPerStream: 512 << 10, MaxReceiveBufferPerConnection: 1 << 20},
		ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// openHTTP2 starts HTTP/2 on a connection whose handshake agreed to it. From then on the connection reads by itself, also
// between exchanges.
func (c *conns) openHTTP2(ctx context.Context, secured *tls.Conn, target string) (*http.ClientConn, error) {
	return c.http2.NewClientConn(context.WithValue(ctx, givenKey{}, net.Conn(secured)), "https", target)
}
