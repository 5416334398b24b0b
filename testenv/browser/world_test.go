package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

const (
	token = "a-token-of-this-test"
	// victim is the proxy that is broken while the page is open.
	victim = "frankfurt-1"
)

// world is a worker with an embedded server, its proxies, and what lies behind them.
type world struct {
	*testing.T
	page    string
	client  *bus.Client
	proxies map[string]*testenv.Proxy
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, proxies: map[string]*testenv.Proxy{}}
	list := w.startProxies()
	natsAddr, httpAddr := freeAddr(t), freeAddr(t)
	w.page = "http://" + httpAddr + "/"
	w.start([]string{
		"GOFER_EMBEDDED_ADDR=" + natsAddr, "GOFER_DATA_DIR=" + t.TempDir(), "GOFER_HTTP_ADDR=" + httpAddr, "GOFER_ADMIN_TOKEN=" + token,
		"GOFER_PROXIES=" + list, "GOFER_QUEUES=critical:6,default:3,low:1", "GOFER_CONCURRENCY=12", "GOFER_RETRY_BASE_DELAY=200ms",
		"GOFER_WORKER_NAME=worker-in-the-browser-test", "GOFER_LOG_LEVEL=error",
	}, build(t), "worker")
	w.awaitReady()
	nc, err := nats.Connect("nats://" + natsAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	if w.client, err = bus.New(nc, names); err != nil {
		t.Fatal(err)
	}
	return w
}

// build makes the program, so that what is tested is what ships.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gofer")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/gofer-mq/gofer/cmd/gofer")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build gofer: %v\n%s", err, out)
	}
	return path
}

// startProxies starts them before two sites and returns them as the worker's environment names them.
func (w *world) startProxies() string {
	w.Helper()
	shop, broken := httptest.NewServer(testenv.Shop()), testenv.StartOrigin(w.T, false)
	w.Cleanup(shop.Close)
	resolve := func(target string) string {
		if strings.HasPrefix(target, "broken.test:") {
			return broken.Addr()
		}
		return shop.Listener.Addr().String()
	}
	var list []string
	for _, p := range []struct {
		id   string
		mode testenv.Mode
	}{
		{"amsterdam-1", testenv.Good}, {"amsterdam-2", testenv.Good}, {victim, testenv.Good}, {"helsinki-1", testenv.Slow},
		{"oslo-1", testenv.Refusing}, {"residential-provider-of-many-addresses-session_0000000042", testenv.BadGateway},
	} {
		proxy := &testenv.Proxy{Resolve: resolve, Delay: 300 * time.Millisecond}
		proxy.Set(p.mode)
		if err := proxy.Start("127.0.0.1:0"); err != nil {
			w.Fatal(err)
		}
		w.Cleanup(proxy.Close)
		w.proxies[p.id] = proxy
		list = append(list, proxy.URL("http")+" id="+p.id)
	}
	return strings.Join(list, ",")
}

// submitUntilDone keeps the worker busy, about 30 jobs a second, until the test ends.
func (w *world) submitUntilDone() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	w.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		tick := time.NewTicker(33 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			job := jobOf(n)
			if _, err := w.client.Submit(ctx, job); err != nil && ctx.Err() == nil {
				w.Errorf("submit %s: %v", job.URL, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
}

// jobOf mixes what a worker gets: mostly pages, some that fail at first, a few that never work.
func jobOf(n int) jobs.Job {
	job := jobs.Job{Queue: []string{"default", "default", "low", "critical"}[n%4], URL: fmt.Sprintf("http://shop.test/products/%d", n)}
	switch {
	case n%31 == 7:
		job.URL = "http://broken.test/status/503"
	case n%37 == 11:
		job.URL = "http://169.254.1.1/not-allowed"
	case n%9 == 3:
		job.URL = "http://shop.test/flaky"
	}
	return job
}

// start runs a program until the test ends, in a group of its own so that its children end with it.
func (w *world) start(environ []string, name string, args ...string) {
	w.Helper()
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		if w.Failed() {
			w.Logf("%s said:\n%s", filepath.Base(name), &log)
		}
	})
}

func (w *world) awaitReady() {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		resp, err := http.Get(w.page + "readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	w.Fatal("the worker is not ready after 20 s")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
