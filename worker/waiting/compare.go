package waiting

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// A span of fewer jobs is not halved: its jobs are read, or asked for one by one. The limit grows from minSplit to
	// maxSplit with the number of waiting jobs, as the cost of a question does.
	minSplit, maxSplit = 256, 4096
	// In every fullCompareEvery-th count all differences are examined, even those that jobs about to be released explain:
	// otherwise a lost job could stay hidden while the queue is busy.
	fullCompareEvery = 12
)

// A question how many jobs follow a sequence makes the server walk through the subjects of all waiting jobs, at about
// questionCost each. Questions take searchShare of a core at most, on average: a search that cost more than that is
// followed by a rest. The cost is reckoned and not measured, since a busy machine is slow at everything.
const (
	// questionCost is about how long the server takes for each waiting job when it counts the jobs that follow a
	// sequence: it walks through the subjects of all. It is not measured at run time, because on a busy machine
	// everything takes long.
	questionCost = 300 * time.Nanosecond
	// searchShare is the part of a core that these questions may take on average. A search that costs more is followed
	// by a pause.
	searchShare = 0.01
)

// compare makes the table agree with the numbers of the server, and returns how many jobs were not read. Nobody reports to
// the counter that jobs were cancelled, scheduled again, or released for their site.
func (c *Counter) compare(ctx context.Context, state bus.WaitingState, end time.Time) (unread uint64, err error) {
	actual, moved, err := c.countWaiting(ctx, state.LastSeq)
	if err != nil {
		return 0, err
	}
	known := uint64(c.table.n)
	isFull := c.table.n >= c.cfg.MaxJobs
	// The budget ended before all jobs were read. The search waits for that.
	if c.last < state.LastSeq && !isFull {
		return actual - min(actual, known), nil
	}
	// Equal numbers prove equal sets: sequences only grow, so no job comes below c.last. A difference that is not larger than
	// the number of jobs that came or went between the questions is left for the next count.
	if actual == known || !isFull && distance(actual, known) <= moved+c.countNearRelease(state.Now) && c.counts%fullCompareEvery != 0 {
		return 0, nil
	}
	// If many jobs are gone, as after a cancel of a whole queue, a sweep is faster.
	if !isFull && known > actual && known-actual > known/sweepPart+minSplit {
		return 0, c.sweep(ctx, known-actual, end)
	}
	began := time.Now()
	if began.Before(c.searchAfter) {
		return actual - min(actual, known), nil
	}
	c.questions = 0
	defer func() {
		cost := time.Duration(c.questions) * time.Duration(actual) * c.cfg.QuestionCost
		if rest := time.Duration(float64(cost) / searchShare); rest > Every {
			c.searchAfter = began.Add(rest)
		}
	}()
	return c.search(ctx, isFull, end)
}

// sweepPart: a sweep is worth it if more than one job in so many is gone.
const sweepPart = 1000

// sweep asks for one job after the other, over many counts if need be, until it has found the jobs that are missing in the
// stream.
func (c *Counter) sweep(ctx context.Context, missing uint64, end time.Time) error {
	defer func() { c.table.compact(nil) }()
	i := c.table.from(c.sweptTo)
	for range c.table.n/chunk + 1 {
		if i >= c.table.n {
			i = 0
		}
		to := min(i+chunk, c.table.n)
		found, err := c.markGone(ctx, i, to)
		if err != nil {
			return err
		}
		if i = to; i < c.table.n {
			c.sweptTo = c.table.at(i).seq
		} else {
			c.sweptTo = 0
		}
		missing -= min(missing, found)
		if missing == 0 || time.Now().After(end) {
			break
		}
	}
	return nil
}

// markGone asks for the jobs of the entries from index from to index to, marks those that are gone, and returns their number.
func (c *Counter) markGone(ctx context.Context, from, to int) (missing uint64, err error) {
	seqs := make([]uint64, to-from)
	for i := range seqs {
		seqs[i] = c.table.at(from + i).seq
	}
	there := make(map[uint64]bool, len(seqs))
	if err := c.bus.StillWaiting(ctx, seqs, func(job bus.WaitingJob) { there[job.Seq] = true }); err != nil {
		return 0, err
	}
	for i, seq := range seqs {
		if e := c.table.at(from + i); !there[seq] && e.state != gone {
			e.state = gone
			missing++
		}
	}
	return missing, nil
}

// search makes the table agree with the stream by halving, and returns how many jobs were not read because the table is full.
func (c *Counter) search(ctx context.Context, isFull bool, end time.Time) (unread uint64, err error) {
	// CountFrom is called at slightly different moments, so the subtraction is bounded at zero.
	younger, err := c.countFrom(ctx, c.last+1)
	if err != nil {
		return 0, err
	}
	all, err := c.countFrom(ctx, 1)
	if err != nil {
		return 0, err
	}
	if isFull {
		unread = younger
	}
	s := finder{Counter: c, end: end}
	err = s.halve(ctx, span{from: 0, to: c.table.n, first: 1, after: c.last + 1, below: younger, above: all})
	// Entries that were judged so far keep their judgement, so a search over many counts ends.
	if errors.Is(err, errBudget) {
		err = nil // the next count continues, and what was found so far stays
	}
	// Not before the search has ended: it would shift the indices of the spans.
	c.table.compact(c.found)
	c.found = nil
	return unread, err
}

