package sites_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

// worker is a table and how its tests use it. All of them run in virtual time.
type worker struct {
	*testing.T
	*sites.Table
	ways   int
	events []sites.Event
}

// inWorker runs a test with a table of 64 slots and 20 proxies.
func inWorker(t *testing.T, do func(w *worker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(newWorker(t)) })
}

func newWorker(t *testing.T) *worker {
	t.Helper()
	return &worker{T: t, Table: sites.New(sites.Config{}), ways: 20}
}

// enter begins an attempt that must not be refused.
func (w *worker) enter(site string) *sites.Visit {
	w.Helper()
	v, refused, events := w.Enter(site, sites.Ask{MaxDuration: 30 * time.Second})
	w.events = append(w.events, events...)
	if refused != nil {
		w.Fatalf("attempt at %s: got refused (%s), want it to begin", site, refused.State)
	}
	return &v
}

// refused tries to begin an attempt at a.test that must be refused.
func (w *worker) refused() sites.Refusal {
	w.Helper()
	_, refused, events := w.Enter("a.test", sites.Ask{MaxDuration: 30 * time.Second})
	w.events = append(w.events, events...)
	if refused == nil {
		w.Fatal("attempt at a.test: got it begun, want it refused")
	}
	return *refused
}

func (w *worker) report(v *sites.Visit, o sites.Outcome) {
	if o.Routes == 0 {
		o.Routes = w.ways
	}
	w.events = append(w.events, v.Report(o)...)
}

// attempt is a whole attempt through proxy n that takes a second.
func (w *worker) attempt(site string, kind sites.Kind, n int) {
	w.Helper()
	v := w.enter(site)
	time.Sleep(time.Second)
	w.report(v, sites.Outcome{Kind: kind, Via: fmt.Sprint("p", n), Took: time.Second})
}

// answers makes the pool known for good: so many answers of other sites.
func (w *worker) answers(n int) {
	w.Helper()
	for i := range n {
		w.attempt(fmt.Sprintf("good%d.test", i%5), sites.Answered, i)
	}
}

// fail makes n attempts fail through different proxies.
func (w *worker) fail(site string, n int) {
	w.Helper()
	for i := range n {
		w.attempt(site, sites.Failed, i)
	}
}

func (w *worker) state(site string, want sites.State) sites.Status {
	w.Helper()
	s, _ := w.StatusOf(site)
	if s.State != want {
		w.Errorf("%s: got %s, want %s", site, s.State, want)
	}
	return s
}

// dead makes a site rest in a good pool.
func (w *worker) dead(site string) {
	w.Helper()
	w.answers(100)
	w.fail(site, 3)
	w.state(site, sites.Resting)
}

func (w *worker) last() sites.Event {
	w.Helper()
	if len(w.events) == 0 {
		w.Fatal("got no event, want one")
	}
	return w.events[len(w.events)-1]
}

func TestThreeFailuresInARowRestASiteInAGoodPool(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		w.attempt("a.test", sites.Answered, 1)
		w.fail("a.test", 2)
		w.state("a.test", sites.Answering)
		w.attempt("a.test", sites.Failed, 2)
		s := w.state("a.test", sites.Resting)
		if s.Rest != time.Minute || !s.Until.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("rest: got %s until %s, want a minute from now on", s.Rest, s.Until)
		}
		if e := w.last(); e.From != sites.Answering || e.State != sites.Resting || e.Reason != sites.ReasonFailures || e.Failures != 3 || e.Site != "a.test" {
			t.Errorf("event: got %+v, want the rest after three failures", e)
		}
		if r := w.refused(); r.State != sites.Resting || r.Since.IsZero() || !r.Until.Equal(s.Until) || r.At.Before(r.Until) {
			t.Errorf("refusal: got %+v, want it to wait until %s", r, s.Until)
		}
	})
}

func TestAnAnswerEndsARowOfFailures(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for range 10 {
			w.fail("a.test", 2)
			w.attempt("a.test", sites.Answered, 1)
		}
		w.state("a.test", sites.Answering)
	})
}

func TestFailuresThroughOneProxyAreNotTheSites(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for range 20 {
			w.attempt("a.test", sites.Failed, 7)
		}
		w.state("a.test", sites.Fresh)
		w.attempt("a.test", sites.Failed, 8)
		w.state("a.test", sites.Fresh)
		w.attempt("a.test", sites.Failed, 9)
		w.state("a.test", sites.Resting)
	})
}

