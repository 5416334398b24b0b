package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv"
)

// TestAllTimesAreInUTC reads everything that the program writes. The tests of this package run in another zone.
func TestAllTimesAreInUTC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	// Nobody listens where the bad proxy should be, which is its fault whatever else happens.
	setenv(t, "GOFER_PROXIES", w.proxy.URL("http")+" id=good,http://"+freeAddr(t)+" id=bad")
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1")
	setenv(t, "GOFER_LOG_LEVEL", "debug")
	setenv(t, "GOFER_LOG_FORMAT", "json")
	addr := freeAddr(t)
	p := w.worker(addr)
	said := map[string]string{}
	verb := func(in string, args ...string) {
		t.Helper()
		code, out, errOut := gofer(t, in, append(args, "--json")...)
		if code != exitOK {
			t.Fatalf("gofer %v: exit %d, %s", args, code, errOut)
		}
		said[fmt.Sprint("gofer ", args)] = out + errOut
	}
	verb("", "submit", "--id", "later", "--in", "1h", "http://shop.test/ok")
	verb(`{"url":"http://shop.test/ok","id":"offset","not_before":"2099-01-02T15:04:05+05:30","deadline":"2100-01-02T15:04:05+05:30"}`, "submit", "-")
	w.publish("waits", job("/status/503", map[string]any{"retry": map[string]any{"base_delay": 30, "jitter": false, "backoff_strategy": "fixed"}}))
	w.publish("fails", job("/status/503", map[string]any{"retry": map[string]any{"max_attempts": 2, "base_delay": 0.1}}))
	w.publish("refused", job("/ok", map[string]any{"proxy": map[string]any{"id": "bad"}, "when_no_proxy": "fail"}))
	w.publish("invalid", "none")
	for _, id := range []string{"fails", "invalid", "refused"} {
		w.result(id)
	}
	testenv.Eventually(t, "the ack, which comes after the result and lets the id be published again", func() bool {
		_, err := w.client.JetStream().Publish(t.Context(), "gofer.jobs.default.invalid", []byte("none"))
		return err == nil
	})
	testenv.Eventually(t, "the events of a retry, a breaker and a duplicate, and the job that waits", func() bool {
		_, out, _ := gofer(t, "", "events", "--all", "--until-now", "--json")
		queues := read[[]struct{ Waiting int }](t, "queues")
		return strings.Contains(out, `"retry"`) && strings.Contains(out, `"breaker"`) && strings.Contains(out, `"duplicate"`) && len(queues) == 1 && queues[0].Waiting == 3
	})
	verb("", "pause", "default", "--for", "1h")
	for _, args := range []string{
		"queues", "workers", "breakers ls", "events --all --until-now", "job waits", "job later", "job fails", "results fails", "dead ls", "dead show invalid", "rollups",
		"policy show", "setup --dry-run", "proxies ls",
	} {
		verb("", strings.Fields(args)...)
	}
	said["gofer submit --wait"] = func() string {
		_, out, errOut := gofer(t, "", "submit", "--wait", "--timeout", "0.1", "--json", "http://shop.test/ok")
		return out + errOut
	}()
	for _, path := range []string{"circuit-breakers", "circuit-breakers/metrics", "circuit-breakers/bad", "metrics/retries/timeseries", "metrics/retries/by-proxy", "retry/policy"} {
		_, said["GET "+path] = w.get("http://" + addr + "/api/v1/" + path)
	}
	said["PUT of a policy"] = w.send(http.MethodPut, "http://"+addr+"/api/v1/retry/policy", `{"max_attempts":2}`)
	p.wait(t)
	said["the log"] = p.log.String()
	w.readEveryStream(said)
	for who, text := range said {
		if found := otherZone(text); text == "" || len(found) > 0 {
			t.Errorf("%s, %d bytes: %v", who, len(text), found)
		}
	}
}

// readEveryStream adds each message of each stream, and each consumer.
func (w *world) readEveryStream(said map[string]string) {
	w.Helper()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.Fatal(err)
	}
	for name := range js.StreamNames(w.Context()).Name() {
		stream, err := js.Stream(w.Context(), name)
		if err != nil {
			w.Fatal(err)
		}
		state := stream.CachedInfo().State
		for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
			if msg, err := stream.GetMsg(w.Context(), seq); err == nil {
				said[fmt.Sprint("message ", seq, " of ", name)] = fmt.Sprint(msg.Subject, msg.Header, string(msg.Data))
			}
		}
	}
}
