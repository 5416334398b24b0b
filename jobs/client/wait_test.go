package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// eachWait is a WaitEach that runs.
type eachWait struct {
	keys    chan bus.Key
	results chan jobs.Result // closed at its end
	err     error            // of its end
}

// waitEach starts a WaitEach whose use first calls hold.
func (in *installation) waitEach(t *testing.T, hold func(jobs.Result)) *eachWait {
	t.Helper()
	w := &eachWait{keys: make(chan bus.Key), results: make(chan jobs.Result, 1000)}
	go func() {
		defer close(w.results)
		w.err = in.WaitEach(soon(t), w.keys, func(r jobs.Result) error {
			hold(r)
			w.results <- r
			return nil
		})
	}()
	return w
}

func (w *eachWait) isNext(t *testing.T, id string) {
	t.Helper()
	r, more := <-w.results
	if !more {
		t.Fatalf("ended with %v, want the result of %s", w.err, id)
	}
	if r.ID != id {
		t.Fatalf("got the result of %s, want that of %s", r.ID, id)
	}
}

// isOver waits for the end.
func (w *eachWait) isOver(t *testing.T) {
	t.Helper()
	if r, more := <-w.results; more {
		t.Fatalf("got the result of %s, want the end", r.ID)
	}
	must(t, w.err)
}

func holdNothing(jobs.Result) {}

func TestWaitEachBringsResultsWhileKeysCome(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	w := in.waitEach(t, holdNothing)
	for i := range 100 { // more than are subscribed to one by one
		id := fmt.Sprint("j", i)
		if i%2 == 0 {
			in.store(t, id, nil)
		}
		w.keys <- key(id)
		if i%2 == 1 {
			in.store(t, id, nil)
		}
		w.isNext(t, id)
	}
	for i := range 100 {
		w.keys <- key(fmt.Sprint("k", i))
	}
	w.keys <- key("k0") // twice is once
	close(w.keys)
	for i := range 100 {
		in.store(t, fmt.Sprint("k", i), nil)
		w.isNext(t, fmt.Sprint("k", i))
	}
	w.isOver(t)
}

func TestWaitEachReturnsTheErrorOfItsUser(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.store(t, "a", nil)
	for _, stop := range []error{errors.New("stop"), nats.ErrTimeout} { // the waiter's own time-outs pass
		keys := make(chan bus.Key, 1)
		keys <- key("a")
		isError(t, in.WaitEach(soon(t), keys, func(jobs.Result) error { return stop }), stop)
	}
	keys := make(chan bus.Key, 1)
	keys <- bus.Key{Queue: "default", ID: "*"}
	isError(t, in.WaitEach(soon(t), keys, func(jobs.Result) error { return nil }), bus.ErrNotFound)
}

// TestAWaitThatEndsWithinALookUpReturnsTheCause speaks to a server without JetStream: a look-up gets no answer.
func TestAWaitThatEndsWithinALookUpReturnsTheCause(t *testing.T) {
	t.Parallel()
	in := on(t, testenv.StartNATS(t, func(o *server.Options) { o.JetStream = false }), bus.Dial{})
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(soon(t))
	_, err := in.nc.Subscribe("$JS.API.DIRECT.GET.GOFER_RESULTS", func(*nats.Msg) { cancel(stop) })
	must(t, err)
	keys := make(chan bus.Key, 1)
	keys <- key("a")
	if err := in.WaitEach(ctx, keys, func(jobs.Result) error { return nil }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause of the end", err)
	}
}

// muteResults takes the republishing away, so that no subscriber hears of any result.
func (in *installation) muteResults(t *testing.T) {
	t.Helper()
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	config := stream.CachedInfo().Config
	config.RePublish = nil
	_, err = in.js.UpdateStream(soon(t), config)
	must(t, err)
}

// lookUps receives when a waiter looks results up.
func (in *installation) lookUps(t *testing.T) <-chan *nats.Msg {
	t.Helper()
	seen := make(chan *nats.Msg, 100)
	nc := in.server.Connect()
	_, err := nc.ChanSubscribe("$JS.API.DIRECT.GET.GOFER_RESULTS", seen)
	must(t, err)
	must(t, nc.Flush())
	return seen
}

// TestAWaiterLooksAtOnceAfterAReconnect: what came while the connection was broken reached no subscription.
func TestAWaiterLooksAtOnceAfterAReconnect(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	in.muteResults(t)
	other := on(t, in.server, bus.Dial{})
	looked := in.lookUps(t)
	w := in.waitEach(t, holdNothing)
	var took []time.Duration
	for n := range 5 { // a slow machine may be late, but not each time
		id := fmt.Sprint("a", n)
		w.keys <- key(id)
		for !bytes.Contains((<-looked).Data, []byte("."+id)) {
			continue
		}
		began := time.Now()
		other.store(t, id, nil)
		must(t, in.nc.ForceReconnect())
		w.isNext(t, id)
		took = append(took, time.Since(began))
		if took[n] < 2*time.Second {
			break
		}
	}
	if slices.Min(took) > 2*time.Second {
		t.Errorf("the results were found after %s, as the next sweeps would have", took)
	}
	close(w.keys)
	w.isOver(t)
}

// TestAWaiterLooksAtOnceAfterADrop has more results come, while the first one is used, than a subscription keeps.
func TestAWaiterLooksAtOnceAfterADrop(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	looked := in.lookUps(t)
	used, release := make(chan bool, 1), make(chan bool)
	w := in.waitEach(t, func(r jobs.Result) {
		if r.ID == "first" {
			used <- true
			<-release
		}
	})
	for i := range 70 { // so many that the waiter subscribes to the queue
		w.keys <- key(fmt.Sprint("open", i))
	}
	w.keys <- key("first")
	w.keys <- key("lost")
	for !bytes.Contains((<-looked).Data, []byte(".lost")) {
		continue
	}
	other := on(t, in.server, bus.Dial{})
	other.store(t, "first", nil)
	<-used
	const size = 64 << 10
	for range 70 << 20 / size {
		must(t, other.nc.Publish("gofer.results.default.unknown", make([]byte, size)))
	}
	other.store(t, "lost", make([]byte, 2*size)) // larger than the room that is left
	testenv.Eventually(t, "all of it to be sent", func() bool {
		must(t, in.nc.Flush())
		return in.nc.LastError() != nil
	})
	isError(t, in.nc.LastError(), nats.ErrSlowConsumer)
	began := time.Now()
	close(release)
	w.isNext(t, "first")
	w.isNext(t, "lost")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the lost result was found after %s, as the next sweep would have", took)
	}
}

func TestSweepsAreAtMostHalfAMinuteApart(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{
		0: 5 * time.Second, 5 * time.Second: 5 * time.Second, 6 * time.Second: 6 * time.Second, time.Minute: 30 * time.Second,
	} {
		if got := client.SweepPause(took); got != want {
			t.Errorf("after a sweep of %s: got %s, want %s", took, got, want)
		}
	}
}
