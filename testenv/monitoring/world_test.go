// Package monitoring_test holds deploy/monitoring against a worker that works: every metric that the rules, the dashboard
// and the documents name is served, and a real Prometheus has an answer to each expression.
package monitoring_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// world is a worker in a process of its own, the server it gets its jobs from, three proxies and the site behind them.
type world struct {
	*testing.T
	addr   string // of the worker's metrics
	client *bus.Client
	victim *testenv.Proxy
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, addr: testenv.FreeAddr(t)}
	server := testenv.StartNATS(t, nil)
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	if w.client, err = bus.New(server.Connect(), names); err != nil {
		t.Fatal(err)
	}
	start(t, testenv.Build(t), []string{
		"GOFER_NATS_URL=" + server.URL(), "GOFER_HTTP_ADDR=" + w.addr, "GOFER_PROXIES=" + w.startProxies(), "GOFER_CONCURRENCY=8",
		"GOFER_RETRY_BASE_DELAY=100ms", "GOFER_BREAKER_TIMEOUT=1s", "GOFER_LOG_LEVEL=error",
	}, "worker")
	await(t, "the worker to be ready", func() bool { _, err := get("http://" + w.addr + "/readyz"); return err == nil })
	return w
}

// startProxies starts them before a site of every name, and returns them as the worker's environment names them.
func (w *world) startProxies() string {
	w.Helper()
	origin := testenv.StartOrigin(w.T, false)
	var list []string
	for _, id := range []string{"one", "two", "victim"} {
		p := &testenv.Proxy{Resolve: func(string) string { return origin.Addr() }}
		if err := p.Start("127.0.0.1:0"); err != nil {
			w.Fatal(err)
		}
		w.Cleanup(p.Close)
		list = append(list, p.URL("http")+" id="+id)
		w.victim = p
	}
	return strings.Join(list, ",")
}

// metrics is the worker's page with everything that it can serve.
func (w *world) metrics() string {
	w.Helper()
	page, err := get("http://" + w.addr + "/metrics?proxies=all")
	if err != nil {
		w.Fatal(err)
	}
	return page
}

// work submits about 40 jobs a second until the test ends: most succeed, some fail at first, some for good.
func (w *world) work() {
	ctx, cancel := context.WithCancel(w.Context())
	var done sync.WaitGroup
	w.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			if _, err := client.New(w.client).Submit(ctx, job(n)); err != nil && ctx.Err() == nil {
				w.Errorf("submit job %d: %v", n, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
}

func job(n int) jobs.Job {
	path := "slow/20"
	switch n % 20 {
	case 3, 13:
		path = "status/503"
	case 7:
		path = "cut"
	}
	return jobs.Job{Queue: "default", URL: fmt.Sprintf("http://shop.test/%s?n=%d", path, n)}
}

// start runs a program until the test ends, without the variables of a gofer that its owner may have set.
func start(t *testing.T, path string, environ []string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOFER_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, environ...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), &log)
		}
	})
}

// get is the body of a page, or an error unless the status is 200.
func get(url string) (string, error) {
	client := http.Client{Timeout: testenv.Patience}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// await waits for testenv.Patience at most.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !within(time.Now().Add(testenv.Patience), holds) {
		t.Fatalf("waited in vain for %s", what)
	}
}

// within asks until a condition holds or the end has come, once at least, and reports whether it held.
func within(end time.Time, holds func() bool) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(end) {
			return false
		}
		<-tick.C
	}
	return true
}
