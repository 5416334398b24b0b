package stream_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// TestAScheduledJobIsNeverEarlyAndHardlyLate does not run beside other tests: the server looks for due jobs four times a
// second.
func TestAScheduledJobIsNeverEarlyAndHardlyLate(t *testing.T) {
	in := install(t, bus.Settings{})
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	const count = 40
	at := map[string]time.Time{}
	for i := range count {
		id := fmt.Sprint("p", i)
		at[id] = time.Now().Add(300*time.Millisecond + time.Duration(i)*37*time.Millisecond + 123_456)
		scheduled, err := in.Schedule(soon(t), "default", id, []byte(id), &jobs.Progress{JobSeq: uint64(i)}, at[id])
		if err != nil || !scheduled {
			t.Fatalf("park %s: %v, %v", id, scheduled, err)
		}
	}
	hardly := 0
	for range count {
		msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
		must(t, err)
		late := time.Since(at[string(msg.Data())])
		if late < 0 {
			t.Errorf("%s came %s early", msg.Data(), -late)
		}
		if late < time.Second {
			hardly++
		}
		must(t, msg.DoubleAck(soon(t)))
	}
	// A busy machine may hold up some looks of the server, and the jobs of those.
	if hardly == 0 {
		t.Errorf("all of %d jobs came more than a second late", count)
	}
}

func TestAScheduledJobTakesItsProgressAlong(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	want := jobs.Progress{JobSeq: 7, Bytes: 12, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1", Error: "it said \"no\"\tand é"}}}
	_, err := in.Schedule(soon(t), "default", "a", []byte("payload"), &want, time.Now().Add(-time.Hour))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	got, err := jobs.ParseProgress(msg.Headers().Get(jobs.HeaderProgress))
	must(t, err)
	if msg.Subject() != "_gofer.due.default.a" || string(msg.Data()) != "payload" || got.JobSeq != 7 || got.Attempts[0].Error != want.Attempts[0].Error {
		t.Errorf("got %s %s %+v", msg.Subject(), msg.Data(), got)
	}
}

// TestAScheduledJobKeepsTheContractThatItNames whatever the worker knows that scheduled it: the next worker may know less.
func TestAScheduledJobKeepsTheContractThatItNames(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	for i, contract := range []string{"1.0", jobs.ContractVersion, "1.999", "", "1.1 or so"} {
		_, err := in.Schedule(soon(t), "default", fmt.Sprint("c", i), []byte("payload"), &jobs.Progress{Contract: contract}, time.Now().Add(-time.Hour))
		must(t, err)
		msg, err := consumer.Next()
		must(t, err)
		want := contract
		if !jobs.IsContract(contract) {
			want = ""
		}
		if got := msg.Headers().Get(jobs.HeaderContract); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		must(t, msg.DoubleAck(soon(t)))
	}
}

// TestTextOfATargetHidesNoHeaderFromTheServer has a target send the name of a header that the server reads, twice in a row.
func TestTextOfATargetHidesNoHeaderFromTheServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	consumer, err := in.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	const text = "Nats-ScheduleNats-Schedule Nats-Expected-Last-Subject-SequenceNats-Expected-Last-Subject-Sequence"
	const count = 20 // the client puts the headers in another order each time
	for i := range count {
		id := fmt.Sprint("p", i)
		for try, want := range []bool{true, false} {
			scheduled, err := in.Schedule(soon(t), "default", id, []byte(id), &jobs.Progress{Attempts: []jobs.Attempt{{Error: text}}}, time.Now().Add(10*time.Second))
			if err != nil || scheduled != want {
				t.Fatalf("%s, try %d: got %v, %v; want %v", id, try, scheduled, err, want)
			}
		}
		for try, want := range []bool{true, false} {
			r := success(id, []byte("x"))
			r.Worker, r.Header = fmt.Sprint("w", try), map[string][]string{"X": {text}}
			if stored, err := in.StoreResult(soon(t), r); err != nil || stored.Won != want {
				t.Fatalf("%s, result %d: got %v, %v; want %v", id, try, stored.Won, err, want)
			}
		}
	}
	for range count {
		msg, err := consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
		if err != nil {
			t.Fatalf("a waiting job is lost: %v", err)
		}
		must(t, msg.DoubleAck(soon(t)))
	}
}

