package totals_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

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
		workers := []*totals.Rollups{newRollups(busy, anyway), newRollups(rollup.NewBook(), anyway)}
		for _, r := range workers {
			running.Go(func() { r.Run(ctx, context.WithoutCancel(ctx), fleet) })
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
	running.Go(func() { reader.Run(ctx, context.WithoutCancel(ctx), fleet) })
	time.Sleep(2 * time.Second) // it looks when the other one has just stored something
	running.Go(func() { newRollups(book, anyway).Run(ctx, context.WithoutCancel(ctx), fleet) })
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
		running.Go(func() { r.Run(ctx, context.WithoutCancel(ctx), fleet) })
		time.Sleep(10 * time.Second)
		fleet.remakeEvents(event("new"))
		time.Sleep(5 * time.Second)
		book, _ := r.Fleet()
		if got := book.BreakerEvents(time.Time{}); len(got) != 1 || got[0].ProxyID != "new" {
			t.Errorf("events: got %+v, want that of the new stream", got)
		}
	})
}
