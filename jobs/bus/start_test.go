package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func connect(t testing.TB, d bus.Dial) *nats.Conn {
	t.Helper()
	nc, err := bus.Connect(t.Context(), d, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func names(t testing.TB) jobs.Names {
	t.Helper()
	n, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// installation is a client on a server of its own.
type installation struct {
	server *testenv.NATS
	nc     *nats.Conn
	js     jetstream.JetStream
	names  jobs.Names
	client *client.Client
	*bus.Client
}

// on makes a client on a running server.
func on(t testing.TB, s *testenv.NATS, d bus.Dial) *installation {
	t.Helper()
	d.URL = s.URL()
	in := &installation{server: s, nc: connect(t, d), names: names(t)}
	var err error
	if in.js, err = jetstream.New(in.nc); err != nil {
		t.Fatal(err)
	}
	if in.Client, err = bus.New(in.nc, in.names); err != nil {
		t.Fatal(err)
	}
	in.client = client.New(in.Client)
	return in
}

// bare is an installation without its streams.
func bare(t testing.TB) *installation {
	t.Helper()
	return on(t, testenv.StartNATS(t, nil), bus.Dial{})
}

func install(t testing.TB, s bus.Settings) *installation {
	t.Helper()
	in := bare(t)
	if err := in.Ensure(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return in
}

// restart ends the server and brings it back on its port with its streams.
func (in *installation) restart() {
	in.server.Stop()
	in.server.Start()
}

// store stores a succeeded result and expects it to win.
func (in *installation) store(t testing.TB, id string, body []byte) {
	t.Helper()
	stored, err := in.StoreResult(t.Context(), success(id, body))
	if err != nil || !stored.Won {
		t.Fatalf("store result %s: won %v, %v", id, stored.Won, err)
	}
}

func success(id string, body []byte) *jobs.Result {
	return &jobs.Result{
		Queue: "default", ID: id, Outcome: jobs.Succeeded, Status: 200, Body: body, Worker: "w1", FinishedAt: time.Now(), AttemptCount: 1,
	}
}

// soon bounds what a test waits for.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	t.Cleanup(cancel)
	return ctx
}

func isError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func job(id string) jobs.Job { return jobs.Job{ID: id, URL: "https://example.com/"} }

func key(id string) bus.Key { return bus.Key{Queue: "default", ID: id} }
