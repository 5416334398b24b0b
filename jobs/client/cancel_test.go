package client_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

func TestACancelledJobEndsInOneCancelledResultWhereverItIs(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	places := map[string]func(id string) uint64{
		"queued": func(id string) uint64 {
			ack, err := in.Submit(soon(t), job(id))
			must(t, err)
			return ack.Seq
		},
		"running": func(id string) uint64 {
			ack, err := in.Submit(soon(t), job(id))
			must(t, err)
			consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", false)
			must(t, err)
			for taken := ""; taken != in.names.Job("default", id); {
				msg, err := consumer.Next()
				must(t, err)
				taken = msg.Subject()
			}
			return ack.Seq
		},
		"waiting": func(id string) uint64 {
			_, err := stream.New(in.bus).Schedule(soon(t), "default", id, []byte("x"), &jobs.Progress{JobSeq: 71}, time.Now().Add(time.Hour))
			must(t, err)
			return 71
		},
		"due": func(id string) uint64 {
			_, err := stream.New(in.bus).Schedule(soon(t), "default", id, []byte("x"), &jobs.Progress{JobSeq: 72}, time.Now())
			must(t, err)
			consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", true)
			must(t, err)
			_, err = consumer.Next()
			must(t, err)
			return 72
		},
	}
	var mu sync.Mutex
	told := map[string]bool{}
	stop, err := stream.New(in.bus).OnCancel(func(queue, id string) {
		mu.Lock()
		defer mu.Unlock()
		told[queue+"/"+id] = true
	})
	must(t, err)
	for id, place := range places {
		seq := place(id)
		must(t, in.Cancel(soon(t), key(id)))
		got, err := in.Result(soon(t), client.Key{Queue: "default", ID: id})
		must(t, err)
		if got.Outcome != jobs.Cancelled || got.Error != jobs.ErrCancelled || got.JobSeq != seq || got.Worker != "somebody" {
			t.Errorf("%s: got result %+v, want it cancelled with job sequence %d", id, got, seq)
		}
		if found, err := in.Find(soon(t), client.Key{ID: id}); err != nil || len(found) != 1 || found[0].Place != client.Finished {
			t.Errorf("%s: got %v, %v; want it finished and nowhere else", id, found, err)
		}
		isError(t, in.Cancel(soon(t), key(id)), client.ErrFinished)
	}
	must(t, in.nc.Flush())
	stop()
	mu.Lock()
	defer mu.Unlock()
	if len(told) != len(places) || !told["default/running"] {
		t.Errorf("workers were told of %v, want all", told)
	}
}

func TestWhatIsNotThereCannotBeCancelled(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	isError(t, in.Cancel(soon(t), key("a")), bus.ErrNotFound)
	_, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	isError(t, err, bus.ErrNotFound)
}

func TestAResultThatIsStoredIsNotReplacedByACancel(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	in.store(t, "a", []byte("done"))
	isError(t, in.Cancel(soon(t), key("a")), client.ErrFinished)
	if got, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"}); err != nil || got.Outcome != jobs.Succeeded {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestACancelThatWasBrokenOffIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := stream.New(in.bus).Schedule(soon(t), "default", "a", []byte("http://a.test/"), &jobs.Progress{JobSeq: 7}, time.Now().Add(time.Hour))
	must(t, err)
	cancelled := success("a", nil)
	cancelled.Outcome, cancelled.Error, cancelled.JobSeq = jobs.Cancelled, jobs.ErrCancelled, 7
	_, err = in.bus.StoreResult(soon(t), cancelled)
	must(t, err)
	must(t, in.Cancel(soon(t), key("a")))
	if found, err := in.Find(soon(t), client.Key{ID: "a"}); err != nil || len(found) != 1 || found[0].Place != client.Finished {
		t.Errorf("got %v, %v; want it finished and nowhere else", found, err)
	}
}

// A cancel that says so has won: whatever a worker stores at the same time is not the job's result.
func TestACancelAndAResultDoNotBothWin(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	draw := rand.New(rand.NewPCG(1, 1))
	for n := range 100 {
		id := fmt.Sprint("j", n)
		ack, err := in.Submit(soon(t), job(id))
		must(t, err)
		done := success(id, nil)
		done.JobSeq = ack.Seq
		var won atomic.Bool
		var worker sync.WaitGroup
		worker.Go(func() {
			for range draw.IntN(200) {
				runtime.Gosched() // the result comes at another step of the cancel each time
			}
			stored, err := in.bus.StoreResult(soon(t), done)
			if err != nil {
				t.Error(err)
			}
			won.Store(stored.Won)
		})
		err = in.Cancel(soon(t), key(id))
		worker.Wait()
		if kept, _ := in.Result(soon(t), client.Key{Queue: "default", ID: id}); (err == nil) == won.Load() || won.Load() != (kept.Outcome == jobs.Succeeded) {
			t.Fatalf("cancel: %v; the worker's result won: %v; kept is %s; want one of the two to win", err, won.Load(), kept.Outcome)
		}
	}
}

