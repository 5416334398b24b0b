package http1

import (
	"bufio"
	"errors"
	"io"
)

// body is the body of a response.
type body struct {
	conn         *Conn
	left         int64   // bytes of the announced length that have not come yet
	chunks       *chunks // nil without chunks
	untilEnd     bool    // the body ends when the connection closes
	complete     bool    // all of it has been read
	endIsCertain bool    // the message leaves no doubt where it ended
	closed       bool
	reusable     bool // set by Close
	err          error
}

// end notes that all of the body has been read. A second Read after the end returns io.EOF again.
func (b *body) end() { b.complete, b.err = true, io.EOF }

// Read reads from the body. A body that ends too early ends with io.ErrUnexpectedEOF, unless it ends with the connection.
func (b *body) Read(p []byte) (n int, err error) {
	// An empty p must not look like the end.
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	switch {
	case b.chunks != nil:
		n, err = b.readChunks(p)
	case b.untilEnd:
		n, err = b.conn.in.Read(p)
	default:
		n, err = b.conn.in.Read(p[:min(int64(len(p)), b.left)])
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	// The error is kept: what follows an error in the middle of a body is not its rest.
	if b.err = err; errors.Is(err, io.EOF) {
		b.end()
	}
	return n, err
}

// Close ends the exchange and decides whether the connection can be used again. The goroutine that reads must call it. A
// second call does nothing.
func (b *body) Close() error {
	if !b.closed {
		b.closed = true
		// All three have to hold. finish has to be called in any case, since it joins the writer.
		b.reusable = b.conn.finish() && b.complete && b.endIsCertain
		if b.err == nil {
			b.err = io.ErrClosedPipe
		}
	}
	return nil
}

// readChunks reads from the chunks, and discards the trailer after the last one.
func (b *body) readChunks(p []byte) (int, error) {
	n, err := b.chunks.Read(p)
	if errors.Is(err, io.EOF) {
		// A chunk that another reader might read differently makes the place of the end doubtful.
		b.endIsCertain = b.endIsCertain && !b.chunks.ambiguous
		if trailerErr := b.skipTrailer(); trailerErr != nil {
			err = trailerErr
		}
	}
	return n, err
}

// skipTrailer discards the trailer fields, up to an empty line. Trailers are rare, and readers differ in where one ends, so the
// connection is not used again.
func (b *body) skipTrailer() error {
	for left, begun := maxHead, false; left > 0; {
		line, err := b.conn.in.ReadSlice('\n')
		left -= len(line)
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		case !begun && string(line) == "\r\n":
			return nil
		case !begun && string(line) == "\n":
			b.endIsCertain = false
			return nil
		}
		// A trailer field was there. begun means that the line was longer than the buffer, so its rest is no
		// empty line.
		b.endIsCertain, begun = false, err != nil
	}
	return ErrHeadTooLarge
}
