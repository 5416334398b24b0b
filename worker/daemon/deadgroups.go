package daemon

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/admin"
)

// maxLetters bounds the dead letters that are grouped: the newest ones. A larger stream is grouped by its
// newest letters only, which are those that an operator can act on.
const maxLetters = 20_000

// deadIndex remembers what dead letters have in common, so that each is read once. One goroutine at a time uses
// it. It is kept between questions: a letter never changes, so only new ones are read.
type deadIndex struct {
	state   bus.State
	letters map[string]indexed // by subject: of a job the stream keeps one letter
	last    uint64
}

// indexed is a dead letter without its job.
type indexed struct {
	reason, site, queue string
	at                  time.Time
	seq                 uint64
}

// deadGroups groups the dead letters, the largest group first, and counts all.
func (d *daemon) deadGroups(ctx context.Context) ([]admin.DeadGroup, uint64, error) {
	conn := d.connected.Load()
	if conn == nil || !conn.nc.IsConnected() {
		return nil, 0, bus.ErrUnreachable
	}
	// shared asks one question at a time, so dead needs no lock.
	if err := d.dead.update(ctx, conn.client); err != nil {
		return nil, 0, err
	}
	return d.dead.groups(), d.dead.state.Messages, nil
}

// update reads the letters that are new, and forgets those that are gone.
func (x *deadIndex) update(ctx context.Context, c *bus.Client) error {
	state, err := c.StateOf(ctx, "DEAD")
	// Nothing was stored or deleted since, so the groups are the same.
	if err != nil || state == x.state {
		return err
	}
	// Another stream under the name begins its sequences again.
	if x.letters == nil || !state.CreatedAt.Equal(x.state.CreatedAt) {
		x.letters, x.last = map[string]indexed{}, 0
	}
	// Letters before the newest maxLetters are passed over without being read.
	if state.LastSeq > maxLetters {
		x.last = max(x.last, state.LastSeq-maxLetters)
	}
	page := bus.Page{Stream: c.Names().Stream("DEAD"), Subject: c.Names().AllDead(), After: x.last, Limit: 500}
	for more := true; more; {
		if page.After, more, err = c.ReadPage(ctx, page, x.add); err != nil {
			return c.Explain("read dead letters", err)
		}
		x.last = page.After
	}
	// The numbers differ if letters were replayed, purged or expired. Only then the subjects are listed, which
	// costs more.
	if uint64(len(x.letters)) != min(state.Messages, maxLetters) {
		subjects, err := c.Subjects(ctx, "DEAD", c.Names().AllDead())
		if err != nil {
			return err
		}
		for subject, l := range x.letters {
			// A letter that is older than the newest maxLetters leaves the index, so its memory is bounded.
			if subjects[subject] == 0 || l.seq+maxLetters <= state.LastSeq {
				delete(x.letters, subject)
			}
		}
	}
	// Stored last: after an error, the next question reads what is missing.
	x.state = state
	return nil
}

// add adds a dead letter to the index. A header that cannot be read leaves its field empty; the letter still
// counts.
func (x *deadIndex) add(msg *nats.Msg) error {
	subject := msg.Header.Get(jetstream.SubjectHeader)
	// The facts are in the headers, so the payload is not parsed.
	result := jobs.ParseResult(msg.Header, nil)
	l := indexed{reason: result.Error, site: siteOfURL(result.URL)}
	l.queue, _, _ = jobs.SplitSubject(subject)
	l.at, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets both
	l.seq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	// A newer letter of the same job replaces the older one, as in the stream.
	x.letters[subject] = l
	return nil
}

// groups adds up the letters by reason, site and queue. It goes through all letters, which are bounded by the
// stream.
func (x *deadIndex) groups() []admin.DeadGroup {
	type key struct{ reason, site, queue string }
	found := map[key]*admin.DeadGroup{}
	for _, l := range x.letters {
		at := l.at.UTC()
		g := found[key{l.reason, l.site, l.queue}]
		if g == nil {
			g = &admin.DeadGroup{Reason: l.reason, Site: l.site, Queue: l.queue, Oldest: at, Newest: at}
			found[key{l.reason, l.site, l.queue}] = g
		}
		g.Count++
		if at.Before(g.Oldest) {
			g.Oldest = at
		}
		if at.After(g.Newest) {
			g.Newest = at
		}
	}
	out := make([]admin.DeadGroup, 0, len(found))
	for _, g := range found {
		out = append(out, *g)
	}
	// Ties are broken by every part of the key, so that two answers list equal groups in the same order.
	slices.SortFunc(out, func(a, b admin.DeadGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Queue, b.Queue))
	})
	return out
}
