package main

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// newHub is a world whose server is the hub of leaf nodes, and leaf starts one.
func newHub(t *testing.T) (w *world, leaf func(change func(*server.Options)) *testenv.NATS) {
	t.Helper()
	u, err := url.Parse("nats-leaf://" + freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	w = newWorld(t, func(o *server.Options) {
		o.ServerName, o.JetStreamDomain, o.LeafNode.Host = "hub", "hub", "127.0.0.1"
		o.LeafNode.Port, _ = strconv.Atoi(u.Port())
	})
	return w, func(change func(*server.Options)) *testenv.NATS {
		return testenv.StartNATS(t, func(o *server.Options) {
			o.ServerName, o.LeafNode.Remotes = "leaf", []*server.RemoteLeafOpts{{URLs: []*url.URL{u}}}
			change(o)
		})
	}
}

func TestWorkerOnALeafNodeTakesJobsFromTheHub(t *testing.T) {
	t.Parallel()
	w, start := newHub(t)
	leaf := start(func(o *server.Options) { o.JetStream = false })
	setenv(t, "GOFER_NATS_URL", leaf.URL())
	if code, _, errOut := gofer(t, "", "setup"); code != exitConfig || !strings.Contains(errOut, "GOFER_NATS_JS_DOMAIN") {
		t.Errorf("without a domain: exit %d, %s; want %d and the variable named", code, errOut, exitConfig)
	}
	setenv(t, "GOFER_NATS_JS_DOMAIN", "nope")
	addr := freeAddr(t)
	setenv(t, "GOFER_HTTP_ADDR", addr)
	lost := w.start("worker")
	testenv.Eventually(t, "the worker to name the domain", func() bool {
		_, body := w.get("http://" + addr + "/readyz?verbose")
		return strings.Contains(body, `no JetStream answers in the domain "nope": is that its name`)
	})
	if code := lost.wait(t); code != exitOK {
		t.Errorf("exit %d after SIGTERM, want %d", code, exitOK)
	}
	setenv(t, "GOFER_NATS_JS_DOMAIN", "hub")
	w.worker(freeAddr(t))
	w.publish("a", job("/ok", nil))
	if r := w.result("a"); r.Outcome != jobs.Succeeded || r.Status != http.StatusOK {
		t.Errorf("got %s %d, want the page", r.Outcome, r.Status)
	}
	if code, out, _ := gofer(t, "", "deny", "add", "other.test"); code != exitOK {
		t.Errorf("deny: exit %d, %s", code, out)
	}
	if code, out, _ := gofer(t, "", "doctor"); code != exitOK {
		t.Errorf("doctor: exit %d\n%s", code, out)
	}
}

func TestDoctorWarnsOfTwoJetStreams(t *testing.T) {
	t.Parallel()
	w, start := newHub(t)
	w.worker(freeAddr(t))
	leaf := start(func(o *server.Options) { o.JetStreamDomain = "edge" })
	setenv(t, "GOFER_NATS_URL", leaf.URL())
	w.worker(freeAddr(t))
	testenv.Eventually(t, "doctor to hear of both", func() bool {
		_, out, _ := gofer(t, "", "doctor")
		return strings.Contains(out, `more than one JetStream, by domain: "edge", "hub"`)
	})
}
