package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// listBoth lists the proxies until both workers have answered, and each page was: what does not come in time is left out.
func listBoth(t *testing.T, flags ...string) (code int, out, note string) {
	t.Helper()
	testenv.Eventually(t, "both workers to answer", func() bool {
		code, out, note = gofer(t, "", append([]string{"proxies", "ls"}, flags...)...)
		return strings.Contains(note, "workers: 2") && !strings.Contains(note, "not complete")
	})
	return code, out, note
}

// TestProxiesLsShowsTheRunningPool: what the workers say counts, whatever the environment of the one who asks names.
func TestProxiesLsShowsTheRunningPool(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_BREAKER_TIMEOUT", "10m")
	p := newPair(t)
	if code, _, errOut := gofer(t, strings.Replace(p.proxy.URL("http"), "http://", "http://u-{session}:s3cret@", 1)+" id=gate region=eu tags=x,y\n", "proxies", "add", "-"); code != exitOK {
		t.Fatal(errOut)
	}
	p.trip("w1")
	testenv.Eventually(t, "the other worker to hear of it", func() bool { return p.breaker("w2").AvoidedUntil != nil })
	setenv(t, "GOFER_PROXIES", "http://127.0.0.1:9 id=elsewhere")
	list := map[string]fleetProxy{}
	testenv.Eventually(t, "both workers to have the proxy of the bucket, and an attempt through it", func() bool {
		for _, row := range read[[]fleetProxy](t, "proxies", "ls") {
			list[row.ID] = row
		}
		if list["gate"].Workers["closed"] == 2 && list["gate"].ExitsTried > 0 {
			return true
		}
		p.fetch("w1")
		return false
	})
	bad, gate := list["bad"], list["gate"]
	if len(list) != 3 || bad.State != "open" || !slices.Contains([]string{"connect", "reset"}, bad.Reason) || bad.Until == nil || bad.Workers["open"] != 1 || bad.Workers["avoided"] != 1 || bad.Source != "worker" {
		t.Errorf("%d proxies; bad is %+v; want it open in one worker and avoided in the other", len(list), bad)
	}
	if gate.Kind != "gateway" || gate.Source != "bucket" || gate.Region != "eu" || !slices.Equal(gate.Tags, []string{"x", "y"}) || gate.ExitsFailed != 0 {
		t.Errorf("gate is %+v", gate)
	}
	code, table, note := listBoth(t)
	lines := strings.Split(table, "\n")
	if code != exitOK || len(lines) != 5 || strings.Contains(table+note, "s3cret") || strings.Contains(table, "elsewhere") {
		t.Fatalf("exit %d, printed\n%s%s\nwant a header and three proxies", code, table, note)
	}
	for _, want := range []string{"bad", "http://127.0.0.1:", "open in 1 of 2", breakerReason(bad.Reason)} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("the first line is %q, want %q", lines[1], want)
		}
	}
	if !strings.Contains(table, "0 of ") || !strings.Contains(note, "proxies: 3 (2 closed, 1 open), workers: 2") {
		t.Errorf("printed\n%s%s\nwant exits and the sums", table, note)
	}
	if code, table, note = listBoth(t, "--limit", "1"); code != exitOK || strings.Count(table, "\n") != 2 || !strings.Contains(note, "shown are 1") {
		t.Errorf("--limit 1: exit %d,\n%s%s", code, table, note)
	}
	if code, _, _ := gofer(t, "", "proxies", "ls", "--limit", "-1"); code != exitUsage {
		t.Errorf("--limit -1: exit %d", code)
	}
}

// TestBansOfAProxyAreCounted: a site that bans a proxy changes nothing about its breaker.
func TestBansOfAProxyAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.named("w1")
	w.publish("j1", job("/ok", map[string]any{"ban": map[string]any{"min_bytes": 1 << 20}, "retry": map[string]any{"max_attempts": 1}}))
	if r := w.result("j1"); r.Outcome != jobs.Failed {
		t.Fatalf("job j1: %s", r.Outcome)
	}
	// A busy worker may answer later than it is waited for.
	testenv.Eventually(t, "one ban of a proxy that is closed", func() bool {
		list := read[[]fleetProxy](t, "proxies", "ls")
		return len(list) == 1 && list[0].State == "closed" && list[0].Bans == 1
	})
	testenv.Eventually(t, "the ban in words", func() bool {
		_, table, _ := gofer(t, "", "proxies", "ls")
		return strings.Contains(table, "1 site has banned it or asked for a pause")
	})
}

