package bus_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

func TestOfTwentyRacingResultsOneIsStoredAndSeen(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	var seen atomic.Int64
	sub, err := in.nc.Subscribe("gofer.>", func(*nats.Msg) { seen.Add(1) })
	must(t, err)
	for _, size := range []int{10, jobs.MaxInlineBody + 1} {
		id := fmt.Sprint("size", size)
		var won atomic.Int64
		var racing sync.WaitGroup
		for i := range 20 {
			racing.Go(func() {
				r := success(id, make([]byte, size))
				r.Worker = fmt.Sprint("w", i)
				stored, err := in.StoreResult(soon(t), r)
				switch {
				case err != nil:
					t.Error(err)
				case stored.Won:
					won.Add(1)
				case stored.Previous.Worker == "" || stored.Previous.Worker == r.Worker || stored.Previous.Body != nil:
					t.Errorf("%s lost to %+v", r.Worker, stored.Previous)
				}
			})
		}
		racing.Wait()
		if got := won.Load(); got != 1 {
			t.Errorf("%d bytes: %d results won, want 1", size, got)
		}
	}
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })
	must(t, sub.Drain())
	<-drained
	if got := seen.Load(); got != 2 {
		t.Errorf("a plain subscriber saw %d results of 2 jobs", got)
	}
	if got := in.objects(t); got != 1 {
		t.Errorf("got %d objects, want that of the winner alone", got)
	}
}

func TestAResultStoredWithoutAnAnswerIsRecognised(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, body := range [][]byte{[]byte("x"), make([]byte, jobs.MaxInlineBody+1)} {
		r := success(fmt.Sprint("b", len(body)), body)
		for range 2 {
			stored, err := in.StoreResult(soon(t), r)
			if err != nil || !stored.Won {
				t.Errorf("got %+v, %v; want that it won", stored, err)
			}
		}
	}
	if got := in.objects(t); got != 1 {
		t.Errorf("got %d objects, want 1", got)
	}
}

func TestTheStreamItselfTakesOneResultOfAJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	_, err := in.js.Publish(soon(t), in.names.ResultIngress("default", "a"), []byte("unguarded"))
	if err == nil {
		t.Error("a second result was stored without a guard")
	}
}

func TestNoRoomForResultsIsSaid(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 20 << 10})
	_, err := in.StoreResult(soon(t), success("big", make([]byte, 30<<10)))
	isError(t, err, bus.ErrResultsFull)
	in.store(t, "a", make([]byte, 15<<10))
	r := success("b", make([]byte, 15<<10))
	_, err = in.StoreResult(soon(t), r)
	isError(t, err, bus.ErrResultsFull)
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	must(t, stream.Purge(soon(t)))
	stored, err := in.StoreResult(soon(t), r)
	if err != nil || !stored.Won {
		t.Errorf("got %+v, %v once there was room", stored, err)
	}
}

func TestTheResultOfAJobWithADottedIDIsStored(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a.b", nil)
	for _, id := range []string{"*", "a.*", ">", "a..b", "a b", ""} {
		if _, err := in.StoreResult(soon(t), success(id, nil)); err == nil {
			t.Errorf("a result was stored under %q", id)
		}
	}
}

// TestAParkedJobIsNeverEarlyAndHardlyLate does not run beside other tests: the server looks for due jobs four times a
// second, which leaves 50 ms for everything else.
func TestAParkedJobIsNeverEarlyAndHardlyLate(t *testing.T) {
	in := install(t, bus.Settings{})
	lane, err := in.Lane(soon(t), "default", true)
	must(t, err)
	const count = 40
	at := map[string]time.Time{}
	for i := range count {
		id := fmt.Sprint("p", i)
		at[id] = time.Now().Add(300*time.Millisecond + time.Duration(i)*37*time.Millisecond + 123_456)
		parked, err := in.Park(soon(t), "default", id, []byte(id), jobs.Progress{JobSeq: uint64(i)}, at[id])
		if err != nil || !parked {
			t.Fatalf("park %s: %v, %v", id, parked, err)
		}
	}
	var tooLate []time.Duration
	for range count {
		msg, err := lane.Next(jetstream.FetchMaxWait(10 * time.Second))
		must(t, err)
		late := time.Since(at[string(msg.Data())])
		if late < 0 {
			t.Errorf("%s came %s early", msg.Data(), -late)
		}
		if late > 300*time.Millisecond {
			tooLate = append(tooLate, late)
		}
		must(t, msg.DoubleAck(soon(t)))
	}
	// A busy machine may hold up one look of the server, and the jobs of that look.
	if len(tooLate) > count/8 {
		t.Errorf("got %d of %d jobs more than 300 ms late: %v", len(tooLate), count, tooLate)
	}
}

func TestAParkedJobTakesItsProgressAlong(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	want := jobs.Progress{JobSeq: 7, Bytes: 12, Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1", Error: "it said \"no\"\tand é"}}}
	_, err := in.Park(soon(t), "default", "a", []byte("payload"), want, time.Now().Add(-time.Hour))
	must(t, err)
	lane, err := in.Lane(soon(t), "default", true)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	got, err := jobs.ParseProgress(msg.Headers().Get(jobs.HeaderProgress))
	must(t, err)
	if msg.Subject() != "_gofer.due.default.a" || string(msg.Data()) != "payload" || got.JobSeq != 7 || got.Attempts[0].Error != want.Attempts[0].Error {
		t.Errorf("got %s %s %+v", msg.Subject(), msg.Data(), got)
	}
}

