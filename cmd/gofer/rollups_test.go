package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
	workstream "github.com/gofer-mq/gofer/worker/stream"
)

// retries asks a worker for its sums.
func (w *world) retries(addr, scope string) (sums rollup.Retries, ended, attempts int64) {
	w.Helper()
	ask := func(path string, into any) {
		status, body := w.get("http://" + addr + "/api/v1/metrics/retries" + path + "?hours=2&scope=" + scope)
		if err := json.Unmarshal([]byte(body), into); status != 200 || err != nil {
			w.Fatalf("GET %s: %d, %v, %s", path, status, err, body)
		}
	}
	var series struct {
		Points []rollup.Point `json:"data_points"`
	}
	var proxies struct {
		Proxies map[string]rollup.Proxy `json:"proxies"`
	}
	ask("", &sums)
	ask("/timeseries", &series)
	ask("/by-proxy", &proxies)
	for _, p := range series.Points {
		ended += p.TotalRequests
	}
	for _, p := range proxies.Proxies {
		attempts += p.TotalAttempts
	}
	return sums, ended, attempts
}

// rollupJobs is what the metrics page tells of the two hours.
func (w *world) rollupJobs(addr string) (n float64) {
	w.Helper()
	for name, value := range w.scrape(addr).first {
		if strings.HasPrefix(name, "gofer_rollup_jobs{") {
			n += value
		}
	}
	return n
}

func TestDrainedWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first, second := freeAddr(t), freeAddr(t)
	drained := w.worker(first)
	w.worker(second)
	const n = 60
	for i := range n {
		w.publish(fmt.Sprint("j", i), job("/slow/20", nil))
	}
	for i := range n {
		w.result(fmt.Sprint("j", i))
	}
	// A job's result is seen a moment before it is counted.
	var own [2]int64
	testenv.Eventually(t, "both workers to count their jobs", func() bool {
		_, own[0], _ = w.retries(first, "worker")
		_, own[1], _ = w.retries(second, "worker")
		return own[0]+own[1] == n
	})
	if own[0] == 0 || own[1] == 0 {
		t.Fatalf("jobs by worker: %v, want some by each", own)
	}
	if code := drained.wait(t); code != exitOK {
		t.Fatalf("drain: exit %d; it said:\n%s", code, drained.log)
	}
	testenv.Eventually(t, "the other worker to tell all jobs of the fleet", func() bool {
		sums, ended, attempts := w.retries(second, "cluster")
		if ended > n || attempts > n {
			t.Fatalf("the fleet has %d jobs and %d attempts, want never more than %d", ended, attempts, n)
		}
		return ended == n && attempts == n && sums.SuccessByAttempt["1"] == n
	})
	if got := w.rollupJobs(second); got != n {
		t.Errorf("gofer_rollup_jobs: got %v, want the %d of the fleet, as in the API", got, n)
	}
	if _, ended, _ := w.retries(second, "worker"); ended != own[1] {
		t.Errorf("scope worker: got %d jobs, want the worker's own %d", ended, own[1])
	}
	if hours := read[control.RollupResponse](t, "rollups", "--hours", "2"); hours.Scope != control.ScopeCluster || hours.Points[0].TotalRequests+hours.Points[1].TotalRequests != n {
		t.Errorf("gofer rollups: got %+v, want %d jobs of the cluster", hours, n)
	}
	asked, err := control.Ask[control.RollupResponse](t.Context(), w.nc, "gofer.ctl.rollups", control.RollupRequest{Hours: 2, Scope: control.ScopeWorker}, 1)
	if err != nil || asked[0].Scope != control.ScopeWorker || asked[0].Points[0].TotalRequests+asked[0].Points[1].TotalRequests != own[1] {
		t.Errorf("rollups of scope worker: got %+v, %v; want the worker's own %d jobs", asked, err, own[1])
	}
}

