package stream

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Pulls fetches jobs for a worker. One subscription hears the answers to the pull requests of all its consumers. OpenPulls makes
// one; any number of goroutines may use it, one for each consumer, which ends a pull before it begins the next.
type Pulls struct {
	client *Client

	mu      sync.Mutex          // guards the fields below, and those of the inboxes and pulls
	inbox   *inbox              // of the next pull; nil if it has to be opened
	inboxes map[*inbox]struct{} // those that are subscribed to
	last    uint64              // the number of the newest pull
	open    map[*Pull]struct{}  // pulls that have not ended
	stopped bool                // no pull begins any more

	reconnects chan nats.Status // closed by Close
}

// inbox is a subscription and the pulls that it serves. A delivered job carries the name of its consumer, but not of its pull, so
// a consumer has one pull in an inbox at a time. A pull that is given up, or whose consumer has moved to another server, may
// still be answered. Its inbox serves no further pull, because a job must not be taken for one of a later pull, whose lease ends
// later.
type inbox struct {
	sub    *nats.Subscription
	prefix string           // of the reply subjects, with the dot
	pulls  map[string]*Pull // the last one of each consumer, also when it has ended: a job that comes late goes back
	open   int              // pulls that have not ended
	closed bool             // serves no further pull
	until  time.Time        // the latest end of the patience of the pulls that may still be answered
}

// OpenPulls subscribes to the answers. Close ends it. The first subscription is made at once, so that a missing
// right is reported at the start.
func (c *Client) OpenPulls() (*Pulls, error) {
	p := &Pulls{client: c, open: map[*Pull]struct{}{}, inboxes: map[*inbox]struct{}{}}
	if _, err := p.current(); err != nil {
		return nil, c.Explain("subscribe to jobs", err)
	}
	p.reconnects = c.Conn().StatusChanged(nats.CONNECTED)
	go func() {
		for range p.reconnects {
			p.endForgotten()
		}
	}()
	return p, nil
}

// endForgotten ends the pulls that were sent before the connection was made again: a server that was restarted has forgotten
// them. It runs shortly after the reconnect; pulls begun in between continue.
func (p *Pulls) endForgotten() {
	p.abandon(p.client.Conn().Stats().Reconnects)
}

// abandon ends the pulls that were sent on an earlier connection. What the server still delivers to them goes back.
// It does not wait for answers.
func (p *Pulls) abandon(before uint64) {
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.open))
	p.mu.Unlock()
	for _, pull := range open {
		if pull.connection < before {
			p.end(pull, nil, true)
		}
	}
}

// connection returns the number of the connection that a message sent now will use. While there is none, that is the next one:
// the client keeps the message until then. Read the count before the state: if a reconnect comes in between, the number is too
// low, and a pull ends needlessly. A number that is too high would leave a forgotten pull open.
func (p *Pulls) connection() uint64 {
	nc := p.client.Conn()
	made := nc.Stats().Reconnects
	if !nc.IsConnected() {
		made++
	}
	return made
}

// Stop ends all pulls and lets no other begin. When it returns, the server delivers nothing to them any more, and what it had
// delivered is on its way back, unless ctx ended before.
func (p *Pulls) Stop(ctx context.Context) {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.abandon(math.MaxUint64)
	p.mu.Lock()
	inboxes := slices.Collect(maps.Keys(p.inboxes))
	p.mu.Unlock()
	for _, in := range inboxes {
		closed := make(chan struct{})
		// The handler is called once, when the drain of the subscription has ended.
		in.sub.SetClosedHandler(func(string) { close(closed) })
		if in.sub.Drain() != nil {
			continue // it is closed, or the connection is
		}
		select {
		case <-closed:
		case <-ctx.Done():
		}
	}
}

// Close hears no more answers. All pulls have ended before.
func (p *Pulls) Close() {
	p.client.Conn().RemoveStatusListener(p.reconnects)
	p.mu.Lock()
	in := p.inbox
	p.inbox = nil
	p.mu.Unlock()
	if in != nil {
		p.unsubscribe(in)
	}
}

// unsubscribe ends the subscription of an inbox, which may have ended already. It is called without the lock, which
// the callback of the subscription takes.
func (p *Pulls) unsubscribe(in *inbox) {
	p.mu.Lock()
	delete(p.inboxes, in)
	p.mu.Unlock()
	_ = in.sub.Unsubscribe()
}

// current returns the inbox of the next pull.
func (p *Pulls) current() (*inbox, error) {
	p.mu.Lock()
	in := p.inbox
	p.mu.Unlock()
	if in != nil {
		return in, nil
	}
	in = &inbox{prefix: p.client.Conn().NewInbox() + ".", pulls: map[string]*Pull{}}
	var err error
	if in.sub, err = p.client.Conn().Subscribe(in.prefix+">", func(msg *nats.Msg) { p.hear(in, msg) }); err != nil {
		return nil, err
	}
	// What may come is bounded by the requests. A limit here would lose jobs.
	if err := in.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	p.mu.Lock()
	// The lock was not held during the subscription, so another goroutine may have made one.
	other := p.inbox
	if other == nil {
		p.inbox = in
		p.inboxes[in] = struct{}{}
	}
	p.mu.Unlock()
	if other != nil { // somebody else was faster
		_ = in.sub.Unsubscribe()
		return other, nil
	}
	return in, nil
}

