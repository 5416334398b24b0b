package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// maxDrained is how much of a body that nobody wants is read to keep its connection.
const maxDrained = 64 << 10

// maxGrown is how much room is made at once for a body that has not come yet.
const maxGrown = 256 << 10

// read takes the whole body, decoded, and stops at the limit.
func (x *exchanges) read(ctx context.Context) error {
	limit := x.run.f.cfg.MaxBodyBytes
	if own := x.run.job.MaxBodyBytes; own > 0 {
		limit = min(limit, own)
	}
	length := x.resp.ContentLength
	if x.method == http.MethodHead {
		length = 0 // it is that of the response to a GET
	}
	body, err := x.run.f.decoders.decode(ctx, x.resp.Response, limit)
	if err != nil {
		return err
	}
	defer body.close()
	if length > limit && !body.encoded {
		return errTooLarge
	}
	if body.encoded {
		length = -1
	}
	if x.body, err = x.run.f.bodies.read(body, length); err != nil {
		return err
	}
	if body.encoded {
		err = x.drain()
	}
	if err != nil {
		return err
	}
	x.stall.stop()
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

// drain reads what a decoder may have left, up to the end of the message: only there it is known that nothing was cut off, and
// that the connection is free.
func (x *exchanges) drain() error {
	rest, err := io.Copy(io.Discard, io.LimitReader(x.resp.Body, maxDrained))
	if err != nil {
		return err
	}
	if rest == maxDrained {
		x.resp.Close = true
	}
	return nil
}

// hasBody reports whether the response has a body by rule, even an empty one (RFC 9110, 6.4.1).
func (x *exchanges) hasBody() bool {
	return x.method != http.MethodHead && x.resp.StatusCode != http.StatusNoContent && x.resp.StatusCode != http.StatusNotModified
}

// bodies are buffers in which bodies of an unknown size grow. The zero value is ready.
type bodies struct{ pool sync.Pool }

// read reads a body to its end. length is what is announced and need not come, or below zero.
func (b *bodies) read(from io.Reader, length int64) ([]byte, error) {
	if length >= 0 && length <= maxGrown {
		buf := bytes.NewBuffer(make([]byte, 0, length+bytes.MinRead)) // room for the read that finds the end
		_, err := buf.ReadFrom(from)
		return buf.Bytes(), err
	}
	buf, ok := b.pool.Get().(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	_, err := buf.ReadFrom(from)
	if buf.Len() > maxGrown {
		return buf.Bytes(), err // too large to be copied, or kept
	}
	body := bytes.Clone(buf.Bytes())
	buf.Reset()
	b.pool.Put(buf)
	return body, err
}
