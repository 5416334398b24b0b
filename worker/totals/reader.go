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
	// totalsAge and proxiesAge are the age of the running hour from which on a query reads it again.
	totalsAge, proxiesAge = time.Second, flushEvery
	// lateFlush is how long after its end an hour is still read again, because workers store their last counts of the hour late.
	lateFlush = time.Minute
	// checkAtOnce is how many older hours one check covers. With a check each flushEvery, a week takes six minutes.
	checkAtOnce = 2
	// maxReadPause is the longest pause between two checks for changes, while nothing changes and no query comes.
	maxReadPause = 32 * time.Second
	// checkAllEvery is the shortest time between two checks of all hours. A full server deletes old parts all the time.
	checkAllEvery = 30 * time.Second
)

// reader holds the state of reading the fleet's book.
type reader struct {
	// lock guards the fields up to checkedAll. It is a channel, so that a query can give up waiting. An element means locked.
	lock chan struct{}
	seen map[seenOf]seen
	// state is the state of the stream at the last check. newest is the highest sequence that was read.
	state  bus.State
	newest uint64
	// read is the time at which the latest read of the running hour began, by kind, whether it succeeded or not.
	read map[rollup.Kind]time.Time
	// unchecked is how many hours are still to be checked after a change of the stream. checked is the number of hours back of
	// the hour that was checked last. checkedAll is when a check of all hours began last.
	unchecked, checked int
	checkedAll         time.Time

	// suspect is true after stored parts were deleted, until all hours have been checked. malformedLogged is true once a malformed
	// part or event was logged: only the first one is. readFails is true while hours or events cannot be read.
	suspect, malformedLogged, readFails atomic.Bool
	// asked holds an element if a query has asked for the book since the last pause.
	asked chan struct{}

	// Only the reading goroutine uses the fields below. events is the state of the stream of events at the latest read. confirmed
	// is true once a second read in the same state has succeeded: the first one may have reached a replica that lags. nextEvent
	// is the sequence at which the next read begins.
	events    bus.State
	confirmed bool
	nextEvent uint64
}

// seenOf is the key of seen: one kind of sums of one hour.
type seenOf struct {
	hour int64 // since 1970
	kind rollup.Kind
}

// seen describes the parts of an hour at its latest read. The hour has changed since if the number of parts differs or a part is
// newer.
type seen struct {
	parts int
	// last is the sequence of the newest part.
	last uint64
	// next is a sequence above that of all parts that were known then. The server scans for newer parts from next on, so a high
	// value saves work.
	next uint64
}

// keepReading reads all hours. Until ctx ends, it then checks for changes that queries do not notice; the pauses grow while
// nothing changes.
func (t *Totals) keepReading(ctx context.Context, s store) {
	r, wait := &t.reader, flushEvery
	for ctx.Err() == nil {
		// These values show after the read whether anything has changed.
		began, events, state := time.Now(), r.events, r.state
		err := errors.Join(t.readEvents(ctx, s), t.readHours(ctx, s))
		if ctx.Err() != nil {
			return
		}
		if failed := r.readFails.Swap(err != nil); err != nil && !failed {
			t.cfg.Log.Warn("the fleet's rollups cannot be read, the last known numbers stay", "error", err)
		}
		isQuiet := err == nil && r.confirmed && r.events == events && r.state == state && r.unchecked <= 0 && !r.suspect.Load()
		switch {
		// The first read has failed. Until it succeeds, pages show this worker only.
		case !t.known.Load():
			wait = time.Second
		case isQuiet:
			wait = min(2*wait, maxReadPause)
		default:
			wait = flushEvery
		}
		t.pause(ctx, began, wait)
	}
}

