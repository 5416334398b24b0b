package stream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestADeadLetterKeepsTheJobAndSaysWhy(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	r := &jobs.Result{
		Queue: "default", ID: "a", Outcome: jobs.Failed, Error: jobs.ErrInvalidJob, Detail: "two\r\nlines" + strings.Repeat("é", 3000),
		JobSeq: 3, Meta: map[string]string{"k": "v"}, FinishedAt: time.Now(),
	}
	for range 2 {
		must(t, in.DeadLetter(soon(t), "default", "a", []byte("not a job"), r))
	}
	got, err := in.client.DeadLetter(soon(t), key("a"))
	must(t, err)
	if string(got.Payload) != "not a job" || got.Seq != 1 || got.StoredAt.IsZero() || got.Result.Error != jobs.ErrInvalidJob || got.Key != key("a") {
		t.Errorf("got %+v", got)
	}
	if !strings.HasPrefix(got.Reason, "two  lines") || len(got.Reason) > 2000 {
		t.Errorf("got reason %.30q of %d bytes, want one line of at most 2000", got.Reason, len(got.Reason))
	}
}
