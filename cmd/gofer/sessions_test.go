package main

import (
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// faultyOnce is a gateway each of whose exits works, but for one that cuts a single answer off.
type faultyOnce struct {
	mu  sync.Mutex
	cut string // the user whose next answer is cut off
}

func (g *faultyOnce) exit(user, _ string) (testenv.Mode, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if user == g.cut {
		g.cut = ""
		return testenv.Cutting, true
	}
	return testenv.Good, true
}

// runSession runs a job of a session in the queue of one worker, and returns its result.
func (w *world) runSession(queue, id string) jobs.Result {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	payload := job("/ok", map[string]any{"proxy": map[string]any{"session": "cart-7"}, "retry": map[string]any{"max_attempts": 1}})
	if _, err := js.Publish(w.Context(), "gofer.jobs."+queue+"."+id, []byte(payload)); err != nil {
		w.Fatal(err)
	}
	r, err := client.New(w.client).Wait(w.Context(), client.Key{Queue: queue, ID: id})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func TestAnExitThatFailsAtOneWorkerIsLeftByTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	gate := &faultyOnce{}
	proxy := &testenv.Proxy{Resolve: w.proxy.Resolve, Exit: gate.exit}
	if err := proxy.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	setenv(t, "GOFER_PROXIES", "http://u-{session}:s3cret@"+proxy.Addr()+" id=gate")
	for _, name := range []string{"one", "two"} {
		setenv(t, "GOFER_QUEUES", name)
		w.named(name)
	}
	first := w.runSession("one", "first")
	if same := w.runSession("two", "same"); same.Exit != first.Exit || first.Outcome != jobs.Succeeded {
		t.Fatalf("exits %q, %s, and %q of one session, want the same at both workers", first.Exit, first.Outcome, same.Exit)
	}
	gate.mu.Lock()
	gate.cut = "u-" + first.Exit
	gate.mu.Unlock()
	if r := w.runSession("one", "fails"); r.Outcome != jobs.Failed || r.Exit != first.Exit {
		t.Fatalf("%s through %q, want a failure through %q", r.Outcome, r.Exit, first.Exit)
	}
	next := w.runSession("one", "next").Exit
	n := 0
	testenv.Eventually(t, "the other worker to use the next exit", func() bool {
		n++
		return w.runSession("two", strconv.Itoa(n)).Exit == next
	})
	if next == first.Exit {
		t.Errorf("the session stays at %q after it failed", next)
	}
}
