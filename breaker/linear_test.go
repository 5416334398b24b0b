package breaker_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/gofer-mq/gofer/breaker"
)

// TestEveryConcurrentHistoryHasAnOrderThatTheLawAllows runs short histories of a few goroutines. Time stands still while they
// run and moves between their rounds, by the edges of every time, so results come late and leases end.
func TestEveryConcurrentHistoryHasAnOrderThatTheLawAllows(t *testing.T) {
	overlaps := 0
	for seed := range uint64(1000) {
		var c court
		var history []porcupine.Operation
		synctest.Test(t, func(*testing.T) { c, history = record(seed) })
		overlaps += overlapping(history)
		if !porcupine.CheckOperations(c.model(), history) {
			t.Fatalf("no order of history %d is allowed by the law:\n%s", seed, describe(history))
		}
	}
	if overlaps == 0 && runtime.GOMAXPROCS(0) > 1 {
		t.Error("no two calls overlapped, so nothing was concurrent")
	}
	t.Logf("%d pairs of calls overlapped", overlaps)
}

func (c court) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return law{} },
		Step: func(state, input, output any) (bool, any) {
			next, want := c.step(state.(law), input.(deed))
			return output.(answer) == want, next
		},
		Equal: func(a, b any) bool { return a.(law).equal(b.(law)) },
	}
}

// record runs one history.
func record(seed uint64) (court, []porcupine.Operation) {
	luck := rand.New(rand.NewPCG(seed, 0))
	b := breaker.New(breaker.Config{
		FailureThreshold: 2, Window: window, OpenTimeout: rest, MaxOpenTimeout: 3 * rest, Jitter: -1, ProbeLease: lease,
		Probes: 1 + luck.IntN(2), Successes: 1 + luck.IntN(2), DistinctTargets: 1 + luck.IntN(2),
	})
	workers := make([]*clerk, 3+luck.IntN(4))
	var order atomic.Int64
	for i := range workers {
		workers[i] = &clerk{bench: bench{b, map[int]breaker.Permit{}}, luck: rand.New(rand.NewPCG(seed, uint64(i)+1)), id: i, order: &order}
	}
	for range 4 {
		var round sync.WaitGroup
		var start atomic.Bool
		for _, w := range workers {
			round.Go(func() {
				for !start.Load() {
					runtime.Gosched()
				}
				w.work(3)
			})
		}
		start.Store(true)
		round.Wait()
		time.Sleep(edges()[luck.IntN(len(edges()))])
	}
	var history []porcupine.Operation
	for _, w := range workers {
		history = append(history, w.history...)
	}
	return newCourt(b), history
}

// edges are pauses at which something begins or ends, and their neighbours.
func edges() []time.Duration {
	return []time.Duration{0, 1, time.Second, lease - 1, lease, rest - 1, rest, rest + 1, 2 * rest, window - 1, window, window + 1}
}

// clerk is one goroutine of a history.
type clerk struct {
	bench
	luck    *rand.Rand
	id      int
	calls   int
	order   *atomic.Int64
	history []porcupine.Operation
}

func (c *clerk) work(n int) {
	for range n {
		d := c.next()
		from := c.order.Add(1)
		a := c.do(d)
		c.history = append(c.history, porcupine.Operation{ClientId: c.id, Input: d, Call: from, Output: a, Return: c.order.Add(1)})
	}
}

// next draws a deed. Most are calls; commands are rare, because each ends what was going on.
func (c *clerk) next() deed {
	d := deed{now: c.Group().Now(), call: -1}
	switch n := c.luck.IntN(100); {
	case n < 40:
		c.calls++
		d.do, d.call = allow, c.calls*100+c.id
	case n < 75 && len(c.permits) > 0:
		d.do = pickOne(c.luck, success, failure, failure, failure, ignore)
		d.call, d.target = c.oldest(), c.luck.Uint64N(3)
	case n < 96:
		d.do = pickOne(c.luck, snapshot, ready, ready, remaining)
	default:
		d.do, d.rest = pickOne(c.luck, trip, trip, reset), pickOne(c.luck, 0, rest, 2*rest)
	}
	return d
}

func pickOne[T any](luck *rand.Rand, from ...T) T { return from[luck.IntN(len(from))] }

func (c *clerk) oldest() int {
	oldest := 1 << 30
	for call := range c.permits {
		oldest = min(oldest, call)
	}
	return oldest
}

// overlapping counts the pairs of calls of which neither ended before the other began.
func overlapping(history []porcupine.Operation) (n int) {
	for i, a := range history {
		for _, b := range history[:i] {
			if a.Call < b.Return && b.Call < a.Return {
				n++
			}
		}
	}
	return n
}

func describe(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		d, a := o.Input.(deed), o.Output.(answer)
		fmt.Fprintf(&text, "%3d–%3d goroutine %d at %v: %s", o.Call, o.Return, o.ClientId, d.now, d.do)
		if d.call >= 0 {
			fmt.Fprintf(&text, " %d", d.call)
		}
		fmt.Fprintf(&text, ": %s\n", a.said(d.do))
	}
	return text.String()
}

// said is what an answer says to a deed.
func (a answer) said(do verb) string {
	switch do {
	case snapshot:
		return fmt.Sprintf("%+v", a.snapshot)
	case ready:
		return fmt.Sprint(a.ok)
	case remaining:
		return fmt.Sprint(a.remaining)
	default: // the others may have an event to tell
	}
	text := fmt.Sprint(a.ok, " ", a.probe)
	if a.event.Changed() {
		text += fmt.Sprintf(" %s → %s, generation %d", a.event.From, a.event.To, a.event.Generation)
	}
	return text
}
