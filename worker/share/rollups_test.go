package share_test

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
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/share"
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

func newRollups(book *rollup.Book, flushed func(bool)) *share.Rollups {
	return share.NewRollups(share.RollupsConfig{Book: book, Flushed: flushed, Log: slog.New(slog.DiscardHandler)})
}

func anyway(bool) {}

func TestKilledWorkerLosesAtMostItsLastFiveSeconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			fleet, book := newCounters(), rollup.NewBook()
			fleet.slow = time.Duration(rapid.IntRange(0, 900).Draw(t, "storing takes ms")) * time.Millisecond
			ctx, end := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { newRollups(book, anyway).Run(ctx, fleet) })
			killedAt := time.Now().Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "killed after ms")) * time.Millisecond)
			old, proxies := int64(0), rapid.IntRange(1, 300).Draw(t, "proxies")
			for time.Now().Before(killedAt) {
				book.Job(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
				for i := range proxies {
					book.Attempt(rollup.AttemptFact{Proxy: fmt.Sprint("p", i), Status: 200, Bytes: 1})
				}
				if time.Until(killedAt) > 5*time.Second {
					old++
				}
				time.Sleep(250 * time.Millisecond)
			}
			if got := fleet.jobs(t); got < old {
				t.Fatalf("the fleet has %d jobs, want at least the %d that ended more than 5 s before", got, old)
			}
			for _, p := range fleet.book(t).ByProxy(24) {
				if p.TotalAttempts < old || p.Bytes < old {
					t.Fatalf("of proxy %s of %d the fleet has %+v, want at least the %d attempts that ended more than 5 s before", p.ProxyID, proxies, p, old)
				}
			}
			if got := len(fleet.book(t).ByProxy(24)); old > 0 && got != proxies {
				t.Fatalf("the fleet has %d proxies, want %d", got, proxies)
			}
			end()
			running.Wait()
		})
	})
}

func TestDrainedWorkerLosesNothingAndNothingCountsTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			fleet := newCounters()
			fleet.slow = 10 * time.Millisecond
			trouble := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 8).Draw(t, "trouble")
			next := 2
			fleet.fails = func() (bool, bool) {
				if next = 2; len(trouble) > 0 {
					next, trouble = trouble[0], trouble[1:]
				}
				return next > 0, next > 1
			}
			fleet.torn = func() bool { return next == 3 }
			one := rollup.NewBook()
			ctx, end := context.WithCancel(context.Background())
			var running sync.WaitGroup
			for range rapid.IntRange(1, 3).Draw(t, "workers") {
				book := rollup.NewBook()
				running.Go(func() { newRollups(book, anyway).Run(ctx, fleet) })
				for range rapid.IntRange(0, 300).Draw(t, "facts") {
					f := rollup.AttemptFact{Proxy: fmt.Sprint("p", rapid.IntRange(1, 200).Draw(t, "proxy")), Status: 200, Duration: time.Second, Bytes: 9, At: time.Now()}
					book.Attempt(f)
					one.Attempt(f)
					if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
						time.Sleep(time.Second)
					}
				}
			}
			end()
			running.Wait()
			next, trouble = 2, nil // of what the last restarts broke, the next worker reads
			ctx, end = context.WithTimeout(context.Background(), 10*time.Second)
			defer end()
			newRollups(rollup.NewBook(), anyway).Run(ctx, fleet)
			got, want := fleet.book(t), one
			if got, want := fmt.Sprint(got.Series(24), got.ByProxy(24)), fmt.Sprint(want.Series(24), want.ByProxy(24)); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		})
	})
}

func TestFleetBookIsTheSumOfAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := newCounters()
		fleet.breakers = []jobs.BreakerEvent{{ProxyID: "p1", FromState: "closed", ToState: "open", Timestamp: time.Now()}}
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		own, other := rollup.NewBook(), rollup.NewBook()
		one := newRollups(own, anyway)
		if book, known := one.Fleet(); known || book != own {
			t.Error("before anything was read: got another book than the worker's own")
		}
		running.Go(func() { one.Run(ctx, fleet) })
		running.Go(func() { newRollups(other, anyway).Run(ctx, fleet) })
		for _, b := range []*rollup.Book{own, other} {
			b.Job(rollup.JobFact{Outcome: jobs.Succeeded})
			b.Attempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
		}
		time.Sleep(5 * time.Second)
		book, known := one.Fleet()
		hour := book.Hour(0)
		if proxies := book.ByProxy(24); !known || hour.Jobs() != 2 || len(proxies) != 1 || proxies[0].TotalAttempts != 2 {
			t.Errorf("after 5 s: known %v, %d jobs, proxies %+v; want those of both workers", known, hour.Jobs(), proxies)
		}
		if got := book.BreakerEvents(time.Now().Add(-time.Hour)); len(got) != 1 || hour.BreakerChanges() != 0 {
			t.Errorf("breaker events after several reads: got %+v, counted %d; want it recalled once", got, hour.BreakerChanges())
		}
	})
}

