package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv"
)

// asServer is the variable that makes this test binary a NATS server with its streams in the folder that it names.
const asServer = "RUN_AS_A_NATS_SERVER"

// serveNATS runs a server until the process is killed, and prints its URL.
func serveNATS(dir string) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "child", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		panic(err)
	}
	srv.Start()
	srv.ReadyForConnections(patience)
	fmt.Println(srv.ClientURL())
	srv.WaitForShutdown()
}

// startServer starts a NATS server in a process of its own, which can be frozen.
func startServer(t *testing.T) (p *child, url string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asServer+"="+t.TempDir())
	p = launch(t, cmd, nil)
	p.lines(1)
	return p, strings.TrimSpace(p.out.String())
}

// ending is a worker in a process of its own that is about to end, with what surrounds it.
type ending struct {
	*testing.T
	origin *testenv.Origin
	server *child
	url    string // of NATS
	addr   string // of the HTTP port
	worker *child
}

const drainTimeout = time.Second

// newEnding starts a worker whose drain timeout is a second. Without a URL of NATS it gets a server.
func newEnding(t *testing.T, url string) *ending {
	t.Helper()
	e := &ending{T: t, origin: testenv.StartOrigin(t, false), addr: freeAddr(t), url: url}
	want := http.StatusServiceUnavailable
	if url == "" {
		e.server, e.url = startServer(t)
		want = http.StatusOK
	}
	proxy := &testenv.Proxy{Resolve: func(string) string { return e.origin.Addr() }}
	if err := proxy.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	cmd := command(t, "", "worker")
	cmd.Env = append(cmd.Env, "GOFER_NATS_URL="+e.url, "GOFER_HTTP_ADDR="+e.addr, "GOFER_PROXIES="+proxy.URL("http"),
		"GOFER_DRAIN_TIMEOUT="+drainTimeout.String(), "GOFER_LOG_FORMAT=text")
	e.worker = launch(t, cmd, nil)
	testenv.Eventually(t, "the worker to start", func() bool {
		resp, err := http.Get("http://" + e.addr + "/readyz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == want
	})
	return e
}

// publish publishes so many jobs, and waits until the site has been asked for all of them.
func (e *ending) publish(count int, path string, fields map[string]any) {
	e.Helper()
	nc, err := nats.Connect(e.url)
	if err != nil {
		e.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		e.Fatal(err)
	}
	for i := range count {
		if _, err := js.Publish(e.Context(), fmt.Sprint("gofer.jobs.default.j", i), []byte(job(path, fields))); err != nil {
			e.Fatal(err)
		}
	}
	path, _, _ = strings.Cut(path, "?")
	testenv.Eventually(e.T, "the jobs to be fetched", func() bool { return e.origin.Count(path) == count })
}

// open sends a request to the HTTP port, waits for the first line of the response, and holds the connection.
func (e *ending) open(request string) {
	e.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = conn.Close() })
	if request == "" {
		return
	}
	if _, err := fmt.Fprintf(conn, "%s\r\nHost: 127.0.0.1\r\n\r\n", request); err != nil {
		e.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		e.Fatal(err)
	}
}

// freeze stops the server in its tracks.
func (e *ending) freeze() { e.server.signal(syscall.SIGSTOP) }

// kill takes the server away.
func (e *ending) kill() {
	e.server.signal(syscall.SIGKILL)
	<-e.server.done
}

// silence puts a server in the place of the worker's on which JetStream takes every request and answers none, as without a
// leader.
func (e *ending) silence() {
	e.kill()
	var port int
	if _, err := fmt.Sscanf(e.url, "nats://127.0.0.1:%d", &port); err != nil {
		e.Fatal(err)
	}
	s := testenv.StartNATS(e.T, func(o *server.Options) { o.JetStream, o.StoreDir, o.Port = false, "", port })
	if _, err := s.Connect().Subscribe(">", func(*nats.Msg) {}); err != nil {
		e.Fatal(err)
	}
	testenv.Eventually(e.T, "the worker to connect", func() bool { return s.Clients() == 2 })
}

const (
	// slowPattern takes minutes for a page of a million x.
	slowPattern = "x{1,480}x{1,400}b"
	// slowRequest waits for its body, and says so.
	slowRequest = "PUT /api/v1/retry/policy HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue"
)

