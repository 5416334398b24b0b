package bus

import (
	"runtime"
	"sync"

	"github.com/nats-io/nats.go"
)

// outbox sends messages in groups, because a group costs as many system calls as one message: one here and one at the server. A
// group holds the messages of all goroutines that were ready to run when its first message came. On an idle worker it holds one
// message, which is sent at once.
type outbox struct {
	nc *nats.Conn

	mu      sync.Mutex // guards the fields below; never held while a message is sent
	waiting []outgoing // in the order in which they came
	sending bool       // a goroutine runs send
}

// outgoing is a message that waits in the outbox.
type outgoing struct {
	msg    nats.Msg
	token  uint64
	sender Sender
}

// Sender is the origin of messages for SendSoon, and gives each of them a token. Another goroutine calls the methods, which must
// not block.
type Sender interface {
	// Wants reports whether a message still has to be sent. On a slow connection its sender may have given up
	// meanwhile, and may have sent it again.
	Wants(token uint64) bool
	// Fail is called if the connection refuses a message.
	Fail(token uint64, err error)
}

// add adds a message.
func (o *outbox) add(m outgoing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = append(o.waiting, m)
	if !o.sending {
		o.sending = true
		// The goroutine ends with the last message, so the outbox needs no closing.
		go o.send()
	}
}

// send sends one group after the other until no message waits.
func (o *outbox) send() {
	// Goroutines that are ready to run add their messages first.
	runtime.Gosched()
	var group []outgoing
	for {
		if group = o.next(group); len(group) == 0 {
			return
		}
		for i := range group {
			m := &group[i]
			if !m.sender.Wants(m.token) {
				continue
			}
			if err := o.nc.PublishMsg(&m.msg); err != nil {
				m.sender.Fail(m.token, err)
			}
		}
	}
}

// next returns the next group, and keeps the slice of the last one for a later group. An empty group ends send.
func (o *outbox) next(last []outgoing) []outgoing {
	clear(last) // the messages must not stay in memory
	o.mu.Lock()
	defer o.mu.Unlock()
	group := o.waiting
	o.waiting, o.sending = last[:0], len(group) > 0
	return group
}

// SendSoon sends a message without waiting, together with other messages that are sent at the same time. The messages of one
// goroutine keep their order. Nobody may change the message afterwards.
func (c *Client) SendSoon(msg nats.Msg, token uint64, sender Sender) {
	c.outbox.add(outgoing{msg, token, sender})
}