// TestDeletedSumsAreReadAnew deletes the stream under a worker that counts on and one that counts nothing.
func TestDeletedSumsAreReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := newCounters()
		fleet.breakers = []jobs.BreakerEvent{{ProxyID: "p1", FromState: "closed", ToState: "open", Timestamp: time.Now()}}
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		busy := rollup.NewBook()
		workers := []*share.Rollups{newRollups(busy, anyway), newRollups(rollup.NewBook(), anyway)}
		for _, r := range workers {
			running.Go(func() { r.Run(ctx, fleet) })
		}
		count := func(n int, proxy string) {
			for range n {
				busy.Attempt(rollup.AttemptFact{Proxy: proxy, Status: 200})
			}
			time.Sleep(10 * time.Second)
		}
		count(5, "p1")
		for round := range 2 {
			fleet.remake()
			count(2, "p2")
			for i, r := range workers {
				book, known := r.Fleet()
				hour, proxies := book.Hour(0), book.ByProxy(24)
				if !known || hour.Attempts() != 2 || len(proxies) != 1 || proxies[0].ProxyID != "p2" || len(book.BreakerEvents(time.Time{})) != 1 {
					t.Errorf("round %d, worker %d: known %v, %d attempts, proxies %+v, want the 2 of the new stream", round, i, known, hour.Attempts(), proxies)
				}
			}
		}
	})
}

// TestPurgedSumsAreReadAnew purges one family of counters at a time, which leaves the marks, while another worker counts on or
// nobody counts. It counts some seconds in each hour.
func TestPurgedSumsAreReadAnew(t *testing.T) {
	for _, busy := range []bool{true, false} {
		for _, hours := range [][]int{{4}, {60}, {60, 1}, {1, 60}} {
			t.Run(fmt.Sprintf("busy=%v/%v", busy, hours), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { purgeBoth(t, busy, hours) })
			})
		}
	}
}

func purgeBoth(t *testing.T, busy bool, hours []int) {
	t.Helper()
	fleet, book := newCounters(), rollup.NewBook()
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	reader := newRollups(rollup.NewBook(), anyway)
	running.Go(func() { reader.Run(ctx, fleet) })
	time.Sleep(2 * time.Second) // it looks when the other one has just stored something
	running.Go(func() { newRollups(book, anyway).Run(ctx, fleet) })
	count := func(seconds int, proxy string) (n int64) {
		for range seconds {
			book.Attempt(rollup.AttemptFact{Proxy: proxy, Status: 200})
			time.Sleep(time.Second)
		}
		return int64(seconds)
	}
	var all, since int64
	for i, seconds := range hours {
		time.Sleep(time.Duration(i) * time.Hour)
		all += count(seconds, "p1")
	}
	for _, family := range []string{"hour.", "proxy."} {
		time.Sleep(9 * time.Second)
		fleet.purge(family)
		if busy {
			since += count(5, "p2")
		} else {
			time.Sleep(5 * time.Second)
		}
		b, _ := reader.Fleet()
		total, old := b.Total(24), int64(0)
		for _, p := range b.ByProxy(24) {
			if p.ProxyID == "p1" {
				old = p.TotalAttempts
			}
		}
		if want := map[string]int64{"hour.": all, "proxy.": 0}[family]; total.Attempts() > since || old != want {
			t.Errorf("%s purged: got %d attempts, %d by the proxy of before; want at most the %d since, and %d", family, total.Attempts(), old, since, want)
		}
	}
}

