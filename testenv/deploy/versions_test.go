package deploy_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

const serverModule = "github.com/nats-io/nats-server/v2"

// newestPatch is the newest release of a minor version of nats-server.
func newestPatch(t *testing.T, minor string) (version string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-versions", serverModule).Output()
	must(t, err)
	for v := range strings.FieldsSeq(string(out)) { // in the order of versions
		if strings.HasPrefix(v, "v"+minor+".") && !strings.Contains(v, "-") {
			version = v
		}
	}
	if version == "" {
		t.Fatalf("there is no nats-server %s", minor)
	}
	return version
}

// installServer builds a version of nats-server, unless an earlier run has.
func installServer(t *testing.T, version string) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin/servers/" + version)
	must(t, err)
	path := filepath.Join(dir, "nats-server")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "install", serverModule+"@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build nats-server %s: %v\n%s", version, err, out)
	}
	return path
}

// TestEachServerVersionIsSetUpAndServes sets up the newest patch of each minor version twice, and runs a job there at once and
// one that waits for its time.
func TestEachServerVersionIsSetUpAndServes(t *testing.T) {
	heavy(t, "go")
	gofer := testenv.Build(t)
	site := testenv.StartOrigin(t, false)
	for _, minor := range []string{"2.12", "2.14", "2.15"} {
		t.Run(minor, func(t *testing.T) {
			version := newestPatch(t, minor)
			t.Log("nats-server", version)
			host, port, err := net.SplitHostPort(testenv.FreeAddr(t))
			must(t, err)
			run(t, nil, installServer(t, version), "-js", "-sd", t.TempDir(), "-a", host, "-p", port)
			env := append(os.Environ(), "GOFER_NATS_URL=nats://"+net.JoinHostPort(host, port), "GOFER_HTTP_ADDR="+testenv.FreeAddr(t),
				"GOFER_ALLOW_DIRECT=true", "GOFER_ALLOW_PRIVATE_TARGETS=true")
			verb := func(in string, args ...string) (string, error) {
				cmd := exec.CommandContext(soon(t), gofer, args...)
				cmd.Env, cmd.Stdin = env, strings.NewReader(in)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			out := ""
			testenv.Eventually(t, "gofer setup to succeed", func() bool {
				out, err = verb("", "setup")
				return err == nil || !strings.Contains(out, "cannot be reached")
			})
			if err != nil {
				t.Fatalf("gofer setup: %v\n%s", err, out)
			}
			var left struct{ Differences []any }
			out, err = verb("", "setup", "--dry-run", "--json")
			if err != nil || json.Unmarshal([]byte(out), &left) != nil || len(left.Differences) > 0 {
				t.Errorf("gofer setup --dry-run after setup: %v\n%s\nwant no difference", err, out)
			}
			run(t, env, gofer, "worker")
			job := `{"url":"` + site.URL + `/ok","proxy":{"direct":true}}`
			if out, err := verb(job+"\n"+job+"\n", "submit", "--wait", "--fail", "-"); err != nil {
				t.Errorf("jobs: %v\n%s", err, out)
			}
			if out, err := verb(job+"\n", "submit", "--wait", "--fail", "--in", "1s", "-"); err != nil {
				t.Errorf("a job that waits: %v\n%s", err, out)
			}
		})
	}
}

// run starts a program that ends with the test.
func run(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	log := new(testenv.Log)
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), log)
		}
	})
}
