package natsserver_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/worker/natsserver"
)

func start(t *testing.T, addr, dir string) (*natsserver.Server, error) {
	t.Helper()
	return natsserver.Start(t.Context(), natsserver.Config{Addr: addr, Dir: dir, Log: slog.New(slog.DiscardHandler)})
}

func TestServerKeepsStreamsInItsFolder(t *testing.T) {
	dir := t.TempDir()
	for run := range 2 {
		s, err := start(t, "127.0.0.1:0", dir)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		} else {
			_, err = js.Stream(t.Context(), "S")
		}
		if err != nil {
			t.Errorf("run %d: stream: %v", run, err)
		}
		nc.Close()
		s.Close()
	}
}

// TestFieldThatKeepsAServerFromStartingIsNamed: the caller knows under which name the user set it.
func TestFieldThatKeepsAServerFromStartingIsNamed(t *testing.T) {
	dir := t.TempDir()
	s, err := start(t, "127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := s.URL()[len("nats://"):]
	for name, c := range map[string]struct {
		addr, dir, field string
		reason           error // nil if any will do
	}{
		"taken address":              {taken, t.TempDir(), "Addr", natsserver.ErrAddrTaken},
		"address of another machine": {"192.0.2.1:0", t.TempDir(), "Addr", nil},
		"no address":                 {"localhost", t.TempDir(), "Addr", nil},
		"no port":                    {"127.0.0.1:x", t.TempDir(), "Addr", nil},
		"folder of another server":   {"127.0.0.1:0", dir, "Dir", natsserver.ErrDirInUse},
		"no folder":                  {"127.0.0.1:0", file, "Dir", nil},
	} {
		_, err := start(t, c.addr, c.dir)
		var bad *natsserver.Error
		switch {
		case !errors.As(err, &bad) || bad.Field != c.field:
			t.Errorf("%s: %v, want the field %s", name, err, c.field)
		case c.reason != nil && !errors.Is(err, c.reason):
			t.Errorf("%s: %v, want %v", name, err, c.reason)
		case c.reason == nil && (errors.Is(err, natsserver.ErrAddrTaken) || errors.Is(err, natsserver.ErrDirInUse)):
			t.Errorf("%s: %v, want another reason", name, err)
		}
	}
	s.Close()
	again, err := start(t, taken, dir)
	if err != nil {
		t.Fatalf("after the first one was closed: %v", err)
	}
	again.Close()
}
