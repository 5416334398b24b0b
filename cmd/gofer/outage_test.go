package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

func TestJobsOutliveTheFailureOfAllProxiesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var lines []string
	proxies := make([]*testenv.Proxy, 6)
	for i := range proxies {
		proxies[i] = w.startProxy(testenv.Good)
		lines = append(lines, proxies[i].URL("http")+fmt.Sprint(" id=p", i))
	}
	setenv(t, "GOFER_PROXIES", strings.Join(lines, ","))
	addr := freeAddr(t)
	w.worker(addr)
	const n = 30
	for i := range n {
		w.publish(fmt.Sprint("before", i), job("/ok", nil))
	}
	for i := range n {
		w.result(fmt.Sprint("before", i))
	}
	for _, p := range proxies {
		p.Close()
	}
	for i := range n {
		w.publish(fmt.Sprint("during", i), job("/ok", nil))
	}
	testenv.Eventually(t, "the worker to say that the whole pool fails", func() bool {
		status, why := w.get("http://" + addr + "/readyz?verbose")
		_, page := w.get("http://" + addr + "/metrics")
		return status == 503 && strings.Contains(why, "all fail at once") && strings.Contains(page, "\ngofer_pool_failing 1\n")
	})
	for _, p := range proxies {
		if err := p.Start(p.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if r := w.result(fmt.Sprint("during", i)); r.Outcome != jobs.Succeeded {
			t.Errorf("job %s: %s %s %s, want that it waited", r.ID, r.Outcome, r.Error, r.Detail)
		}
	}
	testenv.Eventually(t, "the worker to be ready again", func() bool {
		status, _ := w.get("http://" + addr + "/readyz")
		return status == 200
	})
	_, out, _ := gofer(t, "", "events", "--all", "--until-now")
	if strings.Count(out, "fails as a whole") != 1 || strings.Count(out, "works again") != 1 || strings.Contains(out, "closed → open") {
		t.Errorf("events: want one of the pool's failure, one of its end, and no breaker:\n%s", out)
	}
}
