package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
)

// chunkSize of an object: as few messages as fit well below the server's bound of 1 MiB.
const chunkSize = 256 << 10

// Stored tells how the storing of a result went.
type Stored struct {
	// Won reports whether the stored result is this one. If not, the job had its result before.
	Won bool
	// Previous is the result that is kept instead; zero if Won.
	Previous jobs.Result
}

// StoreResult stores the one result of a job, unless it has one. A body above jobs.MaxInlineBody goes to the object store
// first; r then names the object and has no body, so that storing the same r again does not put it twice. The object of
// a result that lost is deleted.
//
// Errors: ErrResultsFull; any other one may pass, and storing the same r again is safe: a first try that was stored
// without an answer is recognised as won.
func (c *Client) StoreResult(ctx context.Context, r *jobs.Result) (Stored, error) {
	doing := "store result of job " + r.Queue + "/" + clip(r.ID)
	subject := c.names.ResultIngress(r.Queue, r.ID)
	if !publishable(subject) {
		return Stored{}, fmt.Errorf("%s: %w", doing, errNoSubject)
	}
	if len(r.Body) > jobs.MaxInlineBody && r.Outcome == jobs.Succeeded {
		if err := c.putBody(ctx, r); err != nil {
			return Stored{}, c.storeError(ctx, doing, err)
		}
	}
	header, payload, err := r.Message()
	if err != nil {
		return Stored{}, err
	}
	err = c.guarded(ctx, &nats.Msg{Subject: subject, Header: header, Data: payload})
	switch {
	case err == nil:
		return Stored{Won: true}, nil
	case isTaken(err), isRace(err):
		return c.lost(ctx, doing, r)
	}
	return Stored{}, c.storeError(ctx, doing, err)
}

// lost reads the result that is there. It may be ours after all, stored by a try whose answer did not arrive.
func (c *Client) lost(ctx context.Context, doing string, r *jobs.Result) (Stored, error) {
	kept, err := c.kept(ctx, r)
	if err != nil {
		return Stored{}, c.explain(doing, err)
	}
	if kept.Worker == r.Worker && kept.JobSeq == r.JobSeq && kept.Object == r.Object && kept.FinishedAt.Equal(r.FinishedAt) {
		return Stored{Won: true}, nil
	}
	if r.Object != "" {
		c.deleteBody(ctx, r)
	}
	kept.Body = nil
	return Stored{Previous: kept}, nil
}

// kept waits a little for a result that must be there: the replica that answers may be a moment behind.
func (c *Client) kept(ctx context.Context, r *jobs.Result) (jobs.Result, error) {
	for tries := 0; ; tries++ {
		msg, err := c.last(ctx, c.names.Stream("RESULTS"), c.names.Result(r.Queue, r.ID))
		if err == nil {
			return jobs.ParseResult(msg.Header, msg.Data), nil
		}
		if !isNotFound(err) || tries == 20 {
			return jobs.Result{}, err
		}
		select {
		case <-ctx.Done():
			return jobs.Result{}, context.Cause(ctx)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (c *Client) storeError(ctx context.Context, doing string, err error) error {
	if isFull(err) {
		return fmt.Errorf("%s: %w", doing, ErrResultsFull)
	}
	return c.explainPublish(ctx, doing, c.names.Stream("RESULTS"), err)
}

// bodyTimeout bounds the storing of one body: an answer that a dying server swallowed is not waited for.
const bodyTimeout = 30 * time.Second

// putBody puts the body under a name that no other put has, so that a put cannot change what a stored result names.
func (c *Client) putBody(ctx context.Context, r *jobs.Result) error {
	ctx, cancel := context.WithTimeout(ctx, bodyTimeout)
	defer cancel()
	store, err := c.objects(ctx)
	if err != nil {
		return err
	}
	name := r.ID + "/" + nuid.Next()
	_, err = store.Put(ctx, jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}}, bytes.NewReader(r.Body))
	if err != nil {
		c.forgetObjects()
		return err
	}
	sum := sha256.New()
	_, _ = sum.Write(r.Body) // a hash never fails
	r.Object, r.ObjectDigest, r.Body = c.names.Bucket("bodies")+"/"+name, digest(sum), nil
	return nil
}

// deleteBody is a courtesy: the bucket's age limit removes what it leaves behind.
func (c *Client) deleteBody(ctx context.Context, r *jobs.Result) {
	_, name, _ := strings.Cut(r.Object, "/")
	if store, err := c.objects(ctx); err == nil {
		if err := store.Delete(ctx, name); err != nil {
			c.forgetObjects()
		}
	}
}

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
	c.bodies = store
	return store, nil
}

// forgetObjects binds anew at the next use: the store may have been made anew.
func (c *Client) forgetObjects() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies = nil
}