func TestProxiesLsPagesThroughALargePool(t *testing.T) {
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
	setenv(t, "GOFER_BREAKER_TIMEOUT", "10m")
	w.named("w1")
	w.named("w2")
	setenv(t, "GOFER_PROXIES_FILE", "")
	last := id(2499)
	w.publish("j", job("/ok", map[string]any{"proxy": map[string]any{"id": last}, "retry": map[string]any{"max_attempts": 1}}))
	w.result("j")
	var all []fleetProxy
	_, text, _ := listBoth(t, "--json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2500 || all[0].ID != last || all[0].State != "open" {
		t.Fatalf("%d proxies, the first %+v; want all, the open one first", len(all), all[0])
	}
	for _, p := range all[1:] {
		if p.Workers["closed"] != 2 || p.State != "closed" {
			t.Fatalf("%s is %v, want it closed in both workers", p.ID, p.Workers)
		}
	}
	var some []fleetProxy
	_, text, _ = listBoth(t, "--json", "--limit", "3")
	if err := json.Unmarshal([]byte(text), &some); err != nil || len(some) != 3 || some[0].ID != last {
		t.Errorf("--limit 3: got %s, %v; want 3 proxies, the open one first", text, err)
	}
}

// TestAWorkerThatWasAskedForEachPageToldAll: the worker is a subscriber that has more proxies in trouble than an answer takes.
func TestAWorkerThatWasAskedForEachPageToldAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const total, page = 1500, 1000
	var ended atomic.Bool // it answers no second question then
	pool := make([]control.Proxy, total)
	for i := range pool {
		pool[i] = control.Proxy{ID: fmt.Sprintf("p%04d", i), State: "open", Reason: "connect"}
	}
	if _, err := w.nc.Subscribe("gofer.ctl.proxies", func(m *nats.Msg) {
		var r control.ProxiesRequest
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		if r.Worker != "" && ended.Load() {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"503"}}})
			return
		}
		answer := control.ProxiesResponse{Worker: "w1", Total: total, Proxies: pool[r.From:min(r.From+page, total)]}
		if r.Worker == "" {
			answer.Noted, answer.Pool = total, "same"
		}
		data, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		_ = m.Respond(data)
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	list := func(done func(out, note string) bool, flags ...string) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprintf("a list with %v", flags), func() bool {
			_, out, note := gofer(t, "", append([]string{"proxies", "ls"}, flags...)...)
			return done(out, note)
		})
	}
	const some = "worker w1: 1500 proxies are not closed or are banned; it lists 1000 of them"
	list(func(out, note string) bool {
		return strings.Count(out, "\n") == 1+total && strings.Contains(note, "workers: 1") && !strings.Contains(note, "it lists")
	})
	list(func(out, note string) bool { return strings.Count(out, "\n") == 1+3 && strings.Contains(note, some) }, "--limit", "3")
	ended.Store(true)
	list(func(out, note string) bool {
		return strings.Count(out, "\n") == 1+page && strings.Contains(note, some) && strings.Contains(note, "the list is not complete")
	})
}

func TestWithoutAWorkerProxiesLsShowsWhatIsConfigured(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	serve, url := proxyList(t)
	setenv(t, "GOFER_PROXIES_URL_FILE", url)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	if code, _, errOut := gofer(t, "http://127.0.0.1:9 id=shared\nhttp://127.0.0.1:8 id=good region=eu\n", "proxies", "add", "-"); code != exitOK {
		t.Fatal(errOut)
	}
	serve("127.0.0.1:7 id=fetched\n127.0.0.1:7:u:p id=good\n")
	sources := map[string]string{}
	for _, p := range read[[]listedProxy](t, "proxies", "ls") {
		sources[p.ID] = p.Source + " " + p.Region
	}
	if len(sources) != 3 || sources["shared"] != "bucket " || sources["good"] != "bucket eu" || sources["fetched"] != "URL " {
		t.Errorf("listed %v", sources)
	}
	serve("")
	code, table, note := gofer(t, "", "proxies", "ls", "--limit", "1")
	if code != exitOK || strings.Count(table, "\n") != 2 || !strings.Contains(note, "no worker answers") || !strings.Contains(note, "the list that is fetched is left out: GOFER_PROXIES_URL: the server answers 503") {
		t.Errorf("exit %d,\n%s%s\nwant one proxy, and what is missing", code, table, note)
	}
}

