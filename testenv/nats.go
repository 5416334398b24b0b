// Package testenv is the outside world for tests, the playground and benchmarks: NATS servers, forward proxies that behave
// badly on demand, and a site behind them. Everything listens on loopback only and is gone when its owner closes it.
package testenv

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATS is a JetStream server with a file store.
type NATS struct {
	tb   testing.TB
	opts server.Options
	srv  *server.Server
}

// StartNATS starts a server on a free port; the test's end stops it. change may alter its options; nil leaves them.
func StartNATS(tb testing.TB, change func(*server.Options)) *NATS {
	tb.Helper()
	n := &NATS{tb: tb, opts: server.Options{
		ServerName: "testenv", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tb.TempDir(), NoSigs: true, NoLog: true,
	}}
	if change != nil {
		change(&n.opts)
	}
	n.Start()
	tb.Cleanup(n.Stop)
	return n
}

// OpenNATS starts a server with a store of its own for an example, which has no testing.TB. The caller calls stop.
func OpenNATS() (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "gofer-nats-")
	if err != nil {
		return "", nil, err
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "testenv", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return "", nil, err
	}
	srv.Start()
	stop = func() {
		srv.Shutdown()
		srv.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
	if !srv.ReadyForConnections(10 * time.Second) {
		stop()
		return "", nil, errors.New("nats-server is not ready after 10 s")
	}
	return srv.ClientURL(), stop, nil
}

// Start starts the server again, on the port and with the store that it had.
func (n *NATS) Start() {
	n.tb.Helper()
	opts := n.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		n.tb.Fatalf("start nats-server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		n.tb.Fatal("nats-server is not ready after 10 s")
	}
	n.srv = srv
	n.opts.Port = opts.Port
}

// Stop stops the server and waits for it. Stopping twice is nothing.
func (n *NATS) Stop() {
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}

// Reload changes options of the running server, as an edit of its configuration and a SIGHUP do. Clients that gave a user are
// looked at anew, and may have to connect again.
func (n *NATS) Reload(change func(*server.Options)) {
	n.tb.Helper()
	change(&n.opts)
	opts := n.opts
	if err := n.srv.ReloadOptions(&opts); err != nil {
		n.tb.Fatalf("reload nats-server: %v", err)
	}
}

// URL is where the server listens.
func (n *NATS) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.opts.Port) }

// Port is where the server listens on 127.0.0.1. It stays the same through Stop and Start.
func (n *NATS) Port() int { return n.opts.Port }

// Connect connects to the server until the test ends.
func (n *NATS) Connect() *nats.Conn {
	n.tb.Helper()
	nc, err := nats.Connect(n.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		n.tb.Fatalf("connect to nats-server: %v", err)
	}
	n.tb.Cleanup(nc.Close)
	return nc
}

// Swallow lets the next request on a subject go without an answer, as a cluster does that has not chosen a leader yet. The
// subject may end in ">".
func (n *NATS) Swallow(subject string) {
	n.tb.Helper()
	nowhere := "testenv.swallowed"
	if strings.HasSuffix(subject, ">") {
		nowhere += ".>"
	}
	account, nc := n.srv.GlobalAccount(), n.Connect()
	_, err := nc.Subscribe(nowhere, func(*nats.Msg) { account.RemoveMapping(subject) })
	if err == nil {
		err = nc.Flush() // a mapping to what nobody hears yet would be answered, by the server itself
	}
	if err != nil {
		n.tb.Fatalf("subscribe to what is swallowed: %v", err)
	}
	if err := account.AddMapping(subject, nowhere); err != nil {
		n.tb.Fatalf("swallow %s: %v", subject, err)
	}
}

// SlowConsumers is how many clients the running server has dropped because they did not read.
func (n *NATS) SlowConsumers() int64 { return n.srv.NumSlowConsumers() }

// Clients is how many clients are connected to the running server.
func (n *NATS) Clients() int { return n.srv.NumClients() }
