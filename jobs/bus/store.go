package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
)

// Stored is the outcome of storing a result.
type Stored struct {
	// Won is true if this result is stored. If it is false, the job had a result before.
	Won bool
	// Previous is the result that is kept instead; nil if Won.
	Previous *jobs.Result
	// Omitted lists what had to be left out of the result, as in jobs.Result, and Refusal says why. Both are empty if
	// nothing was left out.
	Omitted []string
	Refusal error
}

// PendingResult is a result that is to be stored. Its message is built once, however often Store is called. One goroutine
// uses it.
type PendingResult struct {
	client  *Client
	result  jobs.Result
	msg     *nats.Msg // nil before it is built
	outside bool      // the body belongs into the object store
	refusal error     // why something was left out
}

// Pending prepares the one result of a job for Store.
func (c *Client) Pending(r *jobs.Result) *PendingResult {
	// Failed jobs keep their small bodies inline.
	return &PendingResult{client: c, result: *r, outside: len(r.Body) > jobs.MaxInlineBody && r.Outcome == jobs.Succeeded}
}

// StoreResult stores the one result of a job, unless the job has one: it calls Pending, and Store once. r then names the object
// that holds its body.
func (c *Client) StoreResult(ctx context.Context, r *jobs.Result) (Stored, error) {
	p := c.Pending(r)
	stored, err := p.Store(ctx)
	*r = p.result
	return stored, err
}

// Store stores the result, unless the job has one. A body above jobs.MaxInlineBody goes to the object store first. The
// object of a result that lost is deleted. If the message is too large or cannot be encoded, it is made smaller: a
// smaller body goes to the object store as well, and then the least important fields are left out, until only the facts
// remain.
//
// Errors: ErrResultsFull; one for which IsPermanent is true; any other one may be transient. Storing again is safe: if
// the first attempt was stored without an answer, Won is true.
func (p *PendingResult) Store(ctx context.Context) (Stored, error) {
	action := "store result of job " + p.result.Queue + "/" + Clip(p.result.ID)
	// The id of an invalid job may be anything; such a job gets an id that can be published before.
	if subject := p.client.names.ResultIngress(p.result.Queue, p.result.ID); !Publishable(subject) {
		return Stored{}, fmt.Errorf("%s: %w", action, ErrNoSubject)
	}
	for {
		stored, err := p.store(ctx, action)
		// The loop ends, because each reduction leaves less.
		if IsUnstorable(err) && p.reduce() {
			p.refusal = err
			continue
		}
		if len(p.result.Omitted) > 0 {
			stored.Omitted, stored.Refusal = p.result.Omitted, p.refusal
		}
		return stored, err
	}
}

// reduce makes the message smaller, and reports whether that was possible.
func (p *PendingResult) reduce() bool {
	p.msg = nil // it has to be built again
	switch {
	case p.outside && len(p.result.Body) > 0: // the object store refuses the body
		p.outside = false
		p.result.OmitBody()
		return true
	case len(p.result.Body) > 0 && p.result.Outcome == jobs.Succeeded:
		p.outside = true
		return true
	}
	return p.result.Omit()
}

// store makes one attempt of Store. After a put the body is empty, so it is not put again.
func (p *PendingResult) store(ctx context.Context, action string) (Stored, error) {
	c, r := p.client, &p.result
	if p.outside && len(r.Body) > 0 {
		limited, cancel := context.WithTimeout(ctx, p.TimeLimit())
		defer cancel()
		if err := c.putBody(limited, r); err != nil {
			return Stored{}, c.storeError(limited, action, "OBJ_"+c.names.Bucket("bodies"), c.objectSize(len(r.Body)), err)
		}
		p.msg = nil
	}
	if p.msg == nil {
		header, payload, err := r.Message()
		if err != nil {
			return Stored{}, err
		}
		p.msg = &nats.Msg{Subject: c.names.ResultIngress(r.Queue, r.ID), Header: header, Data: payload}
	}
	err := c.PublishOnce(ctx, p.msg)
	switch {
	case err == nil:
		return Stored{Won: true}, nil
	// A race with another write is not decided yet, so the result is read in both cases.
	case IsTaken(err), isRace(err):
		return c.lost(ctx, action, r)
	}
	return Stored{}, c.storeError(ctx, action, c.names.Stream("RESULTS"), int64(p.msg.Size()+storedOverhead), err)
}