func TestOlderWorkersAreNamedBesideWhatIsConfigured(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	if code, _, errOut := gofer(t, "http://127.0.0.1:9 id=shared\n", "proxies", "add", "-"); code != exitOK {
		t.Fatal(errOut)
	}
	s, err := micro.AddService(w.nc, micro.Config{Name: "gofer", Version: "0.9.0", Metadata: map[string]string{"worker": "old-1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Stop() }()
	if err := w.nc.Flush(); err != nil { // the server knows the service now
		t.Fatal(err)
	}
	code, out, note := gofer(t, "", "proxies", "ls")
	if code != exitOK || !strings.Contains(out, "shared") || strings.Contains(note, "no worker answers") ||
		!strings.Contains(note, "the workers that run are of a version that does not know the question: old-1 (0.9.0)") {
		t.Errorf("exit %d,\n%s%s\nwant what is configured, and the older worker", code, out, note)
	}
}

// TestStatesAreCountedOnlyWhereTheyAreKnown: of a worker that could not tell all its troubles nothing is concluded.
func TestStatesAreCountedOnlyWhereTheyAreKnown(t *testing.T) {
	t.Parallel()
	row := func(id, state string, failures int) control.Proxy {
		return control.Proxy{ID: id, State: state, Failures: failures, InFlight: 1, Bans: failures}
	}
	pool := &fleetPool{proxies: map[string]*fleetProxy{}}
	pool.add([]control.ProxiesResponse{
		{Worker: "w1", Total: 3, Noted: 1, Proxies: []control.Proxy{row("a", "half_open", 1), row("b", "closed", 0), row("c", "closed", 0)}},
		{Worker: "w2", Total: 3, Noted: 1, Proxies: []control.Proxy{row("a", "open", 3)}},
		{Worker: "w3", Total: 3, Noted: 2, Proxies: []control.Proxy{row("a", "open", 2)}},
	})
	got := map[string]string{}
	for id, p := range pool.proxies {
		got[id] = fmt.Sprint(p.stateText(), " ", p.Workers, " ", p.Failures, " ", p.Bans, " ", p.InFlight)
	}
	want := map[string]string{
		"a": "open in 2 of 3 map[half_open:1 open:2] 3 3 3", "b": "closed map[closed:2] 0 0 1", "c": "closed map[closed:2] 0 0 1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestAnUnusualShareIsShownWhicheverWorkerSeesIt also when another worker says more of the proxy.
func TestAnUnusualShareIsShownWhicheverWorkerSeesIt(t *testing.T) {
	t.Parallel()
	u := &rollup.Unusual{Site: "shop.test", Share: 1, Others: 0.02, Answers: 90}
	pool := &fleetPool{proxies: map[string]*fleetProxy{}}
	pool.add([]control.ProxiesResponse{
		{Worker: "w1", Total: 2, Proxies: []control.Proxy{{ID: "a", State: "closed"}, {ID: "b", State: "closed", Unusual: u}}},
		{Worker: "w2", Total: 2, Noted: 1, Proxies: []control.Proxy{{ID: "b", State: "open", Reason: "timeout"}, {ID: "a", State: "closed"}}},
	})
	first := pool.sortedProxies()[0]
	if got, want := first.remark(), "no answer comes in time; 4xx in 100 % of 90 answers of shop.test, through the others in 2 %"; first.ID != "b" || got != want {
		t.Errorf("first is %s: %q, want b: %q", first.ID, got, want)
	}
}

func TestEachReasonThatOpensABreakerIsAWord(t *testing.T) {
	t.Parallel()
	// What is the job's, the site's answer or this worker's own opens no breaker.
	never := []string{"status", "status_403", "status_429", "ban", "body_too_large", "redirects", "location", "denied", "decode", "local", "cancelled", "panic", rollup.Other}
	for _, code := range rollup.Reasons() {
		if text := breakerReason(code); !slices.Contains(never, code) && !strings.HasPrefix(text, "it") && !strings.HasPrefix(text, "TLS") && !strings.HasPrefix(text, "no answer") {
			t.Errorf("%s is said as %q", code, text)
		}
	}
}
