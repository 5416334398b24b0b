package daemon_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/daemon"
)

const drainTimeout = time.Second

// running is a worker that runs until the test ends.
type running struct {
	*testing.T
	url   string // of its HTTP port
	log   *testenv.Log
	stop  context.CancelFunc
	ended chan error
}

// run runs a worker with a listener and a log of its own.
func run(t *testing.T, c daemon.Config) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{T: t, url: "http://" + l.Addr().String(), log: new(testenv.Log), ended: make(chan error, 1)}
	c.Listener, c.Log, c.DrainTimeout = l, slog.New(slog.NewTextHandler(r.log, nil)), cmp.Or(c.DrainTimeout, drainTimeout)
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- daemon.Run(ctx, c) }()
	t.Cleanup(func() { _ = r.end() })
	return r
}

// end drains the worker and returns what Run did.
func (r *running) end() error {
	r.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(drainTimeout + testenv.Patience):
		r.Fatalf("the worker goes on; it said:\n%s", r.log)
		return nil
	}
}

// ready is the verbose page of readiness.
func (r *running) ready() (status int, page string) {
	resp, err := http.Get(r.url + "/readyz?verbose")
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data)
}

// until waits until the page of readiness has a text.
func (r *running) until(text string) {
	r.Helper()
	testenv.Eventually(r.T, text, func() bool { _, page := r.ready(); return strings.Contains(page, text) })
}

func parse(t *testing.T, lines ...string) []proxylist.Proxy {
	t.Helper()
	list, err := proxylist.ParseList(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEveryFieldThatNoWorkerCanHaveIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	policy := jobs.DefaultPolicy()
	policy.MaxAttempts = 11
	err = daemon.Run(t.Context(), daemon.Config{
		NATS: bus.Dial{URL: "nats://[::1"}, Prefix: "Upper", Queues: []worker.Queue{{Name: "a"}, {Name: "a"}}, Concurrency: -1, Name: "a b", Strategy: "best",
		Policy: &policy, AttemptTimeout: -1, MaxBodyBytes: -1, MaxWait: -1, SiteMaxWait: -1, HostRate: -1, HostConcurrency: -1, HealthPage: "ftp://a.test/", HealthInterval: -1,
		Listener: listener, DrainTimeout: -1,
	})
	if err == nil {
		t.Fatal("it ran")
	}
	for field := range strings.FieldsSeq("NATS Prefix Queues Concurrency Name Strategy Policy AttemptTimeout MaxBodyBytes MaxWait SiteMaxWait HostRate HostConcurrency HealthPage HealthInterval Listener DrainTimeout") {
		if n := strings.Count(err.Error(), "daemon.Config."+field+": "); n != 1 {
			t.Errorf("%s is named %d times in:\n%v", field, n, err)
		}
	}
	if !errors.Is(err, admin.ErrNoToken) || !errors.Is(err, bus.ErrConfig) {
		t.Errorf("the causes are not wrapped: %v", err)
	}
	if c, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the listener was left open")
	}
	for name, list := range map[string][]worker.Queue{"a bad name": {{Name: "A"}}, "too many": make([]worker.Queue, 33)} {
		for i := range list {
			if list[i].Name == "" {
				list[i].Name = "q" + strings.Repeat("x", i)[:min(i, 30)] + string(rune('a'+i%26))
			}
		}
		if err := daemon.Run(t.Context(), daemon.Config{Queues: list}); err == nil || !strings.Contains(err.Error(), "Queues") {
			t.Errorf("%s: %v, want the queues refused", name, err)
		}
	}
}

