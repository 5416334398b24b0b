// Package deploy_test runs what deploy ships: the configurations of the server with real connections, the image, the units,
// the manifests.
package deploy_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

const folder = "../../deploy/nats/"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	t.Cleanup(cancel)
	return ctx
}

// withExamples is server.conf with those lines of examples in use that contain one of the words.
func withExamples(t *testing.T, words ...string) string {
	t.Helper()
	testenv.DependOn(t, folder+"server.conf")
	data, err := os.ReadFile(folder + "server.conf")
	must(t, err)
	lines := strings.Split(string(data), "\n")
	for _, word := range words {
		used := false
		for i, line := range lines {
			if example, ok := strings.CutPrefix(strings.TrimSpace(line), "#| "); ok && strings.Contains(example, word) {
				lines[i], used = example, true
			}
		}
		if !used {
			t.Fatalf("server.conf has no example with %q", word)
		}
	}
	return strings.Join(lines, "\n")
}

// passwords sets those of all users, each its name in lower case with a p- before it.
func passwords(t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		t.Setenv("NATS_"+strings.ToUpper(user)+"_PASSWORD", "p-"+user)
	}
}

// start runs a server with a configuration, on loopback and with a store of its own.
func start(t *testing.T, dir, text string) *testenv.NATS {
	t.Helper()
	return startWith(t, dir, text, func(*server.Options) {})
}

// startWith is start with other options than the configuration has.
func startWith(t *testing.T, dir, text string, change func(*server.Options)) *testenv.NATS {
	t.Helper()
	path := filepath.Join(dir, "server.conf")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	opts, err := server.ProcessConfigFile(path)
	must(t, err)
	return testenv.StartNATS(t, func(o *server.Options) {
		store := o.StoreDir
		*o = *opts
		o.Host, o.Port, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, store, true, true
		change(o)
	})
}

// role is a user of the server.
type role struct{ name, user, password string }

func (r role) inbox() string { return "_INBOX_" + r.name }

// connect connects as the role until the test ends. A stranger is refused.
func (r role) connect(t *testing.T, srv *testenv.NATS) (*nats.Conn, error) {
	t.Helper()
	nc, err := nats.Connect(srv.URL(), nats.UserInfo(r.user, r.password), nats.CustomInboxPrefix(r.inbox()), nats.MaxReconnects(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

// client is gofer's own client as the role.
func (r role) client(t *testing.T, srv *testenv.NATS) *bus.Client {
	t.Helper()
	nc, err := bus.Connect(soon(t), bus.Dial{URL: srv.URL(), User: r.user, Password: r.password, InboxPrefix: r.inbox()}, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(nc.Close)
	return clientOn(t, nc)
}

func clientOn(t *testing.T, nc *nats.Conn) *bus.Client {
	t.Helper()
	names, err := jobs.NewNames("")
	must(t, err)
	c, err := bus.New(nc, names)
	must(t, err)
	return c
}

// isRefused reports whether the server has refused anything to the connection. It names a request to the API by the subject
// that it maps it to, so a connection that asks this makes one try only.
func isRefused(t *testing.T, nc *nats.Conn) bool {
	t.Helper()
	must(t, nc.FlushWithContext(soon(t))) // a refusal comes before the answer to the flush
	return errors.Is(nc.LastError(), nats.ErrPermissionViolation)
}

// ear keeps what a connection hears.
type ear struct {
	name  string
	mu    sync.Mutex // guards heard
	heard map[string]bool
}

func (e *ear) has(subject string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[subject]
}

// listen subscribes a role to all subjects that it may hear.
func listen(t *testing.T, srv *testenv.NATS, r role, subjects []string) *ear {
	t.Helper()
	nc, err := r.connect(t, srv)
	must(t, err)
	e := &ear{name: r.name, heard: map[string]bool{}}
	for _, subject := range subjects {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard[m.Subject] = true
		})
		must(t, err)
	}
	must(t, nc.FlushWithContext(soon(t)))
	return e
}

// freeAddr is an address on loopback that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// command is the block of a document of deploy that contains a word, as it stands there.
func command(t *testing.T, file, word string) string {
	t.Helper()
	testenv.DependOn(t, "../../deploy/"+file)
	data, err := os.ReadFile("../../deploy/" + file)
	must(t, err)
	for i, block := range strings.Split(string(data), "```") {
		if i%2 == 1 && strings.Contains(block, word) {
			_, body, _ := strings.Cut(block, "\n")
			return body
		}
	}
	t.Fatalf("%s has no command with %q", file, word)
	return ""
}
