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

// Acks acks jobs without waiting for the server: one subscription receives all confirmations. After a lost ack the job is
// delivered again, and its worker finds the stored result. Any number of goroutines may use it. OpenAcks makes one.
type Acks struct {
	client *Client
	sub    *nats.Subscription
	inbox  string // with the dot before the token
	report func(queue, id string, err error)
	ack    []byte // the payload of all acks

	mu          sync.Mutex // guards the fields below
	last        uint64     // the newest token
	oldest      uint64     // the oldest token that may be pending
	pending     map[uint64]pendingAck
	timer       *time.Timer   // of the oldest; nil while none is pending
	allReported chan struct{} // closed when no ack is pending and all are reported; nil while no Close is waiting
	// reporting is how many acks are being reported; they are no longer pending.
	reporting int
}

// pendingAck is an ack that the server has not confirmed yet.
type pendingAck struct {
	queue, id string
	sent      time.Time
}

// OpenAcks subscribes to the confirmations. It calls report for each ack when the server has confirmed it, with an error when
// the server refuses it or takes longer than 5 s. report must not block. Close ends it.
func (c *Client) OpenAcks(report func(queue, id string, err error)) (*Acks, error) {
	a := &Acks{client: c, inbox: c.Conn().NewInbox() + ".", report: report, ack: []byte("+ACK"), pending: map[uint64]pendingAck{}, oldest: 1}
	sub, err := c.Conn().Subscribe(a.inbox+"*", a.receive)
	if err != nil {
		return nil, c.Explain("subscribe to confirmations", err)
	}
	a.sub = sub
	return a, nil
}

// Ack sends the ack of a job, together with other messages that wait to be sent.
func (a *Acks) Ack(msg delivered, queue, id string) {
	a.mu.Lock()
	a.last++
	token := a.last
	a.pending[token] = pendingAck{queue: queue, id: id, sent: time.Now()}
	if a.timer == nil {
		a.timer = time.AfterFunc(ackTimeout, a.expire)
	}
	a.mu.Unlock()
	a.client.SendSoon(nats.Msg{Subject: msg.Reply(), Reply: a.inbox + strconv.FormatUint(token, 36), Data: a.ack}, token, a)
}

// Wants reports whether an ack still waits for its confirmation: see bus.Sender.
func (a *Acks) Wants(token uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, pending := a.pending[token]
	return pending
}

// Fail ends an ack that could not be sent.
func (a *Acks) Fail(token uint64, err error) { a.finish(token, err) }

// receive handles a confirmation.
func (a *Acks) receive(msg *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, a.inbox), 36, 64)
	if err != nil {
		return
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		err = nats.ErrNoResponders // the consumer is gone
	}
	a.finish(token, err)
}

// finish reports the end of an ack, once.
func (a *Acks) finish(token uint64, err error) {
	a.mu.Lock()
	ack, pending := a.pending[token]
	delete(a.pending, token)
	if pending {
		a.reporting++
	}
	a.mu.Unlock()
	if pending {
		a.report(ack.queue, ack.id, err)
		a.endReporting(1)
	}
}

// endReporting ends the reporting of n acks.
func (a *Acks) endReporting(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reporting -= n
	a.wakeClose()
}

// wakeClose wakes a waiting Close if no ack is pending and all are reported. The caller holds the lock.
func (a *Acks) wakeClose() {
	if len(a.pending) == 0 && a.reporting == 0 && a.allReported != nil {
		close(a.allReported)
		a.allReported = nil
	}
}

// expire ends the acks that the server did not confirm in time, and starts the timer of the oldest of the others.
func (a *Acks) expire() {
	a.finishBefore(time.Now().Add(-ackTimeout))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = nil
	if len(a.pending) > 0 {
		a.timer = time.AfterFunc(time.Until(a.pending[a.oldest].sent.Add(ackTimeout)), a.expire)
	}
}

// finishBefore ends the acks that were sent before a time. Afterwards oldest is the token of the oldest pending ack.
func (a *Acks) finishBefore(sent time.Time) {
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
	a.reporting += len(late)
	a.mu.Unlock()
	for _, ack := range late {
		a.report(ack.queue, ack.id, errUnconfirmed)
	}
	a.endReporting(len(late))
}

// Close waits until all acks are reported, or until ctx ends, and ends the subscription. What is pending then is reported as
// unconfirmed.
func (a *Acks) Close(ctx context.Context) {
	a.mu.Lock()
	idle := make(chan struct{})
	a.allReported = idle
	a.wakeClose()
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
	a.finishBefore(time.Now())
}
