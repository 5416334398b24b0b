package waiting

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// leaf is the number of jobs up to which a span is read again and not halved.
	leaf = 256
	// In every always-th count all differences are examined, even those that jobs about to be released explain.
	// Otherwise a lost job would stay hidden while the queue is busy.
	always = 12
)

// compare makes the table agree with the numbers of the server, and returns how many jobs were not read. Jobs may be
// gone without a notice: cancelled, scheduled again, or released for their site. It halves a span that differs until it
// knows which jobs are gone.
func (c *Counter) compare(ctx context.Context, state bus.WaitingState, end time.Time) (unread uint64, err error) {
	all, younger, moved, err := c.ask(ctx)
	if err != nil {
		return 0, err
	}
	// Jobs behind c.last have not been read: the table is full or the budget was over.
	if c.last < state.LastSeq {
		unread = younger
	}
	// CountFrom is called at slightly different moments, so the subtraction is bounded at zero.
	there := all - min(all, younger)
	known := uint64(c.table.n)
	// Equal numbers prove equal sets here: no job can be added below c.last, because sequences only grow. The
	// difference up to what moved while the questions were asked is left for the next count.
	if there == known || distance(there, known) <= moved+c.onTheWay(state.Now) && c.counts%always != 0 {
		return unread, nil
	}
	s := search{Counter: c, end: end}
	err = s.halve(ctx, span{from: 0, to: c.table.n, first: 1, after: c.last + 1, below: younger, above: all})
	// Entries that were judged so far keep their judgement, so a search over many counts ends.
	if errors.Is(err, errBudget) {
		err = nil // the next count continues
	}
	// Found jobs are added after the search: the spans hold indices into the table, which adding would shift.
	c.table.compact(c.found)
	c.found = nil
	return unread, err
}

// ask asks how many jobs there are, and how many of them were not read. Moved is by how much the latter changed meanwhile.
func (c *Counter) ask(ctx context.Context) (all, younger, moved uint64, err error) {
	if all, err = c.countFrom(ctx, 1); err != nil || all == uint64(c.table.n) { // the usual case, which saves the other questions
		return all, 0, 0, err
	}
	// The number of younger jobs is asked for before and after the number of all. If both are the same, nothing
	// came or went between.
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

// distance is how far two numbers are apart. Unsigned numbers must not be subtracted the wrong way round.
func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// onTheWay counts the jobs that are released about now: the server may or may not have them any more.
func (c *Counter) onTheWay(now time.Time) (n uint64) {
	// Two seconds on both sides cover the whole seconds of the entries and the delay of a busy server.
	from, to := seconds(now.Add(-2*time.Second)), seconds(now.Add(2*time.Second))
	for i := range c.table.n {
		if at := c.table.at(i).until; at >= from && at <= to {
			n++
		}
	}
	return n
}

// errBudget ends a search that has taken too long. It never leaves this package.
var errBudget = errors.New("the time for one count is over")

// search looks for the differences between the table and the stream.
type search struct {
	*Counter
	end time.Time
}

// span is a part of the table: its entries from index from to index to, which are those with sequences from
// first to before after. The server counts above jobs from first on, and below from after on. Invariant of halve: above
// - below is the number of jobs that the stream has in the span.
type span struct {
	from, to     int
	first, after uint64
	below, above uint64
}

// halve makes a span agree with the stream.
func (s *search) halve(ctx context.Context, p span) error {
	// It recurses at most 20 levels deep, the logarithm of MaxJobs, and asks one question a level and
	// difference.
	there := p.above - min(p.above, p.below)
	switch {
	case there == 0:
		for i := p.from; i < p.to; i++ {
			s.table.at(i).state = gone
		}
		return nil
	// Equal numbers mean equal sets here: no job can be added between two known sequences.
	case there == uint64(p.to-p.from):
		return nil
	// The check stands before the questions, so a search is over its time by at most one page.
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
	// The one answer n is the lower bound of the left half and the upper one of the right half.
	left, right := p, p
	left.to, left.after, left.below = middle, seq, n
	right.from, right.first, right.above = middle, seq, n
	if err := s.halve(ctx, left); err != nil {
		return err
	}
	return s.halve(ctx, right)
}

// reread reads the jobs of a span. Entries that are not among them are gone, and jobs without an entry get one.
// Both lists are sorted by sequence, so one walk over the two of them suffices.
func (s *search) reread(ctx context.Context, p span) error {
	i := p.from
	skip := func(seq uint64) {
		for ; i < p.to && s.table.at(i).seq < seq; i++ {
			s.table.at(i).state = gone
		}
	}
	use := func(job bus.WaitingJob) {
		// A page may reach beyond the span; those jobs belong to the next one.
		if job.Seq >= p.after {
			return
		}
		skip(job.Seq)
		switch {
		case i < p.to && s.table.at(i).seq == job.Seq:
			i++
		// The job has no entry: it was missed when its page was read. It is added unless the table is full.
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
	// What is left of the span has no job any more.
	skip(p.after)
	return nil
}
