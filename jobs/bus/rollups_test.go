package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// sums reads all counters that are stored now, without the marks.
func (in *installation) sums(tb testing.TB) map[string]string {
	tb.Helper()
	out := map[string]string{}
	for _, prefix := range []string{"hour", "proxy"} {
		eventually(tb, func() bool { // the server may be on its way back
			ctx, stop := context.WithCancelCause(soon(tb))
			err := in.Rollups(ctx, prefix, time.Time{}, func(name, sum string) { out[name] = sum }, ignore, func() { stop(errEnough) })
			return errors.Is(err, errEnough)
		})
	}
	return out
}

var errEnough = errors.New("enough")

func ignore(bus.Broken) {}

func flush(book string, seq int, counts map[string]string) bus.Increments {
	return bus.Increments{ID: book + "." + strconv.Itoa(seq), Mark: "book." + book, Counts: counts}
}

func TestRepeatedFlushCountsOnce(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	inc := flush("a", 1, map[string]string{"hour.2026010100.attempts": "5", "proxy.2026010100.p1": "1000000000000000000000000000000000007"})
	expect := func(when string) {
		t.Helper()
		got := in.sums(t)
		if len(got) != 2 || got["hour.2026010100.attempts"] != "5" || got["proxy.2026010100.p1"] != "1000000000000000000000000000000000007" {
			t.Errorf("%s: got %v, want what was flushed once", when, got)
		}
	}
	must(t, in.AddRollups(soon(t), inc))
	expect("after the first flush")
	must(t, in.AddRollups(soon(t), inc)) // as if the first try had still been under way when the mark was read
	expect("repeated without a look at the mark")
	inc.Repeated = true
	must(t, in.AddRollups(soon(t), inc))
	expect("repeated")
	in.restart()
	eventually(t, func() bool { return in.AddRollups(soon(t), inc) == nil })
	expect("repeated after a restart")
}

// TestMarkOutlivesTheDuplicateWindow has a window of a second, as if a worker came back after the usual two minutes, and
// another worker that counts the same things meanwhile, so that nothing of the first one's ids is left in the counters.
func TestMarkOutlivesTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.Duplicates = 100 * time.Millisecond
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	one := map[string]string{"hour.2026010100.attempts": "1"}
	must(t, in.AddRollups(soon(t), flush("a", 1, one)))
	must(t, in.AddRollups(soon(t), flush("b", 1, one)))
	again := flush("a", 1, one)
	// The window is over when the server takes an id of its own a second time.
	eventually(t, func() bool {
		msg := nats.NewMsg(bus.RollupSubject(in.names, "probe"))
		msg.Header.Set("Nats-Incr", "+1")
		msg.Header.Set("Nats-Msg-Id", "probe")
		ack, err := in.js.PublishMsg(soon(t), msg)
		return err == nil && !ack.Duplicate && ack.Value != "1"
	})
	again.Repeated = true
	must(t, in.AddRollups(soon(t), again))
	if got := in.sums(t)["hour.2026010100.attempts"]; got != "2" {
		t.Errorf("sum: got %s, want one of each worker", got)
	}
	must(t, in.AddRollups(soon(t), flush("a", 2, one)))
	if got := in.sums(t)["hour.2026010100.attempts"]; got != "3" {
		t.Errorf("sum after the next flush: got %s, want 3", got)
	}
}

func TestMarkGoesWithTheCounters(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	expect := func(when, want string) {
		t.Helper()
		if got, broken, err := in.RollupMark(soon(t), "book.a"); err != nil || got != want || broken {
			t.Errorf("mark %s: got %q, broken %v, %v; want %q", when, got, broken, err, want)
		}
	}
	expect("of nobody", "")
	must(t, in.AddRollups(soon(t), flush("a", 0, nil)))
	expect("alone", "a.0")
	must(t, in.AddRollups(soon(t), flush("a", 1, map[string]string{"hour.2026010100.attempts": "1"})))
	expect("with counters", "a.1")
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	must(t, stream.Purge(soon(t)))
	expect("after a purge", "")
	must(t, in.AddRollups(soon(t), flush("a", 2, nil)))
	must(t, in.js.DeleteStream(soon(t), "GOFER_ROLLUPS"))
	_, _, err = in.RollupMark(soon(t), "book.a")
	isError(t, err, bus.ErrNotSetUp)
	_, err = in.Apply(soon(t), bus.Settings{})
	must(t, err)
	expect("in a new stream", "")
}

func TestFlushIsStoredWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	broken := flush("a", 1, map[string]string{"hour.2026010100.attempts": "1", "hour.2026010100.retries": "x"})
	if err := in.AddRollups(soon(t), broken); err == nil {
		t.Error("increment that is no number: got no error")
	}
	if got := in.sums(t); len(got) != 0 {
		t.Errorf("stored of a refused flush: got %v, want nothing", got)
	}
	broken.Counts["hour.2026010100.retries"], broken.Repeated = "1", true
	must(t, in.AddRollups(soon(t), broken))
	if got := in.sums(t); len(got) != 2 {
		t.Errorf("stored of the flush as it should be: got %v, want both", got)
	}
}

func TestStreamOfAnOlderVersionIsNamed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	stream, err := in.js.Stream(soon(t), "GOFER_ROLLUPS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.AllowAtomicPublish = false
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
	one := flush("a", 1, map[string]string{"hour.2026010100.attempts": "1"})
	isError(t, in.AddRollups(soon(t), one), bus.ErrNoBatches)
	_, err = in.Apply(soon(t), bus.Settings{})
	must(t, err)
	one.Repeated = true
	must(t, in.AddRollups(soon(t), one))
}

func TestRollupsAreReadAndFollowed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.AddRollups(soon(t), flush("a", 1, map[string]string{"hour.2026010100.job.succeeded": "1", "proxy.2026010100.p1": "9"})))
	ctx, stop := context.WithCancelCause(soon(t))
	known := false
	err := in.Rollups(ctx, "hour", time.Time{}, func(name, sum string) {
		switch {
		case name != "hour.2026010100.job.succeeded":
			t.Errorf("got %s, want nothing but the hour", name)
		case known && sum == "3":
			stop(errEnough)
		case known || sum != "1":
			t.Errorf("got %s, known %v", sum, known)
		}
	}, ignore, func() {
		known = true
		must(t, in.AddRollups(soon(t), flush("b", 1, map[string]string{"hour.2026010100.job.succeeded": "2"})))
	})
	isError(t, err, errEnough)

	ctx, stop = context.WithCancelCause(soon(t))
	err = in.Rollups(ctx, "proxy", time.Now().Add(time.Hour), func(name, _ string) { t.Errorf("got %s, want nothing that old", name) }, ignore, func() { stop(errEnough) })
	isError(t, err, errEnough)
}

func TestBreakerEventsOfTheFleetAreFollowed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, in.PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: "p1", ToState: "open"}))
	must(t, in.PublishRetry(soon(t), jobs.RetryEvent{Queue: "default", JobID: "j"}))
	must(t, in.nc.Publish(in.names.BreakerEvent("p2"), []byte("nonsense")))
	must(t, in.PublishBreaker(soon(t), jobs.BreakerEvent{ProxyID: "p3", ToState: "open"}))
	ctx, stop := context.WithCancelCause(soon(t))
	var got []string
	var first time.Time
	err := in.Breakers(ctx, time.Time{}, func(stored time.Time, e jobs.BreakerEvent) {
		if got = append(got, e.ProxyID); e.ProxyID == "p3" {
			stop(errEnough)
			return
		}
		first = stored
	})
	isError(t, err, errEnough)
	ctx, stop = context.WithCancelCause(soon(t))
	err = in.Breakers(ctx, first.Add(1), func(_ time.Time, e jobs.BreakerEvent) {
		if stop(errEnough); e.ProxyID != "p3" {
			t.Errorf("got %s again, want those after it", e.ProxyID)
		}
	})
	isError(t, err, errEnough)
	if fmt.Sprint(got) != "[p1 p3]" {
		t.Errorf("got breakers %v, want p1 and p3", got)
	}
}

