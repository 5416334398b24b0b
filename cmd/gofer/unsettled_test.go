package main

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

func TestAJobThatCannotBeSettledIsShownWithTheReasonWhileItLasts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	w.publish("before", job("/ok", nil))
	w.result("before")
	stream, err := w.client.JetStream().Stream(t.Context(), "GOFER_RESULTS")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Sealed = true
	if _, err := w.client.JetStream().UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	w.publish("held", job("/ok", nil))
	testenv.Eventually(t, "the story to name the reason", func() bool { return len(read[story](t, "job", "held").Unsettled) == 1 })
	got := read[story](t, "job", "held")
	if len(got.Unsettled) != 1 || got.Places[0] != client.Queued || got.State != jobs.StateRunning {
		t.Fatalf("got %+v, want the job running, and one worker that holds it", got)
	}
	if h := got.Unsettled[0]; h.Worker != "w1" || h.Step != "store result" || !h.Permanent || !strings.Contains(h.Reason, "sealed stream") {
		t.Errorf("got %+v, want w1 with the server's reason", h)
	}
	for _, args := range [][]string{{"job", "held"}, {"doctor"}} {
		if _, out, _ := gofer(t, "", args...); !strings.Contains(out, "invalid operation on sealed stream") || !strings.Contains(out, "w1") {
			t.Errorf("%q prints no reason:\n%s", args, out)
		}
	}
	if err := w.client.JetStream().DeleteStream(t.Context(), "GOFER_RESULTS"); err != nil {
		t.Fatal(err)
	}
	w.result("held")
	testenv.Eventually(t, "the story to forget the reason", func() bool { return len(read[story](t, "job", "held").Unsettled) == 0 })
	if _, out, _ := gofer(t, "", "doctor"); strings.Contains(out, "cannot be settled") {
		t.Errorf("the doctor still names the job:\n%s", out)
	}
}
