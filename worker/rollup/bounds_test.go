package rollup_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
	"pgregory.net/rapid"
)

func TestBusiestProxiesKeepTheirNames(t *testing.T) {
	t.Run("flushed within the hour", func(t *testing.T) { busiest(t, true) })
	t.Run("flushed after the hour", func(t *testing.T) { busiest(t, false) })
}

func busiest(t *testing.T, flushed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		stored := fleet{}
		for i := range 3000 {
			for range 1 + i/2000 { // the last thousand are the busiest
				b.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%04d", i), Status: 200, Bytes: 1})
			}
		}
		if flushed {
			stored.storeAll(b)
		}
		time.Sleep(time.Hour)
		got := b.ByProxy(24)
		stored.storeAll(b)
		if len(got) != 1001 || got[1000].ProxyID != rollup.Rest || got[1000].TotalAttempts != 2000 || got[1000].Bytes != 2000 {
			t.Fatalf("proxies: got %d, the last %+v, want 1001 and the rest in the rest", len(got), got[len(got)-1])
		}
		if got[0].ProxyID != "p2000" || got[999].ProxyID != "p2999" {
			t.Errorf("named: got %s to %s, want p2000 to p2999", got[0].ProxyID, got[999].ProxyID)
		}
		if !reflect.DeepEqual(stored.book(t).ByProxy(24), got) {
			t.Error("the fleet names other proxies than its only worker")
		}
		for _, p := range stored {
			if named := strings.Count(string(p.Data), "p2") + strings.Count(string(p.Data), "p1"); p.Kind == rollup.Proxies && named != 1000 {
				t.Errorf("names in the stored part: got %d, want 1000", named)
			}
		}
	})
}

func TestRareFailureSurvivesAFloodOfSuccesses(t *testing.T) {
	b := rollup.NewBook()
	b.AddJob(rollup.JobFact{ID: "bad", Outcome: jobs.Failed, Error: jobs.ErrNoProxy})
	for range 20_000 {
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded})
	}
	if got := b.LastFailures(1); len(got) != 1 || got[0].ID != "bad" {
		t.Errorf("last failure: got %v, want bad", got)
	}
}

func TestBreakerEventsAreFoundByTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "p1", ToState: "open"})
		time.Sleep(61 * time.Minute)
		for hours, want := range []int{0, 0, 1} {
			if got := len(b.BreakerEvents(time.Now().Add(-time.Duration(hours) * time.Hour))); got != want {
				t.Errorf("breaker events of %d hours: got %d, want %d", hours, got, want)
			}
		}
	})
}

// byProxy adds up what a book tells of its proxies, the rest included.
func byProxy(b *rollup.Book) (attempts, bytes int64) {
	for _, p := range b.ByProxy(24) {
		attempts += p.TotalAttempts
		bytes += p.Bytes
	}
	return attempts, bytes
}

func TestProxiesBeyondThoseThatAreToldApartAreInTheRest(t *testing.T) {
	worker := rollup.NewBook()
	for i := range 10_002 {
		worker.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("p%05d", i), Status: 200, Bytes: 7})
	}
	stored := fleet{}
	stored.storeAll(worker)
	for name, b := range map[string]*rollup.Book{"worker": worker, "fleet": stored.book(t)} {
		if attempts, bytes := byProxy(b); attempts != 10_002 || bytes != 7*10_002 {
			t.Errorf("%s by proxy: got %d attempts and %d bytes, want 10002 and 7 each", name, attempts, bytes)
		}
	}
}