// TestAWorkerEndsWithinItsDrainTimeout brings every state of NATS together with every kind of unfinished work.
func TestAWorkerEndsWithinItsDrainTimeout(t *testing.T) {
	t.Parallel()
	states := map[string]func(*ending){
		"up": func(*ending) {}, "frozen": (*ending).freeze, "dead": (*ending).kill, "silent": (*ending).silence, "never reached": nil, "never greets": nil,
	}
	kinds := map[string]struct {
		begin     func(*ending)
		needsNATS bool
	}{
		"running attempt": {func(e *ending) { e.publish(1, "/slow/60000", nil) }, true},
		"ban pattern": {func(e *ending) {
			e.publish(1, "/bytes/1000000", map[string]any{"ban": map[string]any{"body_regexp": slowPattern}})
		}, true},
		"result to store": {func(e *ending) { e.publish(1, "/slow/200", nil) }, true},
		// More than the sockets between worker and server hold: a write to a frozen server blocks.
		"large results to store": {func(e *ending) { e.publish(60, "/slow/400?bytes=500000", nil) }, true},
		"retry to store": {func(e *ending) {
			e.publish(1, "/retry-after/120", map[string]any{"retry": map[string]any{"max_attempts": 3}})
		}, true},
		"live streams":      {func(e *ending) { e.open("GET /api/v1/live HTTP/1.1"); e.open("GET /api/v1/live HTTP/1.1") }, false},
		"idle HTTP clients": {func(e *ending) { e.open(""); e.open("GET /livez HTTP/1.1") }, false},
		"HTTP request":      {func(e *ending) { e.open(slowRequest) }, false},
		"nothing":           {func(*ending) {}, false},
	}
	for state, change := range states {
		for kind, work := range kinds {
			if change == nil && work.needsNATS {
				continue
			}
			t.Run(state+", "+kind, func(t *testing.T) {
				t.Parallel()
				url := ""
				switch state {
				case "never reached":
					url = "nats://" + freeAddr(t)
				case "never greets":
					url = "nats://" + muteServer(t)
				}
				e := newEnding(t, url)
				work.begin(e)
				if change != nil {
					change(e)
				}
				e.endsInTime()
			})
		}
	}
}

// muteServer is the address of a listener that takes connections and says nothing.
func muteServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// endsInTime stops the worker, which has to end by itself within its drain timeout and a second.
func (e *ending) endsInTime() {
	e.Helper()
	e.worker.signal(syscall.SIGTERM)
	const busyMachine = 10 * time.Second
	code, took := e.worker.end(drainTimeout + time.Second + busyMachine)
	said := e.worker.err.String()
	if code != exitOK || strings.Contains(said, "not ended in time") {
		e.Errorf("exit %d after %s, want 0; it said:\n%s", code, took, tail(said))
	}
}

// TestADrainThatIsAskedForIsBounded freezes the server of a worker that drains without a signal.
func TestADrainThatIsAskedForIsBounded(t *testing.T) {
	t.Parallel()
	e := newEnding(t, "")
	e.publish(1, "/slow/60000", nil)
	setenv(t, "GOFER_NATS_URL", e.url)
	name := workerNameOf(t)
	if code, _, errOut := gofer(t, "", "drain", name); code != exitOK {
		t.Fatalf("gofer drain: exit %d, %s", code, errOut)
	}
	e.freeze()
	if code, took := e.worker.end(drainTimeout + patience); code != exitOK {
		t.Errorf("exit %d after %s; it said:\n%s", code, took, tail(e.worker.err.String()))
	}
}

// workerNameOf is the name of the one worker.
func workerNameOf(t *testing.T) string {
	t.Helper()
	_, out, _ := gofer(t, "", "workers", "--json")
	_, rest, _ := strings.Cut(out, `"worker":"`)
	name, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("no worker is named in %s", out)
	}
	return name
}

// TestAWorkerWhoseLogNobodyReadsEnds has retries fill the pipe that its log goes to.
func TestAWorkerWhoseLogNobodyReadsEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	r, log := fullPipe(t)
	setenv(t, "GOFER_DRAIN_TIMEOUT", drainTimeout.String())
	setenv(t, "GOFER_LOG_LEVEL", "debug")
	addr := freeAddr(t)
	setenv(t, "GOFER_HTTP_ADDR", addr)
	cmd := command(t, "", "worker")
	cmd.Stderr = log
	p := launch(t, cmd, nil)
	testenv.Eventually(t, "the worker to be ready", func() bool {
		status, _ := w.get("http://" + addr + "/readyz")
		return status == http.StatusOK
	})
	for i := range 30 {
		w.publish(fmt.Sprint("j", i), job("/status/503", map[string]any{"retry": map[string]any{"max_attempts": 9, "base_delay": 0.1}}))
	}
	waitUntilFull(t, r)
	p.signal(syscall.SIGTERM)
	if code, took := p.end(drainTimeout + patience); code != exitFailed {
		t.Errorf("exit %d after %s, want %d", code, took, exitFailed)
	}
}
