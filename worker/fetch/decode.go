package fetch

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	acceptEncoding = "gzip, deflate, br, zstd"
	maxEncodings   = 2       // one on top of the other
	maxZstdWindow  = 8 << 20 // what browsers accept (RFC 8878, 3.1.1.1.2)
)

// decoders are kept for the next body: each holds a window of 32 KiB or more.
type decoders struct{ gzip, brotli, zstd sync.Pool }

// decoded reads a body without its content encodings. What a decoder says about bad input comes as errDecode.
type decoded struct {
	io.Reader
	closers []func()
	wire    *bounded
	limit   int64
}

func (d *decoded) close() {
	for _, c := range d.closers {
		c()
	}
}

// decode undoes the encodings that the header names and takes them out of it, with the length that is no longer true. An
// encoding that is not known stays, and so does the body. limit is that of the decoded body; what a decoder reads may be
// a little larger: without a bound of its own it could go on for ever and come to nothing.
func (p *decoders) decode(h http.Header, body io.Reader, limit int64) (*decoded, error) {
	d := &decoded{Reader: body, limit: limit + overhead}
	names := encodings(h)
	if len(names) == 0 {
		return d, nil
	}
	if len(names) > maxEncodings {
		return nil, fmt.Errorf("%w: %d encodings on top of each other", errDecode, len(names))
	}
	for _, name := range names {
		if !strings.Contains(" gzip x-gzip deflate br zstd ", " "+name+" ") {
			return d, nil
		}
	}
	// An empty body is none in any encoding: an answer to HEAD, a 304.
	d.wire = &bounded{Reader: body, left: d.limit}
	in := bufio.NewReader(d.wire)
	if _, err := in.Peek(1); errors.Is(err, io.EOF) {
		return &decoded{Reader: in}, nil
	}
	d.Reader = in
	for _, name := range slices.Backward(names) {
		if err := d.push(p, name); err != nil {
			d.close()
			return nil, d.sorted(err)
		}
		d.Reader = &bounded{Reader: d.Reader, left: d.limit}
	}
	d.Reader = strict{d.Reader, d}
	h.Del("Content-Encoding")
	h.Del("Content-Length")
	return d, nil
}

func encodings(h http.Header) (names []string) {
	for _, value := range h["Content-Encoding"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" {
				names = append(names, name)
			}
		}
	}
	return names
}

// resetter is a decoder that can begin anew.
type resetter interface {
	io.Reader
	Reset(from io.Reader) error
}

func (d *decoded) push(p *decoders, name string) error {
	switch name {
	case "gzip", "x-gzip":
		return d.take(&p.gzip, func() (resetter, error) { return new(gzip.Reader), nil })
	case "br":
		return d.take(&p.brotli, func() (resetter, error) { return new(brotli.Reader), nil })
	case "zstd":
		return d.take(&p.zstd, func() (resetter, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		})
	}
	return d.pushDeflate()
}

// take puts a decoder out of the pool, or a new one, on top; close gives it back.
func (d *decoded) take(pool *sync.Pool, fresh func() (resetter, error)) (err error) {
	r, ok := pool.Get().(resetter)
	if !ok {
		if r, err = fresh(); err != nil {
			return err
		}
	}
	d.closers = append(d.closers, func() { pool.Put(r) })
	err = r.Reset(d.Reader)
	d.Reader = r
	return err
}

// pushDeflate reads what servers call deflate: zlib, as it should be, or the bare stream.
func (d *decoded) pushDeflate() error {
	in := bufio.NewReader(d.Reader)
	head, err := in.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		r, err := zlib.NewReader(in)
		d.Reader = r
		return err
	}
	d.Reader = flate.NewReader(in)
	return nil
}

// overhead is by how much an encoded body may be larger than the decoded one.
const overhead = 64 << 10

// bounded reads no more than left, and remembers the error with which what it read from ended.
type bounded struct {
	io.Reader
	left int64
	err  error
}

// Read reads.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.err = errTooLarge
		return 0, b.err
	}
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// strict turns a decoder's errors into errDecode, unless they come from the connection or from a bound.
type strict struct {
	io.Reader
	of *decoded
}

// Read reads.
func (s strict) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, s.of.sorted(err)
}

// sorted asks the wire what happened: to a decoder the end of a body that came whole may be an unexpected one.
func (d *decoded) sorted(err error) error {
	switch {
	case d.wire.err != nil:
		return d.wire.err
	case errors.Is(err, errTooLarge):
		return errTooLarge
	}
	return fmt.Errorf("%w: %w", errDecode, err)
}
