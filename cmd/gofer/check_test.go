package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// outcomes reads what gofer proxies check --json printed, by id; a proxy that is printed twice fails the test.
func outcomes(t *testing.T, out string) map[string]checkResult {
	t.Helper()
	all := map[string]checkResult{}
	for line := range strings.Lines(out) {
		var r checkResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("not a JSON object: %q", line)
		}
		if _, twice := all[r.ID]; twice {
			t.Errorf("proxy %s was printed twice", r.ID)
		}
		all[r.ID] = r
	}
	return all
}

func TestCheckSaysWhichProxiesWorkAndWhyOthersDoNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	locked := w.startProxy(testenv.Good)
	locked.User, locked.Password = "user", "s3cret"
	wrong := strings.Replace(locked.URL("http"), "s3cret", "0ther-s3cret", 1)
	gateway := w.startProxy(testenv.BadGateway)
	lines := strings.Join([]string{
		w.proxy.URL("http") + " id=good",
		locked.URL("socks5") + " id=socks",
		locked.URL("http") + " id=login",
		wrong + " id=wrong-login",
		w.startProxy(testenv.Refusing).URL("http") + " id=refusing",
		"http://" + freeAddr(t) + " id=nobody",
		w.startProxy(testenv.Banned).URL("http") + " id=banned",
		gateway.URL("http") + " id=gateway",
	}, "\n")
	file := filepath.Join(t.TempDir(), "proxies.txt")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := gofer(t, "", "proxies", "check", "--json", "--target", "http://shop.test/ok", "--timeout", patience.String(), file)
	if code != exitSomeFailed || !strings.Contains(errOut, "gofer: 3 ok, 5 failed, median time ") {
		t.Errorf("exit %d, said %q; want %d and 3 ok, 5 failed", code, errOut, exitSomeFailed)
	}
	// By itself: proxies that answer may take longer than a time that is short enough to wait for.
	silent := w.startProxy(testenv.Silent).URL("http") + " id=silent"
	code, late, errOut := gofer(t, silent, "proxies", "check", "--json", "--target", "http://shop.test/ok", "--timeout", "100ms", "-")
	if code != exitSomeFailed || !strings.Contains(errOut, "gofer: 0 ok, 1 failed") {
		t.Errorf("a silent proxy: exit %d, said %q; want %d and 1 failed", code, errOut, exitSomeFailed)
	}
	out += late
	if strings.Contains(out+errOut, "s3cret") || strings.Contains(out+errOut, "user:") {
		t.Errorf("credentials were printed:\n%s%s", out, errOut)
	}
	got := outcomes(t, out)
	for _, want := range []checkResult{
		{ID: "good", OK: true, Status: 200}, {ID: "socks", OK: true, Status: 200}, {ID: "login", OK: true, Status: 200},
		{ID: "wrong-login", Fault: jobs.FaultProxy, Error: "the proxy wants other credentials (407)"},
		{ID: "refusing", Fault: refusal(got["refusing"].Fault), Error: "the proxy"},
		{ID: "nobody", Fault: jobs.FaultProxy, Error: "connection refused"},
		{ID: "silent", Fault: jobs.FaultUnclear, Error: "no complete answer in time"},
		{ID: "banned", Status: 403, Fault: jobs.FaultTarget, Error: "403 Forbidden"},
		{ID: "gateway", Status: 502, Fault: jobs.FaultUnclear, Error: "502 Bad Gateway"},
	} {
		r := got[want.ID]
		if r.OK != want.OK || r.Status != want.Status || r.Fault != want.Fault || !strings.Contains(r.Error, want.Error) || r.OK != (r.Error == "") {
			t.Errorf("%s = %+v, want %+v", want.ID, r, want)
		}
		if !strings.HasPrefix(r.Addr, "http://127.0.0.1:") && !strings.HasPrefix(r.Addr, "socks5://127.0.0.1:") || r.Duration <= 0 {
			t.Errorf("%s has the address %q and the time %s", want.ID, r.Addr, r.Duration)
		}
	}
	if n, tries := w.origin.Count("/ok"), gateway.Requests.Load(); n != 3 || tries != 1 {
		t.Errorf("the target was asked %d times and a bad proxy %d times, want once by each proxy that works and 1", n, tries)
	}
}

