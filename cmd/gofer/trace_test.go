package main

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

const (
	traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	traceState  = "congo=t61rcWkgMzE"
)

// TestATraceTravelsWithItsJob goes through each message about a job: events and logs of retries, the waiting job, the result, the
// dead letter and its replay. Nothing of it reaches the target.
func TestATraceTravelsWithItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_LOG_LEVEL", "debug")
	p := w.worker(freeAddr(t))
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	send := func(id, payload, parent string) {
		msg := &nats.Msg{Subject: "gofer.jobs.default." + id, Data: []byte(payload), Header: nats.Header{"traceparent": {parent}, "tracestate": {traceState}}}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	retry := map[string]any{"max_attempts": 3, "base_delay": 2.5, "backoff_strategy": "fixed", "jitter": false}
	send("echoed", job("/echo", nil), traceParent)
	send("own", job("/echo", map[string]any{"headers": map[string]any{"traceparent": "own"}}), traceParent)
	send("odd", job("/echo", nil), "00-odd")
	send("invalid", "{}", traceParent)
	send("flaky", job("/flaky/1?key=trace", map[string]any{"retry": retry}), traceParent)

	want := jobs.Trace{Parent: traceParent, State: traceState}
	for id, trace := range map[string]jobs.Trace{"echoed": want, "own": want, "odd": {}, "invalid": want, "flaky": want} {
		if r := w.result(id); r.Trace != trace {
			t.Errorf("%s: %s %s has the trace %+v, want %+v", id, r.Outcome, r.Detail, r.Trace, trace)
		}
	}
	if seen := string(w.result("echoed").Body); strings.Contains(strings.ToLower(seen), "trace") {
		t.Errorf("the target saw %s", seen)
	}
	if seen := string(w.result("own").Body); !strings.Contains(seen, `"Traceparent":["own"]`) || strings.Contains(seen, traceParent) {
		t.Errorf("the target saw %s, want the job's own header only", seen)
	}
	event, err := w.client.LastMessage(t.Context(), "GOFER_EVENTS", "gofer.events.retry.default.flaky")
	if err != nil {
		t.Fatal(err)
	}
	if got := jobs.ParseTrace(event.Header); got != want || !strings.Contains(string(event.Data), `"kind":"scheduled"`) {
		t.Errorf("the retry event has the trace %+v: %s; want that of the job, which was scheduled", got, event.Data)
	}
	letters := client.New(w.client)
	var letter client.DeadLetter
	testenv.Eventually(t, "the dead letter, which follows the result", func() bool {
		letter, err = letters.DeadLetter(t.Context(), client.Key{Queue: "default", ID: "invalid"})
		return err == nil
	})
	if letter.Result.Trace != want {
		t.Fatalf("the dead letter has the trace %+v", letter.Result.Trace)
	}
	ack, err := letters.Replay(t.Context(), letter)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.result(ack.ID); r.Trace != want {
		t.Errorf("the replay has the trace %+v", r.Trace)
	}
	if _, err := letters.Submit(t.Context(), jobs.Job{ID: "library", URL: "http://shop.test/ok", Trace: want}); err != nil {
		t.Fatal(err)
	}
	if r := w.result("library"); r.Trace != want {
		t.Errorf("a job of the library has the trace %+v", r.Trace)
	}
	p.wait(t)
	for _, message := range []string{"retry", "job ended"} {
		found := false
		for line := range strings.Lines(p.log.String()) {
			found = found || strings.Contains(line, message) && strings.Contains(line, "flaky") && strings.Contains(line, traceParent) && strings.Contains(line, traceState)
		}
		if !found {
			t.Errorf("no log of %q names the trace:\n%s", message, p.log)
		}
	}
}