// TestFleetWithMoreProxiesThanItCanNameLosesNothing has two workers whose proxies are other ones each hour.
func TestFleetWithMoreProxiesThanItCanNameLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored, all := fleet{}, rollup.NewBook()
		workers := []*rollup.Book{rollup.NewBook(), rollup.NewBook()}
		for hour := range 12 {
			for w, b := range workers {
				for i := range 1200 {
					b.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("w%dh%02dp%05d", w, hour, i), Status: 200, Bytes: 10})
				}
				stored.storeAll(b)
			}
			for range 2 { // an hour may be put again
				stored.fill(t, all)
			}
			time.Sleep(time.Hour)
		}
		total := all.Total(24)
		if attempts, bytes := byProxy(all); attempts != total.Attempts() || bytes != total.Bytes() {
			t.Errorf("fleet by proxy: got %d attempts and %d bytes, want the %d and %d of all", attempts, bytes, total.Attempts(), total.Bytes())
		}
	})
}

func TestNoProxyIsTakenForTheRest(t *testing.T) {
	worker := rollup.NewBook()
	worker.AddAttempt(rollup.AttemptFact{Proxy: "other", Status: 200, Bytes: 7})
	worker.AddAttempt(rollup.AttemptFact{Proxy: "no good", Status: 200, Bytes: 100}) // has no row
	stored := fleet{}
	stored.storeAll(worker)
	for name, b := range map[string]*rollup.Book{"worker": worker, "fleet": stored.book(t)} {
		if got := b.ByProxy(24); len(got) != 2 || got[0].ProxyID != "other" || got[0].Bytes != 7 || got[1].ProxyID != rollup.Rest || got[1].Bytes != 100 {
			t.Errorf("%s: got %+v, want the proxy with 7 bytes and the rest with 100", name, got)
		}
	}
	if jobs.ValidProxyID(rollup.Rest) {
		t.Errorf("%s is a proxy's id", rollup.Rest)
	}
}

// TestFewerHoursThanTheDayAreAddedUp asks for fewer hours than the day, whose sum is kept.
func TestFewerHoursThanTheDayAreAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		for range 30 {
			b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200})
			time.Sleep(time.Hour)
		}
		for hours, want := range map[int]int64{1: 0, 2: 1, 12: 11, 23: 22, 24: 23, 168: 23} {
			var got int64
			for _, p := range b.ByProxy(hours) {
				got += p.TotalAttempts
			}
			if got != want {
				t.Errorf("%d hours: got %d attempts, want %d", hours, got, want)
			}
		}
	})
}

// plain adds up and ranks the sums of the newest hours without any of the book's means.
func plain(sums map[int64]map[string]int64, hours int64) (out []rollup.Proxy) {
	byID := map[string]int64{}
	now := time.Now().Unix() / 3600
	for hour, proxies := range sums {
		for id, n := range proxies {
			if hour > now-min(hours, 24) {
				byID[id] += n
			}
		}
	}
	for id, n := range byID {
		out = append(out, rollup.Proxy{ProxyID: id, TotalAttempts: n})
	}
	slices.SortFunc(out, func(a, b rollup.Proxy) int {
		return cmp.Or(cmp.Compare(b.TotalAttempts, a.TotalAttempts), cmp.Compare(a.ProxyID, b.ProxyID))
	})
	if len(out) <= 1000 {
		return out
	}
	rest := rollup.Proxy{ProxyID: rollup.Rest}
	for _, p := range out[1000:] {
		rest.TotalAttempts += p.TotalAttempts
	}
	return append(out[:1000], rest)
}

// TestProxiesAreRankedAsInThePlainWay sets sums of proxies that come, go and come back, some of them with equal ones.
func TestProxiesAreRankedAsInThePlainWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			proxies := rapid.SampledFrom([]int{3, 1000, 1001, 4000}).Draw(t, "proxies")
			most := rapid.SampledFrom([]int64{1, 3, 1e6}).Draw(t, "most attempts")
			all, sums := rollup.NewBook(), map[int64]map[string]int64{}
			for range rapid.IntRange(1, 6).Draw(t, "rounds") {
				hour := time.Now().Unix()/3600 - int64(rapid.IntRange(0, 23).Draw(t, "hours ago"))
				if sums[hour] == nil {
					sums[hour] = map[string]int64{}
				}
				for range proxies {
					sums[hour][fmt.Sprint("p", random.IntN(2*proxies))] = 1 + random.Int64N(most)
				}
				put(t, all, hour, sums[hour])
				time.Sleep(time.Duration(rapid.IntRange(2, 20*3600).Draw(t, "seconds")) * time.Second)
				for _, hours := range []int{1, 2, 23, 24, 168} {
					if got, want := all.ByProxy(hours), plain(sums, int64(hours)); !slices.Equal(got, want) {
						t.Fatalf("%d hours: got %d rows, want %d: %v\n%v", hours, len(got), len(want), got[:min(3, len(got))], want[:min(3, len(want))])
					}
				}
			}
		})
	})
}

