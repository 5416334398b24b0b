package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/rollup"
)

func TestLiveStreamSendsASnapshotASecondAndEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, nil)
		time.Sleep(2 * time.Second) // no step ends in the next 2.5 s
		ctx, leave := context.WithCancel(t.Context())
		rec := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.ServeHTTP(rec, request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
		}()
		time.Sleep(2500 * time.Millisecond)
		leave()
		<-done
		events := strings.Split(strings.TrimSpace(rec.Body.String()), "\n\n")
		if len(events) != 3 || rec.Header().Get("Content-Type") != "text/event-stream" || !rec.Flushed {
			t.Fatalf("events in 2.5 s: got %d, want 3", len(events))
		}
		if !strings.Contains(events[0], `"worker":"w1"`) || strings.Contains(events[1]+events[2], `"worker"`) {
			t.Errorf("the first event is not whole, or a later one repeats what did not change: %s", events)
		}
		for _, event := range events[1:] {
			if !strings.HasPrefix(event, `data: {"at":"`) || len(event) > 300 {
				t.Errorf("event of a worker that does nothing: got %s, want the time and hardly more", event)
			}
		}
	})
}

func TestAPageHasItsFirstDataAtOnceThoughNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, func(c *admin.Config) {
			c.Operator.Queues = func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() }
			c.Fleet = func(ctx context.Context, _, _ int) ([]admin.Worker, error) { <-ctx.Done(); return nil, ctx.Err() }
			c.Operator.DeadGroups = func(ctx context.Context) ([]admin.DeadGroup, uint64, error) { <-ctx.Done(); return nil, 0, ctx.Err() }
		})
		ctx, leave := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer leave()
		began := time.Now()
		rec := w.do(request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
		if body, took := rec.Body.String(), time.Since(began); strings.Count(body, "data: {") != 1 || took > 300*time.Millisecond {
			t.Errorf("the first event in %s: got %.60q, want one within 300 ms", took, body)
		}
		time.Sleep(time.Minute) // the questions end
	})
}

// TestAPageShowsALargeFleetAsSoonAsItHasAnswered: the first second has more than one snapshot while the fleet is asked.
func TestAPageShowsALargeFleetAsSoonAsItHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, func(c *admin.Config) {
			c.Fleet = func(context.Context, int, int) ([]admin.Worker, error) {
				time.Sleep(700 * time.Millisecond)
				return []admin.Worker{{Worker: "far-1"}, {Worker: "far-2"}}, nil
			}
		})
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		rec := w.do(request("GET", "/api/v1/live", "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
		if body := rec.Body.String(); strings.Count(body, "data: {") > 5 || !strings.Contains(body, `"far-2"`) {
			t.Errorf("the first second: got %d events, want at most 5, and the workers of the fleet in one", strings.Count(body, "data: {"))
		}
		time.Sleep(time.Minute)
	})
}

func TestShutdownEndsLiveStreams(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config = admin.NewServer(newWorker(t, nil), nil)
	server.Start()
	defer server.Close()
	response := fetch(t, http.DefaultClient, server.URL+"/api/v1/live")
	defer func() { _ = response.Body.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown with an open stream: got %v", err)
	}
	if body, _ := io.ReadAll(response.Body); !strings.HasPrefix(string(body), "data: {") {
		t.Errorf("stream: got %.40q, want a first event", body)
	}
}

// pipes is a listener whose connections are in memory, so that a server with deadlines runs in a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error { close(p.done); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

func TestLiveStreamOutlivesTheServersTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := pipes{make(chan net.Conn), make(chan struct{})}
		server := admin.NewServer(newWorker(t, nil), nil)
		served := make(chan error)
		go func() { served <- server.Serve(listener) }()
		client := &http.Client{Transport: &http.Transport{DialContext: listener.dial}}
		response := fetch(t, client, "http://127.0.0.1/api/v1/live")
		started, events := time.Now(), 0
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<20)
		for time.Since(started) < 2*time.Minute && lines.Scan() {
			events += strings.Count(lines.Text(), "data: {")
		}
		if events < 118 || events > 122 {
			t.Errorf("events in two minutes: got %d, want about 120", events)
		}
		_ = response.Body.Close()
		client.CloseIdleConnections()
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("server ended with %v", err)
		}
	})
}

