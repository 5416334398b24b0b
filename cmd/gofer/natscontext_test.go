package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/testenv"
)

// TestAContextOfTheNatsCommandLeadsToItsServer uses a server that knows one user, whose password only the context has.
func TestAContextOfTheNatsCommandLeadsToItsServer(t *testing.T) {
	t.Parallel()
	world := newUserWorld(t)
	home := t.TempDir()
	write := func(name string, settings map[string]any) {
		dir := filepath.Join(home, "nats", "context")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good", map[string]any{"url": world, "user": "alice", "password": "right-Secret1"})
	write("wrong", map[string]any{"url": world, "user": "alice", "password": "wrong-Secret2"})
	write("away", map[string]any{"url": "nats://" + freeAddr(t)})
	setenv(t, "XDG_CONFIG_HOME", home)
	setenv(t, "GOFER_NATS_URL", "nats://"+freeAddr(t))
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--context good setup", exitOK, ""},
		{"queues --context good", exitOK, ""},
		{"--context wrong queues", exitConfig, "refuse"},
		{"--context away queues", exitUnreachable, "cannot be reached"},
		{"--context away --server " + world + " queues", exitConfig, "refuse"},
		{"--context good --server nats://" + freeAddr(t) + " queues", exitUnreachable, "cannot be reached"},
		{"--context none queues", exitConfig, "there are away, good, wrong"},
		{"--server : queues", exitConfig, "configuration: --server: not a list of URLs"},
		{"--server http://" + freeAddr(t) + " queues", exitConfig, "configuration: --server: a scheme is none of nats, tls, ws, wss"},
		{"queues", exitUnreachable, "cannot be reached"},
	} {
		code, out, errOut := gofer(t, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errOut, c.says) || strings.Contains(out+errOut, "Secret") {
			t.Errorf("gofer %s: exit %d\n%s%s\nwant exit %d and %q", c.args, code, out, errOut, c.code, c.says)
		}
	}
	setenv(t, "GOFER_NATS_URL", "")
	setenv(t, "NATS_CONTEXT", "good")
	if code, out, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Errorf("with NATS_CONTEXT: exit %d\n%s%s", code, out, errOut)
	}
	if _, out, _ := gofer(t, "", "config", "show"); !strings.Contains(out, "context good") || strings.Contains(out, "Secret") {
		t.Errorf("config show does not say where the settings come from:\n%s", out)
	}
}

// newUserWorld starts a server with one user and returns its URL.
func newUserWorld(t *testing.T) string {
	t.Helper()
	w := testenv.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "alice", "right-Secret1" })
	return w.URL()
}
