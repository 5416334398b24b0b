package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestAClockIsWrongByWhatTheRoundTripCannotExplain(t *testing.T) {
	asked := time.Now()
	answered := asked.Add(200 * time.Millisecond)
	for told, want := range map[time.Duration]time.Duration{
		0: 0, 100 * time.Millisecond: 0, 200 * time.Millisecond: 0, 3200 * time.Millisecond: 3 * time.Second, -3 * time.Second: -3 * time.Second,
	} {
		if got := clockError(asked, answered, asked.Add(told)); got != want {
			t.Errorf("told %s after the question: got %s, want %s", told, got, want)
		}
	}
}

func TestDoctorSaysHowToGetRidOfJobsInAQueueThatCannotBeServed(t *testing.T) {
	w := newWorld(t, nil)
	t.Setenv("GOFER_PREFIX", "other")
	w.worker(freeAddr(t))
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []string{"NOPE", "*", "it's", "\x1b[2J"} {
		if _, err := js.Publish(t.Context(), "other.jobs."+queue+".x", []byte("http://shop.test/")); err != nil {
			t.Fatalf("publish to %q: %v", queue, err)
		}
	}
	code, out, _ := gofer(t, "", "doctor")
	for _, want := range []string{
		`queue "NOPE"     jobs wait (1)`, "nats stream purge OTHER_JOBS --subject 'other.jobs.NOPE.>'",
		`queue "*"`, `queue "it's"`, `queue "\x1b[2J"`, "nats stream rmm OTHER_JOBS SEQUENCE",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said in:\n%s", want, out)
		}
	}
	if code != exitFailed || strings.Count(out, "purge") != 1 || strings.Contains(out, "GOFER_QUEUES") {
		t.Errorf("exit %d; want %d, one purge, and no advice that cannot be followed:\n%s", code, exitFailed, out)
	}
	stream, err := js.Stream(t.Context(), "OTHER_JOBS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("other.jobs.NOPE.>")); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := gofer(t, "", "doctor"); strings.Contains(out, "NOPE") {
		t.Errorf("after the purge the queue is still named:\n%s", out)
	}
}

func TestDoctorMissesAWorkerWhereJobsAreNotDone(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	look := func() (int, string) {
		t.Helper()
		code, out, _ := gofer(t, "", "doctor")
		return code, out[strings.Index(out, "workers"):]
	}
	if code, out := look(); code != exitOK || out != "workers          none answers\n" {
		t.Errorf("without a job: exit %d, %q; want nothing missed", code, out)
	}
	w.publish("held", "http://shop.test/ok")
	lane, err := w.client.Lane(t.Context(), "default", false)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := lane.Next()
	if err != nil {
		t.Fatal(err)
	}
	if code, out := look(); code != exitFailed || !strings.Contains(out, "none answers, and jobs are not done (1): start one") {
		t.Errorf("with a running job: exit %d, %q; want the worker missed", code, out)
	}
	if _, err := w.client.Park(t.Context(), "default", "held", msg.Data(), jobs.Progress{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := msg.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, out := look(); code != exitFailed || !strings.Contains(out, "jobs are not done (1)") {
		t.Errorf("with a job that waits: exit %d, %q; want the worker missed", code, out)
	}
	if _, err := lane.Fetch(1, jetstream.FetchMaxWait(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if code, out := look(); code != exitFailed || !strings.Contains(out, "let its NATS user subscribe to gofer.ctl.>") {
		t.Errorf("with a worker that is not heard: exit %d, %q; want it told from one that is not there", code, out)
	}
}
