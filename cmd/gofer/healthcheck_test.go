package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

func TestHealthAsksTheWorkerOfThisMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := freeAddr(t)
	if code, _, errOut := gofer(t, "", "health"); code != exitFailed || !strings.Contains(errOut, "no worker answers") {
		t.Errorf("without a worker: exit %d, %q", code, errOut)
	}
	p := w.worker(addr)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	setenv(t, "GOFER_ADMIN_TOKEN", "a-token-of-some-length")
	for _, listens := range []string{addr, "0.0.0.0:" + port, ":" + port} {
		setenv(t, "GOFER_HTTP_ADDR", listens)
		for _, args := range [][]string{{"health"}, {"health", "--ready"}} {
			if code, out, errOut := gofer(t, "", args...); code != exitOK || out == "" {
				t.Errorf("%s, %v: exit %d, %q %q; want 0 and the answer", listens, args, code, out, errOut)
			}
		}
	}
	w.nats.Stop()
	testenv.Eventually(t, "the worker to say that it is not ready", func() bool {
		code, _, errOut := gofer(t, "", "health", "--ready")
		return code == exitFailed && strings.Contains(errOut, "503")
	})
	if code, out, _ := gofer(t, "", "health"); code != exitOK {
		t.Errorf("without NATS it lives: exit %d, %q", code, out)
	}
	w.nats.Start()
	p.wait(t)
}

func TestHealthPrintsNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusTeapot} {
		stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte("first " + marker))
		}))
		t.Cleanup(stranger.Close)
		setenv(t, "GOFER_HTTP_ADDR", stranger.Listener.Addr().String())
		code, out, errOut := gofer(t, "", "health")
		if (code == exitOK) != (status == http.StatusOK) || (status == http.StatusOK) == strings.Contains(errOut, "first") {
			t.Errorf("%d: exit %d, %q %q", status, code, out, errOut)
		}
		if found := obeyed(out + errOut); len(found) > 0 {
			t.Errorf("%d: a terminal would obey %v", status, found)
		}
	}
}

func TestOwnAddressIsLoopbackWhereEveryAddressListens(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":9090": "127.0.0.1:9090", "0.0.0.0:9090": "127.0.0.1:9090", "[::]:9090": "[::1]:9090", "127.0.0.1:1": "127.0.0.1:1", "gofer.test:1": "gofer.test:1",
	} {
		if got := ownAddr(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}
