package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// inside are spellings of hosts that some resolver, proxy or dialler takes for this machine.
func inside() []string {
	return []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "0", "0.0.0.0", "00", "0x0",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[::ffff:0:0]", "[64:ff9b::7f00:1]",
		"[2002:7f00:1::]", "[::1%25lo]", "localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "ip6-localhost",
		"%6cocalhost", "%31%32%37.0.0.1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u24dbocalhost", "local\u00adhost",
		"", ".", "..", "*", "6425673729", "127.0.0.257", "127.0.0.1.1", "localhost%00.test", "localhost%23.test", "a..test", ".localhost",
	}
}

// listener counts the connections to a loopback port, of which nobody may make one.
func listener(t *testing.T) (port string, conns *atomic.Int64) {
	t.Helper()
	conns = new(atomic.Int64)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	_ = server.Listener.Close()
	l, err := net.Listen("tcp", "[::]:0") // IPv4 too
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, conns
}

// publish publishes a job without the checks of the client, and waits for its result.
func (f *fleet) publish(t *testing.T, id string, job map[string]any) jobs.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	js, err := jetstream.New(f.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	job["retry"] = map[string]any{"max_attempts": 1}
	payload, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: "gofer.jobs.default." + id, Data: payload}); err != nil {
		t.Fatalf("publish %s: %v", payload, err)
	}
	r, err := client.New(f.client).Wait(ctx, client.Key{Queue: "default", ID: id})
	if err != nil {
		t.Fatalf("result of %s: %v", payload, err)
	}
	return r
}

// keepsOut sends jobs for this machine through a proxy that would reach it, and without one.
func keepsOut(t *testing.T, line string) {
	t.Helper()
	port, conns := listener(t)
	open := startFleet(t, line)
	if r := open.publish(t, "open", map[string]any{"url": "http://127.0.0.1:" + port + "/"}); r.Status != http.StatusNotFound || conns.Load() != 1 {
		t.Fatalf("where private targets are allowed: %s %d after %d connections, want the proxy to reach the listener", r.Error, r.Status, conns.Load())
	}
	f := startFleet(t, line, "GOFER_ALLOW_PRIVATE_TARGETS=false", "GOFER_ALLOW_DIRECT=true")
	for i, host := range inside() {
		for _, scheme := range []string{"http", "https"} {
			for _, direct := range []bool{false, true} {
				url := scheme + "://" + host + ":" + port + "/"
				job := map[string]any{"url": url}
				if direct {
					job["proxy"] = map[string]any{"direct": true}
				}
				r := f.publish(t, fmt.Sprintf("%s-%d-%v", scheme, i, direct), job)
				if r.Error != jobs.ErrTargetDenied && r.Error != jobs.ErrInvalidJob || r.AttemptCount != 0 {
					t.Errorf("%s, direct %v: got %s %s after %d attempts, want it refused", url, direct, r.Error, r.Detail, r.AttemptCount)
				}
			}
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("the listener was reached %d times", got-1)
	}
}

func TestNoProxyIsAskedForThisMachine(t *testing.T) {
	t.Run("microsocks", func(t *testing.T) {
		microsocks := testenv.Need(t, "microsocks")
		addr := testenv.FreeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		start(t, nil, microsocks, "-i", "127.0.0.1", "-p", port)
		listening(t, addr)
		keepsOut(t, "socks5h://"+addr+" id=peer")
	})
	t.Run("tinyproxy", func(t *testing.T) {
		tinyproxy := testenv.Need(t, "tinyproxy", "/usr/bin/tinyproxy")
		addr := testenv.FreeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		file := filepath.Join(t.TempDir(), "tinyproxy.conf")
		writeFile(t, file, "Port "+port+"\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Error\n", 0o644)
		start(t, nil, tinyproxy, "-d", "-c", file)
		listening(t, addr)
		keepsOut(t, "http://"+addr+" id=peer")
	})
	t.Run("squid", func(t *testing.T) {
		keepsOut(t, "http://"+startSquid(t, "127.0.0.1 localhost\n")+" id=peer")
	})
}

// startSquid starts a squid that looks names up in a hosts file.
func startSquid(t *testing.T, hosts string) (addr string) {
	t.Helper()
	squid := testenv.Need(t, "squid", "/usr/sbin/squid")
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // squid changes its user
		t.Fatal(err)
	}
	addr = testenv.FreeAddr(t)
	writeFile(t, filepath.Join(dir, "hosts"), hosts, 0o644)
	file := filepath.Join(dir, "squid.conf")
	writeFile(t, file, "http_port "+addr+"\npid_filename none\ncache deny all\ncache_log stdio:/dev/null\naccess_log none\nshutdown_lifetime 0 seconds\n"+
		"visible_hostname interop\nhosts_file "+filepath.Join(dir, "hosts")+"\nhttp_access allow all\n", 0o644)
	start(t, nil, squid, "-N", "-f", file)
	listening(t, addr)
	return addr
}

func TestNoRedirectLeadsToThisMachine(t *testing.T) {
	port, conns := listener(t)
	hosts := inside()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &n)
		scheme, _, _ := strings.Cut(r.URL.RawQuery, "&")
		w.Header()["Location"] = []string{scheme + "//" + hosts[n] + ":" + port + "/"}
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(site.Close)
	_, sitePort, _ := net.SplitHostPort(site.Listener.Addr().String())
	f := startFleet(t, "http://"+startSquid(t, "127.0.0.1 site.test\n")+" id=peer", "GOFER_ALLOW_PRIVATE_TARGETS=false")
	for i, host := range hosts {
		for j, scheme := range []string{"", "http:", "https:"} {
			r := f.publish(t, fmt.Sprintf("redirect-%d-%d", i, j), map[string]any{"url": fmt.Sprintf("http://site.test:%s/%d?%s", sitePort, i, scheme)})
			malformed := r.Error == jobs.ErrAttemptsExhausted && r.Attempts[0].Fault == jobs.FaultTarget && strings.Contains(r.Detail, "Location")
			if r.Error != jobs.ErrTargetDenied && !malformed || r.Status != http.StatusFound {
				t.Errorf("redirect to %s//%s: got %s %s (status %d), want it refused", scheme, host, r.Error, r.Detail, r.Status)
			}
		}
	}
	if got := conns.Load(); got != 0 {
		t.Errorf("the listener was reached %d times", got)
	}
}
