package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestAJobWithoutIDGetsAULIDOnTheDefaultQueue(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	ack, err := in.Submit(soon(t), job(""))
	must(t, err)
	info, err := in.bus.StreamInfo(soon(t), "GOFER_JOBS")
	must(t, err)
	if _, err := ulid.ParseStrict(ack.ID); err != nil || ack.Queue != "default" || ack.Seq != info.State.LastSeq {
		t.Errorf("got %+v, %v; want a ULID in the default queue", ack, err)
	}
}

func TestASecondJobOfANameIsRefusedUntilTheFirstIsDone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	_, err = in.Submit(soon(t), job("a"))
	isError(t, err, client.ErrQueued)

	consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	_, err = in.Submit(soon(t), job("a"))
	isError(t, err, client.ErrQueued)

	in.store(t, "a", nil)
	must(t, msg.DoubleAck(soon(t)))
	_, err = in.Submit(soon(t), job("a"))
	isError(t, err, client.ErrFinished)
}

func TestAFullQueueIsToldFromATakenID(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{JobsMaxMsgs: 2})
	for _, id := range []string{"a", "b"} {
		_, err := in.Submit(soon(t), job(id))
		must(t, err)
	}
	_, err := in.Submit(soon(t), job("c"))
	isError(t, err, bus.ErrQueueFull)
}

func TestAnInvalidJobIsNotSent(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	var invalid *jobs.InvalidError
	if _, err := in.Submit(soon(t), jobs.Job{ID: "a.b", URL: "ftp://x"}); !errors.As(err, &invalid) || len(invalid.Reasons) != 2 {
		t.Errorf("got %v, want both reasons", err)
	}
}

// TestATooLargeJobIsSaidToBe has a server that takes smaller messages than any worker would work with.
func TestATooLargeJobIsSaidToBe(t *testing.T) {
	t.Parallel()
	in := on(t, testenv.StartNATS(t, func(o *server.Options) { o.MaxPayload = 64 << 10 }), bus.Dial{})
	isError(t, in.bus.Ensure(soon(t), bus.Settings{}), bus.ErrConfig)
	_, err := in.Submit(soon(t), jobs.Job{ID: "a", URL: "http://a.test/", Body: strings.Repeat("x", 100<<10)})
	isError(t, err, bus.ErrTooLarge)
}

// TestAJobThatCouldNotBeParkedOrBuriedIsRefused publishes past the client, as other programs do.
func TestAJobThatCouldNotBeParkedOrBuriedIsRefused(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.js.Publish(soon(t), in.names.Job("default", "a"), make([]byte, 900<<10))
	if err == nil || !strings.Contains(err.Error(), "message size exceeds maximum allowed") {
		t.Errorf("got %v, want it refused for its size", err)
	}
	largest := make([]byte, jobs.MaxJobBytes+60<<10)
	_, err = in.js.Publish(soon(t), in.names.Job("default", "b"), largest)
	must(t, err)
	_, err = stream.New(in.bus).Schedule(soon(t), "default", "b", largest, &jobs.Progress{Attempts: make([]jobs.Attempt, 10)}, time.Now())
	must(t, err)
	must(t, stream.New(in.bus).DeadLetter(soon(t), "default", "b", largest, &jobs.Result{Detail: strings.Repeat("x", 5000)}))
}

