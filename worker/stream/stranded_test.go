package stream_test

import (
	"fmt"
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

func forgedHeaders(sequence, subject string) []map[string]string {
	readable, unreadable := testenv.ForgedHeaders(sequence, subject)
	return []map[string]string{readable, unreadable}
}
