package daemon_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/daemon"
	"github.com/gofer-mq/gofer/worker/release"
)

// A job that is released beyond the room of a new site comes back at once.
func TestTheLeaderKnowsTheRoomOfANewSite(t *testing.T) {
	const site = "new.test"
	w, err := daemon.New(daemon.Config{
		NATS: bus.Dial{URL: "nats://127.0.0.1:1"}, Queues: []worker.Queue{{Name: "default"}}, Concurrency: 24, Proxies: parse(t, "http://127.0.0.1:1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := 3; room > 0; room-- {
		if got, want := w.SiteForRelease(site), (release.Site{New: true, Room: room}); room < 3 && got != want {
			t.Errorf("%d attempts run at a new site: got %+v, want %+v", 3-room, got, want)
		}
		if _, refused := w.Enter(site); refused != nil {
			t.Fatalf("an attempt is refused at room for %d", room)
		}
	}
	if got, want := w.SiteForRelease(site), (release.Site{New: true}); got != want {
		t.Errorf("the share of a new site is used up: got %+v, want %+v", got, want)
	}
	if _, refused := w.Enter(site); refused == nil {
		t.Error("an attempt beyond the share of a new site begins")
	}
	visit, _ := w.Enter("known.test")
	visit.Report(sites.Outcome{Kind: sites.Answered, Via: "p"})
	if got := w.SiteForRelease("known.test"); got.New {
		t.Errorf("a site that has answered: got %+v, want no share", got)
	}
}

// TestAWorkerListsAndResetsSitesThatOnlyOthersKnow: w1 never fetches anything.
func TestAWorkerListsAndResetsSitesThatOnlyOthersKnow(t *testing.T) {
	nats := testenv.StartNATS(t, nil)
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // answers for each site
	defer proxy.Close()
	config := func(name, queue string) daemon.Config {
		return daemon.Config{NATS: bus.Dial{URL: nats.URL()}, Name: name, Queues: []worker.Queue{{Name: queue}}, Proxies: parse(t, proxy.URL)}
	}
	w1, w2 := run(t, config("w1", "idle")), run(t, config("w2", "default"))
	c, err := client.Open(t.Context(), client.Config{URL: nats.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Submit(t.Context(), jobs.Job{ID: "a", URL: "http://far.test/"}); err != nil {
		t.Fatal(err)
	}
	w2.first("/sites", "sites", func(s map[string]any) bool { return s["site"] == "far.test" && s["state"] == "up" })
	w1.until("connected")
	w1.first("/live/sites", "sites", func(s map[string]any) bool {
		return s["site"] == "far.test" && s["state"] == "up" && fmt.Sprint(s["workers"]) == "map[up:1]"
	})
	var fleet map[string]any
	testenv.Eventually(t, "both workers to tell their sites", func() bool { // a busy one may be late
		_, fleet = w1.call("GET", "/live/sites", "")
		return list(fleet, "missing") == 0 && fleet["known"] == 1.0
	})
	if fleet["of"] != "" {
		t.Errorf("sites of the fleet: got %v, want those of both workers", fleet)
	}
	if _, answer := w1.call("GET", "/sites", ""); list(answer, "sites") != 0 {
		t.Errorf("sites of w1: got %v, want none", answer)
	}
	if status, answer := w1.call("POST", "/sites/far.test/reset", ""); status != http.StatusOK || answer["state"] != "new" {
		t.Errorf("reset of a site that w2 knows: got %d %v, want the site, which is new to w1", status, answer)
	}
	if status, answer := w1.call("POST", "/sites/nobody.test/reset", ""); status != http.StatusNotFound {
		t.Errorf("reset of a site that nobody knows: got %d %v, want 404", status, answer)
	}
}

// TestAResetOfAnUnknownSiteIs404AlsoWhereNobodyCanBeAsked: the worker's user may not listen to the verbs.
func TestAResetOfAnUnknownSiteIs404AlsoWhereNobodyCanBeAsked(t *testing.T) {
	nats := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "w", Password: "w", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"gofer.ctl.>"}}}}}
	})
	r := run(t, daemon.Config{NATS: bus.Dial{URL: nats.URL(), User: "w", Password: "w"}})
	r.until("nats: connected")
	if status, answer := r.call("POST", "/sites/nobody.test/reset", ""); status != http.StatusNotFound {
		t.Errorf("got %d %v, want 404", status, answer)
	}
}