// silence makes the job stream store without an answer, or answer again.
func (in *installation) silence(t *testing.T, noAck bool) {
	t.Helper()
	stream, err := in.js.Stream(soon(t), "GOFER_JOBS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.NoAck = noAck
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
}

func (in *installation) queued(t *testing.T, n uint64) {
	t.Helper()
	for ctx := soon(t); ; {
		stream, err := in.js.Stream(ctx, "GOFER_JOBS")
		must(t, err)
		if stream.CachedInfo().State.Msgs == n {
			return
		}
	}
}

func TestJobWhoseAnswerWasLostIsTakenForSubmitted(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	must(t, stream.New(in.bus).DeadLetter(soon(t), "default", "dead", []byte("http://a.test/"), &jobs.Result{Error: jobs.ErrPermanent}))
	letter, err := in.DeadLetter(soon(t), key("dead"))
	must(t, err)
	in.silence(t, true)
	results := make(chan error, 2)
	var seq uint64
	go func() {
		ack, err := in.Submit(soon(t), job("a"))
		seq = ack.Seq
		results <- err
	}()
	go func() {
		_, err := in.Replay(soon(t), letter)
		results <- err
	}()
	in.queued(t, 2)
	in.silence(t, false)
	must(t, <-results)
	must(t, <-results)
	if stored, err := in.js.Stream(soon(t), "GOFER_JOBS"); err == nil {
		msg, err := stored.GetLastMsgForSubject(soon(t), in.names.Job("default", "a"))
		must(t, err)
		if msg.Sequence != seq {
			t.Errorf("got sequence %d, want %d", seq, msg.Sequence)
		}
	}
	if _, err := in.DeadLetter(soon(t), key("dead")); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the replayed letter: got %v, want it removed", err)
	}
	_, err = in.Submit(soon(t), job("a"))
	isError(t, err, client.ErrQueued)
}

// TestTwoJobsOfOneMessageIDAreBothStored is about an id that a publisher took for two jobs, such as that of an order.
func TestTwoJobsOfOneMessageIDAreBothStored(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	publish := func(id string) *jetstream.PubAck {
		ack, err := in.js.Publish(soon(t), in.names.Job("default", id), []byte("http://a.test/"), jetstream.WithMsgID("order-7"))
		must(t, err)
		return ack
	}
	publish("a")
	for begin := time.Now(); publish("b").Duplicate; {
		if waited := time.Since(begin); waited > testenv.Patience {
			t.Fatalf("after %s the second job is still dropped as a duplicate, want it stored after 100 ms", waited)
		}
	}
}

func TestSubmitOutlivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.server.Stop()
	done := make(chan error, 1)
	go func() {
		_, err := in.Submit(soon(t), job("a"))
		done <- err
	}()
	in.restart()
	must(t, <-done)
}

func TestSubmitDoesNotWaitForAnAnswerThatADyingServerSwallowed(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	plain := testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = false, "" })
	stand := plain.Connect()
	// Stands in for a cluster without a leader: it takes the question for the stream and dies, and then another leads.
	_, err := stand.Subscribe("$JS.API.STREAM.INFO.GOFER_JOBS", func(*nats.Msg) {
		_, err := stand.Subscribe("gofer.jobs.>", func(m *nats.Msg) { _ = m.Respond([]byte(`{"stream":"GOFER_JOBS","seq":1}`)) })
		if err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	must(t, stand.Flush())
	names, err := jobs.NewNames("")
	must(t, err)
	b, err := bus.New(plain.Connect(), names)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*testenv.Patience)
	defer cancel()
	if ack, err := client.New(b).Submit(ctx, job("")); err != nil || ack.Seq != 1 {
		t.Errorf("got %+v, %v; want the answer of the new leader", ack, err)
	}
}

func TestSubmitGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := in.Submit(ctx, job("a")); err == nil {
		t.Error("got no error from a server that is gone")
	}
}

func TestSubmitManyTellsOfEachJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	const count = 3000
	_, err := in.Submit(soon(t), job("j7"))
	must(t, err)
	source := func(yield func(jobs.Job) bool) {
		for i := range count {
			if !yield(job(fmt.Sprintf("j%d", i))) {
				return
			}
		}
	}
	accepted, refused := map[string]bool{}, map[string]error{}
	err = in.SubmitMany(soon(t), source, 0, func(job jobs.Job, ack client.Ack, err error) {
		if err != nil {
			refused[job.ID] = err
			return
		}
		accepted[ack.ID] = true
	})
	must(t, err)
	if len(accepted) != count-1 || len(refused) != 1 {
		t.Errorf("got %d accepted and %d refused, want %d and 1", len(accepted), len(refused), count-1)
	}
	isError(t, refused["j7"], client.ErrQueued)
}