// TestAWorkerSaysWhatItWaitsFor: without a server it is not ready, and it ends as soon as it is asked to.
func TestAWorkerSaysWhatItWaitsFor(t *testing.T) {
	w := run(t, daemon.Config{
		NATS: bus.Dial{URL: "nats://127.0.0.1:1"}, Explain: func(err error) string { return "explained: " + err.Error() },
	})
	w.until("explained: NATS cannot be reached")
	if status, page := w.ready(); status != http.StatusServiceUnavailable || !strings.Contains(page, "explained: "+daemon.ErrNoProxies.Error()) {
		t.Errorf("ready is %d:\n%s\nwant it to say that there is no proxy", status, page)
	}
	if err := w.end(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestAListThatCannotBeReadLeavesTheLastGoodOne: /readyz says since when, and the worker stays ready.
func TestAListThatCannotBeReadLeavesTheLastGoodOne(t *testing.T) {
	type reading struct {
		proxies []proxylist.Proxy
		err     error
	}
	read := make(chan reading)
	w := run(t, daemon.Config{
		NATS:    bus.Dial{URL: testenv.StartNATS(t, nil).URL()},
		Proxies: parse(t, "http://192.0.2.1:80"),
		WatchProxies: func(ctx context.Context, use func([]proxylist.Proxy, error)) {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-read:
					use(r.proxies, r.err)
				}
			}
		},
	})
	testenv.Eventually(t, "readiness", func() bool { status, _ := w.ready(); return status == http.StatusOK })
	read <- reading{nil, errors.New("line 3: bad\nline 4: bad\nline 5: bad")}
	w.until("1 in the pool; the proxies cannot be read since ")
	status, before := w.ready()
	if status != http.StatusOK || !strings.Contains(before, "Z: line 3: bad (and 2 more)") {
		t.Errorf("ready is %d:\n%s\nwant it ready, with the first reason", status, before)
	}
	began := time.Now().Truncate(time.Second)
	testenv.Eventually(t, "another second, which is what the page shows", func() bool { return time.Since(began) > time.Second })
	read <- reading{nil, errors.New("line 4: bad")}
	w.until("line 4")
	if _, page := w.ready(); page != strings.Replace(before, "line 3: bad (and 2 more)", "line 4: bad", 1) {
		t.Errorf("the page is\n%s\nwant the moment of the first failure, as in\n%s", page, before)
	}
	read <- reading{parse(t, "http://192.0.2.1:80", "http://192.0.2.2:80"), nil}
	w.until("2 in the pool")
	if _, page := w.ready(); strings.Contains(page, "cannot be read") {
		t.Errorf("a good list does not end the trouble:\n%s", page)
	}
}

// TestEventsThatNobodyTakesDoNotHoldUpTheEnd fills the outbox of a worker with events whose publishing takes as long as it may.
func TestEventsThatNobodyTakesDoNotHoldUpTheEnd(t *testing.T) {
	log := new(testenv.Log)
	w, err := daemon.New(daemon.Config{
		NATS: bus.Dial{URL: testenv.StartNATS(t, nil).URL()}, DrainTimeout: drainTimeout, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var tried atomic.Int64
	for range 100 {
		w.Send(func(ctx context.Context) error {
			tried.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	testenv.Eventually(t, "the first event to be published", func() bool { return tried.Load() > 0 })
	stop()
	select {
	case err := <-ended:
		if err != nil || tried.Load() > 50 { // each takes five seconds, or the rest of the drain
			t.Errorf("ended with %v after %d tries; it said:\n%s", err, tried.Load(), log)
		}
	case <-time.After(drainTimeout + testenv.Patience):
		t.Fatalf("the worker goes on; it said:\n%s", log)
	}
	// The task of the events may end a moment after Run, which does not wait for it for longer than it may.
	testenv.Eventually(t, "a word about what is lost", func() bool {
		return strings.Contains(log.String(), "events of the last seconds are lost")
	})
}

// TestDrainingIsAnnounced: a program that embeds a worker may bound the end.
func TestDrainingIsAnnounced(t *testing.T) {
	drains := make(chan struct{}, 2)
	w := run(t, daemon.Config{
		NATS: bus.Dial{URL: testenv.StartNATS(t, nil).URL()}, Breaker: breaker.Config{}, Draining: func() { drains <- struct{}{} },
	})
	w.until("] consuming: every queue is pulled from")
	if len(drains) != 0 {
		t.Error("it drains before it was asked to")
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the word that it drains", func() bool { return len(drains) == 1 })
}
