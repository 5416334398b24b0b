package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// maxChunkSize bounds the chunks of an object, in bytes. It is well below the server's default bound of 1 MiB.
	maxChunkSize = 256 << 10
	// bodyStall bounds the time in which the server takes one chunk of a body.
	bodyStall = 15 * time.Second
	// maxBodyTime bounds the storing of one body whatever its size.
	maxBodyTime = time.Hour
	// slowestLink is the slowest connection for which TimeLimit is long enough, in bytes a second.
	slowestLink = 64 << 10
)

var (
	errStalled      = fmt.Errorf("the server takes nothing of the body: %w", nats.ErrTimeout)
	errDisconnected = fmt.Errorf("the connection broke while the body was sent: %w", nats.ErrDisconnected)
)

// IsLarge reports whether the body goes to the object store. Store takes seconds at most for a result that is not large.
func (p *PendingResult) IsLarge() bool { return p.outside }

// TimeLimit is how long a call of Store may take. It grows with a body that goes to the object store.
func (p *PendingResult) TimeLimit() time.Duration {
	limit := requestTimeout
	if p.outside {
		// The time of the request, one stall, and the time that the slowest link needs.
		limit = min(limit+bodyStall+time.Duration(len(p.result.Body)/slowestLink)*time.Second, maxBodyTime)
	}
	return limit
}

// putBody stores the body in the object store. The result then names the object and holds no body. Each put has a name of its
// own, so that it cannot replace the object of a stored result.
func (c *Client) putBody(ctx context.Context, r *jobs.Result) error {
	store, err := c.objects(ctx)
	if err != nil {
		return err
	}
	bucket, name := c.names.Bucket("bodies"), r.ID+"/"+nuid.Next()
	meta := jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: c.chunkSize()}}
	err = c.putUnlessStalled(ctx, bytes.NewReader(r.Body), func(ctx context.Context, body io.Reader) error {
		return c.refusals.watch(ctx, func(ctx context.Context) error {
			_, err := store.Put(ctx, meta, body)
			return err
		}, "$O."+bucket, api+"STREAM.PURGE.OBJ_"+bucket)
	})
	// A bucket that was recreated needs a new binding, so the next put binds again.
	if err != nil {
		c.forgetObjects()
		return err
	}
	sum := sha256.New()
	_, _ = sum.Write(r.Body) // a hash never fails
	r.Object, r.ObjectDigest, r.Body = bucket+"/"+name, Digest(sum), nil
	return nil
}

// chunkSize returns the size of an object's chunks, in bytes: below max_payload even on servers that allow little.
func (c *Client) chunkSize() uint32 { return uint32(max(1, min(maxChunkSize, c.nc.MaxPayload()/2))) }

// putUnlessStalled runs put, which reads body chunk by chunk, as long as the server accepts chunks. Each chunk waits until the
// server has the one before, because megabytes on a slow connection would delay heartbeats. The end of the connection ends put:
// the answers to earlier chunks never come. Errors: errStalled, errDisconnected, those of put.
func (c *Client) putUnlessStalled(ctx context.Context, body io.Reader, put func(context.Context, io.Reader) error) error {
	var watching sync.WaitGroup
	// It runs last, after the calls that end the goroutine.
	defer watching.Wait()
	ctx, endWatch := context.WithTimeout(ctx, maxBodyTime) // nats.go flushes with a deadline only
	defer endWatch()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Each chunk that the server takes starts the time again.
	stall := time.AfterFunc(bodyStall, func() { cancel(errStalled) })
	defer stall.Stop()
	broken := c.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer c.nc.RemoveStatusListener(broken)
	watching.Go(func() {
		select {
		case <-broken:
			cancel(errDisconnected)
		case <-ctx.Done():
		}
	})
	err := put(ctx, readerFunc(func(p []byte) (int, error) {
		// The flush returns when the server has read everything before, the last chunk included.
		if err := c.nc.FlushWithContext(ctx); err != nil {
			return 0, err
		}
		stall.Reset(bodyStall)
		return body.Read(p)
	}))
	// The error of put would only say that ctx has ended.
	if cause := context.Cause(ctx); err != nil && (errors.Is(cause, errStalled) || errors.Is(cause, errDisconnected)) {
		return cause
	}
	return err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// deleteBody deletes the object of a result that was not stored. If that fails, the age limit of the bucket removes the object.
func (c *Client) deleteBody(ctx context.Context, r *jobs.Result) {
	_, name, _ := strings.Cut(r.Object, "/")
	if store, err := c.objects(ctx); err == nil {
		if err := store.Delete(ctx, name); err != nil {
			c.forgetObjects()
		}
	}
}

// objects returns the object store of bodies and binds it at the first use. The lock is not held during the request; of
// two that bind at once, either may stay.
func (c *Client) objects(ctx context.Context) (jetstream.ObjectStore, error) {
	c.mu.Lock()
	bound := c.bodies
	c.mu.Unlock()
	if bound != nil {
		return bound, nil
	}
	store, err := c.js.ObjectStore(ctx, c.names.Bucket("bodies"))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Of two that bind at the same time, the later one stays. Both are good.
	c.bodies = store
	return store, nil
}

// forgetObjects makes the next use bind the object store again: after an error it may have been recreated.
func (c *Client) forgetObjects() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies = nil
}

// Digest returns a SHA-256 in the notation of the object store.
func Digest(h hash.Hash) string { return "SHA-256=" + base64.URLEncoding.EncodeToString(h.Sum(nil)) }
