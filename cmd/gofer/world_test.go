package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/config"
)

// world is a NATS server, an origin behind a proxy, and the program, all in this process.
type world struct {
	*testing.T
	nats   *testenv.NATS
	origin *testenv.Origin
	proxy  *testenv.Proxy
	nc     *nats.Conn
	client *bus.Client
}

// newWorld sets the environment so that the program finds the server and one good proxy. The origin is http://shop.test/.
func newWorld(t *testing.T, change func(*server.Options)) *world {
	t.Helper()
	w := &world{T: t, nats: testenv.StartNATS(t, change), origin: testenv.StartOrigin(t, false)}
	w.proxy = w.startProxy(testenv.Good)
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	w.nc = w.nats.Connect()
	if w.client, err = bus.New(w.nc, names); err != nil {
		t.Fatal(err)
	}
	setenv(t, "GOFER_NATS_URL", w.nats.URL())
	setenv(t, "GOFER_HTTP_ADDR", freeAddr(t))
	setenv(t, "GOFER_PROXIES", w.proxy.URL("http")+" id=good")
	setenv(t, "GOFER_LOG_LEVEL", "warn")
	return w
}

// startProxy starts a proxy that knows where shop.test is.
func (w *world) startProxy(m testenv.Mode) *testenv.Proxy {
	w.Helper()
	p := &testenv.Proxy{Resolve: func(target string) string {
		if strings.HasPrefix(target, "shop.test:") {
			return w.origin.Addr()
		}
		return ""
	}}
	p.Set(m)
	if err := p.Start("127.0.0.1:0"); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(p.Close)
	return p
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	return testenv.FreeAddr(tb)
}

// variables are the variables that each test has set, by its name.
var variables struct {
	mu sync.Mutex
	of map[string]config.Environment
}

// setenv sets a variable for this test and for the tests in it. The environment of the process stays as it is, so that tests run
// side by side.
func setenv(t *testing.T, name, value string) {
	t.Helper()
	variables.mu.Lock()
	defer variables.mu.Unlock()
	if variables.of == nil {
		variables.of = map[string]config.Environment{}
	}
	if variables.of[t.Name()] == nil {
		variables.of[t.Name()] = config.Environment{}
	}
	variables.of[t.Name()][name] = value
}

// environment is what this test and those around it have set.
func environment(t *testing.T) config.Environment {
	t.Helper()
	variables.mu.Lock()
	defer variables.mu.Unlock()
	env := config.Environment{}
	name := ""
	for part := range strings.SplitSeq(t.Name(), "/") {
		name = strings.TrimPrefix(name+"/"+part, "/")
		maps.Copy(env, variables.of[name])
	}
	return env
}

func getenv(t *testing.T, name string) string {
	t.Helper()
	return environment(t)[name]
}

// program is a run of gofer that goes on.
type program struct {
	stop context.CancelFunc
	code chan int
	log  *testenv.Log
}

// start runs gofer until the test ends.
func (w *world) start(args ...string) *program {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{stop: cancel, code: make(chan int, 1), log: new(testenv.Log)}
	env := environment(w.T)
	go func() { p.code <- run(ctx, env, args, strings.NewReader(""), p.log, p.log) }()
	w.Cleanup(func() { p.wait(w.T) })
	return p
}

// wait stops the program and returns its exit code.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	p.stop()
	select {
	case code := <-p.code:
		p.code <- code
		return code
	case <-time.After(patience):
		t.Fatalf("gofer did not end; it said:\n%s", p.log)
		return -1
	}
}

// worker starts a worker and waits until it is ready.
func (w *world) worker(httpAddr string) *program {
	w.Helper()
	setenv(w.T, "GOFER_HTTP_ADDR", httpAddr)
	p := w.start("worker")
	testenv.Eventually(w.T, "the worker to be ready", func() bool {
		status, _ := w.get("http://" + httpAddr + "/readyz")
		return status == http.StatusOK
	})
	return p
}

func (w *world) get(url string) (int, string) {
	w.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String()
}

// patience is how long a test waits for what has to happen, also on a machine with other work.
const patience = testenv.Patience

// gofer runs a verb to its end.
func gofer(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stdout, stderr := new(testenv.Log), new(testenv.Log) // what NATS reports last comes after the end
	code = run(ctx, environment(t), args, strings.NewReader(in), stdout, stderr)
	return code, stdout.String(), stderr.String()
}

// publish sends a job as any NATS program would, and waits for the server's word.
func (w *world) publish(id, payload string) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	if _, err := js.Publish(w.Context(), "gofer.jobs.default."+id, []byte(payload)); err != nil {
		w.Fatalf("publish job %s: %v", id, err)
	}
}

// result waits for a job's result.
func (w *world) result(id string) jobs.Result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	r, err := client.New(w.client).Wait(ctx, client.Key{Queue: "default", ID: id})
	if err != nil {
		w.Fatalf("result of job %s: %v", id, err)
	}
	return r
}

// job is a JSON job for shop.test with more fields.
func job(path string, fields map[string]any) string {
	all := map[string]any{"url": "http://shop.test" + path}
	maps.Copy(all, fields)
	data, err := json.Marshal(all)
	if err != nil {
		panic(fmt.Sprint("a job of this test: ", err))
	}
	return string(data)
}