// TestAnySplitOverWorkersAndAnyRepetitionAddsUp plays workers that flush at once, repeat what is stored already, and
// meet a server that restarts.
func TestAnySplitOverWorkersAndAnyRepetitionAddsUp(t *testing.T) {
	testenv.Long(t)
	in := install(t, bus.Settings{})
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		if run > 12 {
			return // each one waits for a real server
		}
		want := map[string]*big.Int{}
		var workers sync.WaitGroup
		for w := range rapid.IntRange(1, 4).Draw(r, "workers") {
			var flushes []bus.Increments
			for seq := range rapid.IntRange(1, 5).Draw(r, "flushes") {
				counts := map[string]string{}
				for i := range rapid.IntRange(1, 20).Draw(r, "names") {
					name, n := fmt.Sprintf("hour.20260101%02d.c%d", run%24, i), rapid.Int64Range(1, 1<<62).Draw(r, "n")
					name += "." + strconv.Itoa(run)
					counts[name] = strconv.FormatInt(n, 10)
					if want[name] == nil {
						want[name] = new(big.Int)
					}
					want[name].Add(want[name], big.NewInt(n))
				}
				inc := flush(fmt.Sprintf("r%dw%d", run, w), seq+1, counts)
				for range rapid.IntRange(1, 3).Draw(r, "times") {
					flushes = append(flushes, inc)
					inc.Repeated = rapid.Bool().Draw(r, "looks at the mark")
				}
			}
			workers.Go(func() { in.addAll(t, flushes) })
		}
		if run%4 == 0 {
			in.restart()
		}
		workers.Wait()
		got := in.sums(t)
		for name, sum := range want {
			if got[name] != sum.String() {
				r.Fatalf("%s: got %s, want %s", name, got[name], sum)
			}
		}
	})
}

// addAll stores flushes one after the other, as a worker does, and mends what the server breaks.
func (in *installation) addAll(t *testing.T, flushes []bus.Increments) {
	t.Helper()
	stored, marks := "", 0
	var owed []bus.Broken
	mend := func() bool {
		owed = append(owed, in.broken(t)...) // those that were deleted already are known to nobody else
		err := in.MendRollups(t.Context(), owed)
		if err == nil {
			owed = nil
		}
		return err == nil
	}
	for _, inc := range flushes {
		if marks > 0 && inc.ID == stored {
			continue // the next mark does not tell of it
		}
		for mark := inc.Mark; t.Context().Err() == nil; inc.Repeated = true {
			if marks > 0 {
				inc.Mark = fmt.Sprint(mark, ".", marks)
			}
			err := in.AddRollups(t.Context(), inc)
			if err == nil {
				break
			}
			if isBroken(err) {
				mend() // repeated with the flush
			}
			id, broken, err := in.RollupMark(t.Context(), inc.Mark)
			if err != nil || !broken {
				continue
			}
			marks++
			if id == inc.ID {
				break
			}
		}
		stored = inc.ID
	}
	if len(owed) > 0 {
		eventually(t, mend)
	}
}

// BenchmarkFlush adds up what a worker flushes: its totals, and its totals with the rows of 1,000 proxies.
func BenchmarkFlush(b *testing.B) {
	for _, rows := range []int{0, 1000} {
		b.Run(fmt.Sprint("rows=", rows), func(b *testing.B) {
			in := on(b, testenv.StartNATS(b, func(o *server.Options) { o.NoLog = true }), bus.Dial{})
			must(b, in.Ensure(b.Context(), bus.Settings{}))
			seq := 0
			add := func(counts map[string]string) {
				seq++
				must(b, in.AddRollups(b.Context(), flush("a", seq, counts)))
			}
			b.ResetTimer()
			for b.Loop() {
				counts := map[string]string{}
				for i := range 50 {
					counts[fmt.Sprintf("hour.2026010100.latency.%d", i)] = "12"
				}
				for i := range rows {
					counts[fmt.Sprintf("proxy.2026010100.p%04d", i)] = "7000000000000009000000000000000000000000000000000001000000000000000001"
					if len(counts) == 999 {
						add(counts)
						counts = map[string]string{}
					}
				}
				add(counts)
			}
		})
	}
}

// eventually asks again and again until a condition holds.
func eventually(tb testing.TB, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	tb.Fatal("waited 20 s in vain")
}
