package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

// TestEachMessageHeartbeatAndReconnectIsCounted lets a worker do a bit of everything and looks at its page.
func TestEachMessageHeartbeatAndReconnectIsCounted(t *testing.T) {
	w := newWorld(t, nil)
	t.Setenv("GOFER_RETRY_BASE_DELAY", "3s")
	t.Setenv("GOFER_RETRY_JITTER", "false")
	t.Setenv("GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	dead := w.startProxy(testenv.Refusing)
	t.Setenv("GOFER_PROXIES", w.proxy.URL("http")+" id=good,"+dead.URL("http")+" id=dead")
	addr := freeAddr(t)
	w.worker(addr)
	moved := func(sample string) {
		t.Helper()
		some := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(sample) + ` [1-9]`)
		eventually(t, sample+" to move", func() bool {
			_, page := w.get("http://" + addr + "/metrics")
			return some.MatchString(page)
		})
	}
	w.publish("held", job("/slow/20000", nil))
	w.publish("waits", job("/status/503", nil))
	w.publish("bad", "no job")
	w.publish("fails", job("/ok", map[string]any{"proxy": map[string]any{"id": "dead"}, "retry": map[string]any{"max_attempts": 1}}))
	for _, sample := range []string{
		`gofer_publishes_total{kind="result",outcome="ok"}`, `gofer_publishes_total{kind="retry",outcome="ok"}`,
		`gofer_publishes_total{kind="dead",outcome="ok"}`, `gofer_publishes_total{kind="event",outcome="ok"}`,
		`gofer_publishes_total{kind="rollup",outcome="ok"}`, `gofer_heartbeats_total{outcome="ok"}`,
		`gofer_consumer_ack_pending{queue="default"}`,
	} {
		moved(sample)
	}
	w.nats.Stop()
	w.nats.Start()
	moved("gofer_nats_reconnects_total")
	if code, _, errOut := gofer(t, "", "cancel", "held"); code != exitOK || strings.Contains(errOut, "error") {
		t.Errorf("gofer cancel: exit %d, %s", code, errOut)
	}
}
