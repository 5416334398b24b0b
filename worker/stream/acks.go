package stream

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ackTimeout is how long the server may take to confirm an ack.
const ackTimeout = 5 * time.Second

// errUnconfirmed means that the server has not confirmed an ack in time: the job may be delivered again.
var errUnconfirmed = errors.New("the server did not confirm the ack in time")

// Acks acks jobs without waiting for the server: one subscription hears all confirmations. A lost ack causes a second delivery.
// Its worker finds the stored result. It may be used by any number of goroutines. OpenAcks makes one.
type Acks struct {
	client *Client
	sub    *nats.Subscription
	inbox  string // with the dot before the token
	report func(queue, id string, err error)

	mu      sync.Mutex // guards the fields below
	last    uint64     // the newest token
	oldest  uint64     // the oldest token that may be pending
	pending map[uint64]pendingAck
	timer   *time.Timer   // of the oldest; nil while none is pending
	idle    chan struct{} // closed when no ack is pending; nil while no Close is waiting
}

// pendingAck is an ack that the server has not confirmed yet.
type pendingAck struct {
	queue, id string
	sent      time.Time
}

// OpenAcks subscribes to the confirmations. It calls report for each ack when the server has confirmed it, with an error when
// the server refuses it or takes longer than 5 s. report must not block. Close ends it.
func (c *Client) OpenAcks(report func(queue, id string, err error)) (*Acks, error) {
	a := &Acks{client: c, inbox: c.Conn().NewInbox() + ".", report: report, pending: map[uint64]pendingAck{}, oldest: 1}
	sub, err := c.Conn().Subscribe(a.inbox+"*", a.hear)
	if err != nil {
		return nil, c.Explain("subscribe to confirmations", err)
	}
	a.sub = sub
	return a, nil
}

// Ack sends the ack of a job.
func (a *Acks) Ack(msg delivered, queue, id string) {
	a.mu.Lock()
	a.last++
	token := a.last
	a.pending[token] = pendingAck{queue: queue, id: id, sent: time.Now()}
	if a.timer == nil {
		a.timer = time.AfterFunc(ackTimeout, a.expire)
	}
	a.mu.Unlock()
	if err := a.client.Conn().PublishRequest(msg.Reply(), a.inbox+strconv.FormatUint(token, 36), []byte("+ACK")); err != nil {
		a.end(token, err)
	}
}

// hear takes a confirmation.
func (a *Acks) hear(msg *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, a.inbox), 36, 64)
	if err != nil {
		return
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		err = nats.ErrNoResponders // the consumer is gone
	}
	a.end(token, err)
}

// end reports how an ack ended, once.
func (a *Acks) end(token uint64, err error) {
	a.mu.Lock()
	ack, pending := a.pending[token]
	delete(a.pending, token)
	a.settle()
	a.mu.Unlock()
	if pending {
		a.report(ack.queue, ack.id, err)
	}
}

// settle wakes a waiting Close if no ack is pending. The caller holds the lock.
func (a *Acks) settle() {
	if len(a.pending) == 0 && a.idle != nil {
		close(a.idle)
		a.idle = nil
	}
}

// expire ends the acks that the server did not confirm in time, and waits for the next one to expire.
func (a *Acks) expire() {
	a.endBefore(time.Now().Add(-ackTimeout))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = nil
	if len(a.pending) > 0 {
		a.timer = time.AfterFunc(time.Until(a.pending[a.oldest].sent.Add(ackTimeout)), a.expire)
	}
}

// endBefore ends the acks that were sent before a time. Afterwards oldest is the token of the oldest pending ack.
func (a *Acks) endBefore(sent time.Time) {
	var late []pendingAck
	a.mu.Lock()
	for ; a.oldest <= a.last; a.oldest++ {
		ack, pending := a.pending[a.oldest]
		if pending && ack.sent.After(sent) {
			break
		}
		if pending {
			late = append(late, ack)
			delete(a.pending, a.oldest)
		}
	}
	a.settle()
	a.mu.Unlock()
	for _, ack := range late {
		a.report(ack.queue, ack.id, errUnconfirmed)
	}
}

// Close waits until no ack is pending, or until ctx ends, and hears no more confirmations.
func (a *Acks) Close(ctx context.Context) {
	a.mu.Lock()
	idle := make(chan struct{})
	a.idle = idle
	a.settle()
	a.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	_ = a.sub.Unsubscribe()
	a.mu.Lock()
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.endBefore(time.Now())
}
