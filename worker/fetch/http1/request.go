package http1

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// maxTogether is the largest body that is sent with the head, in one write. A larger body is written in the background, because
// the response may come before all of it is sent.
const maxTogether = 64 << 10

// Request is what is sent. Every byte of it goes out as it is: the caller has checked that no text holds a line break.
type Request struct {
	Method string
	// Target stands in the request line as it is (RFC 9112, 3.2).
	Target string
	// Host is the value of the Host field.
	Host string
	// Header are the other fields, in their spelling. Content-Length is not among them.
	Header map[string][]string
	// ProxyAuthorization is the value of that field; empty sends none.
	ProxyAuthorization string
	Body               []byte
}

// definesBody reports whether the method defines a body. With another method, a server may read the body as the next request
// (RFC 9110, 9.3).
func (r *Request) definesBody() bool {
	return r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch
}

// appendHead appends the head: Host and User-Agent first, as browsers send them, the others by their names, so that equal
// requests are equal byte by byte.
func (r *Request) appendHead(b []byte) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	const agent = "User-Agent"
	b = appendField(b, agent, r.Header[agent])
	if len(r.Body) > 0 || r.definesBody() {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	// Sixteen names need no allocation.
	var room [16]string
	names := slices.AppendSeq(room[:0], maps.Keys(r.Header))
	slices.Sort(names)
	for _, name := range names {
		if name != agent {
			b = appendField(b, name, r.Header[name])
		}
	}
	if r.ProxyAuthorization != "" {
		b = appendField(b, "Proxy-Authorization", []string{r.ProxyAuthorization})
	}
	return append(b, "\r\n"...)
}

// appendField appends a field line for each value. Values are checked before: none holds a line break.
func appendField(b []byte, name string, values []string) []byte {
	for _, value := range values {
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b
}

// send writes the request. A large one is written by a goroutine, because the response may come before all of it is sent;
// join waits for that goroutine.
func (c *Conn) send(req *Request, watch Watch) error {
	buffer := c.buffers.take()
	*buffer = req.appendHead(*buffer)
	if len(req.Body) > maxTogether {
		// Room for one, so that the goroutine ends even if nobody joins it.
		c.writing = make(chan error, 1)
		go c.write(buffer, req.Body, watch, c.writing)
		return nil
	}
	*buffer = append(*buffer, req.Body...)
	_, err := c.Write(*buffer)
	c.buffers.put(buffer)
	if err == nil {
		watch.sent()
	}
	return err
}

// write writes a large request, until the connection's deadline. join waits for it.
func (c *Conn) write(head *[]byte, body []byte, watch Watch, ended chan<- error) {
	_, err := c.Write(*head)
	c.buffers.put(head)
	if err == nil {
		_, err = c.Write(body)
	}
	if err == nil {
		watch.sent()
	}
	ended <- err
}

// join waits for the background write, or aborts it if it has not finished, and reports whether all of the body was written.
// After a response that began before the end of its request, the connection is not used again.
func (c *Conn) join() bool {
	writing := c.writing
	if writing == nil {
		return true
	}
	c.writing = nil
	select {
	case err := <-writing:
		return err == nil
	default:
	}
	// The write ends by its deadline, and the goroutine with it.
	_ = c.SetWriteDeadline(past())
	return <-writing == nil // all of it may have been written just now
}
