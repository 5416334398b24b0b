package deploy_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// image is what podman says about the image of gofer.
type image struct {
	Size         int64
	User         string
	Architecture string
	Labels       map[string]string
	RootFS       struct{ Layers []string }
	Config       struct{ Entrypoint, Cmd []string }
	HealthCheck  struct{ Test []string }
}

func TestTheImageIsSmallAndRunsAsNobody(t *testing.T) {
	heavy(t, "podman", "buildah", "runc")
	e := newEngine(t)
	e.buildImage()
	var images []image
	must(t, json.Unmarshal([]byte(e.run("podman", "image", "inspect", "gofer")), &images))
	got := images[0]
	t.Logf("the image has %.1f MiB", float64(got.Size)/(1<<20))
	if got.Size >= 40<<20 || len(got.RootFS.Layers) != 1 {
		t.Errorf("got %d bytes in %d layers, want less than 40 MiB in one", got.Size, len(got.RootFS.Layers))
	}
	if got.User != "65532:65532" || !slices.Equal(got.Config.Entrypoint, []string{"/gofer"}) || !slices.Equal(got.Config.Cmd, []string{"worker"}) {
		t.Errorf("got user %s, %v %v", got.User, got.Config.Entrypoint, got.Config.Cmd)
	}
	if !slices.Equal(got.HealthCheck.Test, []string{"CMD", "/gofer", "health"}) {
		t.Errorf("got the health check %v", got.HealthCheck.Test)
	}
	for _, label := range []string{"title", "description", "source", "licenses", "version", "revision"} {
		if text := got.Labels["org.opencontainers.image."+label]; text == "" || text == "unknown" {
			t.Errorf("label %s is %q", label, text)
		}
	}
}

// locked are the flags that take everything from a container that gofer does not need.
func locked() []string {
	return []string{"--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host", "--memory=512m", "--pids-limit=200"}
}

// TestAContainerDrains runs a worker without a writable file and without capabilities, and ends it while a job runs.
func TestAContainerDrains(t *testing.T) {
	heavy(t, "podman", "buildah", "runc")
	e := newEngine(t)
	e.buildImage()
	srv, origin := testenv.StartNATS(t, nil), testenv.StartOrigin(t, false)
	addr := freeAddr(t)
	args := append(locked(), "--env=GOFER_NATS_URL="+srv.URL(), "--env=GOFER_ALLOW_DIRECT=true", "--env=GOFER_ALLOW_PRIVATE_TARGETS=true", "--env=GOFER_HTTP_ADDR="+addr)
	id := e.start(append(args, "gofer")...)
	e.eventually(id, "the worker to be ready", func() bool {
		_, err := e.try("podman", "exec", id, "/gofer", "health", "--ready")
		return err == nil
	})
	if out, err := e.try("podman", "healthcheck", "run", id); err != nil {
		t.Errorf("the health check: %v, %s", err, out)
	}
	pid := e.run("podman", "inspect", "--format", "{{.State.Pid}}", id)
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	must(t, err)
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process has not %q:\n%s", want, status)
		}
	}
	nc := srv.Connect()
	c := client.New(clientOn(t, nc))
	_, err = c.Submit(soon(t), jobs.Job{ID: "slow", URL: origin.URL + "/slow/3000", Proxy: jobs.ProxyChoice{Direct: true}})
	must(t, err)
	e.eventually(id, "the job to be fetched", func() bool { return origin.Count("/slow/3000") == 1 })
	e.run("podman", "stop", "--time", "40", id)
	if code := e.run("podman", "inspect", "--format", "{{.State.ExitCode}}", id); code != "0" {
		t.Errorf("got exit code %s after SIGTERM, want 0", code)
	}
	r, err := c.Result(soon(t), bus.Key{Queue: "default", ID: "slow"})
	if err != nil || r.Outcome != jobs.Succeeded || origin.Count("/slow/3000") != 1 {
		t.Errorf("got %v, %v after %d fetches; want the running job to end before the worker", r.Outcome, err, origin.Count("/slow/3000"))
	}
}

// TestAContainerOfABadConfigurationSaysSo also shows that the embedded server needs a place to write.
func TestAContainerOfABadConfigurationSaysSo(t *testing.T) {
	heavy(t, "podman", "buildah", "runc")
	e := newEngine(t)
	e.buildImage()
	id := e.start(append(locked(), "--env=GOFER_NATS_URLS=x", "gofer")...)
	if code := e.run("podman", "wait", id); code != "78" {
		t.Errorf("got exit code %s, want 78", code)
	}
	if out, _ := e.command("podman", "logs", id).CombinedOutput(); !strings.Contains(string(out), "GOFER_NATS_URLS") {
		t.Errorf("the log says %s, want the misspelt variable", out)
	}
}
