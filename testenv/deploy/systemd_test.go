package deploy_test

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

const unitFile = "../../deploy/systemd/gofer@.service"

// unit reads the settings of the unit, with the specifiers of an instance replaced. A setting may come more than once.
func unit(t *testing.T, specifiers ...string) map[string][]string {
	t.Helper()
	testenv.DependOn(t, unitFile)
	data, err := os.ReadFile(unitFile)
	must(t, err)
	settings := map[string][]string{}
	for line := range strings.Lines(strings.NewReplacer(specifiers...).Replace(string(data))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	return settings
}

// TestTheUnitIsCorrectAndLocked has systemd read it. An unknown setting is a warning only, so nothing may be said at all.
func TestTheUnitIsCorrectAndLocked(t *testing.T) {
	analyze := testenv.Need(t, "systemd-analyze")
	data, err := os.ReadFile(unitFile)
	must(t, err)
	path := filepath.Join(t.TempDir(), "gofer@1.service")
	must(t, os.WriteFile(path, bytes.ReplaceAll(data, []byte("/usr/local/bin/gofer"), []byte("/bin/true")), 0o644))
	for _, args := range [][]string{{"verify", "--man=no", path}, {"security", "--offline=true", "--threshold=20", "--no-pager", path}} {
		var out, errOut bytes.Buffer
		cmd := exec.CommandContext(t.Context(), analyze, args...)
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := cmd.Run(); err != nil || errOut.Len() > 0 {
			t.Errorf("systemd-analyze %v: %v\n%s\n%s", args, err, errOut.String(), out.String())
		}
	}
}

func TestTheUnitGivesAWorkerTimeToDrain(t *testing.T) {
	settings := unit(t)
	testenv.DependOn(t, "../../deploy/systemd/gofer.env")
	data, err := os.ReadFile("../../deploy/systemd/gofer.env")
	must(t, err)
	_, drain, _ := strings.Cut(string(data), "GOFER_DRAIN_TIMEOUT=")
	drain, _, _ = strings.Cut(drain, "\n")
	timeout, err := time.ParseDuration(drain)
	must(t, err)
	stop, err := time.ParseDuration(settings["TimeoutStopSec"][0])
	must(t, err)
	if stop != timeout+30*time.Second {
		t.Errorf("got TimeoutStopSec %s, want the drain timeout of %s and 30 s", stop, timeout)
	}
	if got := settings["RestartPreventExitStatus"]; len(got) != 1 || got[0] != "78" {
		t.Errorf("got RestartPreventExitStatus %v, want a bad configuration", got)
	}
}

// TestTheInstalledUnitRunsAWorker installs as the document says, below another root, and runs what systemd would run, with the
// environment and the credentials that it would give. What systemd itself does is not part of it.
func TestTheInstalledUnitRunsAWorker(t *testing.T) {
	heavy(t, "systemd-analyze")
	root := t.TempDir()
	install := exec.CommandContext(t.Context(), "sh", "-ec", "cd ../.. && "+command(t, "README.md", "gofer@.service"))
	install.Env = append(os.Environ(), "ROOT="+root)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
	srv := testenv.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "worker", "p-worker" })
	credentials := filepath.Join(root, "credentials")
	must(t, os.Mkdir(credentials, 0o700))
	must(t, os.WriteFile(filepath.Join(root, "etc/gofer/nats-password"), []byte("p-worker\n"), 0o600))
	settings := unit(t, "%i", "1", "%S", filepath.Join(root, "var/lib"), "%d", credentials)
	for _, credential := range settings["LoadCredential"] {
		name, path, _ := strings.Cut(credential, ":")
		data, err := os.ReadFile(filepath.Join(root, path))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(credentials, name), data, 0o400))
	}
	addr := freeAddr(t)
	args := strings.Fields(settings["ExecStart"][0])
	worker := exec.CommandContext(t.Context(), filepath.Join(root, args[0]), args[1:]...)
	worker.Env = append(worker.Env, settings["Environment"]...)
	worker.Env = append(worker.Env, lines(t, filepath.Join(root, settings["EnvironmentFile"][0]))...)
	worker.Env = append(worker.Env, "GOFER_NATS_URL="+srv.URL(), "GOFER_HTTP_ADDR="+addr, "GOFER_ALLOW_DIRECT=true", "GOFER_ALLOW_PRIVATE_TARGETS=true")
	var log testenv.Log
	worker.Stdout, worker.Stderr = &log, &log
	must(t, worker.Start())
	t.Cleanup(func() { _ = worker.Process.Kill() })
	testenv.Eventually(t, "the worker to live", func() bool {
		resp, err := http.Get("http://" + addr + "/livez")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	origin := testenv.StartOrigin(t, false)
	c := client.New(role{"worker", "worker", "p-worker"}.client(t, srv))
	testenv.Eventually(t, "the job to be taken", func() bool {
		_, err := c.Submit(soon(t), jobs.Job{ID: "a", URL: origin.URL + "/ok", Proxy: jobs.ProxyChoice{Direct: true}})
		return err == nil
	})
	if r, err := c.Wait(soon(t), client.Key{Queue: "default", ID: "a"}); err != nil || r.Outcome != jobs.Succeeded {
		t.Errorf("got %v, %v; the worker says\n%s", r.Outcome, err, log.String())
	}
	must(t, worker.Process.Signal(syscall.SIGTERM))
	if err := worker.Wait(); err != nil {
		t.Errorf("got %v after SIGTERM; the worker says\n%s", err, log.String())
	}
}

// lines are those of a file that set a variable.
func lines(t *testing.T, path string) (set []string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer func() { _ = f.Close() }()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if line := scanner.Text(); !strings.HasPrefix(line, "#") && strings.Contains(line, "=") {
			set = append(set, line)
		}
	}
	return set
}
