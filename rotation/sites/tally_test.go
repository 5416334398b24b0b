package sites_test

import (
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/sites"
)

// tally is what is counted of a site.
func (w *worker) tally(site string) sites.Tally {
	w.Helper()
	s, known := w.StatusOf(site)
	if !known {
		w.Fatalf("%s is not known", site)
	}
	return s.Tally
}

func TestAttemptsAreCountedAtTheSiteWhereTheyEnd(t *testing.T) {
	inWorker(t, func(w *worker) {
		for _, o := range []sites.Outcome{
			{Kind: sites.Answered, Count: sites.Count{Class: sites.Class2xx}},
			{Kind: sites.Answered, Count: sites.Count{Class: sites.Class4xx, Fault: sites.FaultPair, Ban: true, Error: "banned"}},
			{Kind: sites.Failed, Count: sites.Count{Class: sites.ClassNone, Fault: sites.FaultTarget, Error: "silent"}},
			{Kind: sites.NoEvidence, Count: sites.Count{Class: sites.ClassNone, Fault: sites.FaultProxy, Error: "the proxy refused"}},
			{Kind: sites.Answered, Site: "b.test", Count: sites.Count{Class: sites.Class5xx}},
		} {
			w.report(w.enter("a.test"), o)
		}
		w.enter("a.test").Release() // a job that was stopped makes no attempt
		if got, want := w.tally("a.test"), (sites.Tally{Attempts: 4, Bans: 1, Classes: [5]uint32{1, 0, 1, 0, 2}, Faults: [4]uint32{1, 1, 1, 0}}); got != want {
			t.Errorf("a.test: got %+v, want %+v", got, want)
		}
		if got, want := w.tally("b.test"), (sites.Tally{Attempts: 1, Classes: [5]uint32{3: 1}}); got != want {
			t.Errorf("b.test, to which one was led: got %+v, want %+v", got, want)
		}
		if s, _ := w.StatusOf("a.test"); s.LastError != "the proxy refused" || !s.LastErrorAt.Equal(time.Now()) {
			t.Errorf("last error: got %q at %s", s.LastError, s.LastErrorAt)
		}
	})
}

func TestATallyCoversHalfAnHourAtLeastAndAnHourAtMost(t *testing.T) {
	inWorker(t, func(w *worker) {
		count := sites.Outcome{Kind: sites.Answered, Count: sites.Count{Class: sites.Class2xx, Fault: sites.FaultPair, Ban: true}}
		time.Sleep(29 * time.Minute)
		w.report(w.enter("a.test"), count)
		time.Sleep(30 * time.Minute)
		w.report(w.enter("a.test"), count)
		if got, want := w.tally("a.test"), (sites.Tally{Attempts: 2, Bans: 2, Classes: [5]uint32{2}, Faults: [4]uint32{2: 2}}); got != want {
			t.Errorf("after half an hour: got %+v, want %+v", got, want)
		}
		time.Sleep(2 * time.Minute)
		if got := w.tally("a.test"); got.Attempts != 1 || got.Bans != 1 {
			t.Errorf("after an hour: got %+v, want the second attempt alone", got)
		}
		time.Sleep(time.Hour)
		if got := w.tally("a.test"); got != (sites.Tally{}) {
			t.Errorf("later: got %+v, want nothing", got)
		}
	})
}
