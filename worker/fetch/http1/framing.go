package http1

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Response is a response whose body has not been read yet. The header has the fields under their canonical names, but for
// Transfer-Encoding.
type Response struct {
	*http.Response
	// Fields are the same, in the order in which they came, and Transfer-Encoding too.
	Fields []Field

	body *body
}

// Reusable reports whether the connection can carry another exchange: the response was read to its end, its framing and that
// of the request leave no doubt where they ended, and nothing lies behind it. It is false until the body is closed.
func (r *Response) Reusable() bool { return r.body != nil && r.body.reusable }

// response makes the response that a caller sees.
func (h *head) response(b *body) *Response {
	var from io.ReadCloser = http.NoBody
	if b != nil {
		from = b
	}
	return &Response{
		Response: &http.Response{
			Status: h.text, StatusCode: h.status, Proto: h.proto, ProtoMajor: h.major, ProtoMinor: h.minor, Header: h.header, ContentLength: -1, Body: from, Close: h.closes(),
		},
		Fields: h.fields, body: b,
	}
}

// response finds where the body ends (RFC 9112, 6.3). ambiguous means that readers may disagree about the heads before it, so
// that the connection is not to be used again. Where there is no body, what is said of it is no error; an unknown coding is an
// error only for who reads the body.
func (c *Conn) response(req *Request, h *head, ambiguous bool) (*Response, error) {
	chunked, ambiguousCoding, codingErr := h.chunked()
	length, ambiguousLength, err := h.length()
	// The request decides: such a response has no body, whatever its head says.
	unasked := req.Method == http.MethodHead || req.Method == http.MethodConnect && h.status/100 == 2
	bodiless := h.status == http.StatusNoContent || h.status == http.StatusNotModified
	switch {
	// Lengths mean nothing beside chunks or without a body.
	case err != nil && (unasked || bodiless), chunked && errors.Is(err, ErrLengths):
		length, ambiguousLength = -1, true
	case err != nil:
		return nil, err
	}
	b := &body{conn: c, left: length}
	resp := h.response(b)
	resp.ContentLength = length
	if chunked {
		resp.TransferEncoding, resp.ContentLength = []string{"chunked"}, -1
	}
	switch {
	case unasked:
		b.end() // a server may send a body all the same
	case bodiless:
		b.end()
		b.endIsCertain = length <= 0 && len(h.codings) == 0
		resp.ContentLength = 0
	case codingErr != nil:
		b.err, resp.ContentLength = codingErr, -1 // a redirect is followed all the same
	case chunked:
		b.chunks = &chunks{in: c.in}
		b.endIsCertain = length < 0
		resp.Header.Del("Content-Length")
	// Both a length and chunks: RFC 9112, 6.3 lets chunks win, and warns of an attack.
	case length >= 0:
		b.endIsCertain = len(h.codings) == 0
		if length == 0 {
			b.end()
		}
	}
	// Nothing else tells where the body ends.
	b.untilEnd = b.err == nil && !chunked && length < 0
	// Every doubt of the whole exchange is gathered here: the connection is used again only if there is none.
	b.endIsCertain = b.endIsCertain && !ambiguous && !ambiguousLength && !ambiguousCoding && !resp.Close && (len(req.Body) == 0 || req.definesBody())
	resp.Close = resp.Close || b.untilEnd
	return resp, nil
}

// length is what Content-Length says, -1 without one. Equal values count as one, and make the message ambiguous. A value that
// only begins as a number is ambiguous, too: browsers read such a body to the end of the connection. Different values are
// ErrLengths.
func (h *head) length() (n int64, ambiguous bool, err error) {
	first, count := "", 0
	for _, value := range h.lengths {
		for text := range strings.SplitSeq(value, ",") {
			text = strings.Trim(text, " \t")
			// A list of equal values is allowed to be read as one (RFC 9110, 8.6).
			if count++; count > 1 && text != first {
				return 0, false, ErrLengths
			}
			first = text
		}
	}
	if count == 0 {
		return -1, false, nil
	}
	number, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		if digit := strings.TrimPrefix(first, "+"); digit == "" || digit[0] < '0' || digit[0] > '9' {
			return 0, false, ErrLength
		}
		return -1, true, nil
	}
	if count > 1 {
		h.header["Content-Length"] = []string{first}
	}
	return int64(number), count > 1, nil
}

// chunked reports whether the body is in chunks: "chunked" once, and nothing else beside it, or it is ambiguous. curl and
// browsers read "none", which is no coding, as they read "identity". HTTP/1.0 has no transfer codings (RFC 9112, 6.1).
func (h *head) chunked() (chunked, ambiguous bool, err error) {
	if len(h.codings) == 0 {
		return false, false, nil
	}
	// HTTP/1.0 has no codings, so the framing of such a message is faulty (RFC 9112, 6.1).
	if h.major < 1 || h.major == 1 && h.minor == 0 {
		return false, true, nil
	}
	for _, value := range h.codings {
		for coding := range strings.SplitSeq(value, ",") {
			switch coding = strings.Trim(coding, " \t"); {
			case strings.EqualFold(coding, "chunked"):
				ambiguous = ambiguous || chunked
				chunked = true
			case coding == "", strings.EqualFold(coding, "identity"), strings.EqualFold(coding, "none"):
				ambiguous = true
			default:
				return false, false, ErrCoding
			}
		}
	}
	return chunked, ambiguous, nil
}
