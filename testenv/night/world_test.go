// Package night_test makes what goes wrong at night with the real program and real servers, and holds what an operator reads then
// against two questions: what is the cause, and what is to be done.
package night_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv"
)

// scene is an installation of one worker, with proxies before a site of every name but dead.test.
type scene struct {
	*testing.T
	program string
	server  *testenv.NATS
	nc      *nats.Conn
	env     []string
	addr    string // of the worker's page
	before  string // the worker's metrics before the trouble
	// later is what becomes of the metrics in the hours that the test does not wait; nil if nothing does.
	later func(page string) string
}

// open makes a scene whose worker is not started yet. A cluster has a scene with the URL of one of its servers.
func open(t *testing.T, program, url string, nc *nats.Conn, env ...string) *scene {
	t.Helper()
	s := &scene{T: t, program: program, nc: nc, addr: testenv.FreeAddr(t)}
	if url == "" {
		s.server = testenv.StartNATS(t, nil)
		url, s.nc = s.server.URL(), s.server.Connect()
	}
	s.env = append([]string{"GOFER_NATS_URL=" + url, "GOFER_HTTP_ADDR=" + s.addr, "GOFER_LOG_LEVEL=error", "GOFER_CONCURRENCY=8", "GOFER_WORKER_NAME=w1"}, env...)
	return s
}

// withProxies starts three proxies and gives them to the worker.
func (s *scene) withProxies() *scene {
	s.Helper()
	origin := testenv.StartOrigin(s.T, false)
	nobody := testenv.FreeAddr(s.T)
	var list []string
	for _, id := range []string{"one", "two", "three"} {
		p := &testenv.Proxy{Resolve: func(target string) string {
			if strings.HasPrefix(target, "dead.test:") {
				return nobody
			}
			return origin.Addr()
		}}
		if err := p.Start("127.0.0.1:0"); err != nil {
			s.Fatal(err)
		}
		s.Cleanup(p.Close)
		list = append(list, p.URL("http")+" id="+id)
	}
	s.env = append(s.env, "GOFER_PROXIES="+strings.Join(list, ","))
	return s
}

// environ is the environment without the variables of a gofer that its owner may have set.
func (s *scene) environ() (out []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOFER_") && !strings.HasPrefix(v, "NATS_") {
			out = append(out, v)
		}
	}
	return append(out, s.env...)
}

// work starts the worker and waits until its page answers; the worker may have reasons not to be ready.
func (s *scene) work() *scene {
	s.Helper()
	var log testenv.Log
	cmd := exec.Command(s.program, "worker")
	cmd.Env = s.environ()
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if s.Failed() {
			s.Logf("the worker said:\n%s", &log)
		}
	})
	testenv.Eventually(s.T, "the fleet's first count of its jobs", func() bool { return strings.Contains(s.metrics(), "gofer_jobs_waiting{") })
	s.before = s.metrics()
	return s
}

// metrics is the page of metrics of the worker, and empty if there is no answer.
func (s *scene) metrics() string {
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/metrics", nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// gofer runs a verb as an operator does, and returns what he sees, standard error after standard output.
func (s *scene) gofer(args ...string) string {
	ctx, cancel := context.WithTimeout(s.Context(), testenv.Patience)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.environ(), &out, &errOut
	_ = cmd.Run() // the exit code says that something is wrong
	return strings.TrimSpace(out.String() + errOut.String())
}

// submit publishes a job as any program would, and waits for the server's word.
func (s *scene) submit(queue, id, payload string) {
	s.Helper()
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := js.Publish(s.Context(), "gofer.jobs."+queue+"."+id, []byte(payload)); err != nil {
		s.Fatalf("publish job %s: %v", id, err)
	}
}

// ended waits until the results of the default queue are that many.
func (s *scene) ended(count uint64) {
	s.Helper()
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	testenv.Eventually(s.T, fmt.Sprintf("%d results", count), func() bool {
		stream, err := js.Stream(s.Context(), "GOFER_RESULTS")
		return err == nil && stream.CachedInfo().State.Msgs >= count
	})
}

// problems is what the page says above everything else.
func (s *scene) problems() string {
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/api/v1/live", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	in := bufio.NewReader(resp.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if data, found := strings.CutPrefix(line, "data: "); found {
			var snapshot struct {
				Problems []struct{ Level, Text string } `json:"problems"`
			}
			if err := json.Unmarshal([]byte(data), &snapshot); err != nil {
				return err.Error()
			}
			var texts []string
			for _, p := range snapshot.Problems {
				texts = append(texts, p.Level+": "+p.Text)
			}
			return strings.Join(texts, "\n")
		}
	}
}

// metric waits until the worker's page has a line.
func (s *scene) metric(line string) {
	s.Helper()
	testenv.Eventually(s.T, line, func() bool { return strings.Contains(s.metrics(), "\n"+line+"\n") })
}

// counted waits until the fleet has counted jobs of the queue "default" that wait for a reason.
func (s *scene) counted(why string) {
	s.Helper()
	none := fmt.Sprintf("gofer_jobs_waiting{queue=\"default\",why=%q} 0\n", why)
	testenv.Eventually(s.T, "the count of the jobs that wait", func() bool {
		page := s.metrics()
		return strings.Contains(page, "gofer_jobs_waiting{") && !strings.Contains(page, none)
	})
}

// within asks until a condition holds, for about half a minute and once at least, and reports whether it held.
func within(holds func() bool) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testenv.Patience / 6); !holds(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
