package sites_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

func TestOneTestAtATimeFollowsARest(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		time.Sleep(time.Minute - time.Second)
		w.refused()
		time.Sleep(time.Second)
		v := w.enter("a.test")
		if !v.Test() {
			t.Error("the first attempt after the rest: got none, want a test")
		}
		if e := w.last(); e.State != sites.Testing || e.Reason != sites.ReasonTest {
			t.Errorf("event: got %+v, want the test", e)
		}
		for range 3 {
			if r := w.refused(); r.State != sites.Testing {
				t.Errorf("refused: got %s, want %s", r.State, sites.Testing)
			}
		}
	})
}

func TestEachFailedTestDoublesTheRestUpToFiveMinutes(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		since := w.last().Since
		for _, want := range []time.Duration{2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
			s := w.state("a.test", sites.Resting)
			time.Sleep(time.Until(s.Until))
			w.attempt("a.test", sites.Failed, 1)
			e := w.last()
			if e.State != sites.Resting || e.Reason != sites.ReasonFailed || e.Rest != want || !e.Until.Equal(e.At.Add(want)) || !e.Failed.Equal(e.At) || !e.Since.Equal(since) {
				t.Errorf("after a failed test: got %+v, want a rest of %s, and still since %s", e, want, since)
			}
		}
	})
}

func TestAnAnswerEndsTheRestAndItsJobsComeBackOneByOne(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		time.Sleep(time.Minute)
		w.attempt("a.test", sites.Answered, 1)
		if e := w.last(); e.State != sites.Returning || e.Reason != sites.ReasonAnswer || !e.Until.IsZero() {
			t.Errorf("event: got %+v, want the site back", e)
		}
		for _, most := range []int{1, 2, 4, 8} {
			var running []*sites.Visit
			for range most {
				running = append(running, w.enter("a.test"))
			}
			if r := w.refused(); r.State != sites.Returning || !r.Until.IsZero() || r.At.Before(time.Now()) {
				t.Errorf("one more than %d: got %+v, want it to wait for its turn", most, r)
			}
			time.Sleep(time.Second)
			for i, v := range running {
				w.report(v, sites.Outcome{Kind: sites.Answered, Via: fmt.Sprint("p", i), Took: time.Second})
			}
		}
		w.attempt("a.test", sites.Failed, 1)
		if s := w.state("a.test", sites.Returning); s.Limit != 8 {
			t.Errorf("limit after a failure: got %d, want half of 16", s.Limit)
		}
		if e := w.last(); e.Reason != sites.ReasonSlower || e.From != sites.Returning {
			t.Errorf("event: got %+v, want the failure told", e)
		}
		for i := range 60 {
			w.attempt("a.test", sites.Answered, i)
		}
		w.state("a.test", sites.Answering)
		if c := w.Counts(); c.Returning != 0 || c.Resting != 0 {
			t.Errorf("counts: got %+v, want nobody away", c)
		}
	})
}

func TestAFaultOfTheProxyDecidesNoTest(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		time.Sleep(time.Minute)
		w.attempt("a.test", sites.NoEvidence, 1)
		if e := w.last(); e.State != sites.Resting || e.Reason != sites.ReasonVoid || e.Until.After(e.At) {
			t.Errorf("event: got %+v, want the next test at once", e)
		}
		if v := w.enter("a.test"); !v.Test() {
			t.Error("the next attempt: got none, want a test")
		}
	})
}

func TestATestThatNeverEndsLosesItsPlace(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		time.Sleep(time.Minute)
		lost := w.enter("a.test")
		time.Sleep(35 * time.Second)
		next := w.enter("a.test")
		if !next.Test() {
			t.Fatal("after the lease: got no test, want one")
		}
		w.report(lost, sites.Outcome{Kind: sites.Failed, Via: "p1"})
		if s := w.state("a.test", sites.Testing); s.Rest != time.Minute {
			t.Errorf("rest after the late test: got %s, want it ignored", s.Rest)
		}
		w.report(next, sites.Outcome{Kind: sites.Failed, Via: "p1"})
		w.state("a.test", sites.Resting)
	})
}

func TestOnlyAnswersThroughTwoProxiesSetTheRestBack(t *testing.T) {
	for _, c := range []struct {
		answers []int // the proxies that bring them
		want    time.Duration
	}{{[]int{1, 1, 1}, 2 * time.Minute}, {[]int{1, 2}, time.Minute}} {
		inWorker(t, func(w *worker) {
			w.dead("a.test")
			time.Sleep(time.Minute)
			w.attempt("a.test", sites.Failed, 1)
			time.Sleep(2 * time.Minute)
			for _, p := range c.answers {
				w.attempt("a.test", sites.Answered, p)
			}
			w.fail("a.test", 3)
			if s := w.state("a.test", sites.Resting); s.Rest != c.want {
				t.Errorf("rest after answers through %v: got %s, want %s", c.answers, s.Rest, c.want)
			}
		})
	}
}

func TestANewSiteGetsAnEighthOfTheSlotsUntilItAnswers(t *testing.T) {
	inWorker(t, func(w *worker) {
		var running []*sites.Visit
		for range 8 {
			running = append(running, w.enter("a.test"))
		}
		r := w.refused()
		if r.State != sites.Fresh || !r.Since.IsZero() || !r.Failed.IsZero() {
			t.Errorf("the ninth: got %+v, want it refused because the site is new", r)
		}
		w.report(running[0], sites.Outcome{Kind: sites.Gateway, Via: "p1"})
		w.enter("a.test")
		w.refused()
		w.report(running[1], sites.Outcome{Kind: sites.Answered, Via: "p1"})
		for range 100 {
			w.enter("a.test")
		}
	})
}

