package daemon_test

import (
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/sites"
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
