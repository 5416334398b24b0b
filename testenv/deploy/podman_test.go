package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// heavy skips what only make deploy-check runs, which installs the programs first.
func heavy(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("DEPLOY_CHECK") == "" {
		t.Skip("skipped: make deploy-check runs it")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing: .ci/deploy-check installs it", name)
		}
	}
}

// engine is podman with a store, a configuration and a network of its own, so that it meets no other container.
type engine struct {
	t     *testing.T
	env   []string
	netns string // a network namespace of its own; empty for that of the test
}

// engineConfig is what podman needs where systemd is not process 1 and limits cannot be raised.
const engineConfig = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
static_dir = %[1]q
tmp_dir = %[2]q
volume_path = %[3]q
[network]
network_backend = "cni"
network_config_dir = %[4]q
`

// engines is the folder of the one store of this package's tests, so that images are built once. TestMain sets it.
var engines string

func newEngine(t *testing.T) *engine {
	t.Helper()
	dir := engines
	in := func(name string) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(path, 0o755))
		return path
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	containers := write("containers.conf", fmt.Sprintf(engineConfig, in("static"), in("tmp"), in("volumes"), in("networks")))
	storage := write("storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", in("graph"), in("run")))
	return &engine{t: t, env: append(os.Environ(), "CONTAINERS_CONF="+containers, "CONTAINERS_STORAGE_CONF="+storage,
		"BUILDAH_ISOLATION=chroot", "XDG_RUNTIME_DIR="+in("xdg"))}
}

// TestMain makes the folder of the engine's store and removes it.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gofer-podman-")
	if err != nil {
		panic(err)
	}
	engines = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// command prepares a program that uses the engine.
func (e *engine) command(name string, args ...string) *exec.Cmd {
	return e.commandOf(e.t.Context(), name, args...)
}

func (e *engine) commandOf(ctx context.Context, name string, args ...string) *exec.Cmd {
	if e.netns != "" {
		name, args = "nsenter", append([]string{"--net=" + e.netns, name}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = e.env
	return cmd
}

// run is what a program prints; its failure ends the test.
func (e *engine) run(name string, args ...string) string {
	e.t.Helper()
	out, err := e.try(name, args...)
	if err != nil {
		e.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (e *engine) try(name string, args ...string) (string, error) {
	return output(e.command(name, args...))
}

// tryAfter is try for what the end of the test does, when its context has ended.
func (e *engine) tryAfter(name string, args ...string) (string, error) {
	return output(e.commandOf(context.WithoutCancel(e.t.Context()), name, args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		return out.String() + errOut.String(), err
	}
	return strings.TrimSpace(out.String()), nil
}

// buildImage builds the image of gofer as the document says, once.
func (e *engine) buildImage() {
	e.t.Helper()
	if _, err := e.try("podman", "image", "exists", "localhost/gofer"); err == nil {
		return
	}
	if out := e.run("sh", "-ec", "cd ../.. && "+command(e.t, "README.md", "make image")); !strings.Contains(out, "\ngofer ") {
		e.t.Errorf("the image says %q, want its version", out)
	}
}

// start runs a container until the test ends and returns its id.
func (e *engine) start(args ...string) string {
	e.t.Helper()
	id := e.run("podman", append([]string{"run", "--detach"}, args...)...)
	e.t.Cleanup(func() { _, _ = e.tryAfter("podman", "rm", "--force", "--time", "0", id) })
	return id
}

// slow is how long a container may take for what it does on a machine with other work.
const slow = 5 * time.Minute

// eventually polls until a condition holds, and shows the log of a container if it does not.
func (e *engine) eventually(id, what string, holds func() bool) {
	e.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(slow); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	out, _ := e.command("podman", "logs", id).CombinedOutput()
	e.t.Fatalf("waited %s in vain for %s; the container says\n%s", slow, what, out)
}
