package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/oklog/ulid/v2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// PublishBudget bounds all attempts to publish one job, if the caller sets no deadline. A server that is started again
	// with much to recover, or a cluster that elects a leader, answers within it.
	PublishBudget = 30 * time.Second

	askTimeout = 3 * time.Second // of a request beside a publish
)

// Ack confirms that the server has stored a job, which then ends in one result.
type Ack struct {
	Key
	// Seq is the job's sequence in the job stream; zero if the answer was lost and this user may not ask for it.
	Seq uint64 `json:"seq"`
	// Index counts the jobs that SubmitMany took before this one; it is set for a refused one, too.
	Index int `json:"-"`
}

// Submit publishes a job and returns when the server has stored it. An empty queue means the default one; an empty id is
// replaced by a new ULID. A publish that got no answer is repeated until ctx ends, for 30 s if ctx has no end; the
// server stores the job once.
//
// Errors: *jobs.InvalidError, ErrQueued, ErrFinished, ErrQueueFull, ErrTooLarge, ErrNotSetUp, ErrPermission, or the last
// one of the connection. After such a last error the job may be stored or not; submitting the same id again is safe. The Ack
// names the job whatever the error.
func (c *Client) Submit(ctx context.Context, job jobs.Job) (Ack, error) {
	if err := c.ready(); err != nil {
		return Ack{}, err
	}
	if job.Queue == "" {
		job.Queue = jobs.DefaultQueue
	}
	minted := job.ID == ""
	if minted {
		job.ID = newID()
	}
	key := Key{Queue: job.Queue, ID: job.ID}
	payload, err := job.Encode()
	if asks, watched := ctx.Value(watchKey{}).(func() func()); watched && err == nil {
		defer asks()()
	}
	// A new id cannot be finished, so the request is saved.
	if err == nil && !minted {
		err = c.unfinished(ctx, key)
	}
	if err != nil {
		return Ack{Key: key}, err
	}
	// The id of the message lets the server recognise a repeated publish within its window, and firstTry after
	// that.
	header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}, jobs.HeaderContract: {jobs.ContractVersion}}
	job.Trace.AddTo(header)
	ack, err := c.submit(ctx, key, &nats.Msg{Subject: c.bus.Names().Job(key.Queue, key.ID), Data: payload, Header: header})
	ack.Key = key
	return ack, err
}

// WatchSubmits returns a context with which Submit, and SubmitMany for each job, calls asks when it begins to ask the server,
// and what asks returns when an answer has come, or none is waited for any more, before done is called. It tells a server
// that is slow to answer from a source or a done that is slow. Several goroutines call them.
func WatchSubmits(ctx context.Context, asks func() (answered func())) context.Context {
	return context.WithValue(ctx, watchKey{}, asks)
}

type watchKey struct{}

// codeHeaderTooLarge is the server's code for a message whose headers are too large.
const codeHeaderTooLarge jetstream.ErrorCode = 10097

// newID makes a ULID: ids of one program sort by time, and cannot be guessed.
func newID() string {
	return ulid.MustNew(ulid.Now(), rand.Reader).String() // fails only if rand.Reader does, which never does
}

// unfinished refuses a job whose result is kept, before it is published. It saves a publish only: the guard on the result
// decides in any case. So a stream that cannot be asked does not keep a job from being submitted.
func (c *Client) unfinished(ctx context.Context, key Key) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := c.bus.LastMessage(ctx, c.bus.Names().Stream("RESULTS"), c.bus.Names().Result(key.Queue, key.ID))
	if err == nil {
		return fmt.Errorf("submit job %s: %w", key, ErrFinished)
	}
	return nil
}

