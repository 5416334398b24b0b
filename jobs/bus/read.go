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
	reading  bool // a read runs whose message was not returned yet
	// results has room for one, so that the goroutine of a read ends even after close.
	results chan readResult
	// refused is closed when the server refuses the pull requests to this user, which nats.go would repeat for ever. refusal
	// then returns the error. end stops watching for it.
	refused <-chan struct{}
	refusal func() error
	end     func()
}

// readResult is the message or the error of a read.
type readResult struct {
	msg jetstream.Msg
	err error
}

// read begins to read from a consumer, and asks for up to ahead messages in advance. The caller closes the reader.
func (c *Client) read(ctx context.Context, consumer jetstream.Consumer, ahead int) (*reader, error) {
	// Messages sends the first pull request, so the watch begins before it.
	allowed, end := c.refusals.begin(context.WithoutCancel(ctx), api+"CONSUMER.MSG.NEXT."+consumer.CachedInfo().Stream)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(ahead), jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		end()
		return nil, err
	}
	why := func() error { return context.Cause(allowed) }
	return &reader{messages: messages, results: make(chan readResult, 1), refused: allowed.Done(), refusal: why, end: end}, nil
}

// next returns the next message. As soon as ctx ends it returns ctx's cause, and a later call returns the message. It returns an
// error at once if this user may not ask for messages. The read runs in a goroutine, because nats.go ignores a context for up to
// 20 s while it recreates a lost consumer.
func (r *reader) next(ctx context.Context) (jetstream.Msg, error) {
	if !r.reading {
		r.reading = true
		go func() {
			msg, err := r.messages.Next(jetstream.NextMaxWait(pullCheck))
			if errors.Is(err, nats.ErrTimeout) {
				msg, err = r.messages.Next()
			}
			r.results <- readResult{msg, err}
		}()
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.refused:
		return nil, r.refusal()
	case got := <-r.results:
		r.reading = false
		return got.msg, got.err
	}
}

// close ends the reading without waiting: nats.go may be creating a consumer, which takes seconds.
func (r *reader) close() {
	r.end()
	go r.messages.Stop()
}

const (
	// pullCheck is after how long Next is called again: nats.go sends no pull request while it sends another one, and tries
	// again only in the next call, or after half a minute.
	pullCheck    = 500 * time.Millisecond
	pendingCheck = time.Second      // how long no message comes before untilNow asks how many are left
	pendingLimit = 30 * time.Second // how long that request may stay without an answer
	// streamCheckEvery is after how many such requests in a row the stream is asked whether it holds any message: after a
	// purge, the count of the consumer may stay above zero.
	streamCheckEvery = 5
)

// errNoMore is the end of what was stored when the reading began.
var errNoMore = errors.New("no more messages")

// untilNow reads the messages that were stored when the reading began, and at most one later message.
type untilNow struct {
	*reader
	client       *Client
	consumer     jetstream.Consumer
	startedAt    time.Time // by the clock of the server that has the consumer
	left         uint64    // at least so many messages are to come; the server may not have counted the latest
	wasLast      bool      // the latest message was the last one that the server has counted
	cameLater    bool      // the latest message is none of those that were stored before
	wasEmpty     bool      // no message came, and the consumer had none
	silentChecks int       // how often no message came although the consumer had some
}

// newUntilNow reads the messages that the consumer had when it was created.
func (c *Client) newUntilNow(r *reader, consumer jetstream.Consumer) *untilNow {
	info := consumer.CachedInfo()
	return &untilNow{reader: r, client: c, consumer: consumer, startedAt: info.TimeStamp, left: info.NumPending, wasLast: info.NumPending == 0}
}

// next returns the next message, or errNoMore. Messages may expire or be purged before they are delivered: then only the
// consumer's count shows that none is left. It has to be zero twice, because it may leave out messages on their way.
func (u *untilNow) next(ctx context.Context) (jetstream.Msg, error) {
	// answeredAt is when the consumer answered last; errors are ignored for pendingLimit.
	for answeredAt := time.Now(); !u.ended(ctx); {
		waiting, cancel := context.WithTimeout(ctx, pendingCheck)
		msg, err := u.reader.next(waiting)
		silent := waiting.Err() != nil && err != nil
		cancel()
		if ctx.Err() != nil || !silent {
			u.count(msg)
			return msg, err
		}
		info, err := u.info(ctx)
		switch {
		case err != nil && time.Since(answeredAt) > pendingLimit:
			return nil, err
		case err != nil:
			continue
		case info.NumPending == 0 && u.wasEmpty, info.NumPending > 0 && u.isCountStale(ctx):
			return nil, errNoMore
		}
		u.wasEmpty, answeredAt = info.NumPending == 0, time.Now()
	}
	return nil, errNoMore
}

// isCountStale reports whether the consumer counts messages although the stream is empty. It asks only in every
// streamCheckEvery-th call.
func (u *untilNow) isCountStale(ctx context.Context) bool {
	if u.silentChecks++; u.silentChecks%streamCheckEvery != 0 {
		return false
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := u.client.StreamInfo(ctx, u.consumer.CachedInfo().Stream)
	return err == nil && info.State.Msgs == 0
}

// ended reports whether the latest message was the last one. Its own count may lag behind what is stored, so the consumer is
// asked as well, and an error of that request is ignored.
func (u *untilNow) ended(ctx context.Context) bool {
	if u.cameLater || !u.wasLast {
		return u.cameLater
	}
	info, err := u.info(ctx)
	u.wasLast = err != nil || info.NumPending == 0 && !u.mayCountLate(ctx, info)
	return u.wasLast
}

// mayCountLate reports whether messages of the stream may be missing in the count of a consumer. The server adds a stored message
// to the counts of older consumers a moment later; the consumer that is made for a reading counts all. A message that is not for
// this consumer looks the same, and then next ends when none comes.
func (u *untilNow) mayCountLate(ctx context.Context, info *jetstream.ConsumerInfo) bool {
	if info.Config.Durable == "" {
		return false
	}
	ctx, cancel := Bounded(ctx)
	defer cancel()
	stream, err := u.client.StreamInfo(ctx, info.Stream)
	return err == nil && stream.State.LastSeq > info.Delivered.Stream
}

// count updates the counts after a message; nil means that none came.
func (u *untilNow) count(msg jetstream.Msg) {
	u.wasEmpty, u.silentChecks = false, 0
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
	u.wasLast = meta.NumPending == 0
	u.cameLater = u.left == 0 && meta.Timestamp.After(u.startedAt)
}

// info asks for the state of the consumer. The request runs in a goroutine: nats.go may wait, even after
// ctx has ended, for a lock that the creation of a consumer holds.
func (u *untilNow) info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	type answer struct {
		info *jetstream.ConsumerInfo
		err  error
	}
	// The channel has room for the answer, so the goroutine ends even if nobody receives it.
	answered := make(chan answer, 1)
	go func() {
		info, err := u.consumer.Info(ctx)
		answered <- answer{info, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case a := <-answered:
		return a.info, a.err
	}
}
