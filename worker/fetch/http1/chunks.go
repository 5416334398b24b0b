package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// chunks reads a body in chunks (RFC 9112, 7.1) up to the last one, as browsers and curl do: a line may end with LF alone, and
// blanks may follow a size. The reader of net/http takes neither.
type chunks struct {
	in        *bufio.Reader
	left      uint64 // bytes of the chunk that have not come yet
	atLineEnd bool   // the data of a chunk has been read, but not its line end
	ambiguous bool   // something was read that another reader may read in another way
	excess    int64  // framing bytes beyond a normal amount
}

// maxExcess bounds the framing bytes of a body. Each chunk may have maxChunkLine of them, and twice as many as it has data.
const (
	maxExcess    = 16 << 10
	maxChunkLine = 16
)

// Read reads data of one chunk.
func (c *chunks) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
		if c.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := c.in.Read(p[:min(uint64(len(p)), c.left)])
	c.left -= uint64(n)
	c.atLineEnd = c.left == 0
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next reads the line end of the last chunk and the size of the next one.
func (c *chunks) next() error {
	if c.atLineEnd {
		// Only the line end of the data may stand here.
		line, err := c.line()
		if err != nil {
			return err
		}
		if len(line) > 0 {
			return ErrChunks
		}
		c.atLineEnd = false
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	text, extension, _ := bytes.Cut(line, []byte(";"))
	// A CR ends the line for some readers. curl and browsers take one within an extension.
	c.ambiguous = c.ambiguous || bytes.IndexByte(extension, '\r') >= 0
	digits := bytes.TrimRight(text, " \t")
	// Blanks before the end of the line are tolerated, as by curl, and make it ambiguous.
	c.ambiguous = c.ambiguous || len(digits) < len(text)
	size, err := strconv.ParseUint(string(digits), 16, 64)
	if err != nil || len(digits) > 16 || !isHex(digits) {
		return ErrChunks
	}
	c.left = size
	// The bound is as in net/http: a server must not send a byte of data with kilobytes of framing for ever.
	c.excess = max(0, c.excess+int64(len(line))+2-maxChunkLine-int64(min(2*size, maxExcess)))
	if c.excess > maxExcess {
		return ErrChunks
	}
	return nil
}

// line reads a line of at most maxExcess bytes, without its end. It is valid until the next read.
func (c *chunks) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	var begin []byte // of a line that is longer than the reader's buffer
	for errors.Is(err, bufio.ErrBufferFull) && len(begin) < maxExcess {
		begin = append(begin, line...)
		line, err = c.in.ReadSlice('\n')
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, ErrChunks
	case err != nil:
		return nil, err
	}
	if begin != nil {
		begin = append(begin, line...)
		line = begin
	}
	line = line[:len(line)-1]
	whole, ended := bytes.CutSuffix(line, []byte("\r"))
	c.ambiguous = c.ambiguous || !ended
	return whole, nil
}

// isHex reports whether there are only digits: strconv takes an underscore or a sign, too.
func isHex(text []byte) bool {
	return len(bytes.Trim(text, "0123456789abcdefABCDEF")) == 0
}
