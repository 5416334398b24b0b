package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

// testedWorld is a world with a worker that tests proxies itself, and a second proxy, "other", whose breaker is open.
type testedWorld struct {
	*world
	other   *testenv.Proxy
	program *program
	jobs    int
}

func newTestedWorld(t *testing.T, page, interval string) *testedWorld {
	t.Helper()
	w := &testedWorld{world: newWorld(t, nil)}
	w.other = w.startProxy(testenv.Refusing)
	setenv(t, "GOFER_PROXIES", w.proxy.URL("http")+" id=good,"+w.other.URL("http")+" id=other")
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "2")
	setenv(t, "GOFER_BREAKER_TIMEOUT", "0.1s")
	setenv(t, "GOFER_BREAKER_MAX_TIMEOUT", "0.1s")
	setenv(t, "GOFER_HEALTH_CHECK_URL", page)
	setenv(t, "GOFER_HEALTH_CHECK_INTERVAL", interval)
	w.program = w.worker(freeAddr(t))
	for w.state() == "closed" {
		w.fetch()
	}
	return w
}

// fetch runs a job to its end and returns how many attempts it took.
func (w *testedWorld) fetch() int {
	w.Helper()
	w.jobs++
	id := fmt.Sprint("job", w.jobs)
	w.publish(id, job("/ok", nil))
	return w.result(id).AttemptCount
}

// breaker is what the worker says about the other proxy.
func (w *testedWorld) breaker() (b struct {
	State string     `json:"state"`
	Next  *time.Time `json:"next_test_time"`
}) {
	w.Helper()
	_, body := w.get("http://" + getenv(w.T, "GOFER_HTTP_ADDR") + "/api/v1/circuit-breakers/other")
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		w.Fatalf("the breaker is %q: %v", body, err)
	}
	return b
}

func (w *testedWorld) state() string { return w.breaker().State }

func TestProxyIsFoundToWorkAgainWithoutAJob(t *testing.T) {
	t.Parallel()
	w := newTestedWorld(t, "http://shop.test/health", "0.1s")
	tried := w.other.Conns.Load()
	testenv.Eventually(t, "the dead proxy to be tested more than once", func() bool { return w.other.Conns.Load() >= tried+2 })
	if got := w.state(); got == "closed" {
		t.Errorf("the dead proxy's breaker is closed after tests that failed")
	}
	w.other.Set(testenv.Good)
	testenv.Eventually(t, "the proxy to be found to work", func() bool { return w.state() == "closed" })
	testenv.Eventually(t, "the event that the breaker closed", func() bool {
		_, out, _ := gofer(t, "", "events", "--all", "--until-now")
		return strings.Contains(out, "half_open → closed")
	})
	_, counted := w.get("http://" + getenv(w.T, "GOFER_HTTP_ADDR") + "/api/v1/metrics/retries/by-proxy?scope=worker")
	if !strings.Contains(counted, fmt.Sprintf(`"proxy_id":"good","total_attempts":%d,`, w.jobs)) {
		t.Errorf("%d jobs were fetched through the good proxy, counted are:\n%s", w.jobs, counted)
	}
}

func TestJobsLeaveProxiesThatRestedToTheHealthCheck(t *testing.T) {
	t.Parallel()
	w := newTestedWorld(t, "http://shop.test/health", "1h") // the first look is over, the second one will not be
	testenv.Eventually(t, "the other proxy's open time to be over", func() bool {
		b := w.breaker()
		return b.State == "open" && b.Next != nil && time.Now().After(*b.Next)
	})
	for range 20 {
		if n := w.fetch(); n != 1 {
			t.Fatalf("a job took %d attempts, want 1: the dead proxy is not its business", n)
		}
	}
	if got := w.state(); got != "open" {
		t.Errorf("the dead proxy's breaker is %s, want it still open", got)
	}
}

func TestJobsFindOutWhenTheHealthCheckPageIsDown(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_ALLOW_PRIVATE_TARGETS", "true")
	w := newTestedWorld(t, "http://"+freeAddr(t)+"/", "0.1s")
	testenv.Eventually(t, "the worker to say that the page cannot be fetched", func() bool {
		return strings.Contains(w.program.log.String(), "the page for that cannot be fetched")
	})
	w.other.Set(testenv.Good)
	for i := 0; w.state() != "closed" && i < 300; i++ {
		w.fetch()
	}
	if got := w.state(); got != "closed" {
		t.Errorf("after 300 jobs the breaker is %s, want it closed by one of them", got)
	}
}
