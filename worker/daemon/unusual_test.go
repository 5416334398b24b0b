package daemon_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/control"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// TestAProxyThatAnswers404WhereAllOthersAnswer200IsNamed has five proxies that answer for the site. All stay in use.
func TestAProxyThatAnswers404WhereAllOthersAnswer200IsNamed(t *testing.T) {
	var lines []string
	for i := range 5 {
		status := http.StatusOK
		if i == 2 {
			status = http.StatusNotFound
		}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(proxy.Close)
		lines = append(lines, fmt.Sprint(proxy.URL, " id=p", i))
	}
	server := testenv.StartNATS(t, nil)
	r := run(t, daemon.Config{NATS: bus.Dial{URL: server.URL()}, Name: "w1", Queues: []worker.Queue{{Name: "default"}}, Proxies: parse(t, lines...), AllowPrivateTargets: true})
	r.until("nats: connected")
	c, err := client.Open(t.Context(), client.Config{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 300 {
		if _, err := c.Submit(t.Context(), jobs.Job{ID: fmt.Sprint("j", i), URL: "http://shop.test/"}); err != nil {
			t.Fatal(err)
		}
	}
	row := r.first("/proxies", "proxies", func(row map[string]any) bool { return row["unusual_4xx"] != nil })
	unusual, _ := row["unusual_4xx"].(map[string]any)
	if row["proxy_id"] != "p2" || row["state"] != "closed" || unusual["site"] != "shop.test" || unusual["share_4xx"] != 1.0 || unusual["others_4xx"] != 0.0 {
		t.Errorf("the first proxy is %v, want p2, closed, and unusual at the site", row)
	}
	list, err := control.Ask[control.Status](t.Context(), server.Connect(), "gofer.ctl."+control.Workers, nil, 1)
	if err != nil || len(list) != 1 || len(list[0].Unusual) != 1 || list[0].Unusual[0].ProxyID != "p2" {
		t.Errorf("the worker says %+v, %v; want it to name p2", list, err)
	}
}