// TestTextOfATargetHidesNoHeaderFromTheServer has a target send the name of a header that the server reads, twice in a row.
func TestTextOfATargetHidesNoHeaderFromTheServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	lane, err := in.Lane(soon(t), "default", true)
	must(t, err)
	const text = "Nats-ScheduleNats-Schedule Nats-Expected-Last-Subject-SequenceNats-Expected-Last-Subject-Sequence"
	const count = 20 // the client puts the headers in another order each time
	for i := range count {
		id := fmt.Sprint("p", i)
		for try, want := range []bool{true, false} {
			parked, err := in.Park(soon(t), "default", id, []byte(id), jobs.Progress{Attempts: []jobs.Attempt{{Error: text}}}, time.Now().Add(3*time.Second))
			if err != nil || parked != want {
				t.Fatalf("%s, try %d: got %v, %v; want %v", id, try, parked, err, want)
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
		msg, err := lane.Next(jetstream.FetchMaxWait(10 * time.Second))
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
		_, err := in.Park(soon(t), "default", id, []byte(id), jobs.Progress{}, time.Now())
		must(t, err)
	}
	stream, err := in.js.Stream(soon(t), "GOFER_RETRIES")
	must(t, err)
	for due := 0; due < count; {
		must(t, in.Overdue(soon(t), 0, func(job bus.WaitingJob) {
			_, err := in.Release(soon(t), job)
			must(t, err)
		}))
		info, err := stream.Info(soon(t), jetstream.WithSubjectFilter("_gofer.due.>"))
		must(t, err)
		due = len(info.State.Subjects)
	}
}

func TestATwinIsNotParked(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for i, want := range []bool{true, false, false} {
		parked, err := in.Park(soon(t), "default", "a", []byte("x"), jobs.Progress{JobSeq: uint64(i)}, time.Now().Add(time.Hour))
		if err != nil || parked != want {
			t.Errorf("try %d: got %v, %v; want %v", i, parked, err, want)
		}
	}
}

func TestAParkedJobOutlivesARestart(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	at := time.Now().Add(time.Second)
	_, err := in.Park(soon(t), "default", "a", []byte("x"), jobs.Progress{}, at)
	must(t, err)
	in.restart()
	again := on(t, in.server, bus.Dial{})
	lane, err := again.Lane(soon(t), "default", true)
	must(t, err)
	_, err = lane.Next(jetstream.FetchMaxWait(10 * time.Second))
	must(t, err)
	if late := time.Since(at); late < 0 {
		t.Errorf("it came %s early", -late)
	}
}

func TestAHeartbeatKeepsAJobAndHandingBackReleasesIt(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{AckWait: 500 * time.Millisecond})
	_, err := in.client.Submit(soon(t), job("a"))
	must(t, err)
	lane, err := in.Lane(soon(t), "default", false)
	must(t, err)
	msg, err := lane.Next()
	must(t, err)
	for range 5 {
		must(t, in.Heartbeat(soon(t), msg))
		batch, err := lane.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond))
		must(t, err)
		for range batch.Messages() {
			t.Fatal("the job was given to another one")
		}
	}
	began := time.Now()
	must(t, in.HandBack(soon(t), msg))
	again, err := lane.Next()
	must(t, err)
	if got := time.Since(began); got > 400*time.Millisecond {
		t.Errorf("it came back after %s, want at once", got)
	}
	must(t, again.DoubleAck(soon(t)))
}

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

// Every value that a job may have comes back byte for byte, whoever reads the headers.
func TestMetaComesBackAsItWasGiven(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	meta := map[string]string{
		"empty": "", "case": "a", "CASE": "b", "colon": ": a: b:", "inner": "a  b", "quotes": `"a" 'b' \r\n`, "umlaut": "\u00fc", "wide": "\u00a0a\u2003",
		"lines": "\u2028a\u2029", "mark": "\ufeffa", "emoji": "\U0001f600", "comma": ",a,,b,", "-_9": "=?utf-8?q?a?=", "percent": "%0d%0aGofer-Outcome: failed",
		"long": strings.Repeat("m", 7000),
	}
	given := job("meta")
	given.Queue, given.Meta = "default", meta
	payload, err := given.Encode()
	must(t, err)
	arrived, err := jobs.Decode("default", "meta", payload)
	must(t, err)
	r := success("meta", nil)
	r.Meta = arrived.Meta
	_, err = in.StoreResult(soon(t), r)
	must(t, err)
	read, err := in.Result(soon(t), "default", "meta")
	must(t, err)
	if !maps.Equal(read.Meta, meta) {
		t.Errorf("got %q, want %q", read.Meta, meta)
	}
}

// objects counts what is in the object store.
func (in *installation) objects(t *testing.T) int {
	t.Helper()
	store, err := in.js.ObjectStore(soon(t), "gofer-bodies")
	must(t, err)
	list, err := store.List(soon(t))
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0
	}
	must(t, err)
	return len(list)
}
