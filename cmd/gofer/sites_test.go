package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// siteFleet is two workers with one proxy, and a site that can be made to answer 502.
type siteFleet struct {
	*world
	addr [2]string
	n    int
}

func newSiteFleet(t *testing.T) *siteFleet {
	t.Helper()
	f := &siteFleet{world: newWorld(t, nil)}
	for i := range f.addr {
		_, f.addr[i] = f.named(fmt.Sprint("w", i+1))
	}
	return f
}

// fail takes the site down, and lets jobs fail there until all workers let it rest. The site stays down: tests of it, which come
// as time passes, fail.
func (f *siteFleet) fail() {
	f.Helper()
	f.origin.SetDown(true)
	testenv.Eventually(f.T, "the site to rest in both workers", func() bool {
		f.publish(fmt.Sprint("bad", f.n), job("/bad", map[string]any{"retry": map[string]any{"max_attempts": 1}}))
		f.n++
		return f.states(f.T)["resting"] == 2
	})
}

// states counts the workers that see the site in each state.
func (f *siteFleet) states(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, w := range read[[]admin.WorkerSites](t, "sites", "ls") {
		for _, s := range w.Sites {
			if s.Site == "shop.test" {
				out[s.State]++
			}
		}
	}
	return out
}

func (f *siteFleet) waits(id string) bool {
	found, err := client.New(f.client).Find(f.Context(), client.Key{Queue: "default", ID: id})
	return err == nil && len(found) == 1 && found[0].Place == client.Waiting
}

func TestJobsOfARestingSiteWaitUntilSomebodyEndsTheRest(t *testing.T) {
	t.Parallel()
	f := newSiteFleet(t)
	f.fail()
	const count = 20
	for i := range count {
		f.publish(fmt.Sprint("ok", i), job("/ok", nil))
	}
	testenv.Eventually(t, "all jobs to wait", func() bool {
		n := 0
		for i := range count {
			if f.waits(fmt.Sprint("ok", i)) {
				n++
			}
		}
		return n == count
	})
	f.showsTheRest(t, "ok19")
	f.origin.SetDown(false)
	code, out, errOut := gofer(t, "", "sites", "reset", "SHOP.test.:80")
	if code != exitOK || !strings.Contains(out, "shop.test") {
		t.Errorf("sites reset: exit %d, %s%s", code, out, errOut)
	}
	attempts := 0
	for i := range count {
		id := fmt.Sprint("ok", i)
		testenv.Eventually(t, "the result of "+id, func() bool {
			r, err := client.New(f.client).Result(t.Context(), client.Key{Queue: "default", ID: id})
			if err != nil || r.Outcome != jobs.Succeeded {
				return false
			}
			attempts += r.AttemptCount
			return true
		})
	}
	if sent := f.origin.Count("/ok"); attempts != sent {
		t.Errorf("the results count %d attempts, the site saw %d: waiting for a site costs no attempt", attempts, sent)
	}
	f.tellsOfTheRest(t)
}

// showsTheRest looks at the resting site and at a job that waits for it from all sides. Each look is repeated until it shows the
// rest: a test of the site may happen at the same time.
func (f *siteFleet) showsTheRest(t *testing.T, id string) {
	t.Helper()
	shows := func(words []string, args ...string) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprintf("gofer %v to show %q", args, words), func() bool {
			code, text, _ := gofer(t, "", args...)
			return code == exitOK && containsAll(text, words...)
		})
	}
	shows([]string{"shop.test", "in "}, "sites", "ls")
	testenv.Eventually(t, "sites show to name two workers that let it rest", func() bool {
		code, table, _ := gofer(t, "", "sites", "show", "shop.test")
		return code == exitOK && strings.Count(table, "resting") == 2
	})
	if code, _, errOut := gofer(t, "", "sites", "show", "nobody.test"); code != exitFailed || !strings.Contains(errOut, "nobody.test") {
		t.Errorf("sites show of an unknown site: exit %d, %s", code, errOut)
	}
	testenv.Eventually(t, "the job to say what it waits for", func() bool {
		w := read[struct {
			Waiting client.Wait `json:"waiting"`
		}](t, "job", id).Waiting
		return w.Why == "site_down" && w.Site == "shop.test" && !w.Since.IsZero() && !w.Until.IsZero()
	})
	shows([]string{"waits for its site shop.test", "the next test is at"}, "job", id)
	for _, addr := range f.addr {
		testenv.Eventually(t, "the API to show the rest", func() bool {
			status, body := f.get("http://" + addr + "/api/v1/sites")
			return status == http.StatusOK && strings.Contains(body, `{"site":"shop.test","state":"resting","reason":"`)
		})
		testenv.Eventually(t, "the page of metrics to count the resting site", func() bool {
			_, page := f.get("http://" + addr + "/metrics")
			return strings.Contains(page, "\ngofer_sites{state=\"resting\"} 1\n")
		})
	}
}

