package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// enterNetwork gives the engine a network namespace of its own, with a loopback, so that bridges and ports of containers meet
// nobody else's. It ends with the test.
func (e *engine) enterNetwork() {
	e.t.Helper()
	holder := exec.Command("sleep", "3600")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	must(e.t, holder.Start())
	e.t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	e.netns = fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	e.run("ip", "link", "set", "lo", "up")
}

// client makes requests from the engine's network. A thread enters it and ends, because it could not come back.
func (e *engine) client() *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		type dialled struct {
			conn net.Conn
			err  error
		}
		came := make(chan dialled, 1)
		go func() {
			runtime.LockOSThread()
			ns, err := os.Open(e.netns)
			if err == nil {
				err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
				_ = ns.Close()
			}
			if err != nil {
				came <- dialled{nil, err}
				return
			}
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			came <- dialled{conn, err}
		}()
		got := <-came
		return got.conn, got.err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// buildScratch makes an image FROM scratch out of files, by their path in it, with an entry point.
func (e *engine) buildScratch(tag, entrypoint string, files map[string]string) {
	e.t.Helper()
	dir, steps := e.t.TempDir(), "FROM scratch\n"
	for i, path := range slices.Sorted(maps.Keys(files)) {
		name := fmt.Sprint("file", i)
		data, err := os.ReadFile(files[path])
		must(e.t, err)
		must(e.t, os.WriteFile(filepath.Join(dir, name), data, 0o755))
		steps += fmt.Sprintf("COPY %s %s\n", name, path)
	}
	must(e.t, os.WriteFile(filepath.Join(dir, "Containerfile"), fmt.Appendf(nil, "%sENTRYPOINT [%q]\n", steps, entrypoint), 0o600))
	e.run("buildah", "build", "--format", "docker", "-t", tag, dir)
}

// imageOf is the image that compose.yaml names for a program.
func imageOf(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if _, image, ok := strings.Cut(line, "image: "); ok && strings.Contains(image, name) {
			return strings.TrimSpace(image)
		}
	}
	t.Fatalf("compose.yaml names no image of %s", name)
	return ""
}

// buildPeers makes images of nats-server and of Debian's Prometheus under the names that compose.yaml has for them.
func (e *engine) buildPeers(text string) {
	e.t.Helper()
	nats := imageOf(e.t, text, "/nats:")
	_, version, _ := strings.Cut(nats, ":")
	bin := e.t.TempDir()
	install := exec.CommandContext(e.t.Context(), "go", "install", "github.com/nats-io/nats-server/v2@v"+version)
	install.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		e.t.Fatalf("nats-server %s: %v\n%s", version, err, out)
	}
	e.buildScratch(nats, "/nats-server", map[string]string{"/nats-server": filepath.Join(bin, "nats-server")})
	prometheus, err := exec.LookPath("prometheus")
	must(e.t, err)
	files := map[string]string{"/bin/prometheus": prometheus}
	for line := range strings.Lines(e.run("ldd", prometheus)) { // Debian's is not static
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(word, "/") {
				files[word] = word
			}
		}
	}
	e.buildScratch(imageOf(e.t, text, "/prometheus:"), "/bin/prometheus", files)
}

// withoutGrafana is compose.yaml without the service whose image cannot be had here.
func withoutGrafana(t *testing.T, text string) string {
	t.Helper()
	from, to := strings.Index(text, "\n  grafana:\n"), strings.Index(text, "\nvolumes:\n")
	if from < 0 || to < from {
		t.Fatal("compose.yaml has no grafana before its volumes")
	}
	return text[:from] + text[to:]
}

// TestComposeBringsUpAFleet follows the document: prepare, up, a first result, down.
func TestComposeBringsUpAFleet(t *testing.T) {
	heavy(t, "podman", "buildah", "runc", "podman-compose", "prometheus", "openssl", "ip", "nsenter", "iptables", "dnsmasq")
	e := newEngine(t)
	e.buildImage()
	deploy := filepath.Join(t.TempDir(), "deploy")
	must(t, os.CopyFS(deploy, os.DirFS("../../deploy")))
	folder := filepath.Join(deploy, "compose")
	data, err := os.ReadFile(filepath.Join(folder, "compose.yaml"))
	must(t, err)
	e.buildPeers(string(data))
	must(t, os.WriteFile(filepath.Join(folder, "compose.yaml"), []byte(withoutGrafana(t, string(data))), 0o600))
	bin, err := filepath.Abs("../../bin/image")
	must(t, err)
	e.env = append(e.env, "PATH="+bin+":"+os.Getenv("PATH"))
	e.enterNetwork()
	shell := func(text string) string { return e.run("sh", "-ec", "cd "+folder+"\n"+text) }
	shell(command(t, "README.md", "./prepare.sh"))
	shell("echo GOFER_ALLOW_DIRECT=true >>.env; echo GOFER_ALLOW_PRIVATE_TARGETS=true >>.env")
	t.Cleanup(func() { _, _ = e.tryAfter("sh", "-c", "cd "+folder+"; podman-compose down --timeout 1") })
	shell(command(t, "README.md", "podman-compose up"))
	for _, worker := range []string{"worker-1", "worker-2"} {
		e.eventually("compose_"+worker+"_1", worker+" to be ready", func() bool {
			_, err := e.try("podman", "exec", "compose_"+worker+"_1", "/gofer", "health", "--ready")
			return err == nil
		})
	}
	must(t, os.WriteFile(filepath.Join(folder, "job.json"), []byte(`{"url":"http://worker-2:9090/livez","proxy":{"direct":true}}`+"\n"), 0o600))
	first := command(t, "README.md", "gofer submit --wait")
	if got := shell(strings.ReplaceAll(first, "https://example.com/", "--file job.json")); !strings.Contains(got, "succeeded") {
		t.Errorf("the first result: got %s", got)
	}
	e.askBoard()
	shell(command(t, "README.md", "podman-compose down"))
	if left := e.run("podman", "ps", "--all", "--quiet"); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}

// askBoard asks the Prometheus of the composition everything that the board shows, when it has scraped both workers.
func (e *engine) askBoard() {
	e.t.Helper()
	ask := func(expr string) (values []any, err error) {
		resp, err := e.client().Get("http://127.0.0.1:9099/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return nil, err
		}
		if answer.Status != "success" {
			return nil, fmt.Errorf("%s: %s", expr, answer.Error)
		}
		return answer.Data.Result, nil
	}
	var last error
	defer func() {
		if last != nil {
			e.t.Log(last)
		}
	}()
	e.eventually("compose_prometheus_1", "Prometheus to scrape both workers and their job", func() bool {
		var found []any
		found, last = ask(`count(up{job="gofer"} == 1) == 2 and sum(gofer_jobs_total{outcome="succeeded"}) >= 1`)
		return last == nil && len(found) == 1
	})
	data, err := os.ReadFile("../../deploy/monitoring/dashboard.json")
	must(e.t, err)
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	must(e.t, json.Unmarshal(data, &board))
	asked, answered := 0, 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m", "$__range", "1m").Replace(target.Expr)
			found, err := ask(expr)
			if err != nil {
				e.t.Error(err)
			}
			asked++
			if len(found) > 0 {
				answered++
			}
		}
	}
	e.t.Logf("%d expressions of the board, %d have values after one job", asked, answered)
	if asked == 0 || answered < asked/4 {
		e.t.Errorf("only %d of %d expressions of the board have a value", answered, asked)
	}
}
