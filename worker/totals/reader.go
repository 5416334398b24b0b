package totals

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
)

const (
	// refreshWait bounds how long a query waits for NATS.
	refreshWait = time.Second
	// totalsAge and proxiesAge are how old the running hour may be before a query reads it again.
	totalsAge, proxiesAge = time.Second, flushEvery
	// lateFlush is how long after its end an hour is still read again: workers still store what they counted in it.
	lateFlush = time.Minute
	// checkAtOnce is how many older hours are checked each flushEvery: all of a week in six minutes.
	checkAtOnce = 2
	// quietest is the longest time between two looks for changes while there are none and nobody asks.
	quietest = 32 * time.Second
	// checkAllEvery is the least time between two checks of all hours: a full server deletes old parts all the time.
	checkAllEvery = 30 * time.Second
)

// reader holds the state of reading the fleet's book.
type reader struct {
	// lock is held by whoever reads, and guards the fields up to checkedAll. It is a channel, so that a query can stop waiting.
	lock chan struct{}
	seen map[seenOf]seen
	// state is that of the stream at the last check, newest the highest sequence of a message that was read from it.
	state  bus.State
	newest uint64
	// read is when the running hour was read last, or a try to read it began, by kind.
	read map[rollup.Kind]time.Time
	// unchecked is how many hours remain to be checked after a change of the stream. Checked is how many hours back the last
	// checked hour is. CheckedAll is when all hours were checked at once.
	unchecked, checked int
	checkedAll         time.Time

	// suspect is true after stored parts were deleted, until all hours have been checked. strange is true once a malformed part was
	// logged, so that others are not. unread is true while hours or events cannot be read.
	suspect, strange, unread atomic.Bool
	// asked holds an element if a query has asked for the book since the last reading.
	asked chan struct{}

	// Only the reading goroutine uses the fields below. Events is the state of the events stream that was read. Settled is true
	// if a second read in the same state has confirmed the first, because a replica may lag. NextEvent is a sequence.
	events    bus.State
	settled   bool
	nextEvent uint64
}

// seenOf is the key of seen: one kind of sums of one hour.
type seenOf struct {
	hour int64 // since 1970
	kind rollup.Kind
}

// seen is what an hour consisted of when it was read last. The hour has changed if the number of parts differs or a part is
// newer.
type seen struct {
	parts int
	// last is the sequence of the newest part.
	last uint64
	// next is a sequence above all parts known then. A high value means that the server scans fewer messages.
	next uint64
}

// keepReading reads all hours, and then checks until ctx ends for changes that no query would notice, rarely while there
// are none.
func (t *Totals) keepReading(ctx context.Context, s store) {
	r, wait := &t.reader, flushEvery
	for ctx.Err() == nil {
		// The state before the reading shows afterwards whether anything has changed.
		began, events, state := time.Now(), r.events, r.state
		err := errors.Join(t.readEvents(ctx, s), t.readHours(ctx, s))
		if ctx.Err() != nil {
			return
		}
		if unread := r.unread.Swap(err != nil); err != nil && !unread {
			t.cfg.Log.Warn("the fleet's rollups cannot be read, the last known numbers stay", "error", err)
		}
		isQuiet := err == nil && r.settled && r.events == events && r.state == state && r.unchecked <= 0 && !r.suspect.Load()
		switch {
		// The first reading has failed; until it succeeds, pages show this worker only.
		case !t.known.Load():
			wait = time.Second
		case isQuiet:
			wait = min(2*wait, quietest)
		default:
			wait = flushEvery
		}
		t.pause(ctx, began, wait)
	}
}

// pause waits, but no longer than flushEvery after the last reading began if somebody asks for the book.
func (t *Totals) pause(ctx context.Context, began time.Time, wait time.Duration) {
	// A question shortens the pause, but never below flushEvery since the last reading.
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-t.reader.asked:
			timer.Reset(min(wait, max(0, flushEvery-time.Since(began))))
		}
	}
}

// readHours reads all hours once, and checks them afterwards.
func (t *Totals) readHours(ctx context.Context, s store) error {
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer t.release()
	if t.known.Load() {
		return t.check(ctx, s)
	}
	err := t.readAll(ctx, s)
	t.known.Store(err == nil)
	return err
}

