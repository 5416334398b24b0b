package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// closeForGood has the server break off every connection at its next message, in a way that nats.go takes as final.
func (w *world) closeForGood() {
	w.Helper()
	w.nats.Reload(func(o *server.Options) { o.MaxPayload = 10 })
}

// TestAWorkerWhoseConnectionIsClosedForGoodEnds: it would be of no use to anybody, and whoever watches over it starts another
// one.
func TestAWorkerWhoseConnectionIsClosedForGoodEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{AckWait: time.Hour}); err != nil { // with its lease the job would end anyway
		t.Fatal(err)
	}
	p := w.worker(freeAddr(t))
	w.publish("j1", job("/slow/60000", nil))
	testenv.Eventually(t, "the job to be fetched", func() bool { return w.origin.Count("/slow/60000") == 1 })
	w.closeForGood()
	select {
	case code := <-p.code:
		p.code <- code
		if code != exitUnreachable {
			t.Errorf("exit %d, want %d", code, exitUnreachable)
		}
	case <-time.After(patience):
		t.Fatalf("the worker goes on; it said:\n%s", p.log)
	}
	if text := p.log.String(); !strings.Contains(text, "gofer: NATS cannot be reached: the connection is closed for good: Maximum Payload Violation") {
		t.Errorf("the worker said %s, want the reason last", text)
	}
}
