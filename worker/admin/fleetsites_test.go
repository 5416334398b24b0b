package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// siteOf is a site with a number of attempts.
func siteOf(name, state string, attempts int64) admin.Site {
	return admin.Site{Site: name, State: state, Attempts: attempts, Classes: rollup.Classes{Status2xx: attempts}, Failures: map[string]int64{"target": 1}}
}

// siteFleet is a worker w1 that knows own.test, and others whose answers the test changes.
type siteFleet struct {
	*worker
	answers []admin.WorkerSites
	err     error
	limits  []int // of the questions
	slow    time.Duration
}

// newSiteFleet has the named workers besides w1; with more than one, another one drains, and one has just started. The answers
// are those of w1 and w2 at first.
func newSiteFleet(t *testing.T, others ...string) *siteFleet {
	t.Helper()
	f := &siteFleet{answers: []admin.WorkerSites{
		{Worker: "w1", Total: 1, Sites: []admin.Site{siteOf("own.test", "up", 3)}},
		{Worker: "w2", Total: 70, Sites: []admin.Site{siteOf("gone.test", "resting", 1), siteOf("own.test", "new", 4)}},
	}}
	f.worker = newWorker(t, func(c *admin.Config) {
		c.Sites = func(int) ([]admin.Site, int) { return []admin.Site{siteOf("own.test", "up", 3)}, 1 }
		c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) {
			list := []admin.Worker{{Worker: "w1", Ready: true}}
			for _, name := range others {
				list = append(list, admin.Worker{Worker: name, Ready: true})
			}
			if len(others) > 1 {
				list = append(list, admin.Worker{Worker: "drains", Draining: true}, admin.Worker{Worker: "has just started", Ready: true, StartedAt: time.Now().Add(time.Second)})
			}
			return list, nil
		}
		c.FleetSites = func(_ context.Context, limit int) ([]admin.WorkerSites, error) {
			f.limits = append(f.limits, limit)
			time.Sleep(f.slow)
			return f.answers, f.err
		}
	})
	return f
}

// sites is what a page of the watched worker, or of the fleet, shows of sites.
func (f *siteFleet) sites(t *testing.T, watched string) string {
	t.Helper()
	s := f.firstNowOf(t, watched)
	text := fmt.Sprintf("of %q, %d, known %d, missing %v:", s.SitesOf, s.SiteCount, s.SitesKnown, s.SitesMissing)
	for _, site := range s.Sites {
		text += fmt.Sprintf(" %s %s %d %v", site.Site, site.State, site.Attempts, site.Workers)
	}
	return text
}

func TestThePageHasTheSitesOfAllWorkersOrOfTheWatchedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSiteFleet(t, "w2")
		const fleet = `of "", 2, known 70, missing []: gone.test resting 1 map[resting:1] own.test new 7 map[new:1 up:1]`
		for watched, want := range map[string]string{
			"": fleet, "w1": `of "w1", 1, known 1, missing []: own.test up 3 map[up:1]`, "w2": `of "w2", 2, known 70, missing []: gone.test resting 1 map[resting:1] own.test new 4 map[new:1]`,
			"w9": `of "w9", 0, known 0, missing [w9]:`,
		} {
			if got := f.sites(t, watched); got != want {
				t.Errorf("watched %q: got\n%s\nwant\n%s", watched, got, want)
			}
			if s := f.firstNowOf(t, watched); len(s.Problems) != 1 || s.Problems[0].Text[:len("1 site does not answer: gone.test")] != "1 site does not answer: gone.test" {
				t.Errorf("watched %q: got problems %+v, want the site that rests at w2", watched, s.Problems)
			}
		}
		if len(f.limits) != 1 {
			t.Errorf("got %d questions to the fleet, want that all pages share one", len(f.limits))
		}
		f.err = errors.New("no responders")
		time.Sleep(6 * time.Second)
		f.sites(t, "") // asks again, and does not wait
		synctest.Wait()
		if got, want := f.sites(t, ""), `of "w1", 1, known 1, missing []: own.test up 3 map[up:1]`; got != want {
			t.Errorf("the fleet cannot be asked: got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestAWorkerAloneAsksNobodyForItsSites: its own list is complete and costs no message.
func TestAWorkerAloneAsksNobodyForItsSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSiteFleet(t)
		if got, want := f.sites(t, ""), `of "w1", 1, known 1, missing []: own.test up 3 map[up:1]`; got != want || len(f.limits) != 0 {
			t.Errorf("got %s after %d questions, want %s", got, len(f.limits), want)
		}
	})
}