// TestAnIDThatHidesTheScheduleFromTheServerIsReleased has ids that hold the name of the schedule's header twice in a row.
func TestAnIDThatHidesTheScheduleFromTheServerIsReleased(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const count = 20 // the client puts the headers in another order each time
	for i := range count {
		id := fmt.Sprint("Nats-ScheduleNats-Schedule", i)
		_, err := in.Schedule(soon(t), "default", id, []byte(id), &jobs.Progress{}, time.Now())
		must(t, err)
	}
	retries, err := in.js.Stream(soon(t), "GOFER_RETRIES")
	must(t, err)
	for due := 0; due < count; {
		must(t, in.Overdue(soon(t), 0, func(job bus.WaitingJob) {
			_, err := in.Release(soon(t), job)
			must(t, err)
		}))
		info, err := retries.Info(soon(t), jetstream.WithSubjectFilter("_gofer.due.>"))
		must(t, err)
		due = len(info.State.Subjects)
	}
}

func TestAJobThatWaitsIsNotScheduledAgain(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for i, want := range []bool{true, false, false} {
		scheduled, err := in.Schedule(soon(t), "default", "a", []byte("x"), &jobs.Progress{JobSeq: uint64(i)}, time.Now().Add(time.Hour))
		if err != nil || scheduled != want {
			t.Errorf("try %d: got %v, %v; want %v", i, scheduled, err, want)
		}
	}
}

func TestAScheduledJobOutlivesARestart(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	at := time.Now().Add(time.Second)
	_, err := in.Schedule(soon(t), "default", "a", []byte("x"), &jobs.Progress{}, at)
	must(t, err)
	in.restart()
	again := on(t, in.server, bus.Dial{})
	consumer, err := again.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	_, err = consumer.Next(jetstream.FetchMaxWait(testenv.Patience))
	must(t, err)
	if late := time.Since(at); late < 0 {
		t.Errorf("it came %s early", -late)
	}
}

// TestAJobIsStoredOnlyInTheStreamThatItsWorkerHasSeen stores jobs under the guard of the stream's last sequence, also one that
// waits already: of that the worker has to learn, or it would store the job for ever.
func TestAJobIsStoredOnlyInTheStreamThatItsWorkerHasSeen(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	last := func() uint64 {
		fill, err := in.Waiting(soon(t))
		must(t, err)
		return fill.LastSeq
	}
	empty := last()
	for _, c := range []struct {
		id     string
		last   uint64
		stored bool
		err    error
	}{
		{"a", empty, true, nil},
		{"b", empty, false, stream.ErrChanged},
		{"a", empty, false, stream.ErrChanged}, // the worker looks again, and learns that the job waits
		{"a", empty + 1, false, nil},
		{"b", empty + 1, true, nil},
		{"b", empty + 1, false, stream.ErrChanged},
		{"a", empty + 2, false, nil},
		{"c", empty + 3, false, stream.ErrChanged}, // the server has lost a message
	} {
		scheduled, err := in.IfUnchanged(c.last).Schedule(soon(t), "default", c.id, []byte("payload"), &jobs.Progress{}, time.Now().Add(time.Hour))
		if scheduled != c.stored || !errors.Is(err, c.err) {
			t.Errorf("%s after %d: stored %t, %v; want %t, %v", c.id, c.last-empty, scheduled, err, c.stored, c.err)
		}
	}
	if got := last() - empty; got != 2 {
		t.Errorf("%d messages are stored, want 2", got)
	}
	// Its site is another subject, and the same job.
	waits, err := in.IfUnchanged(last()).WaitForSite(soon(t), "example.com", "default", "c", 0, []byte("payload"), &jobs.Progress{}, time.Now().Add(time.Hour))
	if !waits || err != nil {
		t.Errorf("a job for a site: stored %t, %v; want true", waits, err)
	}
}
