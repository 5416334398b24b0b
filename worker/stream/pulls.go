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

// Pulls fetches jobs for a worker. One subscription receives the answers to the pull requests of all its consumers.
// OpenPulls makes one. Any number of goroutines may use it, one for each consumer, which has one pull at a time.
type Pulls struct {
	client *Client

	mu      sync.Mutex          // guards the fields below, and those of the inboxes and pulls
	inbox   *inbox              // for the next pull; nil if it has to be opened
	inboxes map[*inbox]struct{} // all that are subscribed
	last    uint64              // the number of the newest pull
	open    map[*Pull]struct{}  // pulls that have not ended
	stopped bool                // no further pull begins

	reconnects chan nats.Status // closed by Close
}

// inbox is a subscription and the pulls that it serves. A delivered job names its consumer, but not its pull, so a consumer
// has one pull in an inbox at a time. After a pull was given up, or its consumer has moved to another server, jobs may
// still come for it. Then the inbox serves no further pull: such a job must not be taken for one of a later pull, whose
// lease ends later.
type inbox struct {
	sub    *nats.Subscription
	prefix string           // of the reply subjects, with the dot
	pulls  map[string]*Pull // the last one of each consumer, even if it has ended: a job that comes late is handed back
	open   int              // pulls that have not ended
	closed bool             // it serves no further pull
	until  time.Time        // the latest until of its pulls for which jobs may still come
}

// OpenPulls makes the first subscription at once, so that a missing right is reported at the start. Close ends it.
func (c *Client) OpenPulls() (*Pulls, error) {
	p := &Pulls{client: c, open: map[*Pull]struct{}{}, inboxes: map[*inbox]struct{}{}}
	if _, err := p.currentInbox(); err != nil {
		return nil, c.Explain("subscribe to jobs", err)
	}
	p.reconnects = c.Conn().StatusChanged(nats.CONNECTED)
	go func() {
		for range p.reconnects {
			// A server that was restarted has forgotten them.
			p.endOlder(p.client.Conn().Stats().Reconnects)
		}
	}()
	return p, nil
}

// endOlder ends the pulls that were sent on connections with a lower number. Jobs that the server still delivers to them
// are handed back.
func (p *Pulls) endOlder(before uint64) {
	p.mu.Lock()
	open := slices.Collect(maps.Keys(p.open))
	p.mu.Unlock()
	for _, pull := range open {
		if pull.connection < before {
			p.end(pull, nil, true)
		}
	}
}

// connection returns the number of the connection that a message sent now will use. While there is none, that is the next
// one. It reads the number before the state: if a reconnect comes in between, the number is too low, and a pull ends
// needlessly. A number that is too high would leave a forgotten pull open.
func (p *Pulls) connection() uint64 {
	nc := p.client.Conn()
	made := nc.Stats().Reconnects
	if !nc.IsConnected() {
		made++
	}
	return made
}