// TestTheFirstAnswerAboutSitesIsShownEarly: a new page has this worker's sites at once, and those of a slow fleet within a
// second.
func TestTheFirstAnswerAboutSitesIsShownEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSiteFleet(t, "w2")
		f.slow = 600 * time.Millisecond
		ctx, leave := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer leave()
		page := f.do(request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
		own, fleet := strings.Index(page.Body.String(), `"sites_of":"w1"`), strings.Index(page.Body.String(), `"sites_of":""`)
		if own < 0 || fleet < own {
			t.Errorf("a page of 900 ms has\n%s\nwant the sites of w1, and then those of the fleet", page.Body)
		}
	})
}

// TestTheFleetIsAskedAgainAfterARest: the page shows at once what came of the act.
func TestTheFleetIsAskedAgainAfterARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSiteFleet(t, "w2")
		f.sites(t, "")
		if rec := f.do(request("POST", "/api/v1/sites/shop.test/reset", "")); rec.Code != http.StatusOK {
			t.Fatalf("reset: got %d %s", rec.Code, rec.Body)
		}
		time.Sleep(time.Second)
		f.sites(t, "")
		synctest.Wait()
		if len(f.limits) != 2 {
			t.Errorf("questions to the fleet in a second: got %d, want one more after the reset", len(f.limits))
		}
	})
}

// TestWorkersWithoutAnAnswerAboutSitesAreNamed: the page has the sites of the others meanwhile.
func TestWorkersWithoutAnAnswerAboutSitesAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var others []string
		for i := range 29 {
			others = append(others, fmt.Sprintf("w%02d", i))
		}
		f := newSiteFleet(t, append(others, "w2")...)
		if s := f.firstNowOf(t, ""); len(s.Sites) != 2 || s.SitesMissingCount != 29 || fmt.Sprint(s.SitesMissing) != "[w00 w01 w02 w03 w04 w05 w06 w07 w08 w09]" {
			t.Errorf("got %d sites without %v of %d, want the two sites and ten names of 29", len(s.Sites), s.SitesMissing, s.SitesMissingCount)
		}
		if want := []int{2000 / 33}; !slices.Equal(f.limits, want) {
			t.Errorf("limits of the questions: got %v, want %v: all answers together are bounded", f.limits, want)
		}
	})
}

// TestPagesOfTheFleetsSitesContinueTheStream has 120 sites that only another worker knows.
func TestPagesOfTheFleetsSitesContinueTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSiteFleet(t, "w2")
		f.answers[1] = admin.WorkerSites{Worker: "w2", Total: 9000}
		for i := range 120 {
			f.answers[1].Sites = append(f.answers[1].Sites, siteOf(fmt.Sprintf("s%03d.test", i), "up", int64(1000-i)))
		}
		first := f.firstNowOf(t, "")
		if last := first.Sites[len(first.Sites)-1].Site; len(first.Sites) != 50 || last != "s049.test" || first.SiteCount != 121 || first.SitesKnown != 9000 {
			t.Errorf("stream: got %d sites up to %s of %d, known %d; want 50 up to s049.test of 121, known 9000", len(first.Sites), last, first.SiteCount, first.SitesKnown)
		}
		for query, want := range map[string]string{
			"live/sites?limit=50&offset=50":      "121: 50 from s050.test to s099.test",
			"live/sites?limit=50&offset=100":     "121: 21 from s100.test to own.test",
			"live/sites?search=S11":              "10: 10 from s110.test to s119.test",
			"live/sites?worker=w1":               "1: 1 from own.test to own.test",
			"live/sites?worker=w2&offset=119":    "120: 1 from s119.test to s119.test",
			"live/sites?worker=w1&search=s":      "1: 1 from own.test to own.test",
			"live/sites?worker=w1&search=nobody": "0: none",
			"live/sites?limit=0":                 "400",
			"sites":                              "1: 1 from own.test to own.test",
		} {
			if got := pageText(t, f.worker, query); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
	})
}

