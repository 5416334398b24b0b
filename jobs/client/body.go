package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Body returns a reader of a result's response body, wherever the body is kept. If a body differs from the stored one,
// the reader ends with ErrDigest. The reader ends with ctx and belongs to one goroutine; Close frees nothing. A job
// that did not succeed has no body: ErrNoBody. If r was read without its payload, Body reads the stored result. Of a
// large body it reads only the description.
func (c *Client) Body(ctx context.Context, r jobs.Result) (io.ReadCloser, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if r.Outcome != jobs.Succeeded {
		return nil, fmt.Errorf("read body of job %s, whose outcome is %q: %w", r.ID, r.Outcome, ErrNoBody)
	}
	// The headers name no body that is kept inline, so the result is read again.
	if r.HeadersOnly && r.Object == "" {
		stored, err := c.Result(ctx, Key{Queue: r.Queue, ID: r.ID})
		if err != nil {
			return nil, err
		}
		r = stored
	}
	if r.LacksBody() {
		return nil, fmt.Errorf("read body of job %s: %w", r.ID, ErrNoBody)
	}
	if r.Object == "" {
		return io.NopCloser(bytes.NewReader(r.Body)), nil
	}
	bucket, name, ok := strings.Cut(r.Object, "/")
	if !ok || !bus.Publishable(bucket) {
		return nil, fmt.Errorf("read body of job %s: %q is not an object", r.ID, bus.Clip(r.Object))
	}
	// Names as in NATS ADR-20: M holds the description of an object, C its chunks.
	stream := "OBJ_" + bucket
	msg, err := c.bus.LastMessage(ctx, stream, "$O."+bucket+".M."+base64.URLEncoding.EncodeToString([]byte(name)))
	if err != nil {
		return nil, c.bus.Explain("read body of job "+r.ID, err)
	}
	var info jetstream.ObjectInfo
	if err := json.Unmarshal(msg.Data, &info); err != nil {
		return nil, fmt.Errorf("read body of job %s: %w", r.ID, err)
	}
	// The id of the object becomes a part of a subject, so it is checked like anything that others may have
	// written.
	if info.Deleted || !bus.Publishable(info.NUID) {
		return nil, fmt.Errorf("read body of job %s: %w", r.ID, ErrNotFound)
	}
	return &objectReader{
		ctx: ctx, client: c, stream: stream, subject: "$O." + bucket + ".C." + info.NUID,
		chunks: info.Chunks, digest: sha256.New(), want: r.ObjectDigest,
	}, nil
}

// objectReader reads an object chunk by chunk. The object store's own reader would create a consumer, which readers of
// results must not be able to. So it works for users that may only read.
type objectReader struct {
	ctx             context.Context //nolint:containedctx // an io.Reader has nowhere else to take it from
	client          *Client
	stream, subject string
	chunks          uint32 // still to come
	seq             uint64
	chunk           []byte
	digest          hash.Hash
	want            string
}

// Read fills p from the present chunk, and fetches the next chunk when that is used up.
func (o *objectReader) Read(p []byte) (int, error) {
	for len(o.chunk) == 0 {
		// All chunks have come, so the digest can be compared.
		if o.chunks == 0 {
			return 0, o.end()
		}
		if err := o.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.chunk)
	o.chunk = o.chunk[n:]
	return n, nil
}

// fetch reads the next chunk by its sequence: chunks of one object are stored in order, and other objects lie between
// them.
func (o *objectReader) fetch() error {
	// The next message of the subject behind the last chunk: other objects have other subjects.
	msg, err := o.client.bus.NextMessage(o.ctx, o.stream, o.subject, o.seq+1)
	if err != nil {
		return o.client.bus.Explain("read a chunk of a body", err)
	}
	if o.seq, err = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
		return fmt.Errorf("read a chunk of a body: %w", err)
	}
	o.chunk = msg.Data
	o.chunks--
	_, _ = o.digest.Write(msg.Data) // a hash never fails
	return nil
}

// end compares the digest of all chunks with that of the result: ErrDigest, or io.EOF if they are equal. A body that
// was cut off or replaced fails only here, at its end.
func (o *objectReader) end() error {
	if bus.Digest(o.digest) != o.want {
		return ErrDigest
	}
	return io.EOF
}

// Close frees nothing: a body is read by single requests.
func (o *objectReader) Close() error { return nil }
