package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/testenv"
)

// TestNothingThatAWorkerSaysHoldsACredential lets it say as much as it can, while proxies and the server fail.
func TestNothingThatAWorkerSaysHoldsACredential(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-secret"
	w := newWorld(t, func(o *server.Options) {
		o.NoAuthUser = "anybody"
		o.Users = []*server.User{{Username: "anybody"}, {Username: "worker", Password: secret}}
	})
	var lines []string
	for id, p := range map[string]*testenv.Proxy{
		"good": w.proxy, "refusing": w.startProxy(testenv.Refusing), "bad-gateway": w.startProxy(testenv.BadGateway), "gone": w.startProxy(testenv.Good),
	} {
		if id == "gone" {
			p.Close()
		}
		for _, scheme := range []string{"http", "https", "socks5"} {
			lines = append(lines, fmt.Sprintf("%s://user:%s@%s id=%s-%s", scheme, secret, p.Addr(), id, scheme))
		}
	}
	addr := freeAddr(t)
	for name, value := range map[string]string{
		"NATS_URL": strings.Replace(w.nats.URL(), "//", "//worker:"+secret+"@", 1), "PROXIES": strings.Join(lines, ","), "ADMIN_TOKEN": secret,
		"LOG_LEVEL": "debug", "DRAIN_TIMEOUT": "1s",
	} {
		setenv(t, "GOFER_"+name, value)
	}
	p := w.worker(addr)
	run := func(name string) {
		for i := range 12 {
			w.publish(fmt.Sprint(name, i), job("/ok", map[string]any{"retry": map[string]any{"max_attempts": 10, "base_delay": 0.1, "jitter": false}}))
		}
		for i := range 12 {
			w.result(fmt.Sprint(name, i))
		}
	}
	run("before")
	w.nats.Stop()
	w.nats.Start()
	testenv.Eventually(t, "the worker to be connected again", func() bool {
		_, page := w.get("http://" + addr + "/metrics")
		return strings.Contains(page, "gofer_nats_reconnects_total 1") && strings.Contains(page, "\ngofer_ready 1\n")
	})
	run("after")
	said := map[string]string{}
	for _, path := range []string{"/readyz?verbose", "/metrics?proxies=all", "/api/v1/circuit-breakers", "/api/v1/metrics/retries/by-proxy"} {
		_, said["GET "+path] = w.get("http://" + addr + path)
	}
	for _, args := range [][]string{{"events", "--all", "--until-now"}, {"results", "before0", "--json"}, {"job", "before0", "--json"}, {"breakers", "ls"}, {"proxies", "ls"}, {"workers", "--json"}, {"config", "show"}} {
		_, out, errOut := gofer(t, "", args...)
		said[fmt.Sprint("gofer ", args)] = out + errOut
	}
	p.wait(t)
	said["the log"] = p.log.String()
	for who, text := range said {
		if text == "" || strings.Contains(text, secret) {
			t.Errorf("%s: %d bytes, credentials in it: %t", who, len(text), strings.Contains(text, secret))
		}
	}
	if log := said["the log"]; !strings.Contains(log, "retry") || !strings.Contains(log, "connection is back") {
		t.Errorf("the worker was silent about what happened:\n%s", log)
	}
}

// TestErrorsOfTheCommandLineHoldNoPassword: people write the URL of a proxy where its id, a host or a file belongs, and logs of
// scripts keep what is said about it.
func TestErrorsOfTheCommandLineHoldNoPassword(t *testing.T) {
	t.Parallel()
	newWorld(t, nil) // a server without streams
	const url = "http://user:hunter2@proxy.test"
	for _, args := range [][]string{
		{url}, {"proxies", "rm", url}, {"breakers", "reset", url}, {"submit", "--proxy", url, "http://a.test/"}, {"deny", "add", url + "/"}, {"sites", "show", url},
		{"job", url}, {"dead", "show", url}, {"pause", url}, {"drain", url}, {"proxies", "check", url}, {"proxies", "import", url}, {"proxies", "add", url},
		{"jobs", "ls", "--site", url}, {"--context", url, "queues"}, {"--server", url + ":4222", "queues"}, {"submit", "--file", url}, {"submit", "-d", "@" + url, "http://a.test/"},
		{"submit", "--queue", url, "http://a.test/"}, {"submit", "--at", url, "http://a.test/"}, {"submit", url}, {"results", "--durable", url}, {"top", "--every", url},
	} {
		if code, out, errOut := gofer(t, "", args...); code == exitOK || errOut == "" || strings.Contains(out+errOut, "hunter2") {
			t.Errorf("gofer %q: exit %d, %q; want an error without the password", args, code, out+errOut)
		}
	}
}