// TestASiteThatOnlyAnotherWorkerKnowsIsReset: the page lists it, so its rest can be ended there.
func TestASiteThatOnlyAnotherWorkerKnowsIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reset []string
		f := newSiteFleet(t, "w2")
		f.worker = newWorker(t, func(c *admin.Config) {
			c.Site = func(name string) (admin.Site, bool) { return siteOf(name, "up", 1), name == "own.test" }
			c.ResetSite = func(_ context.Context, name string) (bool, error) {
				reset = append(reset, name)
				return name == "own.test" || name == "gone.test:443", nil
			}
		})
		doc := readDocument(t, f.worker)
		for name, want := range map[string]int{"own.test:443": http.StatusOK, "GONE.test:443": http.StatusOK, "nobody.test": http.StatusNotFound, "nobody.test:0": http.StatusNotFound} {
			rec := f.do(request("POST", "/api/v1/sites/"+name+"/reset", ""))
			if rec.Code != want {
				t.Errorf("reset of %s: got %d %s, want %d", name, rec.Code, rec.Body, want)
			}
			doc.fits(t, "POST", "/api/v1/sites/{site}/reset", rec)
		}
		slices.Sort(reset)
		if want := []string{"gone.test:443", "nobody.test", "own.test"}; !slices.Equal(reset, want) {
			t.Errorf("reset: got %v, want %v", reset, want)
		}
	})
}

// TestASiteIsInTheWorstStateOfAnyWorker: the reason is that of the worker that has seen the state for longest.
func TestASiteIsInTheWorstStateOfAnyWorker(t *testing.T) {
	at := func(minutes int) *time.Time {
		t := time.Date(2030, 1, 2, 15, minutes, 0, 0, time.UTC)
		return &t
	}
	var list []admin.WorkerSites
	for i, s := range []admin.Site{
		{State: "up", Reason: "answer", LastStateChange: at(1), LastErrorAt: at(5), LastError: "newest"},
		{State: "resting", Reason: "share", LastStateChange: at(9), NextTestTime: at(30)},
		{State: "resting", Reason: "failures", LastStateChange: at(7), NextTestTime: at(20), LastErrorAt: at(3), LastError: "older"},
		{State: "testing", Reason: "test", LastStateChange: at(2)},
		{State: "a later state", Reason: "later"},
	} {
		s.Site = "a.test"
		list = append(list, admin.WorkerSites{Worker: fmt.Sprint("w", i), Total: i, Sites: []admin.Site{s}})
	}
	for range list { // each worker answers first once
		list = append(list[1:], list[0])
		merged, known := admin.MergeSites(list)
		f := merged[0]
		if len(merged) != 1 || known != 4 || f.State != "resting" || f.Reason != "failures" || *f.LastStateChange != *at(7) || *f.NextTestTime != *at(20) || f.LastError != "newest" || f.Resting() != 3 {
			t.Errorf("%s first: got %+v", list[0].Worker, f)
		}
	}
}

// TestTheFirstQuestionForTheFleetsSitesIsAnsweredWhole: a program that asks once has no stream that brings the rest.
func TestTheFirstQuestionForTheFleetsSitesIsAnsweredWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, func(c *admin.Config) {
			c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) {
				time.Sleep(time.Second)
				return []admin.Worker{{Worker: "w1", Ready: true}, {Worker: "w2", Ready: true}}, nil
			}
			c.FleetSites = func(context.Context, int) ([]admin.WorkerSites, error) {
				time.Sleep(time.Second)
				return []admin.WorkerSites{{Worker: "w2", Total: 1, Sites: []admin.Site{siteOf("gone.test", "resting", 1)}}}, nil
			}
		})
		var answer struct {
			Of      string
			Sites   []admin.FleetSite
			Missing []string
		}
		w.get(t, "/api/v1/live/sites", &answer)
		if answer.Of != "" || len(answer.Sites) != 1 || answer.Sites[0].Site != "gone.test" || !slices.Equal(answer.Missing, []string{"w1"}) {
			t.Errorf("got %+v, want the site of w2, and that w1 is missing", answer)
		}
	})
}
