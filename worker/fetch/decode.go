package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
)

const (
	acceptEncoding = "gzip, deflate, br, zstd"
	// maxCodings is how many codings may lie on top of each other, as many as curl undoes.
	maxCodings = 5
	// overhead is by how much an encoded body may be larger than the largest decoded one. Without a bound of its own a
	// decoder could read for ever and come to nothing.
	overhead = 64 << 10
	// maxRead is how much one read may take, so that ctx is asked in between.
	maxRead = 64 << 10
)

// errCutOff ends a body whose coding has not come to its end, where nothing else would show that the connection broke.
var errCutOff = fmt.Errorf("the body ends within its content coding: %w", io.ErrUnexpectedEOF)

// decoders are kept for the next body: each holds a window of 32 KiB or more.
type decoders struct{ inflaters, brotlis, zstds sync.Pool }

// decoder undoes one content coding. Its Read returns io.ErrUnexpectedEOF when the input ends too early.
type decoder interface {
	io.Reader
	reset(from io.Reader) error
	// complete reports whether all data has been read and only the checksum behind it is missing.
	complete() bool
}

// decoded reads a response body without its content codings. Close it when no more is read.
type decoded struct {
	io.Reader
	encoded bool
	release []func()
}

// close returns the decoders to their pools. Nobody may read afterwards.
func (d *decoded) close() {
	for _, release := range d.release {
		release()
	}
}

// decode undoes the content codings that the response names, whoever asked for them, and takes them out of its header with
// the length that is no longer true. A part of a body (206) and a body in a coding that is not known stay as they are. limit
// is that of the decoded body: a larger one ends with errTooLarge. Errors in the data are errDecode.
func (p *decoders) decode(ctx context.Context, resp *http.Response, limit int64) (*decoded, error) {
	names := codings(resp)
	if len(names) == 0 {
		return &decoded{Reader: &boundedReader{ctx: ctx, from: resp.Body, left: limit + 1}}, nil
	}
	wire := &boundedReader{ctx: ctx, from: resp.Body, left: limit + overhead}
	if len(names) > maxCodings {
		return nil, fmt.Errorf("%w: %d codings on top of each other", errDecode, len(names))
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(wire, first); errors.Is(err, io.EOF) {
		return &decoded{Reader: http.NoBody}, nil // an empty body is empty in any coding
	} else if err != nil {
		return nil, err
	}
	wire.from = io.MultiReader(strings.NewReader(string(first)), resp.Body)
	d, endAnnounced := &decoded{encoded: true}, isEndAnnounced(resp)
	for _, name := range slices.Backward(names) {
		dec, release := p.take(name)
		d.release = append(d.release, release)
		if err := dec.reset(wire); err != nil {
			d.close()
			return nil, fmt.Errorf("%w: %w", errDecode, err)
		}
		d.Reader = &layer{decoder: dec, in: wire, endAnnounced: endAnnounced}
		wire = &boundedReader{ctx: ctx, from: d.Reader, left: limit + overhead}
		endAnnounced = true // the inner coding lies in an outer one that came whole
	}
	wire.left = limit + 1
	d.Reader = wire
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	return d, nil
}

// codings are the content codings that are undone, in the order in which the server applied them.
func codings(resp *http.Response) (names []string) {
	if resp.StatusCode == http.StatusPartialContent {
		return nil
	}
	for _, value := range resp.Header["Content-Encoding"] {
		for name := range strings.SplitSeq(value, ",") {
			switch name = strings.ToLower(strings.TrimSpace(name)); name {
			case "", "identity":
			case "gzip", "x-gzip", "deflate", "br", "zstd":
				names = append(names, name)
			default:
				return nil
			}
		}
	}
	return names
}

// isEndAnnounced reports whether the end of the body is announced: by a length, by chunks, or by HTTP/2. Otherwise the body ends
// where the connection does, for whatever reason that ended.
func isEndAnnounced(resp *http.Response) bool {
	return resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0 || resp.ProtoMajor >= 2
}

// take is a decoder of a coding, out of its pool if one is there, and what puts it back.
func (p *decoders) take(name string) (d decoder, release func()) {
	pool, fresh := &p.inflaters, func() decoder { return newInflater() }
	switch name {
	case "br":
		pool, fresh = &p.brotlis, func() decoder { return new(brotliDecoder) }
	case "zstd":
		pool, fresh = &p.zstds, func() decoder { return new(zstdDecoder) }
	}
	d, ok := pool.Get().(decoder)
	if !ok {
		d = fresh()
	}
	if i, ok := d.(*inflater); ok {
		i.isDeflate = name == "deflate"
	}
	return d, func() { pool.Put(d) }
}

// brotliDecoder reads a brotli stream (RFC 7932) and leaves alone what follows it.
type brotliDecoder struct{ brotli.Reader }

func (u *brotliDecoder) reset(from io.Reader) error { return u.Reset(from) }

func (u *brotliDecoder) complete() bool { return false } // there is no checksum

// Read reads.
func (u *brotliDecoder) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err.Error() == "brotli: excessive input" { // the library has no name for it
		err = io.EOF
	}
	return n, err
}

// layer is one coding of a body. A body whose message came whole is taken for whole, even if the data in it ends too early:
// browsers and curl show such pages. Where only the end of the connection ends the message, the data has to be complete.
type layer struct {
	decoder
	in           *boundedReader
	endAnnounced bool
}

// Read reads.
func (l *layer) Read(p []byte) (int, error) {
	n, err := l.decoder.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case l.in.err != nil:
		return n, l.in.err
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%w: %w", errDecode, err)
	case !l.endAnnounced && !l.complete():
		return n, errCutOff
	case n > 0:
		return n, nil // the next read has no more
	}
	return 0, io.EOF
}

// boundedReader reads until left is used up or ctx ends, and remembers the error with which that ended: to a decoder it may look
// like an error in the data.
type boundedReader struct {
	ctx  context.Context // an io.Reader has no other way to it
	from io.Reader
	left int64
	err  error
}

// Read reads.
func (s *boundedReader) Read(p []byte) (int, error) {
	if s.err == nil {
		s.err = s.ctx.Err()
	}
	if s.err == nil && s.left <= 0 {
		s.err = errTooLarge
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.from.Read(p[:min(int64(len(p)), s.left, maxRead)])
	s.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