// Stop ends all pulls, and no further one begins. When it returns, the server delivers nothing to them any more, and jobs
// that it had delivered are handed back, unless ctx ended before.
func (p *Pulls) Stop(ctx context.Context) {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.endOlder(math.MaxUint64)
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

// Close ends the subscriptions. All pulls have ended before.
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

// unsubscribe ends the subscription of an inbox, which may have ended already.
func (p *Pulls) unsubscribe(in *inbox) {
	p.mu.Lock()
	delete(p.inboxes, in)
	p.mu.Unlock()
	_ = in.sub.Unsubscribe()
}

// currentInbox returns the inbox for the next pull, and subscribes to it if there is none.
func (p *Pulls) currentInbox() (*inbox, error) {
	p.mu.Lock()
	in := p.inbox
	p.mu.Unlock()
	if in != nil {
		return in, nil
	}
	in = &inbox{prefix: p.client.Conn().NewInbox() + ".", pulls: map[string]*Pull{}}
	var err error
	if in.sub, err = p.client.Conn().Subscribe(in.prefix+">", func(msg *nats.Msg) { p.receive(in, msg) }); err != nil {
		return nil, err
	}
	// The requests bound what may come. A limit here would lose jobs.
	if err := in.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	p.mu.Lock()
	other := p.inbox // of another goroutine that was faster
	if other == nil {
		p.inbox = in
		p.inboxes[in] = struct{}{}
	}
	p.mu.Unlock()
	if other != nil {
		_ = in.sub.Unsubscribe()
		return other, nil
	}
	return in, nil
}

// Pull sends a pull request. After Stop it returns a pull that has ended. Errors: those of the connection.
func (p *Pulls) Pull(r PullRequest) (*Pull, error) {
	now := time.Now()
	pull := &Pull{
		pulls: p, key: r.Stream + "." + r.Consumer, maxSilence: r.maxSilence(), notBefore: now, until: now.Add(r.Patience), patience: r.Patience, waits: r.Waits,
		heartbeats: make(chan struct{}, 1), jobs: make(chan *Delivery, r.Jobs), left: r.Jobs, connection: p.connection(),
	}
	for added := false; !added; {
		in, err := p.currentInbox()
		if err != nil {
			return nil, err
		}
		added = p.add(pull, in)
	}
	if pull.inbox == nil { // after Stop
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

// add adds a pull to an inbox, and reports false if the inbox serves no further pull. After Stop it only marks the pull as
// ended.
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
	// Each number is used once, so that an answer to an earlier pull is recognised.
	p.last++
	pull.inbox, pull.number = in, strconv.FormatUint(p.last, 36)
	in.pulls[pull.key] = pull
	in.open++
	p.open[pull] = struct{}{}
	return true
}

// receive handles an answer. A job has the reply subject of its ack, and a status of the server comes to the reply subject
// of the request. Headers prove nothing, because a publisher may write into a job what the server writes into a status.
func (p *Pulls) receive(in *inbox, msg *nats.Msg) {
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
	p.addHeartbeat(pull)
}

// addHeartbeat moves the times of a pull after a heartbeat. The server sends heartbeats and jobs in order, and no heartbeat
// early. So everything after a heartbeat was sent at least pullHeartbeat after the message before it.
func (p *Pulls) addHeartbeat(pull *Pull) {
	p.mu.Lock()
	now := time.Now()
	// Never later than now: a machine that was suspended reads many heartbeats at once, and the clock of the server may
	// be faster than expected.
	if pull.notBefore = pull.notBefore.Add(minHeartbeatGap); pull.notBefore.After(now) {
		pull.notBefore = now
	}
	pull.until = pull.notBefore.Add(pull.patience)
	// Heartbeats may come a little late each. Before that costs a job much of its lease, the next pull has to begin.
	isStale := now.Sub(pull.notBefore) > pull.patience/2
	p.mu.Unlock()
	if isStale {
		p.end(pull, nil, true)
		return
	}
	select {
	case pull.heartbeats <- struct{}{}:
	default: // Next has not received the last one yet
	}
}

// readStatus reports whether a status of the server ends the pull. err is why, but nil if the pull timed out or found no job.
func readStatus(h nats.Header) (ends bool, err error) {
	switch status := h.Get("Status"); status {
	case "", "100": // an idle heartbeat
		return false, nil
	// There is no job, or the time of the request is over.
	case "404", "408":
		return true, nil
	case "503":
		return true, nats.ErrNoResponders
	default:
		return true, fmt.Errorf("the server ended the pull: %s %s", status, h.Get("Description"))
	}
}

// hasMoved reports whether another server delivers from now on. Jobs of either server may come after this status, by
// another route.
func hasMoved(h nats.Header) bool {
	return slices.Contains([]string{"Leadership Change", "Server Shutdown"}, h.Get("Description"))
}

// deliver passes a job to its pull. It hands back a job whose pull has ended, unless its lease may be over.
func (p *Pulls) deliver(in *inbox, d *Delivery) {
	p.mu.Lock()
	pull := in.pulls[d.meta.Stream+"."+d.meta.Consumer]
	accepted := pull != nil && !pull.ended
	if accepted {
		// The lease runs from the latest time at which the server can have delivered the job.
		d.since = pull.notBefore
		pull.jobs <- d // which has room for it
		pull.left--
	}
	last := accepted && pull.left == 0
	inTime := pull != nil && time.Now().Before(pull.until)
	p.mu.Unlock()
	switch {
	case last:
		p.end(pull, nil, false)
	case !accepted && inTime:
		_ = p.client.Conn().Publish(d.Reply(), []byte("-NAK"))
	}
}

// end ends a pull, once. mayStillDeliver says that jobs may still come. Then the subscription stays until the end of the
// pull's patience, so that these jobs are handed back at once and not redelivered after their ack wait.
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