// readAll reads each hour of the stream that is there now, the newest first.
func (t *Totals) readAll(ctx context.Context, s store) error {
	state, err := s.StateOf(ctx, stream)
	if err != nil {
		return err
	}
	t.reader.state, t.reader.newest = state, 0
	clear(t.reader.seen)
	for back := range rollup.RetentionHours {
		for _, kind := range kindsOf(back) {
			if err := t.readHour(ctx, s, hoursAgo(back), kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// check reads the hour before the running one, where workers may still store something, and some older ones if they have changed.
// After a change of the stream it goes on until every hour was checked once. If the stream holds fewer messages, or an hour fewer
// parts, parts have expired or somebody has deleted them: then it checks all hours.
func (t *Totals) check(ctx context.Context, s store) error {
	r := &t.reader
	state, err := s.StateOf(ctx, stream)
	switch {
	case err != nil:
		return err
	// Another stream: its sequences say nothing about the parts that are known.
	case !state.CreatedAt.Equal(r.state.CreatedAt):
		return t.readAll(ctx, s)
	case state != r.state:
		r.unchecked = rollup.RetentionHours
	}
	if state.Messages < r.state.Messages {
		r.suspect.Store(true)
	}
	r.state = state
	if r.suspect.Load() && time.Since(r.checkedAll) >= checkAllEvery {
		return t.checkAll(ctx, s)
	}
	if r.unchecked <= 0 {
		return nil
	}
	r.unchecked -= checkAtOnce
	return t.checkSome(ctx, s)
}

// checkSome checks the previous hour and the next checkAtOnce of the others, so that each is checked within minutes. It
// forgets hours that are no longer kept.
func (t *Totals) checkSome(ctx context.Context, s store) error {
	r, hours := &t.reader, []int{1}
	for range checkAtOnce {
		// From 1 to the oldest hour, and from the start again; queries read the running hour.
		r.checked = r.checked%(rollup.RetentionHours-1) + 1
		hours = append(hours, r.checked)
	}
	for _, back := range hours {
		if err := t.checkHour(ctx, s, back); err != nil {
			return err
		}
	}
	oldest := hoursAgo(rollup.RetentionHours)
	maps.DeleteFunc(r.seen, func(of seenOf, _ seen) bool { return of.hour <= oldest })
	return nil
}

// checkAll checks every hour. If one cannot be checked, the next call starts again.
func (t *Totals) checkAll(ctx context.Context, s store) error {
	t.reader.checkedAll = time.Now()
	t.reader.suspect.Store(false)
	for back := range rollup.RetentionHours {
		if err := t.checkHour(ctx, s, back); err != nil {
			t.reader.suspect.Store(true)
			return err
		}
	}
	return nil
}

// checkHour reads an hour again if it has another number of parts than it had, or a newer version of one.
func (t *Totals) checkHour(ctx context.Context, s store, back int) error {
	hour := hoursAgo(back)
	subjects, err := s.Subjects(ctx, stream, filterOf(s, hour, "*"))
	if err != nil {
		return err
	}
	for _, kind := range kindsOf(back) {
		known, filter := t.reader.seen[seenOf{hour, kind}], filterOf(s, hour, kind)
		parts := countUnder(subjects, filter)
		// A part that was replaced changes no count of parts, so newer versions are counted as well.
		newer, err := s.CountFrom(ctx, stream, filter, known.next)
		if err != nil {
			return err
		}
		if parts == known.parts && newer == 0 {
			continue
		}
		if err := t.readHour(ctx, s, hour, kind); err != nil {
			return err
		}
	}
	return nil
}

// countUnder counts the subjects that a filter which ends in a wildcard covers.
func countUnder(subjects map[string]uint64, filter string) (n int) {
	for subject := range subjects {
		if strings.HasPrefix(subject, strings.TrimSuffix(filter, "*")) {
			n++
		}
	}
	return n
}

// refresh reads the running hour again, unless that was done a moment ago, and for a minute the one before.
func (t *Totals) refresh(ctx context.Context, kind rollup.Kind) {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	store, r := t.store.Load(), &t.reader
	if store == nil || t.acquire(ctx) != nil {
		return
	}
	defer t.release()
	age := totalsAge
	if kind == rollup.Proxies {
		age = proxiesAge
	}
	now := time.Now()
	if now.Sub(r.read[kind]) < age {
		return
	}
	r.read[kind] = now
	// What cannot be read stays as it was; keepReading logs why.
	_ = t.readHour(ctx, *store, hoursAgo(0), kind)
	if now.Sub(now.Truncate(time.Hour)) < lateFlush {
		_ = t.readHour(ctx, *store, hoursAgo(1), kind)
	}
}

// readHour puts the sum of an hour's parts into the book.
func (t *Totals) readHour(ctx context.Context, s store, hour int64, kind rollup.Kind) error {
	sum, found := rollup.NewSum(kind), seen{next: t.reader.newest + 1}
	err := s.ReadFrom(ctx, stream, filterOf(s, hour, kind), 1, func(m bus.Message) {
		found.parts, found.last, found.next = found.parts+1, m.Seq, max(found.next, m.Seq+1)
		if err := sum.Add(m.Data); err != nil && t.reader.strange.CompareAndSwap(false, true) {
			t.cfg.Log.Warn("some of the fleet's rollups are left out", "subject", m.Subject, "error", err)
		}
	})
	if err != nil {
		return err
	}
	at := seenOf{hour, kind}
	known := t.reader.seen[at]
	if found.last < known.last {
		// Parts were deleted, or a replica answered that is behind its leader. The leader lists subjects.
		subjects, err := s.Subjects(ctx, stream, filterOf(s, hour, kind))
		if err != nil || len(subjects) >= known.parts {
			return err
		}
		t.reader.suspect.Store(true)
	}
	t.reader.seen[at], t.reader.newest = found, max(t.reader.newest, found.next-1)
	t.fleet.Put(time.Unix(hour*3600, 0), sum)
	return nil
}

// acquire waits until nobody else reads, or ctx ends.
func (t *Totals) acquire(ctx context.Context) error {
	select {
	case t.reader.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release ends what acquire began: another goroutine may read.
func (t *Totals) release() { <-t.reader.lock }

// kindsOf are the kinds of sums of an hour that many hours ago.
func kindsOf(back int) []rollup.Kind {
	if back < rollup.ProxyHours {
		return []rollup.Kind{rollup.Totals, rollup.Proxies}
	}
	return []rollup.Kind{rollup.Totals}
}

// hoursAgo returns the number of an hour since 1970; zero back is the running one.
func hoursAgo(back int) int64 { return time.Now().Unix()/3600 - int64(back) }

// filterOf is the subject of all parts of one kind in an hour.
func filterOf(s store, hour int64, kind rollup.Kind) string {
	return s.Names().Hour(time.Unix(hour*3600, 0).UTC().Format(hourLayout), string(kind), "*")
}
