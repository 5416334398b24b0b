package http1

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Field is one header field of a response, with its name as it was spelled.
type Field struct{ Name, Value string }

// head is the head of a response.
type head struct {
	proto        string
	major, minor int
	text         string // of the status line, from the status on
	status       int
	fields       []Field
	header       http.Header
	lengths      []string // the values of Content-Length
	codings      []string // the values of Transfer-Encoding
	// ambiguous means that something was read that RFC 9112 does not allow, and that another reader may read in another way.
	ambiguous bool
}

// readHead reads one head of at most *left bytes.
func (c *Conn) readHead(left *int) (*head, error) {
	if err := c.expectHTTP(); err != nil {
		return nil, err
	}
	buffer := c.buffers.take()
	defer c.buffers.put(buffer)
	for begun := false; ; { // begun: the line was longer than the reader's buffer
		line, err := c.in.ReadSlice('\n')
		*buffer = append(*buffer, line...)
		// The bytes of all heads of the exchange are counted together.
		if *left -= len(line); *left < 0 {
			return nil, ErrHeadTooLarge
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			begun = true
			continue
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		// An empty line ends the head, with or without a CR.
		case !begun && len(line) <= 2 && strings.Trim(string(line), "\r\n") == "":
			return parseHead(string(*buffer))
		}
		begun = false
	}
}

// expectHTTP checks the first bytes before a whole line has come. A server that speaks another protocol may never send a
// line end. Errors: ErrTLS, ErrNotHTTP, or one of the connection.
func (c *Conn) expectHTTP() error {
	const prefix = "HTTP/"
	for n := 1; n <= len(prefix); n++ {
		// One byte more at a time: a peer that sends less than the prefix is not waited for.
		begin, err := c.in.Peek(n)
		// curl and browsers take small letters, too.
		if begin := strings.ToUpper(string(begin)); !strings.HasPrefix(prefix, begin) {
			if isTLSRecord(c.in) {
				return ErrTLS
			}
			return ErrNotHTTP
		}
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return nil
}

// isTLSRecord reports whether an alert or a handshake has come (RFC 8446, 5.1).
func isTLSRecord(in *bufio.Reader) bool {
	b, _ := in.Peek(2)
	return len(b) == 2 && (b[0] == 21 || b[0] == 22) && b[1] == 3
}

// parseHead parses a head that ends with an empty line. It accepts what curl and browsers accept, and sets ambiguous for
// all that RFC 9112 does not allow. Errors: ErrNotHTTP, ErrStatus, ErrHead, ErrHeadTooLarge.
func parseHead(text string) (*head, error) {
	line, rest := cutLine(text)
	h := new(head)
	if err := h.parseStatus(line); err != nil {
		return nil, err
	}
	// Readers differ in what they do with a NUL: browsers drop it, curl refuses the response.
	if strings.IndexByte(rest, 0) >= 0 {
		return nil, ErrHead
	}
	// A CR alone ends a line for some readers.
	count := strings.Count(rest, "\n")
	h.ambiguous = h.ambiguous || strings.Count(text, "\r\n") != count+1 || strings.Count(text, "\r") != count+1 ||
		!httpguts.ValidHeaderFieldValue(line) || h.major != 1 || h.minor > 1
	room := min(count, maxFields)
	h.fields, h.header = make([]Field, 0, room), make(http.Header, min(room, 64))
	values := make([]string, room)
	for line, rest = cutLine(rest); line != ""; line, rest = cutLine(rest) {
		// Folded lines are taken all at once: a value that grew by one after the other would cost the square of its length.
		line, rest = h.unfold(line, rest)
		name, value, found := strings.Cut(line, ":")
		trimmed := strings.TrimRight(name, " \t")
		if !found || trimmed == "" || isBlank(line[0]) {
			h.ambiguous = true // it is no field
			continue
		}
		if len(h.fields) == maxFields {
			return nil, ErrHeadTooLarge
		}
		field := Field{Name: trimmed, Value: strings.Trim(value, " \t")}
		h.ambiguous = h.ambiguous || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(field.Value)
		values = h.add(field, values)
	}
	return h, nil
}

// add adds a field. The values of the header lie in one array, as long as each name comes once.
func (h *head) add(field Field, values []string) (rest []string) {
	h.fields = append(h.fields, field)
	key := textproto.CanonicalMIMEHeaderKey(field.Name)
	switch key {
	case "Content-Length":
		h.lengths = append(h.lengths, field.Value)
	case "Transfer-Encoding":
		h.codings = append(h.codings, field.Value)
		// net/http does not list it either.
		return values // it is of the connection, as in net/http
	}
	if same := h.header[key]; len(same) > 0 {
		h.header[key] = append(same, field.Value)
		return values
	}
	values[0] = field.Value
	// The capacity ends with the value, so that an append makes a copy.
	h.header[key] = values[:1:1]
	return values[1:]
}

// unfold joins a line with those behind it that begin with a blank (RFC 9112, 5.2).
func (h *head) unfold(line, rest string) (joined, behind string) {
	if rest == "" || !isBlank(rest[0]) {
		return line, rest
	}
	h.ambiguous = true
	var all strings.Builder
	all.WriteString(strings.TrimRight(line, " \t"))
	for rest != "" && isBlank(rest[0]) {
		line, rest = cutLine(rest)
		all.WriteByte(' ')
		all.WriteString(strings.Trim(line, " \t"))
	}
	return all.String(), rest
}

// isBlank reports whether a byte is a space or a tab, the blanks of HTTP (OWS in RFC 9110, 5.6.3).
func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// cutLine cuts off the first line, without its end.
func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parseStatus reads a status line (RFC 9112, 4) as curl and browsers do. More blanks before the status are harmless, and so is
// a reason without a blank before it, small letters, or HTTP/2, which some servers write to clients of HTTP/1.1.
func (h *head) parseStatus(line string) (err error) {
	proto, rest, found := strings.Cut(line, " ")
	if !found {
		return ErrNotHTTP
	}
	h.proto, h.text = strings.ToUpper(proto), strings.TrimLeft(rest, " ")
	digits := h.text[:min(3, len(h.text))]
	if len(digits) < 3 || strings.Trim(digits, decimal) != "" || len(h.text) > 3 && strings.IndexByte(decimal, h.text[3]) >= 0 {
		return ErrStatus
	}
	h.status = 100*int(digits[0]-'0') + 10*int(digits[1]-'0') + int(digits[2]-'0')
	if h.proto == "HTTP/2" {
		h.proto = "HTTP/2.0"
	}
	if h.major, h.minor, found = http.ParseHTTPVersion(h.proto); !found {
		return ErrNotHTTP
	}
	h.ambiguous = h.proto != proto || len(h.text) > 3 && h.text[3] != ' '
	return nil
}

const decimal = "0123456789"

// closes reports whether the server ends the connection after the response.
func (h *head) closes() bool {
	options := h.header["Connection"]
	switch {
	case h.major != 1, httpguts.HeaderValuesContainsToken(options, "close"):
		return true
	case h.minor == 0:
		return !httpguts.HeaderValuesContainsToken(options, "keep-alive")
	}
	return false
}