// pause waits for wait. If a query comes meanwhile, the pause ends flushEvery after began, the time at which the last read began.
func (t *Totals) pause(ctx context.Context, began time.Time, wait time.Duration) {
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

// readHours reads all hours until that has succeeded once; later calls check for changes.
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

// check checks the previous hour, for which workers may still store counts, and some older hours. After a change of the stream,
// the following calls go on until every hour was checked once. If the stream has fewer messages than before, or an hour fewer
// parts, parts have expired or somebody has deleted them: then check checks all hours.
func (t *Totals) check(ctx context.Context, s store) error {
	r := &t.reader
	state, err := s.StateOf(ctx, stream)
	switch {
	case err != nil:
		return err
	// The stream was created again, so the known sequences mean nothing.
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

// checkSome checks the previous hour and the next checkAtOnce of the others, so that each hour is checked within minutes. It
// forgets hours that are no longer kept.
func (t *Totals) checkSome(ctx context.Context, s store) error {
	r, hours := &t.reader, []int{1}
	for range checkAtOnce {
		// checked runs from 1 to the oldest hour, again and again. Hour 0 is left out, because queries read it.
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

// checkHour reads an hour again if the number of its parts has changed, or if a part has a newer version.
func (t *Totals) checkHour(ctx context.Context, s store, back int) error {
	hour := hoursAgo(back)
	subjects, err := s.Subjects(ctx, stream, filterOf(s, hour, "*"))
	if err != nil {
		return err
	}
	for _, kind := range kindsOf(back) {
		known, filter := t.reader.seen[seenOf{hour, kind}], filterOf(s, hour, kind)
		parts := countUnder(subjects, filter)
		// A newer version of a part does not change the number of parts, so newer messages are counted too.
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

// countUnder counts the subjects that match filter, which ends in a wildcard.
func countUnder(subjects map[string]uint64, filter string) (n int) {
	for subject := range subjects {
		if strings.HasPrefix(subject, strings.TrimSuffix(filter, "*")) {
			n++
		}
	}
	return n
}

// refresh reads the running hour again, unless its age is below totalsAge or proxiesAge. In the first minute of an hour it also
// reads the previous one. If NATS does not answer within refreshWait, the book stays as it is.
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
	// After an error the hour stays as it was; keepReading logs such errors.
	_ = t.readHour(ctx, *store, hoursAgo(0), kind)
	if now.Sub(now.Truncate(time.Hour)) < lateFlush {
		_ = t.readHour(ctx, *store, hoursAgo(1), kind)
	}
}

// readHour reads the parts of an hour, and puts their sum into the book of the fleet. The caller holds the lock.
func (t *Totals) readHour(ctx context.Context, s store, hour int64, kind rollup.Kind) error {
	sum, found := rollup.NewSum(kind), seen{next: t.reader.newest + 1}
	err := s.ReadFrom(ctx, stream, filterOf(s, hour, kind), 1, func(m bus.Message) {
		found.parts, found.last, found.next = found.parts+1, m.Seq, max(found.next, m.Seq+1)
		if err := sum.Add(m.Data); err != nil && t.reader.malformedLogged.CompareAndSwap(false, true) {
			t.cfg.Log.Warn("some of the fleet's rollups are left out", "subject", m.Subject, "error", err)
		}
	})
	if err != nil {
		return err
	}
	at := seenOf{hour, kind}
	known := t.reader.seen[at]
	if found.last < known.last {
		// Either parts were deleted, or a replica that lags has answered. The leader, which lists subjects, decides: the number
		// of parts is lower only if parts were deleted.
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

// acquire takes the lock. It returns an error if ctx ends first.
func (t *Totals) acquire(ctx context.Context) error {
	select {
	case t.reader.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release returns the lock.
func (t *Totals) release() { <-t.reader.lock }

// kindsOf returns the kinds of sums that are kept of the hour back hours ago.
func kindsOf(back int) []rollup.Kind {
	if back < rollup.ProxyHours {
		return []rollup.Kind{rollup.Totals, rollup.Proxies}
	}
	return []rollup.Kind{rollup.Totals}
}

// hoursAgo returns the number of an hour since 1970. back is 0 for the running hour.
func hoursAgo(back int) int64 { return time.Now().Unix()/3600 - int64(back) }

// filterOf returns the filter for all parts of one kind in an hour.
func filterOf(s store, hour int64, kind rollup.Kind) string {
	return s.Names().Hour(time.Unix(hour*3600, 0).UTC().Format(hourLayout), string(kind), "*")
}