func TestAPoolOfOneProxyIsEnoughToRestASite(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.ways = 1
		w.answers(100)
		for range 3 {
			w.attempt("a.test", sites.Failed, 1)
		}
		w.state("a.test", sites.Resting)
	})
}

// The more attempts fail at sites that answer, the longer must a row be.
func TestAPoorPoolNeedsALongerRow(t *testing.T) {
	for _, c := range []struct{ failing, want int }{{0, 3}, {1, 6}, {5, 20}, {9, 30}} { // of ten attempts at other sites
		inWorker(t, func(w *worker) {
			for i := range 1000 {
				kind := sites.Answered
				if (i+i/20)%10 < c.failing {
					kind = sites.Failed
				}
				v := w.enter(fmt.Sprintf("other%d.test", i%20))
				time.Sleep(100 * time.Millisecond)
				w.report(v, sites.Outcome{Kind: kind, Via: "p1", Took: 100 * time.Millisecond})
			}
			time.Sleep(20 * time.Second) // what is more than half may be the worker's own network
			w.ways = 30
			n := 0
			for s, _ := w.StatusOf("a.test"); s.State != sites.Resting && n < 100; s, _ = w.StatusOf("a.test") {
				w.attempt("a.test", sites.Failed, n)
				n++
			}
			if n < c.want-1 || n > c.want+1 {
				t.Errorf("with %d of 10 attempts failing: got a rest after %d failures, want %d", c.failing, n, c.want)
			}
		})
	}
}

// That a site fails says nothing about the pool: its own failures do not count for its own row.
func TestFailuresOfDeadSitesMakeNoLongerRow(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(50)
		for i := range 20 {
			w.fail(fmt.Sprintf("dead%d.test", i), 2)
		}
		w.fail("a.test", 3)
		w.state("a.test", sites.Resting)
	})
}

func TestGatewayErrorsAreFailuresAndOtherAnswersAreNot(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for i := range 3 {
			w.attempt("a.test", sites.Gateway, i)
		}
		w.state("a.test", sites.Resting)
	})
}

func TestASiteThatAnswersHardlyEverRests(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(50)
		for i := range 28 { // a row never exceeds two failures of different proxies
			v := w.enter("a.test")
			time.Sleep(time.Second)
			w.report(v, sites.Outcome{Kind: sites.Failed, Via: "p1", Took: time.Second})
			if i == 9 || i == 19 {
				w.attempt("a.test", sites.Answered, 2)
			}
		}
		s := w.state("a.test", sites.Resting)
		if e := w.last(); e.Reason != sites.ReasonShare {
			t.Errorf("reason: got %s (%+v), want %s", e.Reason, s, sites.ReasonShare)
		}
	})
}

func TestThreeAnswersOfThirtyAreEnough(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(50)
		for i := range 60 {
			kind := sites.Failed
			if i%10 == 0 {
				kind = sites.Answered
			}
			v := w.enter("a.test")
			time.Sleep(time.Second)
			w.report(v, sites.Outcome{Kind: kind, Via: "p1", Took: time.Second})
		}
		w.state("a.test", sites.Answering)
	})
}

// Attempts at a slow site that began together time out together, after others were answered.
func TestAttemptsThatBeganBeforeAnAnswerExtendNoRow(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		w.attempt("a.test", sites.Answered, 1)
		var slow []*sites.Visit
		for range 20 {
			slow = append(slow, w.enter("a.test"))
		}
		time.Sleep(20 * time.Second)
		w.attempt("a.test", sites.Answered, 1)
		for i, v := range slow {
			w.report(v, sites.Outcome{Kind: sites.Failed, Via: fmt.Sprint("p", i), Took: 30 * time.Second})
		}
		w.state("a.test", sites.Answering)
	})
}

func TestAHurryOfThePublisherIsNoFailureOfTheSite(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for range 3 {
			w.attempt("a.test", sites.Answered, 1)
		}
		for i := range 20 {
			v := w.enter("a.test")
			time.Sleep(100 * time.Millisecond)
			w.report(v, sites.Outcome{Kind: sites.Failed, Via: fmt.Sprint("p", i), Took: 100 * time.Millisecond, JobTimeout: true})
		}
		w.state("a.test", sites.Answering)
		for i := range 3 {
			v := w.enter("a.test")
			time.Sleep(10 * time.Second)
			w.report(v, sites.Outcome{Kind: sites.Failed, Via: fmt.Sprint("p", i), Took: 10 * time.Second, JobTimeout: true})
		}
		w.state("a.test", sites.Resting)
	})
}