// submit publishes a job until an answer decides, and translates the answer into an error. With an error the Ack is
// empty.
func (c *Client) submit(ctx context.Context, key Key, msg *nats.Msg) (Ack, error) {
	ack, repeated, err := c.publishUntilAnswered(ctx, msg)
	switch code := bus.ErrorCode(err); {
	case err == nil:
		return Ack{Key: key, Seq: ack.Sequence}, nil
	case bus.IsTaken(err):
		// The subject may hold the job of this call's first attempt.
		if repeated {
			return c.firstTry(ctx, key, msg)
		}
		return Ack{}, fmt.Errorf("submit job %s: %w", key, ErrQueued)
	case bus.IsFull(err):
		return Ack{}, fmt.Errorf("submit job %s: %w", key, ErrQueueFull)
	case code == jetstream.JSErrCodeStreamMessageExceedsMaximum, code == codeHeaderTooLarge:
		return Ack{}, fmt.Errorf("submit job %s: %w", key, ErrTooLarge)
	}
	return Ack{}, c.bus.Explain("submit job "+key.String(), err)
}

// firstTry finds out whether the queued job is the one that an earlier attempt of this publish stored without an
// answer. If this user may not read the stream, it is assumed: no other job of the id was there before the first
// attempt.
func (c *Client) firstTry(ctx context.Context, key Key, msg *nats.Msg) (Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stored, err := c.bus.LastMessage(ctx, c.bus.Names().Stream("JOBS"), msg.Subject)
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		// No other job of the id was there when the first attempt was sent.
		return Ack{Key: key}, nil
	case err != nil:
		return c.movedOn(ctx, key, err)
	}
	// The message ids differ, so another publisher was first.
	if stored.Header.Get(jetstream.MsgIDHeader) != msg.Header.Get(jetstream.MsgIDHeader) {
		return Ack{}, fmt.Errorf("submit job %s: %w", key, ErrQueued)
	}
	seq, _ := strconv.ParseUint(stored.Header.Get(jetstream.SequenceHeader), 10, 64)
	return Ack{Key: key, Seq: seq}, nil
}

// movedOn looks for a job that is no longer in its stream. A replicated stream also refuses a second message of a
// subject while it cannot decide about the first one: a job that is not found was not accepted.
func (c *Client) movedOn(ctx context.Context, key Key, err error) (Ack, error) {
	action := "submit job " + key.String()
	if !errors.Is(err, ErrNotFound) {
		return Ack{}, c.bus.ExplainPublish(ctx, action, c.bus.Names().Stream("JOBS"), err)
	}
	found, err := c.Find(ctx, key)
	switch {
	case len(found) > 0, errors.Is(err, ErrPermission):
		return Ack{Key: key}, nil
	case err != nil:
		return Ack{}, err
	}
	return Ack{}, fmt.Errorf("%s: %w", action, ErrNoLeader)
}

// maxSilence is how long a server may report that a stream, or JetStream, is missing before that counts: it does so while
// it starts, too.
const maxSilence = 2 * time.Second

// publishUntilAnswered publishes until an answer comes that another attempt would not change, or until ctx ends.
// repeated is true if an earlier attempt got no answer: the server may have stored that one.
func (c *Client) publishUntilAnswered(ctx context.Context, msg *nats.Msg) (ack *jetstream.PubAck, repeated bool, err error) {
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, PublishBudget)
		defer cancel()
		ctx = limited
	}
	var quiet silence
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		ack, err = c.bus.Publish(ctx, msg)
		// A refusal is an answer, too.
		if err == nil || !bus.IsTransient(err) {
			return ack, repeated, err
		}
		// From now on, a taken subject may hold the first attempt.
		repeated = true
		if err = c.explainSilence(ctx, &quiet, err); !bus.IsTransient(err) {
			return nil, repeated, err
		}
		select {
		case <-ctx.Done():
			return nil, repeated, err
		case <-time.After(wait):
		}
	}
}

// silence is a time in which no publish was decided, although the server is connected.
type silence struct {
	since time.Time
	why   error // the cause, once a request about it was answered
}

