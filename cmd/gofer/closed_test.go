package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// relay passes on connections to a server, and can break them off in a way that nats.go takes as final. A server that is told to
// do so while it works has data races of its own.
type relay struct {
	mu      sync.Mutex // guards clients, and is held while something is written to one
	clients []net.Conn
}

// startRelay returns a relay and its URL.
func (w *world) startRelay() (r *relay, url string) {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	r = &relay{}
	var relaying sync.WaitGroup
	relaying.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			relaying.Go(func() { r.serve(c, strings.TrimPrefix(w.nats.URL(), "nats://")) })
		}
	})
	w.Cleanup(func() {
		_ = l.Close()
		r.breakOff()
		relaying.Wait()
	})
	return r, "nats://" + l.Addr().String()
}

// serve relays a connection until one of its ends closes it.
func (r *relay) serve(c net.Conn, server string) {
	up, err := net.Dial("tcp", server)
	if err != nil {
		_ = c.Close()
		return
	}
	r.mu.Lock()
	r.clients = append(r.clients, c)
	r.mu.Unlock()
	go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
	for buf := make([]byte, 32<<10); ; {
		n, err := up.Read(buf)
		r.mu.Lock()
		_, failed := c.Write(buf[:n])
		r.mu.Unlock()
		if err != nil || failed != nil {
			_ = c.Close()
			return
		}
	}
}

// breakOff ends every connection as a server does that refuses a message for its size.
func (r *relay) breakOff() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		_, _ = io.WriteString(c, "-ERR 'Maximum Payload Violation'\r\n")
		_ = c.Close()
	}
	r.clients = nil
}

// TestAWorkerWhoseConnectionIsClosedForGoodEnds: it would be of no use to anybody, and whoever watches over it starts another
// one.
func TestAWorkerWhoseConnectionIsClosedForGoodEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	// With its lease the job would end anyway.
	if err := w.client.Ensure(t.Context(), bus.Settings{AckWait: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r, url := w.startRelay()
	setenv(t, "GOFER_NATS_URL", url)
	p := w.worker(freeAddr(t))
	w.publish("j1", job("/slow/60000", nil))
	testenv.Eventually(t, "the job to be fetched", func() bool { return w.origin.Count("/slow/60000") == 1 })
	r.breakOff()
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