// Pull sends a pull request. The patience runs from before the request. After Stop it returns a pull that has
// ended. Errors: those of the connection; then no pull has begun.
func (p *Pulls) Pull(r PullRequest) (*Pull, error) {
	now := time.Now()
	pull := &Pull{
		pulls: p, key: r.Stream + "." + r.Consumer, quiet: r.quiet(), since: now, until: now.Add(r.Patience), patience: r.Patience, waits: r.Waits,
		beats: make(chan struct{}, 1), jobs: make(chan *Delivery, r.Jobs), left: r.Jobs, connection: p.connection(),
	}
	for added := false; !added; {
		in, err := p.current()
		if err != nil {
			return nil, err
		}
		added = p.add(pull, in)
	}
	// After Stop: the channel is closed, so the caller sees the end at once.
	if pull.inbox == nil {
		close(pull.jobs)
		return pull, nil
	}
	reply := pull.inbox.prefix + pull.key + "." + pull.number
	if err := p.client.Send("$JS.API.CONSUMER.MSG.NEXT."+pull.key, reply, r.body()); err != nil {
		p.end(pull, nil, false)
		return nil, err
	}
	return pull, nil
}

// add makes a pull one of an inbox, and reports false if the inbox serves no further pull. After Stop it leaves the pull as it
// is.
func (p *Pulls) add(pull *Pull, in *inbox) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stopped:
		pull.ended = true
		return true
	case in.closed:
		return false
	}
	// Numbers are never used twice, so an answer to an earlier pull is recognised.
	p.last++
	pull.inbox, pull.number = in, strconv.FormatUint(p.last, 36)
	in.pulls[pull.key] = pull
	in.open++
	p.open[pull] = struct{}{}
	return true
}

// hear takes an answer. Only the server's status answers carry the request's reply subject, and only jobs can be acked. A job's
// headers prove nothing, because a publisher may write into them what the server writes.
func (p *Pulls) hear(in *inbox, msg *nats.Msg) {
	if meta, err := msg.Metadata(); err == nil {
		p.deliver(in, &Delivery{msg: msg, meta: *meta})
		return
	}
	rest, answers := strings.CutPrefix(msg.Subject, in.prefix)
	dot := strings.LastIndexByte(rest, '.')
	if !answers || dot < 0 {
		return
	}
	p.mu.Lock()
	pull := in.pulls[rest[:dot]]
	p.mu.Unlock()
	// An answer to an earlier pull of the consumer says nothing about the present one.
	if pull == nil || pull.number != rest[dot+1:] {
		return
	}
	if ends, err := readStatus(msg.Header); ends {
		p.end(pull, err, hasMoved(msg.Header))
		return
	}
	p.beat(pull)
}

// beat notes a heartbeat of the server. The server sends heartbeats and jobs in order, and no heartbeat too early. So everything
// after a heartbeat was sent at least pullBeat after the message before it.
func (p *Pulls) beat(pull *Pull) {
	p.mu.Lock()
	now := time.Now()
	// Never later than now: a suspended machine reads many beats at once, and the clock of the server may be faster than
	// expected.
	if pull.since = pull.since.Add(pullPace); pull.since.After(now) {
		pull.since = now
	}
	pull.until = pull.since.Add(pull.patience)
	// Each heartbeat may come a little late. If all of that would cost a job much of its lease, this pull ends and the next
	// one begins.
	isStale := now.Sub(pull.since) > pull.patience/2
	p.mu.Unlock()
	if isStale {
		p.end(pull, nil, true)
		return
	}
	select {
	case pull.beats <- struct{}{}:
	default: // the last one has not been seen yet
	}
}

// readStatus reports whether an answer of the server ends the pull, and why, unless the pull timed out or found no job.
func readStatus(h nats.Header) (ends bool, err error) {
	switch status := h.Get("Status"); status {
	case "", "100": // an idle heartbeat
		return false, nil
	// No job, or the time of the request is over: both are usual ends.
	case "404", "408":
		return true, nil
	case "503":
		return true, nats.ErrNoResponders
	default:
		return true, fmt.Errorf("the server ended the pull: %s %s", status, h.Get("Description"))
	}
}

// hasMoved reports whether another server delivers from now on. What it delivers, or what the last one had delivered, may arrive
// after this status, because it takes another route.
func hasMoved(h nats.Header) bool {
	return slices.Contains([]string{"Leadership Change", "Server Shutdown"}, h.Get("Description"))
}

// deliver passes a job to its pull. A job of a pull that has ended goes back, unless its lease may be over.
func (p *Pulls) deliver(in *inbox, d *Delivery) {
	p.mu.Lock()
	pull := in.pulls[d.meta.Stream+"."+d.meta.Consumer]
	taken := pull != nil && !pull.ended
	if taken {
		// The lease runs from the latest time at which the server can have delivered the job.
		d.since = pull.since
		pull.jobs <- d // which has room for it
		pull.left--
	}
	last := taken && pull.left == 0
	inTime := pull != nil && time.Now().Before(pull.until)
	p.mu.Unlock()
	switch {
	case last:
		p.end(pull, nil, false)
	case !taken && inTime:
		_ = p.client.Conn().Publish(d.Reply(), []byte("-NAK"))
	}
}

// end ends a pull, once. mayStillDeliver says that jobs may still come. Then the subscription stays until the patience of the
// pull is over, so that these jobs go back at once and not after their ack wait.
func (p *Pulls) end(pull *Pull, err error, mayStillDeliver bool) {
	in := pull.inbox
	p.mu.Lock()
	if pull.ended {
		p.mu.Unlock()
		return
	}
	// err is read only after jobs is closed, so it needs no lock.
	pull.ended, pull.err = true, err
	close(pull.jobs)
	delete(p.open, pull)
	in.open--
	if mayStillDeliver {
		in.closed = true
		if pull.until.After(in.until) {
			in.until = pull.until
		}
		if p.inbox == in {
			p.inbox = nil
		}
	}
	unused, rest := in.closed && in.open == 0, time.Until(in.until)
	p.mu.Unlock()
	if unused {
		time.AfterFunc(rest, func() { p.unsubscribe(in) })
	}
}