func containsAll(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// tellsOfTheRest looks for the events, and at the API's reset of a site.
func (f *siteFleet) tellsOfTheRest(t *testing.T) {
	t.Helper()
	var rested, ended bool
	testenv.Eventually(t, "the events of the rest and of its end", func() bool {
		err := client.New(f.client).Events(t.Context(), client.Filter{All: true, UntilNow: true}, func(e client.Event) error {
			var site jobs.SiteEvent
			if e.Kind != "site" || e.Subject != "gofer.events.site."+jobs.SiteKey("shop.test") {
				return nil
			}
			if err := json.Unmarshal(e.Payload, &site); err != nil {
				return err
			}
			rested = rested || site.ToState == "resting" && site.NextTestTime != nil && site.Site == "shop.test"
			ended = ended || site.FromState == "resting" && site.ToState == "up" && site.Reason == "reset"
			return nil
		})
		return err == nil && rested && ended
	})
	if code, text, _ := gofer(t, "", "events", "--all", "--until-now"); code != exitOK || !strings.Contains(text, "shop.test") || !strings.Contains(text, "→ resting") {
		t.Errorf("events: exit %d, %s", code, text)
	}
	for path, want := range map[string]int{"shop.test": http.StatusOK, "Shop.test.:443": http.StatusOK, "shop.test:0": http.StatusNotFound, "nobody.test": http.StatusNotFound} {
		resp, err := http.Post("http://"+f.addr[0]+"/api/v1/sites/"+path+"/reset", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("POST reset of %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestSitesAreNotSharedWhenTheOwnerDoesNotWantIt(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_BREAKER_SHARE", "false")
	f := newSiteFleet(t)
	f.fail()
	f.publish("ok", job("/ok", nil))
	testenv.Eventually(t, "the job to wait", func() bool { return f.waits("ok") })
	kv, err := f.client.JetStream().KeyValue(t.Context(), "gofer-sites")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := kv.Status(t.Context()); err != nil || status.Values() != 0 {
		t.Errorf("%d entries in the bucket, %v; want none", status.Values(), err)
	}
	if code, _, errOut := gofer(t, "", "cancel", "ok"); code != exitOK {
		t.Errorf("cancel: exit %d, %s", code, errOut)
	}
}

func TestSitesShowWhatAllWorkersCounted(t *testing.T) {
	t.Parallel()
	now := time.Now()
	earlier := now.Add(-time.Minute)
	merged, _ := admin.MergeSites([]admin.WorkerSites{
		{Worker: "w1", Sites: []admin.Site{
			{Site: "busy.test", State: "up", Reason: "answer", Attempts: 9, Classes: rollup.Classes{Status2xx: 9}},
			{Site: "a.test", State: "resting", Reason: "test_failed", Attempts: 3, Bans: 1, Classes: rollup.Classes{Status4xx: 1, None: 2}, Failures: map[string]int64{"target": 2}, LastError: "old", LastErrorAt: &earlier},
		}},
		{Worker: "w2", Sites: []admin.Site{
			{Site: "a.test", State: "up", Reason: "answer", Attempts: 2, Classes: rollup.Classes{Status2xx: 1, None: 1}, Failures: map[string]int64{"target": 0, "proxy": 1}, LastError: "newer", LastErrorAt: &now},
		}},
	})
	_, rows := siteTable(merged)
	want := []string{
		"a.test|resting in 1 of 2|5|2xx 1, 4xx 1, none 3|1|proxy 1, target 2||its last test failed; 0s ago: newer",
		"busy.test|up|9|2xx 9|0|||",
	}
	for i, row := range rows {
		var cells []string
		for _, cell := range row {
			cells = append(cells, fmt.Sprint(cell))
		}
		if got := strings.Join(cells, "|"); i >= len(want) || got != want[i] {
			t.Errorf("row %d: got %q, want %q", i, got, want)
		}
	}
	if len(rows) != 2 {
		t.Errorf("got %d rows, want 2", len(rows))
	}
}

func TestSitesAreCountedFromTheFirstAttemptOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	w.publish("j", job("/ok", nil))
	w.result("j")
	var list []admin.WorkerSites
	testenv.Eventually(t, "the attempt to be counted", func() bool {
		list = read[[]admin.WorkerSites](t, "sites", "show", "shop.test")
		return len(list) == 1 && list[0].Sites[0].Attempts == 1
	})
	if s := list[0].Sites[0]; s.Classes.Status2xx != 1 || s.Bans != 0 || s.LastError != "" || s.LastErrorAt != nil {
		t.Errorf("shop.test: got %+v, want one attempt with 2xx", s)
	}
	testenv.Eventually(t, "the attempt in sites ls", func() bool {
		code, out, _ := gofer(t, "", "sites", "ls")
		return code == exitOK && containsAll(out, "ATTEMPTS", "2xx 1")
	})
}
