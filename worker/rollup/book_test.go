package rollup_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
	"pgregory.net/rapid"
)

// answers is everything that a book can be asked for and that must not depend on order or on who counted.
type answers struct {
	Series   []rollup.Point
	Proxies  []rollup.Proxy
	Policies map[string]rollup.Policy
	Retries  rollup.Retries
	Errors   map[string]int64
	Failures map[string]int64
}

func ask(b *rollup.Book) answers {
	total := b.Total(rollup.RetentionHours)
	return answers{
		Series: b.Series(rollup.RetentionHours), Proxies: b.ByProxy(24), Policies: b.ByPolicy(24), Retries: b.Retries(),
		Errors: total.Errors(), Failures: total.Failures(),
	}
}

// fact is one call on a book.
type fact func(*rollup.Book)

func drawFact(t *rapid.T, now time.Time) fact {
	at := now.Add(-time.Duration(rapid.IntRange(0, 200*3600).Draw(t, "ago")) * time.Second)
	proxy := rapid.SampledFrom([]string{"", "p1", "p2", "p3", "no good", "a.b"}).Draw(t, "proxy")
	took := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "took"))
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		f := rollup.AttemptFact{Proxy: proxy, Duration: took, At: at, Bytes: rapid.Int64Range(0, 1<<30).Draw(t, "bytes")}
		f.Fault = rapid.SampledFrom([]jobs.Fault{jobs.FaultNone, jobs.FaultProxy, jobs.FaultTarget}).Draw(t, "fault")
		f.Reason = rapid.SampledFrom([]string{"", "timeout", "connect", "never heard of"}).Draw(t, "reason")
		f.Status = rapid.SampledFrom([]int{0, 200, 503}).Draw(t, "status")
		return func(b *rollup.Book) { b.AddAttempt(f) }
	case 1:
		f := rollup.JobFact{Duration: took, At: at, Attempts: rapid.IntRange(0, 12).Draw(t, "attempts")}
		f.Outcome = rapid.SampledFrom([]string{jobs.Succeeded, jobs.Failed, jobs.Cancelled}).Draw(t, "outcome")
		f.Error = rapid.SampledFrom([]string{"", jobs.ErrNoProxy, "x.y"}).Draw(t, "error")
		f.Policy = rapid.SampledFrom([]string{"exponential/3", "fixed/10", "mine/3", "linear/x", ""}).Draw(t, "policy")
		return func(b *rollup.Book) { b.AddJob(f) }
	case 2:
		return func(b *rollup.Book) { b.AddRetry(jobs.RetryEvent{At: at}) }
	}
	e := jobs.BreakerEvent{ProxyID: proxy, ToState: rapid.SampledFrom([]string{"open", "closed", "?"}).Draw(t, "to"), Timestamp: at}
	return func(b *rollup.Book) { b.AddBreakerEvent(e) }
}

func drawFacts(t *rapid.T) []fact {
	facts := make([]fact, rapid.IntRange(0, 60).Draw(t, "facts"))
	for i := range facts {
		facts[i] = drawFact(t, time.Now())
	}
	return facts
}

// fleet is where parts are stored: the newest version of each.
type fleet map[string]rollup.Part

func (f fleet) store(p rollup.Part) { f[string(p.Kind)+p.ID] = p }

// storeAll stores what a book has changed.
func (f fleet) storeAll(b *rollup.Book) {
	for _, p := range b.Changed() {
		f.store(p)
		b.Stored(p)
	}
}

// book is what the parts add up to.
func (f fleet) book(t interface{ Fatal(...any) }) *rollup.Book {
	b := rollup.NewBook()
	f.fill(t, b)
	return b
}

// fill puts each hour into a book.
func (f fleet) fill(t interface{ Fatal(...any) }, b *rollup.Book) {
	type of struct {
		hour time.Time
		kind rollup.Kind
	}
	sums := map[of]*rollup.Sum{}
	for _, p := range f {
		at := of{p.Hour, p.Kind}
		if sums[at] == nil {
			sums[at] = rollup.NewSum(p.Kind)
		}
		if err := sums[at].Add(p.Data); err != nil {
			t.Fatal(err)
		}
	}
	for at, sum := range sums {
		b.Put(at.hour, sum)
	}
}

func same(t *rapid.T, got, want answers) {
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func TestAnyOrderOfFactsGivesTheSameAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			facts := drawFacts(t)
			one, other := rollup.NewBook(), rollup.NewBook()
			for _, f := range facts {
				f(one)
			}
			for _, f := range rapid.Permutation(facts).Draw(t, "order") {
				f(other)
			}
			same(t, ask(other), ask(one))
		})
	})
}

