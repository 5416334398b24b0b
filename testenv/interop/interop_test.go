// Package interop_test runs gofer with software that nobody here wrote: forward proxies from Debian's packages, and NATS
// clients of other makers. A test whose peer is not installed says so and skips.
package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// program is the built gofer.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(testenv.RunLong(m)) // which says that it runs none
	}
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gofer-interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "gofer")
	cmd := exec.Command("go", "build", "-o", program, "github.com/gofer-mq/gofer/cmd/gofer")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build gofer:", err)
		return 1
	}
	return m.Run()
}

// output is what a program has said, readable while it speaks.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes what is said.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a program until the test ends, in a group of its own so that its children end with it.
func start(t *testing.T, environ []string, name string, args ...string) *output {
	t.Helper()
	log := new(output)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), log)
		}
	})
	return log
}

// listening waits until something accepts connections at addr.
func listening(t *testing.T, addr string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); <-tick.C {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s after %s", addr, testenv.Patience)
}

// fleet is a server and one worker that fetches through the proxies given.
type fleet struct {
	addr   string // of the worker's HTTP
	nats   *testenv.NATS
	client *bus.Client
	log    *output
}

func startFleet(t *testing.T, proxies string, environ ...string) *fleet {
	t.Helper()
	testenv.DependOnProgram(t)
	f := &fleet{nats: testenv.StartNATS(t, nil)}
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	if f.client, err = bus.New(f.nats.Connect(), names); err != nil {
		t.Fatal(err)
	}
	addr := testenv.FreeAddr(t)
	f.addr = addr
	f.log = start(t, append([]string{
		"GOFER_NATS_URL=" + f.nats.URL(), "GOFER_HTTP_ADDR=" + addr, "GOFER_PROXIES=" + proxies, "GOFER_ALLOW_PRIVATE_TARGETS=true",
	}, environ...), program, "worker")
	listening(t, addr)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); <-tick.C {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return f
		}
	}
	t.Fatalf("the worker is not ready after %s; it said:\n%s", testenv.Patience, f.log)
	return nil
}

// fetch submits one job and waits for its result.
func (f *fleet) fetch(t *testing.T, url string) jobs.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	one := 1
	ack, err := client.New(f.client).Submit(ctx, jobs.Job{URL: url, Retry: &jobs.Override{MaxAttempts: &one}})
	if err != nil {
		t.Fatalf("submit %s: %v", url, err)
	}
	r, err := client.New(f.client).Wait(ctx, client.Key{Queue: ack.Queue, ID: ack.ID})
	if err != nil {
		t.Fatalf("result of %s: %v", url, err)
	}
	return r
}