// The id was published again after its job was cancelled. The second job ends by the kept result, and cannot be cancelled.
func TestACancelledResultOfAnEarlierJobIsNoCancelOfThisOne(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	must(t, in.Cancel(soon(t), key("a")))
	_, err = in.bus.JetStream().Publish(soon(t), in.names.Job("default", "a"), []byte("http://a.test/"))
	must(t, err)
	isError(t, in.Cancel(soon(t), key("a")), client.ErrFinished)
	if found, err := in.Find(soon(t), client.Key{ID: "a"}); err != nil || len(found) != 2 {
		t.Errorf("got %v, %v; want the result and the second job, for its worker to end", found, err)
	}
}

func TestAJobOnItsWayFromOneStreamToAnotherIsFound(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	var once sync.Once
	published := make(chan error, 1)
	sub, err := in.nc.Subscribe("$JS.API.DIRECT.GET.GOFER_JOBS."+in.names.Job("default", "a"), func(*nats.Msg) {
		once.Do(func() { // the first look has been made
			_, err := in.Submit(soon(t), job("a"))
			published <- err
		})
	})
	must(t, err)
	must(t, in.nc.Flush())
	must(t, in.Cancel(soon(t), key("a")))
	must(t, <-published)
	must(t, sub.Unsubscribe())
}

func TestACancelThatCannotBeStoredLeavesTheJobWhereItIs(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxBytes: 1})
	_, err := in.Submit(soon(t), job("a"))
	must(t, err)
	isError(t, in.Cancel(soon(t), key("a")), bus.ErrResultsFull)
	if found, err := in.Find(soon(t), client.Key{ID: "a"}); err != nil || len(found) != 1 || found[0].Place == client.Finished {
		t.Errorf("got %v, %v; want it queued", found, err)
	}
}

func TestACancelledJobKeepsWhatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	payload := []byte(`{"url": "http://a.test/", "meta": {"for": "monday"}}`)
	tried := jobs.Progress{JobSeq: 7, Bytes: 99, Started: time.Now(), Attempts: []jobs.Attempt{{Attempt: 1, Proxy: "p1", Status: 503}}}
	_, err := stream.New(in.bus).Schedule(soon(t), "default", "a", payload, &tried, time.Now().Add(time.Hour))
	must(t, err)
	must(t, in.Cancel(soon(t), key("a")))
	r, err := in.Result(soon(t), client.Key{Queue: "default", ID: "a"})
	must(t, err)
	if r.Meta["for"] != "monday" || r.AttemptCount != 1 || r.Status != 503 || r.Proxy != "p1" || r.Bytes != 99 || r.URL != "http://a.test/" || r.JobSeq != 7 {
		t.Errorf("got %+v, want meta, attempts and what they came to", r)
	}
}

func TestAPausedQueueGivesNoJobsUntilItIsResumed(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{Queues: []string{"default", "other"}})
	for _, id := range []string{"a", "b"} {
		_, err := in.Submit(soon(t), job(id))
		must(t, err)
	}
	consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	running, err := consumer.Next()
	must(t, err)
	must(t, in.Pause(soon(t), "default", time.Time{}))
	if _, err := consumer.Next(jetstream.FetchMaxWait(200 * time.Millisecond)); err == nil {
		t.Error("a paused queue gave a job")
	}
	must(t, running.DoubleAck(soon(t)))
	must(t, in.Resume(soon(t), "default"))
	_, err = consumer.Next()
	must(t, err)
	isError(t, in.Pause(soon(t), "nobody-serves-it", time.Time{}), bus.ErrNotFound)
	isError(t, in.Resume(soon(t), "*"), bus.ErrNotFound)
}

