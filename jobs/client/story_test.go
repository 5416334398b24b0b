package client_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAStoryNamesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	must(t, in.js.DeleteStream(soon(t), "GOFER_EVENTS"))
	story, err := in.Story(soon(t), key("a"))
	must(t, err)
	if len(story.Moments) != 1 || story.Moments[0].At.IsZero() {
		t.Errorf("got moments %+v, want when the job was queued", story.Moments)
	}
	if len(story.Unread) != 1 || !strings.Contains(story.Unread[0].Error(), "story in the events cannot be read") {
		t.Errorf("got unread %v, want the events", story.Unread)
	}
}

func TestAStoryOfAnEndedJobHasItsResult(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", []byte("page"))
	story, err := in.Story(soon(t), key("a"))
	must(t, err)
	if story.Result == nil || !story.Result.OK() || story.Result.Outcome != jobs.Succeeded || string(story.Result.Body) != "page" {
		t.Errorf("got result %+v, want the stored one", story.Result)
	}
}

// TestAStoryOfAJobThatWaitsSaysWhy: the state, since when, until when, where, and the reason that its worker found.
func TestAStoryOfAJobThatWaitsSaysWhy(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	s := stream.New(in.bus)
	for _, c := range []struct {
		id      string
		payload string
		p       jobs.Progress
		want    client.Wait
	}{
		{"banned", `{"url":"http://captcha.test:8080/","proxy":{"id":"p7"}}`, jobs.Progress{WaitingSince: since, Why: "all 37 proxies that match cool down for this site"},
			client.Wait{Why: jobs.StateNoProxy, Since: since, Site: "captcha.test:8080", Proxies: []string{"p7"}, Detail: "no proxy can be used for captcha.test:8080: all 37 proxies that match cool down for this site"}},
		{"early", "http://shop.test/", jobs.Progress{}, client.Wait{Why: jobs.StateDelayed, Site: "shop.test", Detail: "the job waits for its not_before"}},
		{"again", "http://shop.test/", jobs.Progress{Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1"}}}, client.Wait{Why: jobs.StateRetrying, Site: "shop.test", Detail: "the job waits for its next attempt"}},
	} {
		if _, err := s.Schedule(soon(t), "default", c.id, []byte(c.payload), &c.p, until); err != nil {
			t.Fatal(err)
		}
		story, err := in.Story(soon(t), key(c.id))
		if err != nil {
			t.Fatal(err)
		}
		got := story.Waiting
		if got == nil {
			t.Errorf("%s: got no reason, want %+v", c.id, c.want)
			continue
		}
		c.want.Until = until
		if c.want.Since.IsZero() && !got.Since.IsZero() {
			c.want.Since = got.Since // when it was stored
		}
		if fmt.Sprint(*got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %+v, want %+v", c.id, *got, c.want)
		}
	}
}
