package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

const (
	// maxDrained is how much of an unwanted body is read to keep its connection. A new connection costs about as much
	// as reading this.
	maxDrained = 64 << 10
	// minGrown and maxGrown are the sizes of the buffers that are kept for bodies of an unknown size. A body
	// above maxGrown is rare, and a pool of larger buffers would hold the memory of the largest body for long.
	minGrown, maxGrown = 4 << 10, 256 << 10
)

// read reads the whole encoded body and then decodes it. So a decoder, which may need much memory, holds none while the
// body arrives, and it is known by then whether the body is complete.
func (x *exchanges) read(ctx context.Context) error {
	limit := x.run.maxBody()
	codings := codings(x.resp.Response)
	var err error
	// The header of an answer to HEAD, and of a 304, names the codings of a body that does not come.
	if len(codings) == 0 || !x.hasBody() {
		x.body, err = x.run.f.bodies.read(ctx, x.source(ctx, limit), x.length(), limit, &x.memory)
	} else {
		x.body, err = x.readEncoded(ctx, codings, limit)
	}
	if err != nil {
		return err
	}
	// The rest takes no network, so a slow pattern is no stall.
	x.stall.stop()
	// MatchBody is asked even for an empty body: a rule may say that an empty page is a ban.
	if x.hasBody() {
		matched, err := x.run.job.Ban.MatchBody(ctx, x.body)
		if err != nil {
			return fmt.Errorf("%w: %w", errMatch, err)
		}
		x.matched = x.matched || matched
	}
	x.reachPhase(done)
	return nil
}

// maxBody is how large the decoded body of a response may be.
func (r *run) maxBody() int64 {
	if own := r.job.MaxBodyBytes; own > 0 {
		return min(r.f.cfg.MaxBodyBytes, own)
	}
	return r.f.cfg.MaxBodyBytes
}

// length is the announced length of the encoded body; below zero if it is not known. fill checks it against the limit
// before it makes room.
func (x *exchanges) length() int64 {
	if x.method == http.MethodHead {
		return 0 // the announced length is that of the response to a GET
	}
	return x.resp.ContentLength
}

// source returns the reader of the encoded body. It allows one byte more than the limit: reading that byte shows that the
// body is too large.
func (x *exchanges) source(ctx context.Context, limit int64) *boundedReader {
	return &boundedReader{ctx: ctx, from: x.resp.Body, left: limit + 1}
}

// readEncoded reads a body and undoes its codings, the last one first. It removes the two header fields that are no
// longer true of the decoded body. Errors: errDecode, errTooLarge, errMemory, or those of the connection.
func (x *exchanges) readEncoded(ctx context.Context, codings []string, limit int64) ([]byte, error) {
	f := x.run.f
	if len(codings) > maxCodings {
		return nil, fmt.Errorf("%w: %d codings on top of each other", errDecode, len(codings))
	}
	// The encoded body may be a little larger than the decoded limit: data that does not compress grows by its
	// framing.
	buf, err := f.bodies.fill(ctx, x.source(ctx, limit+overhead), f.bodies.take(), x.length(), limit+overhead, &x.memory)
	// The closure reads buf at the end: fill may have replaced the buffer.
	defer func() { f.bodies.put(buf, &x.memory) }()
	if err != nil {
		return nil, err
	}
	x.stall.stop()
	x.resp.Header.Del("Content-Encoding")
	x.resp.Header.Del("Content-Length")
	if len(buf) == 0 {
		return nil, nil // an empty body is empty in any coding
	}
	// The decoded body's length is not known, so read lets a pooled buffer grow.
	d := f.decoders.decode(ctx, codings, buf, isEndAnnounced(x.resp.Response), limit, &x.memory)
	defer d.close()
	return f.bodies.read(ctx, d, -1, limit, &x.memory)
}

// hasBody reports whether the response has a body by rule, even an empty one (RFC 9110, 6.4.1).
func (x *exchanges) hasBody() bool {
	return x.method != http.MethodHead && x.resp.StatusCode != http.StatusNoContent && x.resp.StatusCode != http.StatusNotModified
}

// bodies are buffers in which bodies of an unknown size grow. The zero value is ready. It holds pointers to
// slices, since a slice itself would be allocated again for each put.
type bodies struct{ pool sync.Pool }

// take returns an empty buffer, perhaps one that another body has used. put takes it back.
func (b *bodies) take() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return (*buf)[:0]
	}
	return make([]byte, 0, minGrown)
}

// put returns a buffer to the pool and its memory to the budget. Large buffers are left to the garbage collector, so that
// one large body does not hold memory for ever.
func (b *bodies) put(buf []byte, memory *memoryShare) {
	// The share is reduced in any case: the pool's memory belongs to no job.
	memory.release(counted(cap(buf)))
	if cap(buf) <= maxGrown {
		b.pool.Put(&buf)
	}
}

// read reads a body to its end. length is the announced length, below zero if there is none. The memory of the returned
// body stays in the share.
func (b *bodies) read(ctx context.Context, from io.Reader, length, limit int64, memory *memoryShare) ([]byte, error) {
	// The size is known, so the buffer is made once, exactly, and becomes the body.
	if length >= 0 {
		return b.fill(ctx, from, nil, length, limit, memory)
	}
	buf, err := b.fill(ctx, from, b.take(), length, limit, memory)
	// Copying such a body would double its memory for a moment.
	if err == nil && cap(buf) > maxGrown {
		return buf, nil // too large to copy, and to keep in the pool
	}
	defer b.put(buf, memory)
	if err != nil {
		return nil, err
	}
	// The copy has the exact size, and the pooled buffer goes back.
	return bytes.Clone(buf), nil
}

// fill reads a body of at most limit bytes into buf, to its end. It makes room for an announced length at once, and
// otherwise doubles the buffer. It returns the buffer whose memory is in the share, also with an error, so that the
// caller can give that memory back.
func (b *bodies) fill(ctx context.Context, from io.Reader, buf []byte, length, limit int64, memory *memoryShare) (filled []byte, err error) {
	if length > limit {
		return buf, errTooLarge
	}
	// spareBytes leave room to see the end without growing: a read into a full buffer cannot return io.EOF.
	if size := length + spareBytes; size > int64(cap(buf)) {
		if buf, err = b.grow(ctx, buf, size, memory); err != nil {
			return buf, err
		}
	}
	for {
		if len(buf) == cap(buf) {
			// Doubling keeps the copies to twice the body. The bound by limit ends the growth: a body that
			// needs more is too large.
			if buf, err = b.grow(ctx, buf, min(2*int64(cap(buf)), limit+spareBytes), memory); err != nil {
				return buf, err
			}
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// grow moves a body to a larger buffer. It acquires memory for the new buffer before it releases the old one, because
// both exist during the copy.
func (b *bodies) grow(ctx context.Context, old []byte, size int64, memory *memoryShare) ([]byte, error) {
	if err := memory.acquire(ctx, counted(int(size))); err != nil {
		return old, err
	}
	larger := append(make([]byte, 0, size), old...)
	// For a moment both count. Releasing first would let another job take the memory that is about to be used.
	if cap(old) > 0 {
		b.put(old, memory)
	}
	return larger, nil
}

// counted is how much memory a buffer takes of the budget. Small buffers are not counted: locking the budget
// for each of them would cost more than they hold.
func counted(size int) int64 {
	if size <= maxUncounted {
		return 0
	}
	return int64(size)
}
