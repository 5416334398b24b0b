package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
)

// named starts a worker of that name, and tells where its HTTP side is.
func (w *world) named(name string) (p *program, addr string) {
	w.Helper()
	setenv(w.T, "GOFER_WORKER_NAME", name)
	addr = freeAddr(w.T)
	return w.worker(addr), addr
}

// read runs a verb with --json and reads what it prints. It runs the verb again if no worker answers: a busy one may answer later
// than it is waited for.
func read[T any](t *testing.T, args ...string) (out T) {
	t.Helper()
	var code int
	var text, errOut string
	testenv.Eventually(t, fmt.Sprintf("an answer to gofer %v", args), func() bool {
		code, text, errOut = gofer(t, "", append(args, "--json")...)
		return code == exitOK || !strings.Contains(errOut, control.ErrNoWorkers.Error())
	})
	if code != exitOK {
		t.Fatalf("gofer %v: exit %d, %s", args, code, errOut)
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("gofer %v printed %q: %v", args, text, err)
	}
	return out
}

func TestWorkersAreListedWithHowTheyStand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_QUEUES", "critical:6,default:3")
	setenv(t, "GOFER_CONCURRENCY", "5")
	w.named("w2")
	w.named("w1")
	w.publish("slow", job("/slow/20000", nil))
	testenv.Eventually(t, "the fetch to begin", func() bool { return w.origin.Count("/slow/20000") == 1 })
	var list []control.Status // a busy worker may answer later than it is waited for
	testenv.Eventually(t, "w1 and w2 to be listed", func() bool {
		list = read[[]control.Status](t, "workers")
		return len(list) == 2 && list[0].Worker == "w1" && list[1].Worker == "w2"
	})
	for _, s := range list {
		if !s.Ready || s.Draining || s.Slots != 5 || s.Proxies["closed"] != 1 || s.StartedAt.IsZero() || s.Version != buildVersion() {
			t.Errorf("worker %s = %+v, want it ready with 5 slots and one proxy", s.Worker, s)
		}
		if want := []control.Queue{{Queue: "critical", Weight: 6}, {Queue: "default", Weight: 3}}; !slices.Equal(s.Queues, want) {
			t.Errorf("queues of %s = %v, want %v", s.Worker, s.Queues, want)
		}
	}
	if running := list[0].InFlight["default"] + list[1].InFlight["default"]; running != 1 {
		t.Errorf("jobs in flight = %d, want 1", running)
	}
	table := ""
	testenv.Eventually(t, "w1 and w2 in the table", func() bool {
		_, table, _ = gofer(t, "", "workers")
		return strings.Contains(table, "w1") && strings.Contains(table, "w2")
	})
	for _, want := range []string{"w1", "w2", "1/5", "0/5", "critical:6,default:3", "1 closed", "ready"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	if code, _, errOut := gofer(t, "", "cancel", "slow"); code != exitOK {
		t.Errorf("gofer cancel: exit %d, %s", code, errOut)
	}
}

func TestWorkersOfOneNameAreDrainedOnlyTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first, _ := w.named("w1")
	second, _ := w.named("w1")
	testenv.Eventually(t, "the doctor to name the workers of one name", func() bool {
		code, out, _ := gofer(t, "", "doctor")
		return code == exitFailed && strings.Contains(out, "2 are named w1")
	})
	if code, _, errOut := gofer(t, "", "drain", "w1"); code != exitFailed || !strings.Contains(errOut, "2 workers are named w1") {
		t.Errorf("drain: exit %d, %q; want it to say that two bear the name", code, errOut)
	}
	var list []control.Status
	testenv.Eventually(t, "both workers to be listed", func() bool { list = read[[]control.Status](t, "workers"); return len(list) == 2 })
	if list[0].Draining || list[1].Draining {
		t.Errorf("workers after the refusal = %+v, want both to go on", list)
	}
	if got := read[map[string]any](t, "drain", "w1", "--all"); got["workers"] != 2.0 {
		t.Errorf("drain --all printed %v, want 2 workers", got)
	}
	for _, p := range []*program{first, second} {
		code := <-p.code
		if p.code <- code; code != exitOK {
			t.Errorf("exit code of a drained worker = %d, want 0", code)
		}
	}
}

