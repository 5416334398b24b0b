package waiting

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// leaf is how many jobs are read again rather than counted in two halves.
	leaf = 256
	// always is how often all differences are looked at, those included that jobs on their way explain.
	always = 12
)

// compare makes the table agree with the numbers of the server, and returns how many jobs were not read. Jobs may be gone that nobody
// told of: cancelled, scheduled again, or released for their site. It halves what differs until it knows which.
func (c *Counter) compare(ctx context.Context, state bus.WaitingState, end time.Time) (unread uint64, err error) {
	all, younger, moved, err := c.ask(ctx)
	if err != nil {
		return 0, err
	}
	if c.last < state.LastSeq {
		unread = younger
	}
	there := all - min(all, younger)
	known := uint64(c.table.n)
	if there == known || distance(there, known) <= moved+c.onTheWay(state.Now) && c.counts%always != 0 {
		return unread, nil
	}
	s := search{Counter: c, end: end}
	err = s.halve(ctx, span{from: 0, to: c.table.n, first: 1, after: c.last + 1, below: younger, above: all})
	if errors.Is(err, errBudget) {
		err = nil // the next count goes on
	}
	c.table.compact(c.found)
	c.found = nil
	return unread, err
}

// ask asks how many jobs there are, and how many of them were not read. Moved is by how much the latter changed meanwhile.
func (c *Counter) ask(ctx context.Context) (all, younger, moved uint64, err error) {
	if all, err = c.countFrom(ctx, 1); err != nil || all == uint64(c.table.n) { // mostly, and the other questions are saved
		return all, 0, 0, err
	}
	before, err := c.countFrom(ctx, c.last+1)
	if err != nil {
		return 0, 0, 0, err
	}
	if all, err = c.countFrom(ctx, 1); err != nil {
		return 0, 0, 0, err
	}
	younger, err = c.countFrom(ctx, c.last+1)
	return all, younger, distance(before, younger), err
}

func (c *Counter) countFrom(ctx context.Context, seq uint64) (uint64, error) {
	return c.bus.CountFrom(ctx, "RETRIES", c.bus.Names().AllScheduledJobs(), seq)
}

func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// onTheWay counts the jobs whose time comes about now: nobody can say whether they are there.
func (c *Counter) onTheWay(now time.Time) (n uint64) {
	from, to := seconds(now.Add(-2*time.Second)), seconds(now.Add(2*time.Second))
	for i := range c.table.n {
		if at := c.table.at(i).until; at >= from && at <= to {
			n++
		}
	}
	return n
}

// errBudget ends a search that has taken too long.
var errBudget = errors.New("the time for one count is over")

// search looks for the differences between the table and the stream.
type search struct {
	*Counter
	end time.Time
}

// span is a part of the table: its entries from index from to index to, which are those with sequences from first to before after.
// The server counts above jobs from first on, and below from after on.
type span struct {
	from, to     int
	first, after uint64
	below, above uint64
}

// halve makes a span agree with the stream.
func (s *search) halve(ctx context.Context, p span) error {
	there := p.above - min(p.above, p.below)
	switch {
	case there == 0:
		for i := p.from; i < p.to; i++ {
			s.table.at(i).state = gone
		}
		return nil
	case there == uint64(p.to-p.from):
		return nil
	case time.Now().After(s.end):
		return errBudget
	case p.to-p.from <= leaf:
		return s.reread(ctx, p)
	}
	middle := (p.from + p.to) / 2
	seq := s.table.at(middle).seq
	n, err := s.countFrom(ctx, seq)
	if err != nil {
		return err
	}
	left, right := p, p
	left.to, left.after, left.below = middle, seq, n
	right.from, right.first, right.above = middle, seq, n
	if err := s.halve(ctx, left); err != nil {
		return err
	}
	return s.halve(ctx, right)
}

// reread reads the jobs of a span. Entries that are not among them are gone, and jobs without an entry get one.
func (s *search) reread(ctx context.Context, p span) error {
	i := p.from
	skip := func(seq uint64) {
		for ; i < p.to && s.table.at(i).seq < seq; i++ {
			s.table.at(i).state = gone
		}
	}
	use := func(job bus.WaitingJob) {
		if job.Seq >= p.after {
			return
		}
		skip(job.Seq)
		switch {
		case i < p.to && s.table.at(i).seq == job.Seq:
			i++
		case s.table.n+len(s.found) < s.cfg.MaxJobs:
			s.found = append(s.found, s.entryOf(job))
		}
	}
	for after, more := p.first-1, true; more && after+1 < p.after; {
		var err error
		if after, more, err = s.bus.WaitingPage(ctx, after, 2*leaf, use); err != nil {
			return err
		}
	}
	skip(p.after)
	return nil
}