// put replaces an hour by the parts of workers that each made the attempts of some proxies. A part names 1,000 proxies.
func put(t *rapid.T, b *rollup.Book, hour int64, attempts map[string]int64) {
	sum := rollup.NewSum(rollup.Proxies)
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(attempts)), 1000) {
		var rows []byte
		every := int64(0)
		for _, id := range chunk {
			rows = record(rows, id, attempts[id])
			every += attempts[id]
		}
		if err := sum.Add(record(rows, "~", every)); err != nil {
			t.Fatal(err)
		}
	}
	b.Put(time.Unix(hour*3600, 0), sum)
}

// record writes a name and its numbers as a part has them.
func record(out []byte, name string, values ...int64) []byte {
	out = append(binary.AppendUvarint(out, uint64(len(name))), name...)
	out = binary.AppendUvarint(out, uint64(len(values)))
	for _, v := range values {
		out = binary.AppendUvarint(out, uint64(v))
	}
	return out
}

// TestNoPartIsTooLargeForTheServer has the longest ids, and numbers as large as an hour may have. A server takes a megabyte.
func TestNoPartIsTooLargeForTheServer(t *testing.T) {
	b := rollup.NewBook()
	for i := range 10_000 {
		b.AddAttempt(rollup.AttemptFact{Proxy: fmt.Sprintf("%064d", i), Status: 200, Bytes: 1 << 49, Duration: 1000 * time.Hour})
	}
	for _, p := range b.Changed() {
		if len(p.Data) > 256<<10 {
			t.Errorf("the part of the %s has %d bytes, want at most 256 KiB", p.Kind, len(p.Data))
		}
	}
}

// TestUnknownNamesAreSkipped has the sums of a newer worker, which counts more, and of somebody who invents names.
func TestUnknownNamesAreSkipped(t *testing.T) {
	for kind, names := range map[rollup.Kind][]string{
		rollup.Totals: {
			"", "x", "attempts.x", "job", "job.nonsense", "policy.x/3", "policy.fixed/11", "success_at.11", "success_at.x", "failure.nonsense", "breaker.ajar", "p1",
		},
		rollup.Proxies: {"", "p.1", "no good", "(other)", "~~"},
	} {
		good := goodParts()[kind]
		want, _ := answersOf(kind, good)
		for _, name := range names {
			got, errs := answersOf(kind, slices.Concat(good, record(nil, name, 5)))
			if errs != 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("%s with %q: got %+v and %d errors, want the name skipped", kind, name, got, errs)
			}
		}
		longer := map[rollup.Kind][]byte{rollup.Totals: record(nil, "attempts", 0, 7), rollup.Proxies: record(nil, "~", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7)}
		got, errs := answersOf(kind, slices.Concat(good, longer[kind]))
		if errs != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s with more numbers: got %+v and %d errors, want those skipped", kind, got, errs)
		}
	}
}

