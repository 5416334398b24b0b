package client_test

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
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