// TestEventsOfANewStreamAreRead deletes the stream of events alone.
func TestEventsOfANewStreamAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		event := func(proxy string) jobs.BreakerEvent {
			return jobs.BreakerEvent{ProxyID: proxy, FromState: "closed", ToState: "open", Timestamp: time.Now()}
		}
		fleet := newCounters()
		fleet.breakers = []jobs.BreakerEvent{event("old")}
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		r := newRollups(rollup.NewBook(), anyway)
		running.Go(func() { r.Run(ctx, fleet) })
		time.Sleep(10 * time.Second)
		fleet.remakeEvents(event("new"))
		time.Sleep(5 * time.Second)
		book, _ := r.Fleet()
		if got := book.BreakerEvents(time.Time{}); len(got) != 1 || got[0].ProxyID != "new" {
			t.Errorf("events: got %+v, want that of the new stream", got)
		}
	})
}

func TestEachFlushIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, book := newCounters(), rollup.NewBook()
		down := true
		fleet.fails = func() (bool, bool) { return !down, !down }
		var told []bool
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { newRollups(book, func(ok bool) { told = append(told, ok) }).Run(ctx, fleet) })
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		fleet.mu.Lock()
		down = false
		fleet.mu.Unlock()
		time.Sleep(time.Minute)
		end()
		running.Wait()
		if fmt.Sprint(told) != "[false true]" {
			t.Errorf("told %v, want the one that failed and the one that did not, and nothing while nothing happens", told)
		}
	})
}

// TestCountersThatARestartBrokeAreMended has two workers at the time of a restart, which may not mend, and one that comes
// later and may.
func TestCountersThatARestartBrokeAreMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := newCounters()
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer end()
		var logs []*lockedBuffer
		start := func() *rollup.Book {
			log, book := new(lockedBuffer), rollup.NewBook()
			logs = append(logs, log)
			r := share.NewRollups(share.RollupsConfig{Book: book, Flushed: anyway, Log: slog.New(slog.NewTextHandler(log, nil))})
			running.Go(func() { r.Run(ctx, fleet) })
			return book
		}
		count := func(books ...*rollup.Book) {
			for _, b := range books {
				b.Job(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		one, other := start(), start()
		count(one, other)
		fleet.mayMend(fmt.Errorf("mend rollups: %w", bus.ErrPermission))
		fleet.tearNext()
		count(one)
		count(one, other)
		time.Sleep(80 * time.Second)
		synctest.Wait()
		if got := fleet.jobs(t); got > 3 || fleet.mends != 4 {
			t.Errorf("without the permission the fleet has %d jobs after %d tries, want what comes later to wait, and one try of each worker a minute", got, fleet.mends)
		}
		fleet.mayMend(nil)
		count(start())
		if got := fleet.jobs(t); got < 4 {
			t.Errorf("the fleet has %d jobs when a worker came that may mend, want at least the 3 before the refusal and its own", got)
		}
		count(one, other)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fleet.jobs(t); got != 8 || len(fleet.broken) != 1 {
			t.Errorf("the fleet has %d jobs and %v broken, want all 8, and nothing broken but a mark", got, fleet.broken)
		}
		for i, log := range logs {
			refused, mended := strings.Count(log.String(), "may not mend them"), strings.Count(log.String(), "they are mended")
			if wantRefused := 1 - i/2; refused != wantRefused || mended != 1 {
				t.Errorf("worker %d said %d times that it may not mend and %d times that it did, want %d and 1: %s", i, refused, mended, wantRefused, log)
			}
		}
	})
}

func TestDrainWithoutAServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, book := newCounters(), rollup.NewBook()
		fleet.fails = func() (bool, bool) { return false, false }
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newRollups(book, anyway).Run(ctx, fleet)
		if took := time.Since(began); took > 9*time.Second || fleet.calls < 5 {
			t.Errorf("gave up after %v and %d tries, want some tries and at most 8 s", took, fleet.calls)
		}
	})
}

// closed are counters behind a connection that is closed for good.
type closed struct{ *counters }

func (closed) AddRollups(context.Context, bus.Increments) error {
	return fmt.Errorf("add up rollups: %w", bus.ErrUnreachable)
}

func TestDrainOnAClosedConnectionEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := rollup.NewBook()
		book.Job(rollup.JobFact{Outcome: jobs.Succeeded})
		ctx, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		newRollups(book, anyway).Run(ctx, closed{newCounters()})
		if took := time.Since(began); took != 0 {
			t.Errorf("gave up after %v, want at once", took)
		}
	})
}
