package main

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/natsserver"
)

func TestTakenPortsAreNamedWithTheRemedy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	taken := strings.TrimPrefix(w.nats.URL(), "nats://")
	setenv(t, "GOFER_HTTP_ADDR", taken)
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_HTTP_ADDR") {
		t.Errorf("taken HTTP port: exit %d, %s", code, errOut)
	}
	setenv(t, "GOFER_NATS_URL", "")
	setenv(t, "GOFER_EMBEDDED_ADDR", taken)
	setenv(t, "GOFER_DATA_DIR", t.TempDir())
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_HTTP_ADDR") || !strings.Contains(errOut, "GOFER_EMBEDDED_ADDR") {
		t.Errorf("both ports taken: exit %d, %s; want both named", code, errOut)
	}
	setenv(t, "GOFER_HTTP_ADDR", freeAddr(t))
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_NATS_URL=nats://"+taken) {
		t.Errorf("taken NATS port: exit %d, %s", code, errOut)
	}
	elsewhere := config.Config{EmbeddedAddr: "192.0.2.1:4222"}
	if err := embeddedServerError(&elsewhere, natsserver.CheckAddr(t.Context(), elsewhere.EmbeddedAddr)); err == nil || strings.Contains(err.Error(), "taken") || !strings.Contains(err.Error(), "GOFER_EMBEDDED_ADDR: cannot listen") {
		t.Errorf("address of another machine: %v, want it told from a taken one", err)
	}
}

func TestTwoWorkersNeverShareADataFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	setenv(t, "GOFER_NATS_URL", "")
	setenv(t, "GOFER_DATA_DIR", t.TempDir())
	setenv(t, "GOFER_EMBEDDED_ADDR", freeAddr(t))
	first := w.worker(freeAddr(t))
	setenv(t, "GOFER_EMBEDDED_ADDR", freeAddr(t))
	setenv(t, "GOFER_HTTP_ADDR", freeAddr(t))
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_DATA_DIR") || !strings.Contains(errOut, "GOFER_NATS_URL") {
		t.Errorf("a second worker on the folder: exit %d, %s; want %d and what to do", code, errOut, exitConfig)
	}
	first.wait(t)
	w.worker(freeAddr(t)) // the folder is free again
}

func TestUsageNamesEveryVariableOnce(t *testing.T) {
	t.Parallel()
	_, out, _ := gofer(t, "", "config", "usage")
	for _, v := range config.Variables() {
		if n := strings.Count(out, " "+v.Name+" "); n != 1 {
			t.Errorf("%s stands %d times in the usage, want once", v.Name, n)
		}
		if v.Meaning == "" {
			t.Errorf("%s has no description", v.Name)
		}
	}
}

func TestReasonsOfABadConfigurationAreJSONToo(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_CONCURRENCY", "many")
	for _, verb := range []string{"config check", "config show", "doctor"} {
		code, out, errOut := gofer(t, "", append(strings.Fields(verb), "--json")...)
		if code != exitConfig || !strings.Contains(out, `"ok":false`) || !strings.Contains(out, "GOFER_CONCURRENCY: ") {
			t.Errorf("%s --json: exit %d, printed %q", verb, code, out)
		}
		if strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "GOFER_CONCURRENCY: ") {
			t.Errorf("%s --json: said %q, want the reason", verb, errOut)
		}
	}
}

func TestConfigShowHidesSecrets(t *testing.T) {
	t.Parallel()
	setenv(t, "GOFER_NATS_USER", "u")
	setenv(t, "GOFER_NATS_PASSWORD", "hunter2-secret")
	_, out, _ := gofer(t, "", "config", "show")
	if strings.Contains(out, "hunter2-secret") || !strings.Contains(out, "GOFER_NATS_PASSWORD") {
		t.Errorf("gofer config show printed a secret, or hid the variable:\n%s", out)
	}
}
