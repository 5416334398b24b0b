package main

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/control"
)

// deployed is a world whose server has the shipped configuration, so that every user has the shipped rights.
func deployed(t *testing.T) *world {
	t.Helper()
	for _, user := range []string{"WORKER", "ADMIN", "PUBLISHER", "READER"} {
		t.Setenv("NATS_"+user+"_PASSWORD", "p-"+strings.ToLower(user))
	}
	opts, err := server.ProcessConfigFile("../../deploy/nats/server.conf")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, origin: testenv.StartOrigin(t, false)}
	w.nats = testenv.StartNATS(t, func(o *server.Options) {
		dir := o.StoreDir
		*o = *opts
		o.Host, o.Port, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, dir, true, true
	})
	w.proxy = w.startProxy(testenv.Good)
	setenv(t, "GOFER_NATS_URL", w.nats.URL())
	setenv(t, "GOFER_PROXIES", w.proxy.URL("http")+" id=good")
	setenv(t, "GOFER_LOG_LEVEL", "warn")
	return w
}

// as makes what is started from now on one of the shipped users.
func (w *world) as(user string) {
	w.Helper()
	setenv(w.T, "GOFER_NATS_USER", user)
	setenv(w.T, "GOFER_NATS_PASSWORD", "p-"+user)
	setenv(w.T, "GOFER_NATS_INBOX_PREFIX", "_INBOX_"+user)
}

func TestShippedUsersMayShowAndSteerTheFleet(t *testing.T) {
	w := deployed(t)
	w.as("worker")
	first, addr := w.named("w1")
	second, _ := w.named("w2")
	w.as("admin")
	if code, out, errOut := gofer(t, "", "submit", "--wait", "--id", "j1", "http://shop.test/ok"); code != exitOK {
		t.Fatalf("gofer submit: exit %d, %s%s", code, out, errOut)
	}
	for _, args := range [][]string{{"workers"}, {"breakers", "ls"}, {"breakers", "reset", "--all"}, {"rollups"}, {"job", "j1"}} {
		if code, out, errOut := gofer(t, "", args...); code != exitOK || out == "" || strings.Contains(errOut, "refuses") || strings.Contains(errOut, "cannot be read") {
			t.Errorf("gofer %v as admin: exit %d, %q, %q; want it done and nothing refused", args, code, out, errOut)
		}
	}
	resp, err := http.Post("http://"+addr+"/api/v1/circuit-breakers/good/reset", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("reset over HTTP = %s, want 200", resp.Status)
	}
	nc, err := bus.Connect(t.Context(), bus.Dial{URL: w.nats.URL(), User: "admin", Password: "p-admin", InboxPrefix: "_INBOX_admin"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, verb := range []string{control.Pause, control.Resume} {
		if _, err := control.Ask[control.PauseResponse](t.Context(), nc, "gofer.ctl."+verb, control.QueueRequest{Queue: "default"}, 1); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	testenv.Eventually(t, "an admin to see both services", func() bool {
		infos, err := control.Ask[micro.Info](t.Context(), nc, "$SRV.INFO.gofer", nil, 0)
		return err == nil && len(infos) == 2
	})
	if code, _, errOut := gofer(t, "", "drain", "w1"); code != exitOK {
		t.Errorf("gofer drain as admin: exit %d, %s", code, errOut)
	}
	for _, p := range []*program{first, second} {
		p.wait(t)
		if text := p.log.String(); strings.Contains(strings.ToLower(text), "permissions violation") {
			t.Errorf("a worker was refused something:\n%s", text)
		}
	}
}

// TestAPublisherSubmitsWithoutNoise: he may not look at consumers, so he gets no hint about the queue, and no complaint either.
func TestAPublisherSubmitsWithoutNoise(t *testing.T) {
	w := deployed(t)
	w.as("worker")
	w.named("w1")
	w.as("publisher")
	if code, out, errOut := gofer(t, "", "submit", "--queue", "default", "http://shop.test/ok"); code != exitOK || out == "" || errOut != "" {
		t.Errorf("gofer submit: exit %d, %q, %q; want the id alone", code, out, errOut)
	}
	for verb, args := range map[string][]string{"events": {"events", "--queue", "nope", "--until-now"}, "results": {"results", "--queue", "nope", "--limit", "1"}} {
		w.as("reader")
		if _, _, errOut := gofer(t, "", args...); strings.Contains(errOut, "no worker has ever served") || strings.Contains(errOut, "CONSUMER.INFO.GOFER_JOBS") {
			t.Errorf("gofer %s: a reader is told of consumers that he may not see: %q", verb, errOut)
		}
	}
}

func TestPublisherMayNotSteerTheFleet(t *testing.T) {
	testenv.Long(t)
	w := deployed(t)
	w.as("worker")
	w.named("w1")
	nc, err := bus.Connect(t.Context(), bus.Dial{URL: w.nats.URL(), User: "publisher", Password: "p-publisher", InboxPrefix: "_INBOX_publisher"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := control.Ask[control.DrainResponse](t.Context(), nc, "gofer.ctl.drain", control.DrainRequest{Worker: "w1"}, 1); !errors.Is(err, control.ErrNoWorkers) {
		t.Errorf("drain by a publisher: %v, want no answer", err)
	}
	w.as("publisher")
	for _, args := range [][]string{{"proxies", "add", "http://127.0.0.1:1"}, {"deny", "add", "evil.test"}, {"policy", "set", `{"max_attempts":5}`}, {"proxies", "strategy", "random"}} {
		if code, _, errOut := gofer(t, "", args...); code == exitOK || !strings.Contains(errOut, "not allowed to publish to") {
			t.Errorf("gofer %v as publisher: exit %d, %q; want what the server refuses", args, code, errOut)
		}
	}
	for _, args := range [][]string{{"workers"}, {"breakers", "ls"}, {"sites", "ls"}, {"drain", "w1"}, {"rollups"}} {
		if code, _, errOut := gofer(t, "", args...); code != exitConfig || !strings.Contains(errOut, `not allowed to publish to "gofer.ctl.`) {
			t.Errorf("gofer %v as publisher: exit %d, %q; want the right that is missing", args, code, errOut)
		}
	}
	if code, out, _ := gofer(t, "", "doctor"); code != exitFailed || !strings.Contains(out, "BAD  workers          this NATS user is not allowed to ask them") {
		t.Errorf("the doctor as publisher: exit %d, want it said that the workers may not be asked:\n%s", code, out)
	}
	w.as("admin")
	if list := read[[]control.Status](t, "workers"); len(list) != 1 || list[0].Draining {
		t.Errorf("workers = %+v, want w1 at work", list)
	}
}