// TestClockThatStoodAheadIsForgotten plays it with the clocks of two bubbles, which both begin in the year 2000.
func TestClockThatStoodAheadIsForgotten(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"an hour": time.Hour, "two days": 48 * time.Hour, "a year": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := rollup.NewBook()
			fact := rollup.AttemptFact{Proxy: "p1", Status: 200, Bytes: 5}
			synctest.Test(t, func(*testing.T) {
				time.Sleep(ahead)
				b.AddAttempt(fact)
				fleet{}.storeAll(b)
			})
			synctest.Test(t, func(t *testing.T) {
				for range 48 {
					b.AddAttempt(fact)
					stored := fleet{}
					if stored.storeAll(b); len(stored) != 2 {
						t.Fatalf("changed: got %d parts, want the totals and the proxies of the hour", len(stored))
					}
					time.Sleep(time.Second)
					got, hour := b.ByProxy(1), b.Hour(0)
					if len(got) != 1 || got[0].ProxyID != "p1" || hour.Attempts() == 0 {
						t.Fatalf("%v after the clock was set back: by proxy %+v, in the hour %d", time.Now(), got, hour.Attempts())
					}
					time.Sleep(time.Hour - time.Second)
				}
			})
		})
	}
}

func TestBreakerEventsOfOthersAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour)
		now := time.Now()
		good := jobs.BreakerEvent{ProxyID: "p1", FromState: "closed", ToState: "open", Timestamp: now.Add(-time.Minute), Reason: "timeout", Worker: "w1"}
		with := func(change func(*jobs.BreakerEvent)) jobs.BreakerEvent {
			e := good
			change(&e)
			return e
		}
		for name, e := range map[string]jobs.BreakerEvent{
			"no id": with(func(e *jobs.BreakerEvent) { e.ProxyID = "" }), "no such id": with(func(e *jobs.BreakerEvent) { e.ProxyID = "a.b" }),
			"no state": with(func(e *jobs.BreakerEvent) { e.FromState = "" }), "no such state": with(func(e *jobs.BreakerEvent) { e.ToState = "?" }),
		} {
			if err := rollup.NewBook().RestoreBreakerEvent(e, now); err == nil {
				t.Errorf("%s: got no error", name)
			}
		}
		const week = rollup.RetentionHours * time.Hour
		for name, c := range map[string]struct{ at, stored, want time.Time }{
			"its own":                   {now.Add(-time.Minute), now, now.Add(-time.Minute)},
			"ahead":                     {now.AddDate(1000, 0, 0), now.Add(-time.Hour), now.Add(-time.Hour)},
			"none":                      {time.Time{}, now, now},
			"a week before its storing": {now.Add(-week - time.Hour), now, now},
			"kept no longer":            {now.Add(-week - time.Hour), now.Add(-week), time.Time{}},
			"stored too long ago":       {now, now.Add(-week - time.Hour), time.Time{}},
		} {
			b := rollup.NewBook()
			if err := b.RestoreBreakerEvent(with(func(e *jobs.BreakerEvent) { e.Timestamp = c.at }), c.stored); err != nil {
				t.Error(err)
			}
			got := append(b.BreakerEvents(time.Time{}), jobs.BreakerEvent{})[0]
			if !got.Timestamp.Equal(c.want) {
				t.Errorf("time %s: got %v, want %v", name, got.Timestamp, c.want)
			}
		}
	})
}

func TestLongTextsOfBreakerEventsAreNotKept(t *testing.T) {
	b, before := rollup.NewBook(), heap()
	for range 100 {
		long := strings.Repeat("é", 250_000)
		if err := b.RestoreBreakerEvent(jobs.BreakerEvent{ProxyID: "p1", FromState: "closed", ToState: "open", Reason: long, Worker: long[1:]}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > 1 {
		t.Errorf("100 events of a megabyte take %.1f MB, want less than one", grown)
	}
	for _, e := range b.BreakerEvents(time.Time{}) {
		if len(e.Reason) > 300 || len(e.Worker) > 300 || !utf8.ValidString(e.Reason+e.Worker) || !strings.HasPrefix(e.Reason, "éé") {
			t.Fatalf("got a reason of %d and a worker of %d bytes, want 300 at most", len(e.Reason), len(e.Worker))
		}
	}
}
