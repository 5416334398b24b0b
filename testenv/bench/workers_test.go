package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/daemon"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// TestHowSoonManyWorkersAreShown measures how long gofer workers, gofer top and the page of a worker take to show a large fleet.
// WORKERS is its size. One is a real worker, the others are its control service only, each on a connection of its own. A worker
// that answers pings and nothing else has to be named, and not waited for.
//
//	WORKERS=1000 go test -count=1 -run ManyWorkersAreShown -v ./testenv/bench
func TestHowSoonManyWorkersAreShown(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("WORKERS"))
	if err != nil {
		t.Skip("skipped: set WORKERS to a number of workers")
	}
	program := testenv.Build(t)
	server := testenv.StartNATS(t, nil)
	page := oneWorker(t, server.URL())
	for i := range n - 1 {
		standIn(t, server.Connect(), fmt.Sprintf("w%04d", i))
	}
	deaf(t, server.Connect(), "deaf")
	for round := range 3 {
		verb := func(args ...string) (first time.Duration, out, notes string) {
			return firstOutput(t, exec.CommandContext(t.Context(), program, append(args, "--server", server.URL())...))
		}
		first, out, notes := verb("workers", "--json")
		var list []control.Status
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != n || !strings.Contains(notes, "deaf") {
			t.Errorf("gofer workers: %d of %d workers, %v, %q", len(list), n, err, notes)
		}
		t.Logf("round %d: gofer workers shows %d workers after %s and says: %s", round, len(list), first, strings.TrimSpace(notes))
		first, out, _ = verb("top")
		t.Logf("gofer top shows %q after %s; %s", lineWith(out, "worker"), first, lineWith(out, "no answer"))
		began := time.Now()
		body := get(t, page+"/api/v1/workers?limit=1000")
		t.Logf("GET /api/v1/workers: %d workers after %s", strings.Count(body, `"started_at"`), time.Since(began).Round(time.Millisecond))
		first, event := firstEvent(t, page+"/api/v1/live")
		t.Logf("the page has its first data after %s: %s", first, event)
	}
}

// lineWith is the first line that holds a word.
func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(strings.ToLower(line), word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// oneWorker runs a real worker until the test ends, and returns where its page is.
func oneWorker(t *testing.T, url string) (page string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxies, err := proxylist.ParseList(strings.NewReader("http://127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	started, ctx, ended := make(chan struct{}), t.Context(), make(chan error, 1)
	var once sync.Once
	ctx, stop := context.WithCancel(ctx)
	go func() {
		ended <- daemon.Run(ctx, daemon.Config{
			NATS: bus.Dial{URL: url}, Name: "real", Proxies: proxies, Listener: l, Log: slog.New(slog.DiscardHandler), DrainTimeout: 2 * time.Second,
			Started: func() { once.Do(func() { close(started) }) },
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-started
	return "http://" + l.Addr().String()
}

// standIn answers as a worker with two queues does.
func standIn(t *testing.T, nc *nats.Conn, name string) {
	t.Helper()
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s, err := control.Start(nc, control.Config{
		Names: names, Worker: name, Version: "1.0.0",
		Status: func() control.Status {
			return control.Status{
				StartedAt: began, Slots: 64, InFlight: map[string]int{"default": 3}, Ready: true, Proxies: map[string]int{"closed": 90, "open": 10},
				Queues: []control.Queue{{Queue: "default", Weight: 1}, {Queue: "low", Weight: 1}}, Reasons: []string{},
			}
		},
		Steps:    func(time.Duration, int) []rollup.Step { return nil },
		Breakers: func(int) (any, int) { return []any{}, 0 },
		Sites:    func(string, int) (any, int) { return []any{}, 0 },
		Proxies: func(control.ProxiesRequest, func(control.Proxy) bool) (r control.ProxiesResponse) {
			return r
		},
		Policy: func() (p jobs.Policy, since time.Time) { return p, since },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
}

// deaf answers pings and no verb.
func deaf(t *testing.T, nc *nats.Conn, name string) {
	t.Helper()
	s, err := micro.AddService(nc, micro.Config{Name: "gofer", Version: "0.9.0", Metadata: map[string]string{"worker": name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
}

// firstOutput runs a command and says when its first output came, the start of the process included.
func firstOutput(t *testing.T, cmd *exec.Cmd) (first time.Duration, out, notes string) {
	t.Helper()
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(pipe)
	_, _ = r.Peek(1)
	first = time.Since(began).Round(time.Millisecond)
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return first, string(rest), errOut.String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// firstEvent says when the first event of the stream has come that knows workers, and how many it counts.
func firstEvent(t *testing.T, url string) (first time.Duration, what string) {
	t.Helper()
	began := time.Now()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		var event struct {
			Workers *int `json:"worker_count"`
		}
		if isData && json.Unmarshal([]byte(data), &event) == nil && event.Workers != nil && *event.Workers > 1 {
			return time.Since(began).Round(time.Millisecond), fmt.Sprintf("%d workers, %d bytes", *event.Workers, len(data))
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return 0, ""
}