// lost reads the result that is stored. It may be this one, if an earlier attempt was stored and its answer did not arrive.
// Worker, sequence, object and end together identify a result.
func (c *Client) lost(ctx context.Context, action string, r *jobs.Result) (Stored, error) {
	kept, err := c.kept(ctx, r)
	if err != nil {
		return Stored{}, c.Explain(action, err)
	}
	// Another worker's result differs in at least one of them. The end alone would do for results of one
	// worker.
	if kept.Worker == r.Worker && kept.JobSeq == r.JobSeq && kept.Object == r.Object && kept.FinishedAt.Equal(r.FinishedAt) {
		return Stored{Won: true}, nil
	}
	// No stored result names the object of this one.
	if r.Object != "" {
		c.deleteBody(ctx, r)
	}
	kept.Body = nil // it may be large, and no caller needs it
	return Stored{Previous: &kept}, nil
}

// kept reads a result that must be there. It tries for half a second, because the replica that answers may be a moment
// behind its leader.
func (c *Client) kept(ctx context.Context, r *jobs.Result) (jobs.Result, error) {
	for tries := 0; ; tries++ {
		msg, err := c.LastMessage(ctx, c.names.Stream("RESULTS"), c.names.Result(r.Queue, r.ID))
		if err == nil {
			return jobs.ParseResult(msg.Header, msg.Data), nil
		}
		// Twenty attempts, 25 ms apart.
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

// storeError explains why a stream took no message, or no object, of a size in bytes. A stream without room is ErrResultsFull.
// What would not fit into the empty stream, or the empty account, is errNeverFits: to wait for room would keep the job, and with
// it the worker, for ever.
func (c *Client) storeError(ctx context.Context, action, stream string, size int64, err error) error {
	if !IsFull(err) {
		return c.ExplainPublish(ctx, action, c.names.Stream("RESULTS"), err)
	}
	full := ErrResultsFull
	switch code, text := apiError(err); {
	case code != codeStoreFailed: // the other codes are of the account and of the server
		full = ErrNoStorage
	case strings.Contains(text, textTooMany):
		full = ErrTooManyResults
	}
	if c.neverFits(ctx, stream, size, errors.Is(full, ErrNoStorage)) {
		full = errNeverFits
	}
	return fmt.Errorf("%s: %w (%w)", action, full, err)
}

// neverFits reports whether so many bytes are more than a stream may hold or, if inAccount, than its account may. Without an
// answer there may be room later. So there may be below a tiny limit: somebody has closed the stream for a while.
func (c *Client) neverFits(ctx context.Context, stream string, size int64, inAccount bool) bool {
	info, err := c.StreamInfo(ctx, stream)
	if err != nil {
		return false
	}
	limit := info.Config.MaxBytes
	if inAccount {
		a, err := c.account(ctx)
		if err != nil {
			return false
		}
		tier, replicas := a.tierOf(info.Config.Replicas)
		limit, size = tier.Limits.MaxStorage, size*replicas
	}
	return limit >= smallestRoom && size > limit
}

// errNeverFits makes Store leave out a part of the result, such as a body that is larger than its bucket may be.
var errNeverFits = fmt.Errorf("%w: it is larger than the limit of its stream or account", ErrResultsFull)

// smallestRoom is less than anybody gives the results for good, in bytes.
const smallestRoom = 64 << 10

// Bounds on what the server adds to a stored message, and on the meta data of an object, in bytes.
const storedOverhead, maxObjectMeta = 128, 2 << 10

// objectSize returns a bound on what a body takes in the object store, in bytes.
func (c *Client) objectSize(body int) int64 {
	return int64(body) + (int64(body)/int64(c.chunkSize())+1)*storedOverhead + maxObjectMeta
}