// TestRollupsSurviveARestart restarts the server under a worker, and then the worker.
func TestRollupsSurviveARestart(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	addr := freeAddr(t)
	before := w.worker(addr)
	do := func(id string) {
		w.publish(id, job("/ok", nil))
		w.result(id)
	}
	do("j1")
	testenv.Eventually(t, "the first job to be counted", func() bool { _, ended, _ := w.retries(addr, "cluster"); return ended == 1 })
	w.nats.Stop()
	w.nats.Start()
	testenv.Eventually(t, "the worker to be ready again", func() bool { status, _ := w.get("http://" + addr + "/readyz"); return status == 200 })
	testenv.Eventually(t, "the test's own connection", w.nc.IsConnected)
	do("j2")
	testenv.Eventually(t, "the second job to be counted", func() bool { _, ended, _ := w.retries(addr, "cluster"); return ended == 2 })
	before.wait(t)
	addr = freeAddr(t)
	w.worker(addr)
	testenv.Eventually(t, "the next worker to tell what was before it", func() bool {
		sums, ended, attempts := w.retries(addr, "cluster")
		return ended == 2 && attempts == 2 && sums.SuccessByAttempt["1"] == 2
	})
	if got := w.rollupJobs(addr); got != 2 {
		t.Errorf("gofer_rollup_jobs of a new worker: got %v, want the 2 of before it", got)
	}
	if _, ended, _ := w.retries(addr, "worker"); ended != 0 {
		t.Errorf("scope worker of a new worker: got %d jobs, want none", ended)
	}
	do("j3")
	testenv.Eventually(t, "its own job to be added", func() bool { _, ended, _ := w.retries(addr, "cluster"); return ended == 3 })
}

// TestSumsBeginAnewWithTheirStream deletes the stream under two workers, one of which counts nothing afterwards.
func TestSumsBeginAnewWithTheirStream(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	addrs := []string{freeAddr(t), freeAddr(t)}
	for _, addr := range addrs {
		w.worker(addr)
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	do := func(id string) {
		w.publish(id, job("/ok", nil))
		w.result(id)
	}
	expect := func(when string, n int64) {
		for _, addr := range addrs {
			testenv.Eventually(t, fmt.Sprint(n, " jobs ", when), func() bool {
				_, ended, attempts := w.retries(addr, "cluster")
				return ended == n && attempts == n
			})
		}
	}
	for i := range 3 {
		do(fmt.Sprint("old", i))
	}
	expect("before", 3)
	if err := js.DeleteStream(t.Context(), "GOFER_ROLLUPS"); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatalf("setup: exit %d, %s", code, errOut)
	}
	do("new")
	expect("in the new stream", 1)
	s, err := js.Stream(t.Context(), "GOFER_ROLLUPS")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("after a purge", 0)
}

// TestSumsBeginAnewAfterAPurgeOfSomeOfThem leaves the parts of the proxies in the stream.
func TestSumsBeginAnewAfterAPurgeOfSomeOfThem(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	addr := freeAddr(t)
	w.worker(addr)
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.publish(fmt.Sprint("j", i), job("/ok", nil))
		w.result(fmt.Sprint("j", i))
	}
	expect := func(when string, jobs, byProxy int64) {
		testenv.Eventually(t, fmt.Sprintf("%d jobs and %d attempts %s", jobs, byProxy, when), func() bool {
			_, ended, attempts := w.retries(addr, "cluster")
			return ended == jobs && attempts == byProxy
		})
	}
	// Until the worker has read the fleet's hours it answers with its own, which may not be stored yet.
	testenv.Eventually(t, "the worker to answer for the fleet", func() bool {
		hours := read[control.RollupResponse](t, "rollups", "--hours", "2")
		return hours.Scope == control.ScopeCluster && hours.Points[0].TotalRequests+hours.Points[1].TotalRequests == 3
	})
	expect("before", 3, 3)
	s, err := js.Stream(t.Context(), "GOFER_ROLLUPS")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject("_gofer.rollups.*.totals.>")); err != nil {
		t.Fatal(err)
	}
	expect("after a purge of the hours", 0, 3)
}

// TestEventsOfANewStreamAreShown deletes the stream that the breakers' events are read from, and no other.
func TestEventsOfANewStreamAreShown(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	addr := freeAddr(t)
	w.worker(addr)
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	tell := func(proxies ...string) {
		t.Helper()
		for _, p := range proxies {
			e := jobs.BreakerEvent{ProxyID: p, FromState: "closed", ToState: "open", Timestamp: time.Now().UTC()}
			if err := workstream.New(w.client).PublishBreaker(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	shown := func(proxy string) {
		t.Helper()
		testenv.Eventually(t, "the event of "+proxy, func() bool {
			_, body := w.get("http://" + addr + "/api/v1/circuit-breakers/metrics?scope=cluster")
			return strings.Contains(body, proxy)
		})
	}
	tell("old1", "old2", "old3")
	shown("old3")
	if err := js.DeleteStream(t.Context(), "GOFER_EVENTS"); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	tell("new1")
	shown("new1")
}
