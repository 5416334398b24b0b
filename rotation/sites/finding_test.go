package sites_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

// inFleet runs a test with two workers; what the first finds, the test hands to the second.
func inFleet(t *testing.T, do func(a, b *worker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(newWorker(t), newWorker(t)) })
}

// tell applies the newest event of w to b.
func (w *worker) tell(b *worker) []sites.Event {
	w.Helper()
	return b.Apply(w.last().Finding)
}

func TestAFindingRestsTheSiteInOtherWorkers(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("a.test")
		events := a.tell(b)
		if len(events) != 1 || !events[0].Foreign || events[0].State != sites.Resting || events[0].Reason != sites.ReasonFinding {
			t.Errorf("events: got %+v, want the rest, and that it is another's", events)
		}
		if r := b.refused(); r.State != sites.Resting || r.At.Before(a.last().Until) {
			t.Errorf("refusal: got %+v, want the rest of the other", r)
		}
		if again := a.tell(b); len(again) != 0 {
			t.Errorf("the same finding again: got %+v, want nothing new", again)
		}
		if mine := b.Findings(); len(mine) != 0 {
			t.Errorf("findings of its own: got %+v, want none", mine)
		}
		if mine := a.Findings(); len(mine) != 1 || mine[0].Site != "a.test" {
			t.Errorf("findings of the other: got %+v, want the rest", mine)
		}
	})
}

func TestAFindingIsIgnoredForAMinuteAfterAnAnswer(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("a.test")
		b.attempt("a.test", sites.Answered, 1)
		if events := a.tell(b); len(events) != 0 {
			t.Errorf("right after an answer: got %+v, want it ignored", events)
		}
		time.Sleep(61 * time.Second)
		f := a.last().Finding
		f.Until = time.Now().Add(time.Minute)
		if events := b.Apply(f); len(events) != 1 {
			t.Errorf("a minute later: got %+v, want the rest", events)
		}
	})
}

func TestATestOfOneWorkerHoldsBackTheOthers(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("a.test")
		a.tell(b)
		time.Sleep(time.Minute)
		v := a.enter("a.test")
		a.tell(b)
		time.Sleep(time.Second)
		if r := b.refused(); r.State != sites.Testing {
			t.Errorf("while the other tests: got %s, want %s", r.State, sites.Testing)
		}
		a.report(v, sites.Outcome{Kind: sites.Failed, Via: "p1"})
		a.tell(b)
		if r := b.refused(); r.State != sites.Resting || r.Until.Before(time.Now().Add(2*time.Minute)) || r.Failed.IsZero() {
			t.Errorf("after the test failed: got %+v, want the longer rest and the failed test", r)
		}
	})
}

func TestAnAnswerToOneWorkerEndsTheRestInAll(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("a.test")
		a.tell(b)
		time.Sleep(time.Minute)
		a.attempt("a.test", sites.Answered, 1)
		a.tell(b)
		b.state("a.test", sites.Returning)
		b.enter("a.test")
		b.refused()
	})
}

func TestAMistakenRestEndsInAll(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("good0.test")
		a.tell(b)
		for i := range 9 {
			a.attempt([]string{"good1.test", "good2.test", "good3.test"}[i%3], sites.Failed, i)
		}
		if e := a.last(); e.Reason != sites.ReasonOutage {
			t.Fatalf("event: got %+v, want the rest taken back", e)
		}
		a.tell(b)
		b.state("good0.test", sites.Returning)
	})
}

// Neither a finding nor a reset is an answer: failures of dead sites must not make the worker suspect its own network.
func TestSitesThatNeverAnsweredRestAgainAfterAFindingOrAReset(t *testing.T) {
	dead := []string{"dead0.test", "dead1.test", "dead2.test"}
	for name, end := range map[string]func(w *worker, site string){
		"finding": func(w *worker, site string) { w.Apply(sites.Finding{Site: site, State: sites.Returning}) },
		"reset":   func(w *worker, site string) { w.Reset(site) },
	} {
		inWorker(t, func(w *worker) {
			for _, site := range dead {
				w.Apply(sites.Finding{Site: site, State: sites.Resting, Until: time.Now().Add(time.Minute)})
				end(w, site)
				w.state(site, sites.Returning)
			}
			for n := range 30 { // the longest streak that chance explains
				for _, site := range dead {
					if s, _ := w.StatusOf(site); s.State != sites.Resting {
						w.attempt(site, sites.Failed, n)
					}
				}
			}
			if c := w.Counts(); c.Resting != len(dead) {
				t.Errorf("after a %s and 30 failures at each site: got %d of %d sites at rest", name, c.Resting, len(dead))
			}
		})
	}
}

