package waiting

import (
	"context"
	"errors"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// leaf and wideLeaf are how many jobs are looked at one by one rather than counted in two halves: the more jobs wait, the
	// more a question costs.
	leaf, wideLeaf = 256, 4096
	// In every always-th count all differences are examined, even those that jobs about to be released explain.
	// Otherwise a lost job would stay hidden while the queue is busy.
	always = 12
)

// A question how many jobs follow a sequence makes the server walk through the subjects of all waiting jobs, at about
// questionCost each. Questions take searchShare of a core at most, on average: a search that cost more than that is
// followed by a rest. The cost is reckoned and not measured, since a busy machine is slow at everything.
const (
	questionCost = 300 * time.Nanosecond
	searchShare  = 0.01
)

// compare makes the table agree with the numbers of the server, and returns how many jobs were not read. Jobs may be
// gone without a notice: cancelled, scheduled again, or released for their site. It halves a span that differs until it
// knows which jobs are gone.
func (c *Counter) compare(ctx context.Context, state bus.WaitingState, end time.Time) (unread uint64, err error) {
	there, moved, err := c.ask(ctx, state.LastSeq)
	if err != nil {
		return 0, err
	}
	known := uint64(c.table.n)
	isFull := c.table.n >= c.cfg.MaxJobs
	// Jobs behind c.last have not been read: the budget was over. The search waits until all were read.
	if c.last < state.LastSeq && !isFull {
		return there - min(there, known), nil
	}
	// Equal numbers prove equal sets here: no job can be added below c.last, because sequences only grow. The
	// difference up to what came and went while the questions were asked is left for the next count.
	if there == known || !isFull && distance(there, known) <= moved+c.onTheWay(state.Now) && c.counts%always != 0 {
		return 0, nil
	}
	// Many jobs that are gone here and there, as after a cancel of a whole queue, are found faster by a look at each one.
	if !isFull && known > there && known-there > known/sweptFrom+leaf {
		return 0, c.sweep(ctx, known-there, end)
	}
	began := time.Now()
	if began.Before(c.searchAfter) {
		return there - min(there, known), nil
	}
	c.questions = 0
	defer func() {
		cost := time.Duration(c.questions) * time.Duration(there) * c.cfg.QuestionCost
		if rest := time.Duration(float64(cost) / searchShare); rest > Every {
			c.searchAfter = began.Add(rest)
		}
	}()
	return c.search(ctx, isFull, end)
}

// sweptFrom is the part of the jobs, as its denominator, from which those that are gone are found by a sweep.
const sweptFrom = 1000

// sweep looks at each job in turn, over many counts if need be, until as many were found to be gone as are too many.
func (c *Counter) sweep(ctx context.Context, tooMany uint64, end time.Time) error {
	defer func() { c.table.compact(nil) }()
	i := c.table.from(c.swept)
	for range c.table.n/chunk + 1 {
		if i >= c.table.n {
			i = 0
		}
		to := min(i+chunk, c.table.n)
		found, err := c.look(ctx, i, to)
		if err != nil {
			return err
		}
		if i = to; i < c.table.n {
			c.swept = c.table.at(i).seq
		} else {
			c.swept = 0
		}
		tooMany -= min(tooMany, found)
		if tooMany == 0 || time.Now().After(end) {
			break
		}
	}
	return nil
}

// look asks for the jobs of the entries from index from to index to, marks those that are gone, and returns how many these are.
func (c *Counter) look(ctx context.Context, from, to int) (missing uint64, err error) {
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

// search finds out which jobs differ, and returns how many were not read because the table is full.
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
		err = nil // the next count continues
	}
	// Found jobs are added after the search: the spans hold indices into the table, which adding would shift.
	c.table.compact(c.found)
	c.found = nil
	return unread, err
}

// ask asks how many jobs there are. It costs the same however many wait: the stream knows how many messages it has, and
// those that do not wait are due, which are mostly few. moved is how many may have come or gone since the stream's last
// sequence was upTo.
func (c *Counter) ask(ctx context.Context, upTo uint64) (there, moved uint64, err error) {
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

func (c *Counter) countFrom(ctx context.Context, seq uint64) (uint64, error) {
	c.questions++
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

// finder looks for the differences between the table and the stream.
type finder struct {
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
func (s *finder) halve(ctx context.Context, p span) error {
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
	case there < uint64(p.to-p.from) && p.to-p.from <= min(max(leaf, s.table.n/leaf), wideLeaf):
		return s.lookAt(ctx, p)
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

// lookAt looks which jobs of a span are gone. No others can have come among them.
func (s *finder) lookAt(ctx context.Context, p span) error {
	for i := p.from; i < p.to; i += chunk {
		if _, err := s.look(ctx, i, min(i+chunk, p.to)); err != nil {
			return err
		}
	}
	return nil
}

// reread reads the jobs of a span. Entries that are not among them are gone, and jobs without an entry get one.
// Both lists are sorted by sequence, so one walk over the two of them suffices.
func (s *finder) reread(ctx context.Context, p span) error {
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
