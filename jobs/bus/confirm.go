package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// confirmations receives the server's answers to publishes by one subscription. nats.go would make a context, an inbox
// token of random characters and a decoder for each publish, which costs more than the publish itself.
type confirmations struct {
	nc      *nats.Conn
	outbox  *outbox
	waiters sync.Pool // of *waiter

	// mu is never held while a message is sent.
	mu      sync.Mutex // guards the fields below
	inbox   string     // with the dot before the token; empty before the first publish
	last    uint64     // the newest token
	pending map[uint64]*waiter
}

// waiter receives the answer to one publish. Later publishes use it again.
type waiter struct {
	subject string
	answer  chan answer // has room for the only answer
	timer   *time.Timer
}

// answer is a message, or the reason why there is none: exactly one field is set.
type answer struct {
	msg *nats.Msg
	err error
}

// The values are those of nats.go. While the leader changes, no stream answers for a moment.
const (
	unansweredTries = 3
	unansweredDelay = 250 * time.Millisecond
)

// publish sends a message and waits until a stream has stored it, for a limited time. It may be called by any number of
// goroutines.
//
// Errors: context.DeadlineExceeded, after which it is unknown whether the message is stored; jetstream.ErrNoStreamResponse; an
// error of the server, as jetstream returns it; an error that wraps nats.ErrPermissionViolation.
func (c *confirmations) publish(ctx context.Context, msg *nats.Msg, limit time.Duration) error {
	began := time.Now()
	for tries := 1; ; tries++ {
		// The limit is for all attempts together.
		got, err := c.ask(ctx, msg, limit-time.Since(began))
		if err != nil {
			return err
		}
		// An error of the server is an answer, too.
		if !isUnanswered(got) {
			return ackError(got.Data)
		}
		if tries == unansweredTries {
			return jetstream.ErrNoStreamResponse
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(unansweredDelay):
		}
	}
}

// isUnanswered reports whether the server says that no stream listens to the subject.
func isUnanswered(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

// ackError returns the error in the server's answer to a publish; nil if the message is stored.
func ackError(data []byte) error {
	// To parse JSON would cost more than the rest of a publish. Nearly all answers begin with the name of a stream and
	// hold no error, which is enough.
	if rest, found := bytes.CutPrefix(data, []byte(`{"stream":"`)); found && len(rest) > 0 && rest[0] != '"' && !bytes.Contains(rest, []byte(`"error"`)) {
		return nil
	}
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	switch err := json.Unmarshal(data, &ack); {
	case err != nil:
		return jetstream.ErrInvalidJSAck
	case ack.Error != nil:
		return fmt.Errorf("nats: %w", ack.Error)
	case ack.Stream == "":
		return jetstream.ErrInvalidJSAck
	}
	return nil
}

// ask sends a message once and waits for any answer.
func (c *confirmations) ask(ctx context.Context, msg *nats.Msg, limit time.Duration) (*nats.Msg, error) {
	r, token, reply, err := c.register(msg.Subject, limit)
	if err != nil {
		return nil, err
	}
	// The message is copied, so that its caller may publish it again with another reply. The copies share header and
	// data, which nobody changes: the outbox may still read those of an earlier attempt.
	c.outbox.add(outgoing{nats.Msg{Subject: msg.Subject, Reply: reply, Header: msg.Header, Data: msg.Data}, token, c})
	var got answer
	select {
	case got = <-r.answer:
		c.release(r)
		return got.msg, got.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.timer.C:
		err = context.DeadlineExceeded
	}
	// The waiter gets this answer unless the server's came at the same time. Either way the channel holds exactly one
	// value, and the waiter can be used again once that is received.
	c.deliver(token, answer{err: err})
	got = <-r.answer
	c.release(r)
	return got.msg, got.err
}

// register prepares the wait for an answer, and subscribes at the first time.
func (c *confirmations) register(subject string, limit time.Duration) (r *waiter, token uint64, reply string, err error) {
	r, ok := c.waiters.Get().(*waiter)
	if ok {
		// Since Go 1.23, Reset and Stop leave no stale value in the timer's channel.
		r.timer.Reset(limit)
	} else {
		r = &waiter{answer: make(chan answer, 1), timer: time.NewTimer(limit)}
	}
	r.subject = subject
	c.mu.Lock()
	defer c.mu.Unlock()
	// It subscribes under the lock, so that publishes that begin at once share one subscription.
	if c.inbox == "" {
		inbox := c.nc.NewInbox() + "."
		if _, err := c.nc.Subscribe(inbox+"*", c.receive); err != nil {
			return nil, 0, "", err
		}
		c.inbox, c.pending = inbox, map[uint64]*waiter{}
	}
	c.last++
	c.pending[c.last] = r
	// Base 36 keeps the token short; it is unique for the life of the client.
	return r, c.last, c.inbox + strconv.FormatUint(c.last, 36), nil
}

// release keeps a waiter for a later publish. The caller has received its only answer.
func (c *confirmations) release(r *waiter) {
	r.timer.Stop()
	c.waiters.Put(r)
}

// receive handles a message to the inbox.
func (c *confirmations) receive(msg *nats.Msg) {
	// Anybody may publish to the inbox: a message with an unreadable token is ignored.
	token, err := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 36, 64)
	if err == nil {
		c.deliver(token, answer{msg: msg})
	}
}

// Wants reports whether a publish still waits for its answer.
func (c *confirmations) Wants(token uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[token] != nil
}

// Fail ends a publish that could not be sent.
func (c *confirmations) Fail(token uint64, err error) { c.deliver(token, answer{err: err}) }

// deliver sends a publish its answer, unless it has one.
func (c *confirmations) deliver(token uint64, got answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The goroutine that deletes the entry sends the answer, so there is never a second one.
	if r := c.pending[token]; r != nil {
		delete(c.pending, token)
		r.answer <- got // never blocks: whoever deletes the entry sends the only answer
	}
}

// refuse ends the publishes to a subject that this user may not publish to.
func (c *confirmations) refuse(subject string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The loop reads all publishes under way, which is fast enough because refusals are rare.
	for token, r := range c.pending {
		if r.subject == subject {
			delete(c.pending, token)
			r.answer <- answer{err: err}
		}
	}
}