func TestCheckWithoutAFileTakesEnvironmentAndBucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := gofer(t, w.startProxy(testenv.Good).URL("socks5")+" id=shared\n", "proxies", "add", "-"); code != exitOK {
		t.Fatalf("gofer proxies add: exit %d, %s", code, errOut)
	}
	code, out, errOut := gofer(t, "", "proxies", "check", "--target", "http://shop.test/ok")
	if code != exitOK || !strings.HasPrefix(errOut, "gofer: 2 ok, 0 failed, median time ") {
		t.Errorf("exit %d, said %q; want 0 and 2 ok", code, errOut)
	}
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, "good   http://127") || !strings.Contains(out, "shared socks5://127") || strings.Count(out, " ok     200 ") != 2 {
		t.Errorf("printed\n%swant a line for good and one for shared", out)
	}
	setenv(t, "GOFER_HEALTH_CHECK_URL", "http://shop.test/ok")
	code, out, _ = gofer(t, "", "proxies", "check", "--via", "shared")
	if code != exitOK || !strings.HasPrefix(out, "shared ") || strings.Count(out, "\n") != 1 {
		t.Errorf("--via shared: exit %d, printed %q; want only that one", code, out)
	}
}

func TestCheckOfALongListAsksEachProxyOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	gone := freeAddr(t)
	var lines strings.Builder
	for i := range 200 {
		if i%20 == 0 {
			fmt.Fprintf(&lines, "http://%s id=gone-%d\n", gone, i)
			continue
		}
		fmt.Fprintf(&lines, "%s id=good-%d\n", w.proxy.URL("http"), i)
	}
	code, out, errOut := gofer(t, lines.String(), "proxies", "check", "--json", "--target", "http://shop.test/ok", "-")
	if code != exitSomeFailed || !strings.Contains(errOut, "190 ok, 10 failed") || strings.Contains(errOut, "%") {
		t.Errorf("exit %d, said %q; want %d, 190 ok, 10 failed and no progress bar", code, errOut, exitSomeFailed)
	}
	all := outcomes(t, out)
	for id, r := range all {
		if r.OK != strings.HasPrefix(id, "good-") {
			t.Errorf("%s: ok = %t, %s", id, r.OK, r.Error)
		}
	}
	if len(all) != 200 || w.proxy.Requests.Load() != 190 {
		t.Errorf("%d proxies printed, %d requests; want 200 and 190", len(all), w.proxy.Requests.Load())
	}
}

func TestInterruptedCheckSaysWhatIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	silent := w.startProxy(testenv.Silent)
	setenv(t, "GOFER_PROXIES", "")
	setenv(t, "GOFER_PROXIES_FILE", filepath.Join(t.TempDir(), "proxies.txt"))
	lines := w.proxy.URL("http") + " id=good\n"
	for i := range 12 {
		lines += silent.URL("http") + fmt.Sprintf(" id=silent-%d\n", i)
	}
	if err := os.WriteFile(getenv(t, "GOFER_PROXIES_FILE"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.start("proxies", "check", "--target", "http://shop.test/ok", "--timeout", "10m", "--parallel", "3")
	testenv.Eventually(t, "the good proxy to be printed and three silent ones to be asked", func() bool {
		return strings.Contains(p.log.String(), "good ") && silent.Conns.Load() >= 3
	})
	if code := p.wait(t); code != exitSignalled || !strings.Contains(p.log.String(), "interrupted: 1 ok, 0 failed") || !strings.Contains(p.log.String(), "12 not checked") {
		t.Errorf("exit %d, said:\n%swant %d and what is known", code, p.log, exitFailed)
	}
	if n := silent.Conns.Load(); n != 3 {
		t.Errorf("%d silent proxies were asked, want no more than --parallel 3 at a time", n)
	}
}

func TestWrongChecksAreUsageErrors(t *testing.T) {
	t.Parallel()
	const line = "http://user:s3cret@192.0.2.1:8080\n"
	for _, c := range []struct {
		in, want string
		args     []string
	}{
		{line, "--target", []string{"--target", "shop.test", "-"}},
		{line, "GOFER_ALLOW_PRIVATE_TARGETS", []string{"--target", "http://127.0.0.1:1/", "-"}},
		{line, "--timeout", []string{"--timeout", "0s", "-"}},
		{line, "--parallel", []string{"--parallel", "0", "-"}},
		{line, `no proxy "mars"`, []string{"--via", "mars", "-"}},
		{line + "user:s3cret@nowhere\n", "standard input: line 2", []string{"-"}},
		{line, "no such file", []string{filepath.Join(t.TempDir(), "none")}},
		{line, "too many arguments", []string{"a", "b"}},
	} {
		code, out, errOut := gofer(t, c.in, append([]string{"proxies", "check"}, c.args...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, c.want) || strings.Contains(errOut, "s3cret") {
			t.Errorf("gofer proxies check %s: exit %d, %q, %q; want %d and %q", c.args, code, out, errOut, exitUsage, c.want)
		}
	}
	if code, _, errOut := gofer(t, "# none\n", "proxies", "check", "-"); code != exitFailed || !strings.Contains(errOut, "no proxies to check: name a file, set GOFER_PROXIES or GOFER_PROXIES_FILE, or see gofer proxies add") {
		t.Errorf("an empty list: exit %d, %q; want %d and that there is nothing to check", code, errOut, exitFailed)
	}
}

// refusal is the fault of a proxy that hangs up: its own where that comes before the request is out, or else unclear, for it may
// be its way to say that the site is down.
func refusal(got jobs.Fault) jobs.Fault {
	if got == jobs.FaultProxy {
		return got
	}
	return jobs.FaultUnclear
}

func TestCheckOfAGatewayTakesAFreshExit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	gate := w.startProxy(testenv.Good)
	var users sync.Map
	gate.Exit = func(user, _ string) (testenv.Mode, bool) {
		users.Store(user, true)
		return testenv.Good, !strings.HasSuffix(user, "-nowhere")
	}
	lines := fmt.Sprintf("http://u-{session}-{region}:s3cret@%[1]s id=gate region=us\nhttp://u-{session}-{region}:s3cret@%[1]s id=roams\nhttp://u:s3cret@%[1]s id=turns gateway=yes\n", gate.Addr())
	check := func(args ...string) (int, map[string]checkResult) {
		code, out, errOut := gofer(t, lines, append(append([]string{"proxies", "check", "--json", "--target", "http://shop.test/ok"}, args...), "-")...)
		if strings.Contains(out+errOut, "s3cret") || strings.Contains(out+errOut, "u-") {
			t.Errorf("credentials were printed:\n%s%s", out, errOut)
		}
		return code, outcomes(t, out)
	}
	code, got := check()
	if code != exitSomeFailed || !got["gate"].OK || !got["turns"].OK || got["roams"].OK || !strings.Contains(got["roams"].Error, "--region") {
		t.Errorf("exit %d, %+v; want the gateway that needs a region to say so, and the others to work", code, got)
	}
	if _, used := users.Load("u-" + got["gate"].Exit + "-us"); !used || len(got["gate"].Exit) != 12 {
		t.Errorf("exit %q was printed, which the gateway did not see", got["gate"].Exit)
	}
	if code, got := check("--region", "DE"); code != exitOK || !got["roams"].OK {
		t.Errorf("--region DE: exit %d, %+v; want all to work", code, got)
	}
	if code, got := check("--region", "nowhere"); code != exitSomeFailed || !strings.Contains(got["roams"].Error, "region") {
		t.Errorf("--region nowhere: exit %d, %+v; want the region to be named", code, got)
	}
	if code, _, errOut := gofer(t, lines, "proxies", "check", "--region", "a-b", "-"); code != exitUsage || !strings.Contains(errOut, "--region") {
		t.Errorf("--region a-b: exit %d, %q; want it refused", code, errOut)
	}
}

func TestProxiesLsTellsGatewaysFromProxies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.client.Ensure(t.Context(), bus.Settings{}); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := gofer(t, "http://u-{session}:s3cret@192.0.2.7:1 id=gate session_ttl=5m\n", "proxies", "add", "-"); code != exitOK {
		t.Fatalf("gofer proxies add: exit %d, %s", code, errOut)
	}
	_, out, _ := gofer(t, "", "proxies", "ls", "--json")
	var list []listedProxy
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, p := range list {
		kinds[p.ID] = p.Kind
	}
	if kinds["gate"] != "gateway" || kinds["good"] != "proxy" || strings.Contains(out, "u-") {
		t.Errorf("printed %s; want a gateway and a proxy, without their users", out)
	}
}