// event decodes the first event of a live stream.
func (w *worker) event(t *testing.T, into any) {
	t.Helper()
	w.eventOf(t, "/api/v1/live", into)
}

// firstNow is the first event of a stream that ends at once, without a server: fit for a bubble.
func (w *worker) firstNow(t *testing.T) (s admin.Snapshot) {
	t.Helper()
	return w.firstNowOf(t, "")
}

// firstNowOf is firstNow of a stream that watches a worker, or all.
func (w *worker) firstNowOf(t *testing.T, watched string) (s admin.Snapshot) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	rec := w.do(request("GET", "/api/v1/live?worker="+watched, "", func(r *http.Request) { *r = *r.WithContext(ctx) }))
	data, _, _ := strings.Cut(strings.TrimPrefix(rec.Body.String(), "data: "), "\n")
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *worker) eventOf(t *testing.T, path string, into any) {
	t.Helper()
	server := httptest.NewServer(w)
	defer server.Close()
	response := fetch(t, http.DefaultClient, server.URL+path)
	defer func() { _ = response.Body.Close() }()
	buf := make([]byte, len("data: "))
	if _, err := response.Body.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func TestLiveEventsAreWhatTheDocumentSays(t *testing.T) {
	w := busyWorker(t, nil)
	doc := readDocument(t, w)
	var v map[string]any
	w.event(t, &v)
	for _, wrong := range doc.check(map[string]any{"$ref": "#/components/schemas/Snapshot"}, v, "event") {
		t.Error(wrong)
	}
	for _, list := range []string{"workers", "sites", "proxies", "problems", "dead", "failures", "retries", "queues", "hours", "checks"} {
		if len(v[list].([]any)) == 0 {
			t.Errorf("event: %s is empty, so nothing about it was compared", list)
		}
	}
}

func TestFailedJobsAreShownWithTheReason(t *testing.T) {
	w := newWorker(t, nil)
	w.book.AddJob(rollup.JobFact{ID: "j1", Outcome: jobs.Failed, Error: jobs.ErrNoProxy, Detail: "no proxy has the tag de", URL: "http://a.test/1"})
	w.book.AddJob(rollup.JobFact{ID: "j2", Outcome: jobs.Failed, Error: jobs.ErrInvalidJob, Detail: strings.Repeat("é", 1000)})
	var s admin.Snapshot
	w.event(t, &s)
	if len(s.Failures) != 2 || s.Failures[1].Detail != "no proxy has the tag de" || s.Failures[1].URL != "http://a.test/1" {
		t.Errorf("failures: got %+v, want both jobs with the reason", s.Failures)
	}
	if got := s.Failures[0].Detail; len(got) > 300 || !strings.HasSuffix(got, "é…") || !utf8.ValidString(got) {
		t.Errorf("long reason: got %d bytes, %q", len(got), got)
	}
}

func TestReadersThatTakeNothingAreEndedSoon(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	// Large snapshots fill the buffers between the two soon.
	server.Config = admin.NewServer(newWorker(t, func(c *admin.Config) { c.Worker = strings.Repeat("w", 1<<18) }), nil)
	server.Start()
	defer server.Close()
	for range 64 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "GET /api/v1/live HTTP/1.1\r\nHost: w\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// It is let in before it stops to read.
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
			t.Fatal(err)
		}
	}
	watch := func() int {
		response := fetch(t, http.DefaultClient, server.URL+"/api/v1/live")
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); watch() != http.StatusOK; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("pages are still refused because of readers that take nothing")
		}
	}
}

func TestPagesThatWatchAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		w := newWorker(t, func(c *admin.Config) { c.Ready = func() []admin.Check { asked++; return nil } })
		ctx, leave := context.WithCancel(t.Context())
		var pages sync.WaitGroup
		watch := func(r *http.Request) { *r = *r.WithContext(ctx) }
		for range 64 {
			pages.Go(func() { w.do(request("GET", "/api/v1/live", "", watch)) })
		}
		synctest.Wait()
		refusal(t, w.do(request("GET", "/api/v1/live", "", watch)), http.StatusServiceUnavailable)
		if asked != 1 {
			t.Errorf("snapshots made for 64 pages: got %d, want 1", asked)
		}
		leave()
		pages.Wait()
	})
}