// TestAWatcherOfSubmitsSeesTheRequestsAlone has a source and a done that would be slow.
func TestAWatcherOfSubmitsSeesTheRequestsAlone(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	var began, ended atomic.Int32
	watched := client.WatchSubmits(soon(t), func() func() { began.Add(1); return func() { ended.Add(1) } })
	answered := make(chan struct{})
	source := func(yield func(jobs.Job) bool) {
		if began.Load() != 0 || !yield(job("a")) {
			t.Error("the first job is watched before it is sent")
		}
		<-answered
		if !yield(jobs.Job{URL: "no URL"}) { // nothing is sent
			t.Error("the source ended")
		}
	}
	told := 0
	must(t, in.SubmitMany(watched, source, 1, func(jobs.Job, client.Ack, error) {
		if told++; told == 1 {
			close(answered)
		}
		if began.Load() != 1 || ended.Load() != 1 {
			t.Errorf("%d requests began and %d ended before done %d, want 1 and 1", began.Load(), ended.Load(), told)
		}
	}))
	if _, err := in.Submit(watched, job("a")); err == nil || began.Load() != 2 || ended.Load() != 2 {
		t.Errorf("a refused job: %v, %d requests began and %d ended, want 2", err, began.Load(), ended.Load())
	}
}

func TestSubmitManyStopsTakingJobsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	taken, told := 0, 0
	endless := func(yield func(jobs.Job) bool) {
		for taken++; yield(job("")); taken++ {
			if taken == 50 {
				cancel(enough)
			}
		}
	}
	err := in.SubmitMany(ctx, endless, 4, func(jobs.Job, client.Ack, error) { told++ })
	isError(t, err, enough)
	if told != taken {
		t.Errorf("told of %d jobs, took %d", told, taken)
	}
}

func TestSubmitManyTakesOneJobAtMostOnceItsContextHasEnded(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	ours := errors.New("enough")
	ctx, cancel := context.WithCancelCause(soon(t))
	cancel(ours)
	for range 20 { // a wrong choice among several that are possible is not always made
		taken, reported := 0, 0
		source := func(yield func(jobs.Job) bool) {
			for more := true; more; taken++ {
				more = yield(job(""))
			}
		}
		err := in.SubmitMany(ctx, source, 0, func(_ jobs.Job, ack client.Ack, err error) {
			if reported++; !errors.Is(err, ours) || ack.Queue != jobs.DefaultQueue {
				t.Errorf("got %+v, %v; want the cause, and the queue of a job that names none", ack, err)
			}
		})
		isError(t, err, ours)
		if taken != 1 || reported != 1 {
			t.Fatalf("got %d jobs taken and %d reported, want one", taken, reported)
		}
	}
	in.queued(t, 0)
}

// silent is a client of a server on which nobody answers a publish.
func silent(t *testing.T) *installation {
	t.Helper()
	in := on(t, testenv.StartNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = false, "" }), bus.Dial{})
	nc := in.server.Connect()
	_, err := nc.Subscribe(">", func(*nats.Msg) {})
	must(t, err)
	must(t, nc.Flush())
	return in
}

// TestSubmitManyTellsOfJobsWithoutAnAnswer ends it while its window is full.
func TestSubmitManyTellsOfJobsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	in := silent(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	const window = 4
	source := func(yield func(jobs.Job) bool) {
		for i := range window {
			if !yield(job(fmt.Sprint("flying", i))) {
				return
			}
		}
		time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
		yield(job("not-published"))
	}
	told := map[string]error{}
	isError(t, in.SubmitMany(ctx, source, window, func(_ jobs.Job, ack client.Ack, err error) { told[ack.ID] = err }), enough)
	for i := range window {
		if err := told[fmt.Sprint("flying", i)]; err == nil {
			t.Errorf("job %d in flight: got %v, want an error", i, err)
		}
	}
	isError(t, told["not-published"], enough)
	if len(told) != window+1 {
		t.Errorf("told of %d jobs, want %d", len(told), window+1)
	}
}

func TestFindSeesEveryPlaceOfAJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{Queues: []string{"default", "other"}})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	in.store(t, "a", nil)
	_, err = stream.New(in.bus).Schedule(soon(t), "other", "a", []byte("x"), &jobs.Progress{}, time.Now().Add(time.Hour))
	must(t, err)
	got, err := in.Find(soon(t), client.Key{ID: "a"})
	must(t, err)
	want := []client.Found{
		{Key: key("a"), Place: client.Finished}, {Key: key("a"), Place: client.Queued}, {Key: bus.Key{Queue: "other", ID: "a"}, Place: client.Waiting},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err = in.Find(soon(t), client.Key{Queue: "other", ID: "a"}); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v in one queue, want one", got, err)
	}
}

func TestAJobInTwoPlacesIsOneJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", []byte("done"))
	_, err := stream.New(in.bus).Schedule(soon(t), "default", "a", []byte("x"), &jobs.Progress{}, time.Now().Add(time.Hour))
	must(t, err)
	if got, err := in.Resolve(soon(t), "a"); err != nil || got != key("a") {
		t.Errorf("got %s, %v; want the one job of that id", got, err)
	}
}

func TestAnIDInTwoQueuesIsAmbiguous(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for _, queue := range []string{"one", "two"} {
		_, err := in.Submit(soon(t), jobs.Job{Queue: queue, ID: "a", URL: "http://a.test/"})
		must(t, err)
	}
	_, err := in.Resolve(soon(t), "a")
	var ambiguous *client.AmbiguousError
	if !errors.As(err, &ambiguous) || !slices.Equal(ambiguous.Queues, []string{"one", "two"}) {
		t.Errorf("got %v, want both queues named", err)
	}
	if got, err := in.Resolve(soon(t), "two/a"); err != nil || got != (bus.Key{Queue: "two", ID: "a"}) {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = in.Resolve(soon(t), "b")
	isError(t, err, bus.ErrNotFound)
}

// TestNoUncheckedNameReachesTheServer: a wildcard there would read, or purge, everything.
func TestNoUncheckedNameReachesTheServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	for _, bad := range []client.Key{
		{Queue: "default", ID: "*"}, {Queue: "*", ID: "a"}, {Queue: "default", ID: ">"}, {Queue: "default", ID: "a.b"},
		{ID: "a"}, {Queue: "default"}, {Queue: "default", ID: "a b"},
	} {
		_, result := in.Result(soon(t), bad)
		_, wait := in.Wait(soon(t), bad)
		_, dead := in.DeadLetter(soon(t), bad)
		_, resolve := in.Resolve(soon(t), bad.String())
		for what, err := range map[string]error{"result": result, "wait": wait, "dead": dead, "cancel": in.Cancel(soon(t), bad), "resolve": resolve} {
			if bad.Queue == "" && what == "resolve" {
				continue // "/a" asks for any queue
			}
			if !errors.Is(err, bus.ErrNotFound) {
				t.Errorf("%s of %q: got %v, want %v", what, bad, err, bus.ErrNotFound)
			}
		}
	}
	if found, err := in.Find(soon(t), client.Key{ID: "a"}); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v; want the job where it was", found, err)
	}
}

func TestAJobsBytesArriveUnchanged(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	if got, want := msg.Data(), []byte(`{"url":"https://example.com/","method":"GET"}`); msg.Subject() != "gofer.jobs.default.a" || !bytes.HasPrefix(got, want[:20]) {
		t.Errorf("got %s %s", msg.Subject(), got)
	}
}