// TestADrainIsRefusedBesideAWorkerOfTheNameThatDoesNotAnswer has a worker that answers pings only, as one without a processor
// may. It would drain, too.
func TestADrainIsRefusedBesideAWorkerOfTheNameThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	s, err := micro.AddService(w.nc, micro.Config{Name: "gofer", Version: "0.9.0", Metadata: map[string]string{"worker": "w1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Stop() }()
	if err := w.nc.Flush(); err != nil { // the server knows the service now
		t.Fatal(err)
	}
	if code, _, errOut := gofer(t, "", "drain", "w1"); code != exitFailed || !strings.Contains(errOut, "2 workers are named w1") {
		t.Errorf("exit %d, %q; want %d, and that two bear the name", code, errOut, exitFailed)
	}
}

func TestWorkerThatCannotWorkSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_PROXIES", "")
	setenv(t, "GOFER_HTTP_ADDR", freeAddr(t))
	w.start("worker")
	testenv.Eventually(t, "the worker to be listed with its reason", func() bool {
		code, out, _ := gofer(t, "", "workers")
		return code == exitOK && strings.Contains(out, "no proxy is configured")
	})
}

func TestDrainedWorkerEndsAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	first, _ := w.named("w1")
	w.named("w2")
	if code, _, errOut := gofer(t, "", "drain", "nobody"); code != exitFailed || !strings.Contains(errOut, "no worker named nobody") {
		t.Errorf("drain of nobody: exit %d, %q; want %d and why", code, errOut, exitFailed)
	}
	w.publish("last", job("/slow/500", nil))
	if got := read[map[string]any](t, "drain", "w1"); got["worker"] != "w1" || got["draining"] != true {
		t.Errorf("drain printed %v", got)
	}
	if code := <-first.code; code != exitOK {
		t.Errorf("exit code of the drained worker = %d, want 0; it said:\n%s", code, first.log)
	} else {
		first.code <- code
	}
	if list := read[[]control.Status](t, "workers"); len(list) != 1 || list[0].Worker != "w2" {
		t.Errorf("workers after the drain = %+v, want w2 alone", list)
	}
	w.result("last")
}

func TestBreakerIsResetInTheWholeFleet(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	// Nobody listens there, which is a failure of the proxy for certain.
	setenv(t, "GOFER_PROXIES", "http://"+freeAddr(t)+" id=bad, "+w.proxy.URL("http")+" id=good")
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	setenv(t, "GOFER_BREAKER_TIMEOUT", "10m")
	setenv(t, "GOFER_BREAKER_SHARE", "false") // or only one of them would meet the proxy
	setenv(t, "GOFER_ADMIN_TOKEN", "")
	_, addr := w.named("w1")
	w.named("w2")
	jobs := 0
	trip := func() {
		t.Helper()
		testenv.Eventually(t, "both breakers to open", func() bool {
			w.publish(fmt.Sprint("trip", jobs), job("/ok", nil))
			w.result(fmt.Sprint("trip", jobs))
			jobs++
			return badIn(t, "open") == 2
		})
	}
	trip()
	if _, table, _ := gofer(t, "", "breakers", "ls"); !strings.Contains(table, " in ") {
		t.Errorf("the table does not say when the proxy is tested:\n%s", table)
	}
	resp, err := http.Post("http://"+addr+"/api/v1/circuit-breakers/bad/reset", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("reset over HTTP = %s, want 200", resp.Status)
	}
	testenv.Eventually(t, "both breakers to be closed", func() bool { return badIn(t, "closed") == 2 })
	trip()
	code, out, errOut := gofer(t, "", "breakers", "reset", "bad")
	if code != exitOK || !strings.Contains(out, "closed in 2 of 2 workers") {
		t.Errorf("breakers reset: exit %d, %s%s", code, out, errOut)
	}
	if got := badIn(t, "closed"); got != 2 {
		t.Errorf("the breaker is closed in %d workers, want 2", got)
	}
	trip()
	if code, _, errOut := gofer(t, "", "breakers", "reset", "--all"); code != exitOK || badIn(t, "closed") != 2 {
		t.Errorf("breakers reset of all: exit %d, %s; want them closed", code, errOut)
	}
	if code, _, errOut := gofer(t, "", "breakers", "reset", "nothing"); code != exitFailed || !strings.Contains(errOut, "nothing") {
		t.Errorf("reset of an unknown proxy: exit %d, %q; want %d and its name", code, errOut, exitFailed)
	}
}

// badIn counts the workers in which the breaker of the proxy bad is in a state.
func badIn(t *testing.T, state string) (n int) {
	t.Helper()
	for _, worker := range read[[]workerBreakers](t, "breakers", "ls") {
		for _, b := range worker.Breakers {
			if b.ProxyID == "bad" && b.State == state {
				n++
			}
		}
	}
	return n
}

