package rollup_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

func TestBusiestProxiesKeepTheirNames(t *testing.T) {
	t.Run("flushed within the hour", func(t *testing.T) { busiest(t, true) })
	t.Run("flushed after the hour", func(t *testing.T) { busiest(t, false) })
}

func takeInto(s *stream, b *rollup.Book) {
	for more := true; more; {
		d := b.Take(true)
		s.add(d)
		b.Done(d.Seq)
		more = d.More
	}
}

func busiest(t *testing.T, flushed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		fleet := newStream()
		for i := range 3000 {
			for range 1 + i/2000 { // the last thousand are the busiest
				b.Attempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%04d", i), Status: 200, Bytes: 1})
			}
		}
		if flushed {
			takeInto(&fleet, b)
		}
		time.Sleep(time.Hour)
		got := b.ByProxy(24)
		takeInto(&fleet, b)
		if len(got) != 1001 || got[1000].ProxyID != rollup.Other || got[1000].TotalAttempts != 2000 || got[1000].Bytes != 2000 {
			t.Fatalf("proxies: got %d, the last %+v, want 1001 and the rest in other", len(got), got[len(got)-1])
		}
		if got[0].ProxyID != "p2000" || got[999].ProxyID != "p2999" {
			t.Errorf("named: got %s to %s, want p2000 to p2999", got[0].ProxyID, got[999].ProxyID)
		}
		if !reflect.DeepEqual(fleet.book(t).ByProxy(24), got) {
			t.Error("the fleet names other proxies than its only worker")
		}
		named := 0
		for name := range fleet.sums {
			named += strings.Count(name, "proxy.")
		}
		if named != 1001 {
			t.Errorf("names in the fleet's sums: got %d, want 1000 and other", named)
		}
	})
}

func TestRareFailureSurvivesAFloodOfSuccesses(t *testing.T) {
	b := rollup.NewBook()
	b.Job(rollup.JobFact{ID: "bad", Outcome: jobs.Failed, Error: jobs.ErrNoProxy})
	for range 20_000 {
		b.Job(rollup.JobFact{Outcome: jobs.Succeeded})
	}
	if got := b.LastFailures(1); len(got) != 1 || got[0].ID != "bad" {
		t.Errorf("last failure: got %v, want bad", got)
	}
	if got := len(b.Since(time.Time{}).Jobs); got != 10_000 {
		t.Errorf("raw jobs: got %d, want the ring's 10000", got)
	}
}

func TestRawEventsLastAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.Retry(jobs.RetryEvent{JobID: "old"})
		b.Breaker(jobs.BreakerEvent{ProxyID: "p1", ToState: "open"})
		time.Sleep(61 * time.Minute)
		b.Retry(jobs.RetryEvent{JobID: "new"})
		e := b.Since(time.Time{})
		if len(e.Retries) != 1 || e.Retries[0].JobID != "new" || len(e.Breakers) != 0 {
			t.Errorf("raw events: got %+v, want the new retry alone", e)
		}
		if got := b.BreakerEvents(time.Now().Add(-2 * time.Hour)); len(got) != 1 {
			t.Errorf("breaker events of two hours: got %d, want 1", len(got))
		}
	})
}

func TestRowsOfManyProxiesWaitUntilAllIsAskedFor(t *testing.T) {
	for proxies, want := range map[int]bool{100: true, 101: false} {
		b := rollup.NewBook()
		for i := range proxies {
			b.Attempt(rollup.AttemptFact{Proxy: fmt.Sprint("p", i), Status: 200})
		}
		d := b.Take(false)
		b.Done(d.Seq)
		rows := 0
		for name := range d.Counts {
			rows += strings.Count(name, "proxy.")
		}
		if attempts := slices.Collect(maps.Keys(d.Counts)); len(attempts) == 0 || (rows == proxies) != want {
			t.Errorf("first delta of %d proxies: %d names, %d of them rows; want the rows in it: %v", proxies, len(attempts), rows, want)
		}
		if rest := b.Take(true); (len(rest.Counts) == proxies) == want {
			t.Errorf("then of %d proxies: %d names", proxies, len(rest.Counts))
		}
	}
}

func TestNoDeltaIsTooLargeForTheServer(t *testing.T) {
	b := rollup.NewBook()
	for i := range 1000 {
		b.Attempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%04d", i), Status: 200, Bytes: 1 << 40})
	}
	fleet := newStream()
	deltas := 0
	for more := true; more; deltas++ {
		d := b.Take(true)
		if len(d.Counts) > 500 {
			t.Fatalf("delta %d: %d increments, want at most 500", d.Seq, len(d.Counts))
		}
		fleet.add(d)
		b.Done(d.Seq)
		more = d.More
	}
	if deltas != 3 || b.Take(true).Seq != 0 || !reflect.DeepEqual(fleet.book(t).ByProxy(24), b.ByProxy(24)) {
		t.Errorf("got %d deltas that do not add up to the book, want 3 that do", deltas)
	}
}
