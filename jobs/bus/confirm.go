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
	nc    *nats.Conn
	rooms sync.Pool // of *room

	// mu is never held while a message is sent.
	mu      sync.Mutex // guards the fields below
	inbox   string     // with the dot before the token; empty before the first publish
	last    uint64     // the newest token
	pending map[uint64]*room
}

// room is where one publish waits for its answer. It is used again afterwards.
type room struct {
	subject string
	answer  chan answer // has room for the only answer
	timer   *time.Timer
}

// answer is a message, or why there is none.
type answer struct {
	msg *nats.Msg
	// Exactly one of the two is set.
	err error
}

// As in nats.go: for a moment during a change of leaders, no server answers.
const (
	unansweredTries = 3
	unansweredDelay = 250 * time.Millisecond
)

// publish sends a message and waits until a stream has stored it, for a limited time. It may be called by any number of
// goroutines.
//
// Errors: context.DeadlineExceeded, which says nothing of whether the message is stored; jetstream.ErrNoStreamResponse; one of
// the server, as jetstream has it; one that wraps nats.ErrPermissionViolation.
func (c *confirmations) publish(ctx context.Context, msg *nats.Msg, limit time.Duration) error {
	began := time.Now()
	for tries := 1; ; tries++ {
		// The limit is for all attempts together.
		got, err := c.ask(ctx, msg, limit-time.Since(began))
		if err != nil {
			return err
		}
		// The whole answer is handed on: an error of the server is an answer, too.
		if !isUnanswered(got) {
			return confirmed(got.Data)
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

// confirmed reads a confirmation. The first case reads nearly all of them.
func confirmed(data []byte) error {
	// Parsing JSON for each publish would cost more than the rest of the path. The prefix, with a name that is
	// not empty and no error behind it, is enough.
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
	r, token, reply, err := c.enter(msg.Subject, limit)
	if err != nil {
		return nil, err
	}
	// The message is copied, so that its caller may publish it again with another reply.
	err = c.nc.PublishMsg(&nats.Msg{Subject: msg.Subject, Reply: reply, Header: msg.Header, Data: msg.Data})
	var got answer
	if err == nil {
		select {
		case got = <-r.answer:
			c.leave(r)
			return got.msg, got.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.timer.C:
			err = context.DeadlineExceeded
		}
	}
	// The room gets this answer, unless the real one came at the same time. In both cases the channel holds exactly one
	// value, and receiving it makes the room reusable.
	c.end(token, answer{err: err}) // unless the answer has come just now
	got = <-r.answer
	c.leave(r)
	return got.msg, got.err
}

// enter prepares the wait for an answer, and subscribes at the first time.
func (c *confirmations) enter(subject string, limit time.Duration) (r *room, token uint64, reply string, err error) {
	r, ok := c.rooms.Get().(*room)
	if ok {
		// Since Go 1.23, Reset and Stop leave no stale value in the timer's channel.
		r.timer.Reset(limit)
	} else {
		r = &room{answer: make(chan answer, 1), timer: time.NewTimer(limit)}
	}
	r.subject = subject
	c.mu.Lock()
	defer c.mu.Unlock()
	// The inbox is made under the lock, so there is one subscription however many publishes begin at once.
	if c.inbox == "" {
		inbox := c.nc.NewInbox() + "."
		if _, err := c.nc.Subscribe(inbox+"*", c.hear); err != nil {
			return nil, 0, "", err
		}
		c.inbox, c.pending = inbox, map[uint64]*room{}
	}
	c.last++
	c.pending[c.last] = r
	// Base 36 keeps the token short; it is unique for the life of the client.
	return r, c.last, c.inbox + strconv.FormatUint(c.last, 36), nil
}

// leave makes a room usable again. Its answer has been taken, and no other one comes.
func (c *confirmations) leave(r *room) {
	r.timer.Stop()
	c.rooms.Put(r)
}

// hear takes an answer.
func (c *confirmations) hear(msg *nats.Msg) {
	// A message with an unreadable token is no answer, and is ignored.
	token, err := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 36, 64)
	if err == nil {
		c.end(token, answer{msg: msg})
	}
}

// end gives a publish its answer, unless it has one.
func (c *confirmations) end(token uint64, got answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The goroutine that deletes the entry sends the answer, so there is never a second one.
	if r := c.pending[token]; r != nil {
		delete(c.pending, token)
		r.answer <- got // never blocks: it is the only one
	}
}

// refuse ends the publishes to a subject that this user may not publish to.
func (c *confirmations) refuse(subject string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The walk is over the publishes under way, and refusals are rare.
	for token, r := range c.pending {
		if r.subject == subject {
			delete(c.pending, token)
			r.answer <- answer{err: err}
		}
	}
}
