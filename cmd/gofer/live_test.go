package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

func TestPoolPolicyAndDenyListChangeLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := freeAddr(t)
	w.worker(addr)
	second := w.startProxy(testenv.Good)
	if code, _, errOut := gofer(t, second.URL("http")+" id=second\n", "proxies", "add", "-"); code != exitOK {
		t.Fatalf("gofer proxies add: exit %d, %s", code, errOut)
	}
	testenv.Eventually(t, "the second proxy to be in the pool", func() bool {
		status, _ := w.get("http://" + addr + "/api/v1/circuit-breakers/second")
		return status == http.StatusOK
	})
	if code, _, errOut := gofer(t, "", "deny", "add", "shop.test"); code != exitOK {
		t.Fatalf("gofer deny add: exit %d, %s", code, errOut)
	}
	if code, _, errOut := gofer(t, "", "policy", "set", `{"max_attempts":7}`); code != exitOK {
		t.Fatalf("gofer policy set: exit %d, %s", code, errOut)
	}
	testenv.Eventually(t, "the new policy", func() bool {
		_, body := w.get("http://" + addr + "/api/v1/retry/policy")
		return strings.Contains(body, `"max_attempts":7`)
	})
	n := 0
	testenv.Eventually(t, "jobs for the denied host to be denied", func() bool {
		n++
		id := fmt.Sprint("denied", n)
		w.publish(id, job("/ok", nil))
		return w.result(id).Error == jobs.ErrTargetDenied
	})
}

func TestALostServerIsSaidAndNotGuessedAround(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := freeAddr(t)
	w.worker(addr)
	if _, _, errOut := gofer(t, "", "pause", "nosuch"); errOut != "gofer: pause queue nosuch: not found: no worker has ever served it; gofer queues lists the queues\n" {
		t.Errorf("pause of an unknown queue says %q", errOut)
	}
	w.nats.Stop()
	testenv.Eventually(t, "a change to be refused with the cause", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+addr+"/api/v1/retry/policy", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), "NATS cannot be reached")
	})
	setenv(t, "GOFER_PROXIES", "")
	for _, verb := range []string{"ls", "check"} {
		if code, _, errOut := gofer(t, "", "proxies", verb); code != exitUnreachable || strings.Contains(errOut, "No proxy is named") {
			t.Errorf("proxies %s: exit %d, %q; want %d", verb, code, errOut, exitUnreachable)
		}
	}
}

func TestStrategyChangesLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_PROXIES", w.proxy.URL("http")+" id=light,"+w.startProxy(testenv.Good).URL("http")+" id=heavy weight=9")
	w.worker(freeAddr(t))
	jobsDone := 0
	share := func(id string) (n int) { // of ten jobs
		first := jobsDone
		for ; jobsDone < first+10; jobsDone++ {
			w.publish(fmt.Sprint("j", jobsDone), job("/ok", nil))
			if w.result(fmt.Sprint("j", jobsDone)).Proxy == id {
				n++
			}
		}
		return n
	}
	if got := share("heavy"); got != 5 {
		t.Errorf("round robin: %d of 10 jobs through one of two proxies, want 5", got)
	}
	for _, step := range []struct {
		name string
		want int
	}{{"weighted", 9}, {"reset", 5}} {
		if code, _, errOut := gofer(t, "", "proxies", "strategy", step.name); code != exitOK {
			t.Fatalf("gofer proxies strategy %s: exit %d, %s", step.name, code, errOut)
		}
		testenv.Eventually(t, "the strategy "+step.name, func() bool { return share("heavy") == step.want })
	}
	if got := read[map[string]string](t, "proxies", "strategy"); got["strategy"] != "round_robin" || got["source"] != "environment" {
		t.Errorf("gofer proxies strategy: %v, want the environment's", got)
	}
	if code, _, _ := gofer(t, "", "proxies", "strategy", "cheapest"); code != exitUsage {
		t.Errorf("an unknown strategy: exit %d, want %d", code, exitUsage)
	}
}

func TestReadinessSaysThatTheProxiesFileIsBrokenUntilItIsMended(t *testing.T) {
	t.Parallel()
	testenv.Long(t)
	w := newWorld(t, nil)
	addr, file := freeAddr(t), filepath.Join(t.TempDir(), "proxies.txt")
	write := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := "http://192.0.2.7:8080 id=a\nhttp://192.0.2.8:8080 id=b\n"
	write(good)
	setenv(t, "GOFER_PROXIES_FILE", file)
	w.worker(addr)
	said := func(want ...string) func() bool {
		return func() bool {
			status, text := w.get("http://" + addr + "/readyz?verbose")
			if strings.Contains(text, "s3cret") {
				t.Fatalf("a line's text is told:\n%s", text)
			}
			return status == http.StatusOK && !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(text, part) })
		}
	}
	testenv.Eventually(t, "the good file", said("[+] proxies: 3 in the pool\n"))
	write(good + "u:s3cret@192.0.2.9\n")
	testenv.Eventually(t, "the broken line to be told", said("[+] proxies: 3 in the pool; the proxies cannot be read since 2", "Z: GOFER_PROXIES_FILE: line 3: not a proxy URL", "encoded\n"))
	write(good + "u:s3cret@192.0.2.9\nu:s3cret@192.0.2.10\n")
	testenv.Eventually(t, "the number of broken lines to be told", said("line 3: ", " (and 1 more)\n"))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the missing file to be told", said("[+] proxies: 3 in the pool; ", "no such file"))
	write("http://192.0.2.7:8080 id=a\n")
	testenv.Eventually(t, "the repaired file", said("[+] proxies: 2 in the pool\n"))
}
