package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

func TestJobsWhoseRemovalTheServerLostAreStrandedAndRunAgain(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	js, err := jetstream.New(in.nc)
	must(t, err)
	var sequences []uint64
	for i := range 3 {
		ack, err := js.Publish(soon(t), fmt.Sprint("gofer.jobs.default.j", i), []byte("http://a.test/"))
		must(t, err)
		sequences = append(sequences, ack.Sequence)
	}
	restore := in.server.KeepMessages("GOFER_JOBS")
	in.isBack(t)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	for range 2 {
		msg, err := consumer.Next()
		must(t, err)
		must(t, msg.DoubleAck(soon(t)))
	}
	list, err := in.Stranded(soon(t), "default", 10)
	must(t, err)
	if len(list) != 0 {
		t.Fatalf("got %d stranded jobs before the server lost anything, want none", len(list))
	}
	restore()
	in.isBack(t)
	if list, err = in.Stranded(soon(t), "default", 10); err != nil || len(list) != 2 || list[0].ID != "j0" || list[1].Seq != sequences[1] {
		t.Fatalf("got %+v, %v, want j0 and j1: the consumer delivers j2 still", list, err)
	}
	for range 2 { // two workers may find them
		for _, job := range list {
			must(t, in.ReleaseStranded(soon(t), job))
		}
	}
	if list, err = in.Stranded(soon(t), "default", 10); err != nil || len(list) != 0 {
		t.Errorf("got %+v, %v after the release, want none", list, err)
	}
	due, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	for i := range 2 {
		msg, err := due.Next()
		must(t, err)
		progress, err := jobs.ParseProgress(msg.Headers().Get(jobs.HeaderProgress))
		must(t, err)
		if want := fmt.Sprint("_gofer.due.default.j", i); msg.Subject() != want || progress.JobSeq != sequences[i] || string(msg.Data()) != "http://a.test/" {
			t.Errorf("got %s of job %d, %q, want %s", msg.Subject(), progress.JobSeq, msg.Data(), want)
		}
		must(t, msg.DoubleAck(soon(t)))
	}
}

func TestAJobDoesNotSayThatItIsStranded(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{Queues: []string{"default", "low"}})
	_, err := in.js.Publish(soon(t), "gofer.jobs.low.victim", []byte("http://a.test/"))
	must(t, err)
	first, err := in.js.Publish(soon(t), "gofer.jobs.default.first", []byte("http://a.test/"))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
	must(t, err)
	must(t, msg.DoubleAck(soon(t)))
	for _, blocks := range forgedHeaders(fmt.Sprint(first.Sequence), "gofer.jobs.low.victim") {
		for kind, header := range blocks {
			in.server.StoreRaw(t, "gofer.jobs.default."+kind, header, "http://evil.test/")
		}
	}
	if list, err := in.Stranded(soon(t), "default", 100); err != nil || len(list) != 0 {
		t.Errorf("got %+v, %v, want none: all are above the ack floor", list, err)
	}
}

// A job whose headers only its consumer can read is stranded as any other one.
func TestAStrandedJobWithForgedHeadersRunsAgain(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	want := map[string]bool{}
	for _, blocks := range forgedHeaders("1", "gofer.jobs.default.victim") {
		for kind, header := range blocks {
			in.server.StoreRaw(t, "gofer.jobs.default."+kind, header, "http://a.test/"+kind)
			want[kind] = true
		}
	}
	restore := in.server.KeepMessages("GOFER_JOBS")
	in.isBack(t)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	for range want {
		msg, err := consumer.Next()
		must(t, err)
		must(t, msg.DoubleAck(soon(t)))
	}
	restore()
	in.isBack(t)
	list, err := in.Stranded(soon(t), "default", 100)
	must(t, err)
	for _, job := range list {
		if !want[job.ID] {
			t.Errorf("got %s, which is no job", job.ID)
		}
		must(t, in.ReleaseStranded(soon(t), job))
	}
	if len(list) != len(want) {
		t.Errorf("got %d stranded jobs, want %d", len(list), len(want))
	}
	if left, err := in.Stranded(soon(t), "default", 100); err != nil || len(left) != 0 {
		t.Errorf("got %+v, %v after the release, want none", left, err)
	}
	due, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	for range list {
		msg, err := due.Next()
		must(t, err)
		kind := strings.TrimPrefix(msg.Subject(), "_gofer.due.default.")
		if !want[kind] || string(msg.Data()) != "http://a.test/"+kind {
			t.Errorf("got %s with %q", msg.Subject(), msg.Data())
		}
		delete(want, kind)
	}
}

func forgedHeaders(sequence, subject string) []map[string]string {
	readable, unreadable := testenv.ForgedHeaders(sequence, subject)
	return []map[string]string{readable, unreadable}
}