// Released jobs are not bound by the slow start, so the share of a new site still binds them.
func TestASiteThatReturnsByAFindingStaysNewUntilItAnswers(t *testing.T) {
	inFleet(t, func(a, b *worker) {
		a.dead("a.test")
		a.tell(b)
		time.Sleep(time.Minute)
		a.attempt("a.test", sites.Answered, 1)
		a.tell(b)
		b.state("a.test", sites.Returning)
		release := func() (*sites.Visit, *sites.Refusal) {
			v, refused, _ := b.Enter("a.test", sites.Ask{Released: true})
			return &v, refused
		}
		var running *sites.Visit
		for i := range 8 {
			v, refused := release()
			if refused != nil {
				t.Fatalf("released job %d: got refused, want an eighth of 64 slots", i)
			}
			running = v
		}
		if _, refused := release(); refused == nil {
			t.Error("the ninth: got it begun, want it refused because the site is new")
		}
		b.report(running, sites.Outcome{Kind: sites.Answered, Via: "p1"})
		for i := range 20 {
			if _, refused := release(); refused != nil {
				t.Fatalf("released job %d after an answer: got refused", i)
			}
		}
	})
}

func TestNoFindingRestsASiteForLongerThanFiveMinutes(t *testing.T) {
	inFleet(t, func(a, _ *worker) {
		far := time.Now().Add(1000 * time.Hour)
		a.Apply(sites.Finding{Site: "a.test", State: sites.Resting, Until: far, Rest: time.Hour, Since: far, Failed: far})
		s := a.state("a.test", sites.Resting)
		if s.Until.After(time.Now().Add(5*time.Minute+time.Second)) || s.Rest > 5*time.Minute || s.Since.After(time.Now()) || s.Failed.After(time.Now()) {
			t.Errorf("got %+v, want five minutes at most and nothing from the future", s)
		}
		a.Apply(sites.Finding{Site: "a.test", State: sites.Testing, Until: far})
		if s, _ := a.StatusOf("a.test"); s.Until.After(time.Now().Add(5 * time.Minute)) {
			t.Errorf("a test: got it until %s, want two minutes at most", s.Until)
		}
		if events := a.Apply(sites.Finding{Site: "old.test", State: sites.Resting, Until: time.Now()}); len(events) != 0 {
			t.Errorf("a rest that is over: got %+v, want nothing", events)
		}
	})
}

// No job waits for a site that only jobs ask which do not wait: then nobody releases a test.
func TestASiteOfWhichNobodyReleasesATestIsTestedAfterAWhile(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.LeaveTests(true)
		w.dead("a.test")
		time.Sleep(time.Minute + 14*time.Second)
		w.refused()
		time.Sleep(2 * time.Second)
		v, refused, _ := w.Enter("a.test", sites.Ask{})
		if refused != nil || !v.Test() {
			t.Errorf("15 s after the end of the rest: got %+v, want a test", refused)
		}
	})
}

// While somebody in the fleet releases the tests, an attempt that was not released is none.
func TestOnlyReleasedJobsTestWhereTheFleetLeads(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.LeaveTests(true)
		w.dead("a.test")
		time.Sleep(time.Minute + 10*time.Second)
		w.refused()
		v, refused, _ := w.Enter("a.test", sites.Ask{Released: true})
		if refused != nil || !v.Test() {
			t.Fatalf("the released one: got %+v, want it to be the test", refused)
		}
		w.report(&v, sites.Outcome{Kind: sites.Answered, Via: "p1"})
		w.enter("a.test")
		w.refused()
		if _, refused, _ := w.Enter("a.test", sites.Ask{Released: true}); refused != nil {
			t.Errorf("another released one: got %+v, want it let through", refused)
		}
		w.LeaveTests(false)
	})
}

func TestAReleasedJobDoesNotTestBeforeTheRestIsOver(t *testing.T) {
	inWorker(t, func(w *worker) {
		w.dead("a.test")
		if _, refused, _ := w.Enter("a.test", sites.Ask{Released: true}); refused == nil {
			t.Error("a released job at the begin of the rest: got it begun, want it refused")
		}
	})
}