// explainSilence returns why the job stream has decided nothing for longer than maxSilence, if that can be found out.
// Otherwise it returns err. A lost connection starts the time again.
func (c *Client) explainSilence(ctx context.Context, s *silence, err error) error {
	switch {
	case !c.bus.Conn().IsConnected():
		// While nothing can be sent, silence says nothing about the stream.
		*s = silence{}
	case s.since.IsZero():
		s.since = time.Now()
	case time.Since(s.since) < maxSilence:
	case bus.IsUndecided(err): // a leader without followers still answers as leader for a while
		s.why = fmt.Errorf("%w (%w)", ErrNoLeader, err)
	default:
		// The request costs a round trip, so it is sent only after maxSilence.
		if why := c.bus.WhyNoAnswer(ctx, c.bus.Names().Stream("JOBS"), err); why != err { //nolint:errorlint // the same if nothing was found out
			s.why = why
		}
	}
	return cmp.Or(s.why, err)
}

// lastAnswers is how long SubmitMany waits for answers about the jobs in flight after ctx has ended: most answers are
// on their way.
const lastAnswers = 250 * time.Millisecond

var (
	errNoSource = errors.New("there is no source of jobs: the iterator is nil")
	errNoUse    = errors.New("there is nothing to call with what comes: the function is nil")
)

// SubmitMany publishes the jobs of source, up to window of them in flight (zero means 256), and calls done for each as
// its answer comes, in any order and never twice at once, but also while source is asked for the next job. It takes no more
// jobs when ctx ends, and returns its cause. done has been called for every job taken, with ctx's cause for one that was not
// published, and with an error and its key for one without an answer. Without a source or without done it takes no job and
// returns an error.
func (c *Client) SubmitMany(ctx context.Context, source iter.Seq[jobs.Job], window int, done func(jobs.Job, Ack, error)) error {
	if err := c.ready(); err != nil {
		return err
	}
	switch {
	case source == nil:
		return errNoSource
	case done == nil:
		return errNoUse
	case window < 0:
		return errors.New("the window is below zero")
	case window == 0:
		window = 256
	}
	// Jobs in flight get a moment longer than ctx, so that an answer that is on its way is still counted.
	publishing, cancel := outlive(ctx, lastAnswers)
	defer cancel()
	slots := make(chan struct{}, window)
	var flying sync.WaitGroup
	// Deferred, so that no goroutine is left behind by any return.
	defer flying.Wait()
	var mu sync.Mutex
	// done is never called twice at once: callers need no lock of their own.
	report := func(index int, job jobs.Job, ack Ack, err error) {
		ack.Index = index
		mu.Lock()
		defer mu.Unlock()
		done(job, ack, err)
	}
	index := -1
	for job := range source {
		index++
		if ctx.Err() != nil { // the select below could choose a free slot
			report(index, job, Ack{Key: keyOf(job)}, context.Cause(ctx))
			// The range ends here, so source is not asked for another job.
			return context.Cause(ctx)
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			report(index, job, Ack{Key: keyOf(job)}, context.Cause(ctx))
			return context.Cause(ctx)
		}
		index := index
		flying.Go(func() {
			// The slot is freed after done returns, so a slow done slows the submission.
			defer func() { <-slots }()
			ack, err := c.Submit(publishing, job)
			report(index, job, ack, err)
		})
	}
	flying.Wait()
	return context.Cause(ctx)
}

// keyOf is the key under which Submit would publish a job; its id is empty if Submit would make one.
func keyOf(job jobs.Job) Key { return Key{Queue: cmp.Or(job.Queue, jobs.DefaultQueue), ID: job.ID} }

// outlive is a context that ends d after ctx, with the same cause. The caller calls cancel.
func outlive(ctx context.Context, d time.Duration) (out context.Context, cancel context.CancelFunc) {
	out, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			end(context.Cause(ctx))
		case <-out.Done():
		}
	})
	return out, func() { stop(); end(nil) }
}