func TestQueuesTellWhatWaitsWhere(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{Queues: []string{"default"}})
	for _, id := range []string{"a", "b", "c"} {
		_, err := in.Submit(soon(t), job(id))
		must(t, err)
	}
	_, err := in.Submit(soon(t), jobs.Job{Queue: "mispelt", ID: "a", URL: "http://a.test/"})
	must(t, err)
	_, err = stream.New(in.bus).Schedule(soon(t), "default", "p", []byte("x"), &jobs.Progress{}, time.Now().Add(time.Hour))
	must(t, err)
	_, err = stream.New(in.bus).Schedule(soon(t), "default", "q", []byte("x"), &jobs.Progress{}, time.Now())
	must(t, err)
	for _, due := range []bool{false, true} {
		consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", due)
		must(t, err)
		_, err = consumer.Next()
		must(t, err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	must(t, in.Pause(soon(t), "default", until))
	testenv.AwaitCounts(t, in.js, "GOFER_JOBS")
	got, err := in.Queues(soon(t))
	must(t, err)
	if len(got) != 2 || !got[0].PausedUntil.Equal(until) {
		t.Fatalf("got %+v, want two queues, the first one paused until %s", got, until)
	}
	got[0].PausedUntil, got[0].Pulls = time.Time{}, 0
	want := []client.QueueState{{Queue: "default", Queued: 2, Running: 2, Waiting: 1, Served: true}, {Queue: "mispelt", Queued: 1}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func TestAJobIsTakenOutOfTheWaitingAndOfTheDueOnes(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	for id, wait := range map[string]time.Duration{"waits": time.Hour, "due": 0} {
		_, err := stream.New(in.bus).Schedule(soon(t), "default", id, []byte("x"), &jobs.Progress{}, time.Now().Add(wait))
		must(t, err)
	}
	consumer, err := in.bus.EnsureJobConsumer(soon(t), "default", true)
	must(t, err)
	_, err = consumer.Next() // so that it is due
	must(t, err)
	for _, id := range []string{"waits", "due", "nowhere"} {
		must(t, in.bus.RemoveScheduled(soon(t), "default", id))
		if found, err := in.Find(soon(t), client.Key{ID: id}); err != nil || len(found) > 0 {
			t.Errorf("got %v, %v; want nothing to be left of job %s", found, err, id)
		}
	}
}

// With a job at or below the ack floor of its consumer, the server counts the job as acked and never gives it out again.
func TestWhatIsTakenOutWhileItRunsCostsNoOlderJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	submit := func(t *testing.T, id string) {
		t.Helper()
		_, err := in.Submit(soon(t), job(id))
		must(t, err)
	}
	parkDue := func(t *testing.T, id string) {
		t.Helper()
		_, err := stream.New(in.bus).Schedule(soon(t), "default", id, []byte("x"), &jobs.Progress{}, time.Now())
		must(t, err)
	}
	cancel := func(t *testing.T, id string) error { t.Helper(); return in.Cancel(soon(t), key(id)) }
	for _, c := range []struct {
		name, stream, durable string
		put                   func(*testing.T, string)
		takeOut               func(*testing.T, string) error
	}{
		{"cancelled", "GOFER_JOBS", in.names.WorkerConsumer("default"), submit, cancel},
		{"due-cancelled", "GOFER_RETRIES", in.names.DueConsumer("default"), parkDue, cancel},
		{"due-unparked", "GOFER_RETRIES", in.names.DueConsumer("default"), parkDue, func(t *testing.T, id string) error {
			t.Helper()
			return in.bus.RemoveScheduled(soon(t), "default", id)
		}},
		{"dead", "GOFER_DEAD", bus.Reader, func(t *testing.T, id string) { t.Helper(); in.keepDeadLetters(t, id) }, func(t *testing.T, id string) error {
			t.Helper()
			letter, err := in.DeadLetter(soon(t), key(id))
			must(t, err)
			return in.RemoveDeadLetter(soon(t), letter)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			consumer, err := in.js.Consumer(soon(t), c.stream, c.durable)
			must(t, err)
			var taken []jetstream.Msg
			for n := range 3 {
				c.put(t, fmt.Sprint(c.name, n))
				msg, err := consumer.Next()
				must(t, err)
				taken = append(taken, msg)
			}
			must(t, c.takeOut(t, fmt.Sprint(c.name, 1)))
			must(t, taken[2].DoubleAck(soon(t)))
			older, err := taken[0].Metadata()
			must(t, err)
			// The server counts what was taken out a moment later.
			testenv.Eventually(t, "the counter of the server", func() bool {
				info, err := consumer.Info(soon(t))
				must(t, err)
				if info.AckFloor.Stream >= older.Sequence.Stream {
					t.Fatalf("got %d as the ack floor, want it below %d, which is not acked", info.AckFloor.Stream, older.Sequence.Stream)
				}
				return info.NumAckPending == 1
			})
			must(t, taken[0].DoubleAck(soon(t)))
		})
	}
}

func TestNoPurgeTakesMoreThanOneJob(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.keepDeadLetters(t, "a", "b")
	_, err := stream.New(in.bus).Schedule(soon(t), "default", "a", []byte("x"), &jobs.Progress{}, time.Now().Add(time.Hour))
	must(t, err)
	for _, id := range []string{">", "*", "", "a b"} {
		if err := in.RemoveDeadLetter(soon(t), client.DeadLetter{Key: key(id), Seq: 100}); err == nil {
			t.Errorf("the letters of %q were removed, want an error", id)
		}
		if err := in.bus.RemoveScheduled(soon(t), "default", id); err == nil {
			t.Errorf("the waiting jobs of %q were removed, want an error", id)
		}
	}
	if found, err := in.Find(soon(t), client.Key{ID: "a"}); err != nil || len(found) != 1 || in.dead(t) != "a b" {
		t.Errorf("got %v, %v, letters %q; want all to be still there", found, err, in.dead(t))
	}
}
