package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// reader reads the messages of a consumer, one at a time. One goroutine uses it, and closes it.
type reader struct {
	messages jetstream.MessagesContext
	asked    bool // a read runs whose message was not returned yet
	// came has room for one message, so the goroutine of a read can deliver it and end even after close.
	came chan read
	// refused is closed when the server refuses the pull requests to this user, and why says so then: nats.go repeats them for
	// ever. end forgets both.
	refused <-chan struct{}
	why     func() error
	end     func()
}

// read is what a read brought.
type read struct {
	msg jetstream.Msg
	err error
}

// read begins to read from a consumer, and asks for up to ahead messages in advance. The caller closes the reader.
func (c *Client) read(ctx context.Context, consumer jetstream.Consumer, ahead int) (*reader, error) {
	// It begins before the first pull request, which Messages sends.
	allowed, end := c.refusals.begin(context.WithoutCancel(ctx), api+"CONSUMER.MSG.NEXT."+consumer.CachedInfo().Stream)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(ahead), jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		end()
		return nil, err
	}
	why := func() error { return context.Cause(allowed) }
	return &reader{messages: messages, came: make(chan read, 1), refused: allowed.Done(), why: why, end: end}, nil
}

// next returns the next message, or ctx's cause as soon as ctx ends; a later call then returns the message. It returns an error
// at once if this user may not ask for messages. nats.go checks a context only between its attempts to create a lost consumer
// again, which take up to 20 s: so the read runs in a goroutine.
func (r *reader) next(ctx context.Context) (jetstream.Msg, error) {
	if !r.asked {
		r.asked = true
		// Only one read runs at a time, however often ctx ends: the message that it brings is kept for the next
		// call.
		go func() {
			msg, err := r.messages.Next(jetstream.NextMaxWait(pullCheck))
			if errors.Is(err, nats.ErrTimeout) {
				msg, err = r.messages.Next()
			}
			r.came <- read{msg, err}
		}()
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.refused:
		return nil, r.why()
	case got := <-r.came:
		r.asked = false
		return got.msg, got.err
	}
}

// close ends the reading without waiting: nats.go may be creating a consumer, which takes seconds.
func (r *reader) close() {
	r.end()
	go r.messages.Stop()
}

const (
	// pullCheck is when Next is called again for a message: nats.go sends no pull request while another one is being sent,
	// and looks again only in the next call, or after half a minute.
	pullCheck    = 500 * time.Millisecond
	pendingCheck = time.Second      // how long no message comes before untilNow asks how many are left
	pendingLimit = 30 * time.Second // how long that request may stay without an answer
	// vainChecks is after how many such requests without a message the stream itself is asked whether it holds
	// anything: after a purge of the stream, the count of a consumer may stay above zero.
	vainChecks = 5
)

// errNoMore is the end of what was stored when the reading began.
var errNoMore = errors.New("no more messages")

// untilNow reads the messages that were stored when the reading began, and perhaps one more.
type untilNow struct {
	*reader
	client   *Client
	consumer jetstream.Consumer
	began    time.Time // by the clock of the server that has the consumer
	left     uint64    // at least so many messages are to come; the server may not have counted the latest
	last     bool      // the latest message was the last one that the server has counted
	later    bool      // the latest message is none of those that were stored before
	empty    bool      // no message came, and the consumer had none
	vain     int       // how often no message came although the consumer had some
}

// newUntilNow reads the messages that the consumer had when it was created.
func (c *Client) newUntilNow(r *reader, consumer jetstream.Consumer) *untilNow {
	info := consumer.CachedInfo()
	return &untilNow{reader: r, client: c, consumer: consumer, began: info.TimeStamp, left: info.NumPending, last: info.NumPending == 0}
}

// next is the next message, or errNoMore. Messages may expire, or be purged, before they are delivered; then the consumer's
// count says that none is left. Messages that are on their way may not be counted, so the count must be zero twice.
func (u *untilNow) next(ctx context.Context) (jetstream.Msg, error) {
	// asked is when the consumer answered last; errors are ignored for pendingLimit.
	for asked := time.Now(); !u.ended(ctx); {
		patience, cancel := context.WithTimeout(ctx, pendingCheck)
		msg, err := u.reader.next(patience)
		silent := patience.Err() != nil && err != nil
		cancel()
		if ctx.Err() != nil || !silent {
			u.count(msg)
			return msg, err
		}
		pending, err := u.pending(ctx)
		switch {
		case err != nil && time.Since(asked) > pendingLimit:
			return nil, err
		case err != nil:
			continue
		// Zero twice with a pause between: messages on their way are counted nowhere for a moment.
		case pending == 0 && u.empty, pending > 0 && u.isVain(ctx):
			return nil, errNoMore
		}
		u.empty, asked = pending == 0, time.Now()
	}
	return nil, errNoMore
}

// isVain reports whether the consumer counts messages that the stream does not have.
func (u *untilNow) isVain(ctx context.Context) bool {
	if u.vain++; u.vain%vainChecks != 0 {
		return false
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := u.client.StreamInfo(ctx, u.consumer.CachedInfo().Stream)
	return err == nil && info.State.Msgs == 0
}

// ended reports whether the latest message was the last one. The count that comes with a message may lag behind what is
// stored, so the consumer is asked as well.
func (u *untilNow) ended(ctx context.Context) bool {
	if u.later || !u.last {
		return u.later
	}
	pending, err := u.pending(ctx)
	// An error counts as the end only together with the message's own count of zero.
	u.last = err != nil || pending == 0
	return u.last
}

// count takes a message that has come into the counts; nil counts nothing.
func (u *untilNow) count(msg jetstream.Msg) {
	u.empty, u.vain = false, 0
	if msg == nil {
		return
	}
	meta, err := msg.Metadata()
	if err != nil {
		return
	}
	if u.left > 0 {
		u.left--
	}
	u.last = meta.NumPending == 0
	// A message after the beginning of the call, once the counted ones are through, came later.
	u.later = u.left == 0 && meta.Timestamp.After(u.began)
}

// pending is how many messages the consumer has to deliver. nats.go may wait for a lock that the creation of a consumer
// holds, even after ctx has ended.
func (u *untilNow) pending(ctx context.Context) (n uint64, err error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	type answer struct {
		info *jetstream.ConsumerInfo
		err  error
	}
	// Room for one, so the goroutine ends although its result is not received.
	answered := make(chan answer, 1)
	go func() {
		info, err := u.consumer.Info(ctx)
		answered <- answer{info, err}
	}()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case a := <-answered:
		if a.err != nil {
			return 0, a.err
		}
		return a.info.NumPending, nil
	}
}
