package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