func TestBreakersOfALargePoolFitIntoAnAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var list strings.Builder
	id := func(i int) string { return fmt.Sprintf("%s-%04d", strings.Repeat("p", 59), i) }
	for i := range 2500 {
		fmt.Fprintf(&list, "http://127.0.0.1:9 id=%s\n", id(i))
	}
	file := filepath.Join(t.TempDir(), "proxies")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	setenv(t, "GOFER_PROXIES", "")
	setenv(t, "GOFER_PROXIES_FILE", file)
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	w.named("w1")
	setenv(t, "GOFER_PROXIES_FILE", "")
	last := id(2499)
	w.publish("j", job("/ok", map[string]any{"proxy": map[string]any{"id": last}, "retry": map[string]any{"max_attempts": 1}}))
	w.result("j")
	code, out, errOut := gofer(t, "", "breakers", "ls", "--json")
	var answers []workerBreakers
	if err := json.Unmarshal([]byte(out), &answers); err != nil || code != exitOK {
		t.Fatalf("breakers ls: exit %d, %v, %s", code, err, errOut)
	}
	if got := answers[0]; got.Total != 2500 || len(got.Breakers) != 2000 || got.Breakers[0].ProxyID != last || got.Breakers[0].State != "open" {
		t.Errorf("answer = %d of %d, the first %+v; want 2000 of 2500, the open one first", len(got.Breakers), got.Total, got.Breakers[0])
	}
	if !strings.Contains(errOut, "2500") {
		t.Errorf("standard error = %q, want a word on what is left out", errOut)
	}
}

func TestRollupsShowTheRunningHour(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	w.named("w1")
	for i := range 3 {
		w.publish(fmt.Sprint("j", i), job("/ok", nil))
		w.result(fmt.Sprint("j", i))
	}
	testenv.Eventually(t, "the jobs to be counted", func() bool {
		hours := read[control.RollupResponse](t, "rollups", "--hours", "2")
		return len(hours.Points) == 2 && hours.Points[0].TotalRequests+hours.Points[1].TotalRequests == 3
	})
	_, table, errOut := gofer(t, "", "rollups")
	if hours := read[control.RollupResponse](t, "rollups"); hours.Worker != "w1" || hours.Scope == control.ScopeWorker && !strings.Contains(errOut, "of worker w1") {
		t.Errorf("hours of %s, scope %s, are shown as %q; want it said when they are not the fleet's", hours.Worker, hours.Scope, errOut)
	}
	if !strings.Contains(table, "100.0 %") || !strings.Contains(table, "REQUESTS") {
		t.Errorf("the table lacks the hour:\n%s", table)
	}
	for _, hours := range []string{"0", "169"} {
		if code, _, _ := gofer(t, "", "rollups", "--hours", hours); code != exitUsage {
			t.Errorf("rollups --hours %s: exit %d, want %d", hours, code, exitUsage)
		}
	}
}

func TestMicroServiceShowsTheFleetAndPausesAQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	infos, err := control.Ask[micro.Info](t.Context(), w.nc, "$SRV.INFO.gofer", nil, 0)
	if err != nil || len(infos) != 1 || infos[0].Metadata["worker"] != "w1" {
		t.Fatalf("services = %+v, %v; want that of w1", infos, err)
	}
	for verb, paused := range map[string]bool{control.Pause: true, control.Resume: false} {
		got, err := control.Ask[control.PauseResponse](t.Context(), w.nc, "gofer.ctl."+verb, control.QueueRequest{Queue: "default"}, 1)
		if err != nil || got[0].Paused != paused {
			t.Errorf("%s = %v, %v", verb, got, err)
		}
	}
	policy, err := control.Ask[map[string]any](t.Context(), w.nc, "gofer.ctl.policy", nil, 1)
	if err != nil || policy[0]["max_attempts"] != 3.0 {
		t.Errorf("policy = %v, %v; want the default", policy, err)
	}
}

func TestVerbsForTheFleetSayWhenThereIsNone(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	for _, args := range [][]string{{"workers"}, {"breakers", "ls"}, {"breakers", "reset", "--all"}, {"rollups"}} {
		code, out, errOut := gofer(t, "", args...)
		if code != exitFailed || out != "" || !strings.Contains(errOut, "no worker answers") {
			t.Errorf("gofer %v without workers: exit %d, %q, %q; want %d and why", args, code, out, errOut, exitFailed)
		}
	}
	if code, _, errOut := gofer(t, "", "drain", "w1"); code != exitFailed || !strings.Contains(errOut, "w1") {
		t.Errorf("gofer drain without workers: exit %d, %q", code, errOut)
	}
	for _, args := range [][]string{{"workers", "x"}, {"drain"}, {"drain", "a b"}, {"breakers", "reset", "a.b"}, {"breakers", "reset"}, {"breakers", "reset", "good", "--all"}, {"rollups", "x"}} {
		if code, _, _ := gofer(t, "", args...); code != exitUsage {
			t.Errorf("gofer %v: exit %d, want %d", args, code, exitUsage)
		}
	}
}