// exchange fetches a plain and a TLS page through one proxy, then tries a wrong password if there is a right one.
func exchange(t *testing.T, scheme, user, addr string) {
	t.Helper()
	plain, secure := testenv.StartOrigin(t, false), testenv.StartOrigin(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	credentials := ""
	if user != "" {
		credentials = user + ":right-Secret1@"
	}
	f := startFleet(t, scheme+"://"+credentials+addr+" id=peer", "SSL_CERT_FILE="+ca)
	for _, url := range []string{plain.URL + "/ok", secure.URL + "/ok", plain.URL + "/bytes/300000", secure.URL + "/gzip"} {
		r := f.fetch(t, url)
		if r.Outcome != jobs.Succeeded || r.Status != http.StatusOK || r.Proxy != "peer" || len(r.Body) == 0 {
			t.Errorf("%s = %s %s %d via %q, %d bytes: %v", url, r.Outcome, r.Error, r.Status, r.Proxy, len(r.Body), r.Attempts)
		}
	}
	if user == "" {
		return
	}
	wrong := startFleet(t, scheme+"://"+user+":wrong-Secret2@"+addr+" id=peer", "SSL_CERT_FILE="+ca)
	// Through a tunnel: a plain request with a wrong password is answered by some proxies (tinyproxy) with a 401 that
	// cannot be told from the site's own.
	r := wrong.fetch(t, secure.URL+"/ok")
	if r.Error != jobs.ErrAttemptsExhausted || len(r.Attempts) != 1 || r.Attempts[0].Fault != jobs.FaultProxy {
		t.Errorf("with a wrong password: %s %s %+v, want the proxy to be blamed", r.Outcome, r.Error, r.Attempts)
	}
	if said := fmt.Sprintf("%+v", r) + wrong.log.String(); strings.Contains(said, "Secret2") || strings.Contains(said, user+":") {
		t.Errorf("credentials leaked into a result or the log:\n%s", said)
	}
}

func TestSquid(t *testing.T) {
	squid := testenv.Need(t, "squid", "/usr/sbin/squid")
	for _, auth := range []bool{false, true} {
		t.Run(fmt.Sprintf("auth=%v", auth), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // squid changes its user
				t.Fatal(err)
			}
			addr := testenv.FreeAddr(t)
			config := "http_port " + addr + "\npid_filename none\ncache deny all\ncache_log stdio:/dev/null\naccess_log none\nshutdown_lifetime 0 seconds\nvisible_hostname interop\n" +
				"acl all_ports port 1-65535\n"
			user := ""
			if auth {
				user = "fetcher"
				helper := filepath.Join(dir, "helper")
				script := "#!/bin/sh\nwhile read -r user password; do\n  [ \"$user $password\" = \"fetcher right-Secret1\" ] && echo OK || echo ERR\ndone\n"
				writeFile(t, helper, script, 0o755)
				config += "auth_param basic program " + helper + "\nauth_param basic children 1\nacl known proxy_auth REQUIRED\nhttp_access allow known\n"
			} else {
				config += "http_access allow all\n"
			}
			file := filepath.Join(dir, "squid.conf")
			writeFile(t, file, config+"http_access deny all\n", 0o644)
			start(t, nil, squid, "-N", "-f", file)
			listening(t, addr)
			exchange(t, "http", user, addr)
		})
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	// The umask must not take away what another user needs.
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestTinyproxy(t *testing.T) {
	tinyproxy := testenv.Need(t, "tinyproxy", "/usr/bin/tinyproxy")
	for _, user := range []string{"", "fetcher"} {
		t.Run("user="+user, func(t *testing.T) {
			addr := testenv.FreeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			config := "Port " + port + "\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Error\n"
			if user != "" {
				config += "BasicAuth " + user + " right-Secret1\n"
			}
			file := filepath.Join(t.TempDir(), "tinyproxy.conf")
			writeFile(t, file, config, 0o644)
			start(t, nil, tinyproxy, "-d", "-c", file)
			listening(t, addr)
			exchange(t, "http", user, addr)
		})
	}
}

func TestMicrosocks(t *testing.T) {
	microsocks := testenv.Need(t, "microsocks")
	for _, user := range []string{"", "fetcher"} {
		t.Run("user="+user, func(t *testing.T) {
			addr := testenv.FreeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			args := []string{"-i", "127.0.0.1", "-p", port}
			if user != "" {
				args = append(args, "-u", user, "-P", "right-Secret1")
			}
			start(t, nil, microsocks, args...)
			listening(t, addr)
			exchange(t, "socks5", user, addr)
			exchange(t, "socks5h", user, addr)
		})
	}
}

// shop starts a fleet with one good proxy before a small site.
func shop(t *testing.T) *fleet {
	t.Helper()
	origin := testenv.StartOrigin(t, false)
	proxy := &testenv.Proxy{Resolve: func(string) string { return origin.Addr() }}
	if err := proxy.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	return startFleet(t, proxy.URL("http")+" id=good")
}

// say runs a command to its end and returns what it printed on both outputs.
func say(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

func TestNatsCommand(t *testing.T) {
	nats := testenv.Need(t, "nats", "../../bin/tools/nats", filepath.Join(os.Getenv("HOME"), "go/bin/nats"))
	f := shop(t)
	if out, err := say(t, nats, "-s", f.nats.URL(), "pub", "-J", "gofer.jobs.default.cli", "http://shop.test/from-the-cli"); err != nil {
		t.Fatalf("nats pub -J: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if _, err := client.New(f.client).Wait(ctx, client.Key{Queue: "default", ID: "cli"}); err != nil {
		t.Fatal(err)
	}
	out, err := say(t, nats, "-s", f.nats.URL(), "stream", "get", "GOFER_RESULTS", "--last-for", "gofer.results.default.cli")
	if err != nil {
		t.Fatalf("nats stream get: %v\n%s", err, out)
	}
	for _, want := range []string{"Gofer-Outcome: succeeded", "Gofer-Status: 200", "Http-Content-Type: text/plain", "hello from shop.test/from-the-cli"} {
		if !strings.Contains(out, want) {
			t.Errorf("nats stream get does not show %q:\n%s", want, out)
		}
	}
	for range 2 {
		out, err = say(t, nats, "-s", f.nats.URL(), "pub", "-J", "gofer.jobs.default.busy", "http://shop.test/slow/3000")
	}
	if err == nil || !strings.Contains(out, "10077") && !strings.Contains(out, "maximum messages per subject exceeded") {
		t.Errorf("a second publish of a running id: %v\n%s\nwant it refused", err, out)
	}
}

func TestNatsJS(t *testing.T) {
	node := testenv.Need(t, "node")
	if _, err := os.Stat("node/node_modules/@nats-io/transport-node"); err != nil {
		t.Skip("skipped: nats.js is not installed: npm --prefix testenv/interop/node ci")
	}
	testenv.DependOn(t, "node")
	f := shop(t)
	out, err := say(t, node, "node/fetch.mjs", f.nats.URL(), "js1", `{"url":"http://shop.test/from-js","meta":{"origin":"node"}}`)
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	var got struct {
		Stream, Subject, Body, StoredBody, StoredSubject string
		Headers                                          map[string][]string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got.Stream != "GOFER_JOBS" || got.Subject != "gofer.results.default.js1" || got.StoredSubject != got.Subject {
		t.Errorf("stream %s, subject %s, stored as %s", got.Stream, got.Subject, got.StoredSubject)
	}
	if want := "hello from shop.test/from-js\n"; got.Body != want || got.StoredBody != want {
		t.Errorf("body %q, stored %q, want %q", got.Body, got.StoredBody, want)
	}
	for name, want := range map[string]string{"Gofer-Outcome": "succeeded", "Gofer-Meta-origin": "node", "Gofer-Job-Id": "js1"} {
		if v := got.Headers[name]; len(v) != 1 || v[0] != want {
			t.Errorf("header %s = %v, want %s", name, v, want)
		}
	}
}
