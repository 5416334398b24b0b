package totals_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

// counters are the fleet's sums in memory. They know a repetition as the server does: by the mark if the caller says that
// it may be one, and not at all otherwise.
type counters struct {
	slow time.Duration
	// fails says what becomes of a call: it is stored or not, and whether the answer comes.
	fails func() (stored, answered bool)
	// torn says whether the server restarts in the midst of the call, which breaks one half of what it should store.
	torn func() bool
	// refused is what becomes of mending.
	refused error

	mu       sync.Mutex
	sums     map[string]*big.Int
	marks    map[string]string
	broken   map[string]bus.Broken // by counter or mark
	calls    int
	mends    int
	seq      uint64 // of the last broken one
	streams  int    // how many streams were deleted
	events   int    // and how many of events
	breakers []jobs.BreakerEvent
}

func newCounters() *counters {
	return &counters{
		sums: map[string]*big.Int{}, marks: map[string]string{}, broken: map[string]bus.Broken{},
		fails: func() (bool, bool) { return true, true }, torn: func() bool { return false },
	}
}

func (c *counters) AddRollups(ctx context.Context, inc bus.Increments) error {
	select {
	case <-time.After(c.slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if inc.Repeated && c.marks[inc.Mark] == inc.ID {
		return nil
	}
	for name := range c.broken {
		if _, mine := inc.Counts[name]; mine || name == inc.Mark {
			return errors.New("message counter is broken")
		}
	}
	stored, answered := c.fails()
	torn := c.torn()
	if stored {
		c.store(inc, torn)
	}
	if !stored || !answered || torn {
		return errors.New("no answer")
	}
	return nil
}

func (c *counters) store(inc bus.Increments, torn bool) {
	c.marks[inc.Mark] = inc.ID
	for i, name := range slices.Sorted(maps.Keys(inc.Counts)) {
		if torn && i >= len(inc.Counts)/2 {
			c.breaks(name, inc.Counts[name])
			continue
		}
		c.add(name, inc.Counts[name])
	}
	if torn {
		c.breaks(inc.Mark, "1")
	}
}

func (c *counters) breaks(name, increment string) {
	c.seq++
	c.broken[name] = bus.Broken{Name: name, Increment: increment, ID: fmt.Sprint("batch.", c.seq), Seq: c.seq}
}

func (c *counters) add(name, text string) {
	n, _ := new(big.Int).SetString(text, 10)
	if sum := c.sums[name]; sum != nil {
		n.Add(n, sum)
	}
	c.sums[name] = n
}

func (c *counters) RollupMark(_ context.Context, mark string) (id string, broken bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, broken = c.broken[mark]
	return c.marks[mark], broken, nil
}

func (c *counters) MendRollups(_ context.Context, broken []bus.Broken) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mends++
	if c.refused != nil {
		return c.refused
	}
	for _, b := range broken {
		if c.broken[b.Name] == b {
			delete(c.broken, b.Name)
			c.add(b.Name, b.Increment)
		}
	}
	return nil
}

// mayMend answers whoever mends from now on.
func (c *counters) mayMend(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = err
}

// tearNext lets the server restart in the midst of the next call.
func (c *counters) tearNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := true
	c.torn = func() (torn bool) {
		torn, next = next, false
		return torn
	}
}

// remake deletes the stream and makes it anew. Who reads the old one waits for what follows in it.
func (c *counters) remake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.sums)
	clear(c.marks)
	clear(c.broken)
	c.streams++
}

// purge takes counters away and leaves the marks.
func (c *counters) purge(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.sums, func(name string, _ *big.Int) bool { return strings.HasPrefix(name, prefix) })
}

func (c *counters) RollupSums(_ context.Context, names []string) (map[string]string, error) {
	out := c.all("")
	maps.DeleteFunc(out, func(name, _ string) bool { return !slices.Contains(names, name) })
	return out, nil
}

// remakeEvents deletes the stream of events and makes it anew with other ones in it.
func (c *counters) remakeEvents(events ...jobs.BreakerEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events++
	c.breakers = events
}

func (c *counters) EventsMade(context.Context) (time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Unix(int64(c.events), 0), nil
}

func (c *counters) stream() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

func (c *counters) Rollups(
	ctx context.Context, prefix string, _ time.Time, use func(name, sum string), broken func(bus.Broken), known func(),
) error {
	last := uint64(0)
	for name, sum := range c.all(prefix) {
		use(name, sum)
	}
	known()
	for stream := c.stream(); ctx.Err() == nil; {
		for name, sum := range c.all(prefix) {
			if stream == c.stream() {
				use(name, sum)
			}
		}
		for _, b := range c.brokenSince(prefix, &last) {
			broken(b)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return context.Cause(ctx)
}

// brokenSince are told once, as those of a stream are.
func (c *counters) brokenSince(prefix string, last *uint64) (out []bus.Broken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, b := range c.broken {
		if b.Seq > *last && strings.HasPrefix(name, prefix+".") {
			out = append(out, b)
		}
	}
	*last = c.seq
	return out
}

func (c *counters) all(prefix string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]string{}
	for name, sum := range c.sums {
		if prefix == "" || strings.HasPrefix(name, prefix+".") {
			out[name] = sum.String()
		}
	}
	return out
}

// Breakers ends at once, as if the connection were bad, and must be asked for nothing twice.
func (c *counters) Breakers(_ context.Context, since time.Time, use func(time.Time, jobs.BreakerEvent)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.breakers {
		if !e.Timestamp.Before(since) {
			use(e.Timestamp, e)
		}
	}
	return errors.New("the stream ended")
}

// book is what a fleet's book says of these sums.
func (c *counters) book(t interface{ Fatal(...any) }) *rollup.Book {
	b := rollup.NewBook()
	for _, prefix := range []string{"hour", "proxy"} {
		for name, sum := range c.all(prefix) {
			if err := b.Set(name, sum); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

func (c *counters) jobs(t interface{ Fatal(...any) }) int64 {
	total := c.book(t).Total(rollup.RetentionHours)
	return total.Jobs()
}

func newRollups(book *rollup.Book, flushed func(bool)) *totals.Rollups {
	return totals.NewRollups(totals.RollupsConfig{Book: book, Flushed: flushed, Log: slog.New(slog.DiscardHandler)})
}

func anyway(bool) {}