func TestAnySplitOverWorkersAndAnyRepeatedFlushAddUpToTheSameAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			one := rollup.NewBook()
			workers := []*rollup.Book{rollup.NewBook(), rollup.NewBook(), rollup.NewBook()}
			stored := fleet{}
			for _, f := range drawFacts(t) {
				f(one)
				w := rapid.SampledFrom(workers).Draw(t, "worker")
				f(w)
				for range rapid.IntRange(0, 2).Draw(t, "flushes") {
					for _, p := range w.Changed() {
						if rapid.Bool().Draw(t, "arrives") {
							stored.store(p)
						}
						if rapid.Bool().Draw(t, "arrives and is acknowledged") {
							stored.store(p)
							w.Stored(p)
						}
					}
				}
			}
			for _, w := range workers {
				stored.storeAll(w)
			}
			same(t, ask(stored.book(t)), ask(one))
		})
	})
}

// TestLostPartsBeginAgain has somebody delete all that is stored: what was counted later is all that there is.
func TestLostPartsBeginAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			w, later, stored := rollup.NewBook(), rollup.NewBook(), fleet{}
			for _, f := range drawFacts(t) {
				f(w)
			}
			before := w.Changed()
			for _, p := range before {
				w.Stored(p)
			}
			for _, f := range drawFacts(t) {
				f(w)
				f(later)
			}
			for _, p := range w.Changed() {
				w.Lost(p)
			}
			stored.storeAll(w)
			same(t, ask(stored.book(t)), ask(later))
			for _, p := range before {
				if _, again := stored[string(p.Kind)+p.ID]; again {
					t.Fatal("a part that was lost is stored again under its id")
				}
			}
		})
	})
}

func TestPartIsChangedUntilItsNewestVersionIsStored(t *testing.T) {
	b := rollup.NewBook()
	if got := b.Changed(); len(got) != 0 {
		t.Errorf("an empty book: got %+v, want nothing changed", got)
	}
	b.AddRetry(jobs.RetryEvent{})
	first := b.Changed()
	b.AddRetry(jobs.RetryEvent{})
	second := b.Changed()
	if len(first) != 1 || len(second) != 1 || first[0].ID != second[0].ID {
		t.Fatalf("got %+v and %+v, want two versions of one part", first, second)
	}
	b.Stored(first[0])
	if got := b.Changed(); len(got) != 1 {
		t.Errorf("after the first version was stored: got %+v, want the second", got)
	}
	b.Stored(second[0])
	b.Stored(first[0]) // its answer comes late
	if got := b.Changed(); len(got) != 0 {
		t.Errorf("after the newest version was stored: got %+v, want nothing", got)
	}
}

func TestFactOfAnHourWhosePartIsForgottenIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stored, at := rollup.NewBook(), fleet{}, time.Now()
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
		stored.storeAll(b)
		time.Sleep(3 * time.Hour)
		stored.storeAll(b) // forgets the part
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1, At: at})
		stored.storeAll(b)
		if got := stored.book(t).Series(4)[0].TotalRequests; got != 2 || len(stored) != 2 {
			t.Errorf("got %d jobs in %d parts, want both in two", got, len(stored))
		}
	})
}

func TestHourLeavesAfterItsWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1})
		time.Sleep((rollup.RetentionHours - 1) * time.Hour)
		if got := b.Series(rollup.RetentionHours)[0].TotalRequests; got != 1 {
			t.Errorf("jobs in the oldest hour: got %d, want 1", got)
		}
		time.Sleep(time.Hour)
		total := b.Total(rollup.RetentionHours)
		if got := total.Jobs(); got != 0 {
			t.Errorf("jobs after a week: got %d, want 0", got)
		}
	})
}

func TestFactOfATimeLongGoneOrAheadDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, At: time.Unix(-5000, 0)})
		b.AddAttempt(rollup.AttemptFact{Proxy: "p", At: time.Unix(-5000, 0)})
		b.AddJob(rollup.JobFact{Outcome: jobs.Succeeded, At: time.Now().Add(1000 * time.Hour)})
		running := b.Hour(0)
		if got := running.Jobs(); got != 1 {
			t.Errorf("jobs of the running hour: got %d, want the one that came from ahead", got)
		}
		if got := b.ByProxy(24); len(got) != 0 {
			t.Errorf("proxies: got %v, want none", got)
		}
	})
}

func TestNumbersAreWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rollup.NewBook()
		b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Reason: "timeout", Fault: jobs.FaultProxy, Duration: 3 * time.Second, Bytes: 10})
		b.AddRetry(jobs.RetryEvent{JobID: "j1"})
		b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Status: 200, Duration: time.Second, Bytes: 90})
		b.AddAttempt(rollup.AttemptFact{Proxy: "p1", Reason: "cancelled", Duration: 2 * time.Second}) // nobody's fault
		b.AddBreakerEvent(jobs.BreakerEvent{ProxyID: "p1", ToState: "open"})
		b.AddJob(rollup.JobFact{ID: "j1", Outcome: jobs.Succeeded, Status: 200, Policy: "exponential/3", Attempts: 2, Duration: 4 * time.Second})
		b.AddJob(rollup.JobFact{ID: "j2", Outcome: jobs.Failed, Error: jobs.ErrNoProxy, Policy: "exponential/3"})
		p := b.Series(1)[0]
		want := rollup.Point{
			Timestamp: time.Now().UTC().Truncate(time.Hour), TotalRequests: 2, TotalRetries: 1, SuccessRate: 0.5,
			AvgLatency: jobs.Duration(4 * time.Second), P50: p.P50, P95: p.P95, P99: p.P99, Attempts: 3, Bytes: 100, BreakerOpens: 1,
			Classes: rollup.Classes{Status2xx: 1, None: 1},
		}
		if p != want {
			t.Errorf("point: got %+v, want %+v", p, want)
		}
		if off := p.P99.Seconds() - 4; off < -0.25 || off > 0.25 {
			t.Errorf("p99 of one job of 4 s: got %v", p.P99)
		}
		wantProxy := rollup.Proxy{ProxyID: "p1", TotalAttempts: 3, SuccessCount: 1, FailureCount: 1, AvgLatency: jobs.Duration(2 * time.Second), Bytes: 100, Opens: 1, Classes: rollup.Classes{Status2xx: 1, None: 2}}
		if got := b.ByProxy(1); len(got) != 1 || got[0] != wantProxy {
			t.Errorf("proxies: got %+v, want %+v", got, wantProxy)
		}
		if got := b.ByPolicy(1)["exponential/3"]; got != (rollup.Policy{TotalRequests: 2, SuccessRate: 0.5}) {
			t.Errorf("policy: got %+v", got)
		}
		if got := b.Retries(); got.SuccessByAttempt["2"] != 1 || got.TotalRetries != 1 || got.BreakerEvents != 1 {
			t.Errorf("retries: got %+v", got)
		}
		if got := b.LastFailures(5); len(got) != 1 || got[0].ID != "j2" {
			t.Errorf("failures: got %+v, want j2", got)
		}
	})
}

func TestQuantileIsWithinItsBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h rollup.Histogram
		values := rapid.SliceOfN(rapid.Int64Range(8, 1<<33), 1, 50).Draw(t, "µs")
		for _, v := range values {
			h.Observe(time.Duration(v) * time.Microsecond)
		}
		slices.Sort(values)
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		exact := values[min(int(float64(len(values))*q+0.999999999), len(values))-1]
		got := float64(h.Quantile(q).Microseconds())
		if off := got/float64(exact) - 1; off < -0.07 || off > 0.07 {
			t.Fatalf("quantile %v: got %v µs, want %v", q, got, exact)
		}
	})
}

// fill plays a day of 10,000 requests an hour over 1,000 proxies.
func fill(b *rollup.Book) {
	for i := range 240_000 {
		at := time.Now().Add(-time.Duration(240_000-i) * 360 * time.Millisecond)
		b.AddAttempt(rollup.AttemptFact{
			Proxy: fmt.Sprintf("p%04d", i%1000), Status: 200, Duration: time.Duration(rand.IntN(1e9)), Bytes: 9000, At: at,
		})
		b.AddJob(rollup.JobFact{
			Queue: "default", ID: fmt.Sprintf("01J%023d", i), Outcome: jobs.Succeeded, Policy: "exponential/3", Attempts: 1, Duration: time.Duration(rand.IntN(1e9)), At: at,
		})
		if i%10 == 0 {
			b.AddRetry(jobs.RetryEvent{JobID: fmt.Sprintf("01J%023d", i), Error: fmt.Sprintf("the proxy did not answer within %d s", i), At: at})
		}
		if i%1000 == 0 {
			fleet{}.storeAll(b)
		}
	}
}
