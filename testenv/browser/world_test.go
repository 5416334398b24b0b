package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

const (
	token = "a-token-of-this-test"
	// victimID is the proxy that is broken while the page is open.
	victimID = "frankfurt-1"
	// failedID is a job that fails at once, laterID one that waits for its time.
	failedID, laterID = "not-allowed-1", "later-1"
	workerName        = "worker-in-the-browser-test"
)

// world is a worker with an embedded server, its proxies, and what lies behind them.
type world struct {
	*testing.T
	page   string
	client *bus.Client
	victim *testenv.Proxy
	worker *os.Process
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.DependOn(t, ".") // the scripts
	w := &world{T: t}
	list := w.startProxies()
	natsAddr, httpAddr := testenv.FreeAddr(t), testenv.FreeAddr(t)
	w.page = "http://" + httpAddr + "/"
	w.worker = w.start([]string{
		"GOFER_EMBEDDED_ADDR=" + natsAddr, "GOFER_DATA_DIR=" + t.TempDir(), "GOFER_HTTP_ADDR=" + httpAddr, "GOFER_ADMIN_TOKEN=" + token,
		"GOFER_PROXIES=" + list, "GOFER_QUEUES=critical:6,default:3,low:1", "GOFER_CONCURRENCY=12", "GOFER_RETRY_BASE_DELAY=200ms", "GOFER_RETRY_STATUS_CODES=500,502,503",
		"GOFER_WORKER_NAME=" + workerName, "GOFER_LOG_LEVEL=error",
	}, testenv.Build(t), "worker")
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

// startProxies starts them before the site and returns them as the worker's environment names them.
func (w *world) startProxies() string {
	w.Helper()
	server := httptest.NewServer(site())
	w.Cleanup(server.Close)
	resolve := func(string) string { return server.Listener.Addr().String() }
	var list []string
	for _, p := range []struct {
		id   string
		mode testenv.Mode
	}{
		{"amsterdam-1", testenv.Good}, {"amsterdam-2", testenv.Good}, {victimID, testenv.Good}, {"helsinki-1", testenv.Slow},
		{"oslo-1", testenv.Refusing}, {"residential-provider-of-many-addresses-session_0000000042", testenv.BadGateway},
	} {
		proxy := &testenv.Proxy{Resolve: resolve, Delay: 300 * time.Millisecond}
		proxy.Set(p.mode)
		if err := proxy.Start("127.0.0.1:0"); err != nil {
			w.Fatal(err)
		}
		w.Cleanup(proxy.Close)
		if p.id == victimID {
			w.victim = proxy
		}
		list = append(list, proxy.URL("http")+" id="+p.id)
	}
	return strings.Join(list, ",")
}

// site answers every page; /flaky/ fails every second time and /broken/ always, with a status that clears the proxy.
func site() http.Handler {
	var visits atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if kind == "broken" || kind == "flaky" && visits.Add(1)%2 == 1 {
			http.Error(w, "not now", http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintf(w, "this is %s\n", r.URL.Path)
	})
}

// submitKnownJobs submits the jobs that the page is asked for by name.
func (w *world) submitKnownJobs() {
	w.Helper()
	for _, job := range []jobs.Job{
		{Queue: "default", ID: failedID, URL: "http://169.254.1.1/not-allowed"},
		{Queue: "low", ID: laterID, URL: "http://shop.test/later", NotBefore: time.Now().Add(24 * time.Hour)},
		{Queue: "low", ID: "later-2", URL: "http://shop.test/later", NotBefore: time.Now().Add(24 * time.Hour)},
		{Queue: "low", ID: "later-3", URL: "http://shop.test/later", NotBefore: time.Now().Add(24 * time.Hour)},
	} {
		if _, err := client.New(w.client).Submit(w.Context(), job); err != nil {
			w.Fatal(err)
		}
	}
}

// submitJobs keeps the worker busy, about 30 jobs a second, until it is told to stop or the test ends.
func (w *world) submitJobs() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	var done sync.WaitGroup
	stop = func() { cancel(); done.Wait() }
	w.Cleanup(stop)
	done.Go(func() {
		tick := time.NewTicker(33 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			job := jobOf(n)
			if _, err := client.New(w.client).Submit(ctx, job); err != nil && ctx.Err() == nil {
				w.Errorf("submit %s: %v", job.URL, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return stop
}

// jobOf mixes what a worker gets: mostly pages, some that fail at first, a few that never work.
func jobOf(n int) jobs.Job {
	kind := "pages"
	switch {
	case n%31 == 7:
		kind = "broken"
	case n%9 == 3:
		kind = "flaky"
	}
	job := jobs.Job{Queue: []string{"default", "default", "low", "critical"}[n%4], URL: fmt.Sprintf("http://shop.test/%s/%d", kind, n)}
	if n%37 == 11 {
		job.URL = "http://169.254.1.1/not-allowed"
	}
	return job
}

// signal sends the worker a signal.
func (w *world) signal(s syscall.Signal) {
	if err := w.worker.Signal(s); err != nil {
		w.Errorf("%v to the worker: %v", s, err)
	}
}

// start runs a program until the test ends, in a group of its own so that its children end with it.
func (w *world) start(environ []string, name string, args ...string) *os.Process {
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
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT) // a frozen one takes no other signal
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		if w.Failed() {
			w.Logf("%s said:\n%s", filepath.Base(name), &log)
		}
	})
	return cmd.Process
}

func (w *world) awaitReady() {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); <-tick.C {
		resp, err := http.Get(w.page + "readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	w.Fatalf("the worker is not ready after %s", testenv.Patience)
}