func TestAWorkerOfFewSlotsTriesANewSiteTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t)
		w.Table = sites.New(sites.Config{Slots: 4})
		w.enter("a.test")
		w.enter("a.test")
		w.refused()
	})
}

func TestABrokenUplinkRestsNoSite(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		// Two sites fail first, and rest. Then it shows that it is not they.
		w.fail("good0.test", 3)
		w.state("good0.test", sites.Resting)
		for i := range 4 {
			w.attempt(fmt.Sprintf("good%d.test", 1+i%3), sites.Failed, i)
		}
		if e := w.last(); e.Site != "good0.test" || e.Reason != sites.ReasonOutage || e.State != sites.Answering {
			t.Errorf("event: got %+v, want the rest ended", e)
		}
		for i := range 40 {
			w.attempt(fmt.Sprintf("good%d.test", i%4), sites.Failed, i)
		}
		if c := w.Counts(); c.Resting != 0 {
			t.Errorf("during the outage: got %d sites at rest, want none", c.Resting)
		}
		w.answers(30)
		n := 0
		for s, _ := w.StatusOf("good0.test"); s.State != sites.Resting && n < 30; s, _ = w.StatusOf("good0.test") {
			w.attempt("good0.test", sites.Failed, n)
			n++
		}
		if n < 3 || n > 12 { // the outage was a bad time for other sites, too
			t.Errorf("after the outage: got a rest after %d failures, want a few", n)
		}
	})
}

func TestTwoDeadSitesAreNoOutage(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for i := range 4 {
			if i < 3 {
				w.attempt("good0.test", sites.Failed, i)
			}
			if i < 3 {
				w.attempt("good1.test", sites.Failed, i)
			}
		}
		w.state("good0.test", sites.Resting)
		w.state("good1.test", sites.Resting)
	})
}

func TestAnOutageOfThePoolCountsForNoSite(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for i := range 10 {
			v := w.enter("a.test")
			time.Sleep(time.Second)
			w.report(v, sites.Outcome{Kind: sites.Failed, Via: fmt.Sprint("p", i), Took: time.Second, Outage: true})
		}
		w.state("a.test", sites.Fresh)
	})
}

func TestARedirectIsAnAnswerOfWhereItBeganAndAFailureOfWhereItLed(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.answers(100)
		for i := range 3 {
			v := w.enter("from.test")
			time.Sleep(time.Second)
			w.report(v, sites.Outcome{Kind: sites.Failed, Site: "to.test", Via: fmt.Sprint("p", i), Took: time.Second})
		}
		w.state("from.test", sites.Answering)
		w.state("to.test", sites.Resting)
	})
}

func TestAResetEndsTheRest(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		events, known := w.Reset("a.test")
		if !known || len(events) != 1 || events[0].State != sites.Returning || events[0].Reason != sites.ReasonReset || events[0].Foreign {
			t.Errorf("reset: got %+v, known %t", events, known)
		}
		w.enter("a.test")
		if _, known := w.Reset("unknown.test"); known {
			t.Error("reset of an unknown site: got known")
		}
	})
}

// Those that are refused do not come back all at once.
func TestRefusedAttemptsComeBackOneAfterTheOther(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		var times []time.Time
		for range 1000 {
			times = append(times, w.refused().At)
		}
		if !slices.IsSortedFunc(times, time.Time.Compare) || times[0].Equal(times[1]) {
			t.Error("times: got two equal ones, want each its own")
		}
		if took := times[999].Sub(times[0]); took < time.Second || took > 10*time.Second {
			t.Errorf("a thousand: got them within %s, want seconds", took)
		}
	})
}

func TestTheNumberOfSitesIsBoundedAndTheRestingAndBusyOnesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t)
		w.Table = sites.New(sites.Config{Max: 400})
		w.dead("dead.test")
		for i := range 3000 {
			v := w.enter(fmt.Sprintf("once%d.test", i))
			w.report(v, sites.Outcome{Kind: sites.Answered, Via: "p1", Took: time.Millisecond})
			if i%50 == 0 {
				w.report(w.enter("busy.test"), sites.Outcome{Kind: sites.Answered, Via: "p1", Took: time.Millisecond})
			}
			if c := w.Counts(); c.Known > 400 {
				t.Fatalf("after %d sites: got %d remembered, want 400 at most", i, c.Known)
			}
		}
		w.state("dead.test", sites.Resting)
		w.state("busy.test", sites.Answering)
		if _, known := w.StatusOf("once0.test"); known {
			t.Error("a site that was asked once, long ago: got it remembered, want it forgotten")
		}
		for i := range 300 { // more resting ones than there is room for
			w.Apply(sites.Finding{Site: fmt.Sprintf("rests%d.test", i), State: sites.Resting, Until: time.Now().Add(time.Minute)})
		}
		if c := w.Counts(); c.Known > 400 || c.Resting > 200 {
			t.Errorf("counts: got %+v, want 400 at most, half of them resting", c)
		}
	})
}

func TestStatusHasTheRestingSitesFirst(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("dead.test")
		all := w.Status(3)
		if len(all) != 3 || all[0].Site != "dead.test" || all[1].State != sites.Answering || all[1].Attempts < all[2].Attempts || all[1].Latency.Round(time.Millisecond) != time.Second {
			t.Errorf("status: got %+v, want the dead site first and three in all", all)
		}
		if len(w.Status(-1)) != 0 {
			t.Error("status of less than none: got some")
		}
		if s, ok := sites.ParseState(all[0].State.String()); !ok || s != sites.Resting {
			t.Errorf("state: got %s, %t", s, ok)
		}
		if _, ok := sites.ParseState("asleep"); ok {
			t.Error("an unknown state: got it read")
		}
	})
}