// countWaiting asks how many jobs wait: the stream knows the number of its messages, and those that do not wait are due.
// Its cost does not depend on the number of waiting jobs. moved is how many jobs may have come or gone since the stream's
// last sequence was upTo.
func (c *Counter) countWaiting(ctx context.Context, upTo uint64) (actual, moved uint64, err error) {
	before, err := c.bus.StateOf(ctx, "RETRIES")
	if err != nil {
		return 0, 0, err
	}
	due, err := c.bus.CountFrom(ctx, "RETRIES", c.bus.Names().AllDueJobs(), 1)
	if err != nil {
		return 0, 0, err
	}
	after, err := c.bus.StateOf(ctx, "RETRIES")
	if err != nil {
		return 0, 0, err
	}
	moved = distance(before.Messages, after.Messages) + after.LastSeq - min(upTo, after.LastSeq)
	return after.Messages - min(after.Messages, due), moved, nil
}

// countFrom asks how many jobs wait from a sequence on.
func (c *Counter) countFrom(ctx context.Context, seq uint64) (uint64, error) {
	c.questions++
	return c.bus.CountFrom(ctx, "RETRIES", c.bus.Names().AllScheduledJobs(), seq)
}

// distance is the difference of two numbers, whichever is larger.
func distance(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// countNearRelease counts the jobs that are released about now, so that they may be gone or not.
func (c *Counter) countNearRelease(now time.Time) (n uint64) {
	// Two seconds cover the whole seconds of the entries and the delay of a busy server.
	from, to := unixSeconds(now.Add(-2*time.Second)), unixSeconds(now.Add(2*time.Second))
	for i := range c.table.n {
		if at := c.table.at(i).until; at >= from && at <= to {
			n++
		}
	}
	return n
}

// errBudget ends a search that takes too long.
var errBudget = errors.New("the time for one count is over")

// finder looks for the differences between the table and the stream.
type finder struct {
	*Counter
	end time.Time
}

// span is the part of the table from index from to before index to, and of the stream from sequence first to before
// sequence after. The stream has above jobs from first on, and below jobs from after on: so it has above-below in the span.
type span struct {
	from, to     int
	first, after uint64
	below, above uint64
}

// halve makes a span agree with the stream. It asks one question for each level and difference, on at most 20 levels, the
// logarithm of MaxJobs.
func (s *finder) halve(ctx context.Context, p span) error {
	actual := p.above - min(p.above, p.below)
	switch {
	case actual == 0:
		for i := p.from; i < p.to; i++ {
			s.table.at(i).state = gone
		}
		return nil
	// As in compare, equal numbers prove equal sets.
	case actual == uint64(p.to-p.from):
		return nil
	// The check stands before the questions, so a search is over its time by at most one page.
	case time.Now().After(s.end):
		return errBudget
	case actual < uint64(p.to-p.from) && p.to-p.from <= min(max(minSplit, s.table.n/minSplit), maxSplit):
		return s.markSpan(ctx, p)
	case p.to-p.from <= minSplit:
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

// markSpan marks the entries of a span whose jobs are gone.
func (s *finder) markSpan(ctx context.Context, p span) error {
	for i := p.from; i < p.to; i += chunk {
		if _, err := s.markGone(ctx, i, min(i+chunk, p.to)); err != nil {
			return err
		}
	}
	return nil
}

// reread reads the jobs of a span, marks the entries without a job, and collects the jobs without an entry. Both lists are
// sorted by sequence.
func (s *finder) reread(ctx context.Context, p span) error {
	i := p.from
	skip := func(seq uint64) {
		for ; i < p.to && s.table.at(i).seq < seq; i++ {
			s.table.at(i).state = gone
		}
	}
	use := func(job bus.WaitingJob) {
		if job.Seq >= p.after { // the page reaches beyond the span
			return
		}
		skip(job.Seq)
		switch {
		case i < p.to && s.table.at(i).seq == job.Seq:
			i++
		// read has overlooked the job.
		case s.table.n+len(s.found) < s.cfg.MaxJobs:
			s.found = append(s.found, s.entryOf(job))
		}
	}
	for after, more := p.first-1, true; more && after+1 < p.after; {
		var err error
		if after, more, err = s.bus.WaitingPage(ctx, after, 2*minSplit, use); err != nil {
			return err
		}
	}
	// What is left of the span has no job any more.
	skip(p.after)
	return nil
}
