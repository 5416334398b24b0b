package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

const (
	acceptEncoding = "gzip, deflate, br, zstd"
	// maxCodings is how many codings may lie on top of each other, as many as curl undoes.
	maxCodings = 5
	// overhead is by how many bytes an encoded body may be larger than the largest decoded one. Without a bound, a
	// decoder could read for ever and return nothing.
	overhead = 64 << 10
	// maxRead is how much one read may take, so that ctx is asked in between.
	maxRead = 64 << 10
)

// errCutOff ends a body whose coding is not complete, if nothing else would show that the connection broke.
var errCutOff = fmt.Errorf("the body ends within its content coding: %w", io.ErrUnexpectedEOF)

// decoders are kept for the next body. Those of brotli and zstd may hold much memory, so only a few of them
// are. The fields may be used from any goroutine; a decoder only by the one that took it.
type decoders struct {
	inflaters      sync.Pool
	brotlis, zstds chan decoder
}

// keptDecoders is how many decoders of one coding are kept. Decoding needs only a processor, so few run at once.
const keptDecoders = 8

// newDecoders makes empty pools. Decoders are made when they are first needed.
func newDecoders() decoders {
	return decoders{brotlis: make(chan decoder, keptDecoders), zstds: make(chan decoder, keptDecoders)}
}

// maxKeptWindow is the largest window of a decoder that is kept. A decoder of a larger window would hold that
// memory between two bodies, uncounted.
const maxKeptWindow = 1 << 20

// decoder undoes one content coding. Its Read returns io.ErrUnexpectedEOF when the input ends too early. It calls acquire before
// it makes room for a window.
type decoder interface {
	io.Reader
	reset(from io.Reader, acquire func(bytes int64) error) error
	// complete reports whether all data has been read and only the checksum behind it is missing.
	complete() bool
	// window is the memory that the decoder needs for its window.
	window() int64
}

// decoded reads a body without its content codings. Close it when no more is read.
type decoded struct {
	io.Reader
	layers []*layer
	memory *memoryShare
	held   int64 // for the windows of the layers
	err    error // of acquire: to a decoder it looks like an error in the data
}

// close returns the decoders to their pools. Nobody may read afterwards.
func (d *decoded) close() {
	for _, l := range d.layers {
		l.release()
	}
	d.memory.release(d.held)
}

// acquire takes memory for a window. It remembers its error, because a decoder passes it on in a form that looks like
// broken data. Afterwards Read returns the error of the memory instead of one about the data.
func (d *decoded) acquire(ctx context.Context, bytes int64) error {
	err := d.memory.acquire(ctx, bytes)
	if err != nil {
		d.err = err
		return err
	}
	d.held += bytes
	return nil
}

// decode undoes content codings. limit is that of the decoded body: a larger one ends with errTooLarge. Errors in the data are
// errDecode. endAnnounced says that nothing of the body was cut off.
func (p *decoders) decode(ctx context.Context, codings []string, body []byte, endAnnounced bool, limit int64, memory *memoryShare) *decoded {
	d := &decoded{memory: memory}
	acquire := func(bytes int64) error { return d.acquire(ctx, bytes) }
	in := &boundedReader{ctx: ctx, from: bytes.NewReader(body), left: limit + overhead + 1}
	// The last coding that the server applied is the outermost. Each layer reads from the one outside of it.
	for _, name := range slices.Backward(codings) {
		dec, release := p.take(name)
		l := &layer{decoder: dec, in: in, outer: d, endAnnounced: endAnnounced, release: release}
		l.err = dec.reset(in, acquire)
		d.layers = append(d.layers, l)
		// Between layers the bound is looser than at the end: a layer that inflates without end must stop even
		// if the next one returns nothing.
		in = &boundedReader{ctx: ctx, from: l, left: limit + overhead + 1}
		endAnnounced = true // the outer coding announces the end of the inner one
	}
	// The innermost reader gives the decoded body; its bound is exact, one byte more than allowed.
	in.left = limit + 1
	d.Reader = in
	return d
}

// codings returns the content codings to undo, in the order in which the server applied them, whether or not the job
// asked for them. A part of a body (206) and a body in a coding that is not known stay as they are.
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
			// An unknown coding makes all of them stay: undoing some would leave a header field that says
			// neither.
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

// take is a decoder of a coding, a used one if one is there, and what puts it back.
func (p *decoders) take(name string) (d decoder, release func()) {
	switch name {
	case "br":
		d, release = reuse(p.brotlis, func() decoder { return new(brotliDecoder) })
	case "zstd":
		d, release = reuse(p.zstds, func() decoder { return new(zstdDecoder) })
	default:
		i, ok := p.inflaters.Get().(*inflater)
		if !ok {
			// Deflate and gzip share their decoder, which is small, so the garbage collector may decide how
			// many are kept.
			i = newInflater()
		}
		i.isDeflate = name == "deflate"
		d, release = i, func() { p.inflaters.Put(i) }
	}
	return d, release
}

// reuse returns a decoder that is kept, or a fresh one, and the function that gives it back. A decoder with a large
// window is not kept.
func reuse(kept chan decoder, fresh func() decoder) (d decoder, release func()) {
	select {
	case d = <-kept:
	default:
		d = fresh()
	}
	return d, func() {
		// The decoder is dropped, and the collector frees its window.
		if d.window() > maxKeptWindow {
			return
		}
		select {
		case kept <- d:
		// As many as there may be are kept; this one is dropped.
		default:
		}
	}
}

// layer is one coding of a body. A body whose message is complete counts as complete, even if the encoded data ends too
// early: browsers and curl show such pages. Where only the end of the connection ends the message, the data has to be
// complete.
type layer struct {
	decoder
	in           *boundedReader
	outer        *decoded
	endAnnounced bool
	release      func()
	err          error // of reset
}

// Read reads decoded bytes. It translates the decoder's errors: those of the input and of the memory come before
// errDecode, and an input that ends too early is an error only where the end of the message is not announced.
func (l *layer) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, fmt.Errorf("%w: %w", errDecode, l.err)
	}
	n, err := l.decoder.Read(p)
	switch {
	// The order of the cases matters. An error of the input reaches the decoder first, which may return it as
	// broken data or even as an end.
	case err == nil:
		return n, nil
	case l.in.err != nil: // between two members it looks like the end
		return n, l.in.err
	case l.outer.err != nil:
		return n, l.outer.err
	case errors.Is(err, io.EOF):
		return n, err
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

// Read reads at most maxRead bytes. After an error it returns that error for ever. The error is sticky: a decoder may
// read again after an error, and must not get further bytes.
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
