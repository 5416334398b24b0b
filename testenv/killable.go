package testenv

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// clusterConfig is set in a process that is to run one server of a cluster: the path of its configuration.
const clusterConfig = "TESTENV_NATS_CONFIG"

// Main is the TestMain of a package whose tests start a Killable: the servers are processes of the test's own program, so that
// they can be killed without having to be built.
func Main(m *testing.M) {
	if path := os.Getenv(clusterConfig); path != "" {
		if err := serveNATS(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveNATS runs a server until standard input ends, which it does with the test.
func serveNATS(path string) error {
	opts, err := server.ProcessConfigFile(path)
	if err != nil {
		return err
	}
	opts.NoSigs = true
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	srv.ConfigureLogger()
	srv.Start()
	_, err = io.Copy(io.Discard, os.Stdin)
	srv.Shutdown()
	return err
}

// Killable is a cluster of three JetStream servers, each a process of its own with a store of its own.
type Killable struct {
	tb    testing.TB
	nodes [3]node
}

type node struct {
	addr, store, config, log string

	cmd  *exec.Cmd
	stop io.Closer // the standard input of cmd
}

// StartKillable starts the servers and waits until JetStream answers; the test's end stops them. TESTENV_NATS_SERVER may name
// another nats-server than the one of this module.
func StartKillable(tb testing.TB) *Killable {
	tb.Helper()
	c := &Killable{tb: tb}
	dir := tb.TempDir()
	var clients, routes []string
	for range c.nodes {
		clients, routes = append(clients, FreeAddr(tb)), append(routes, FreeAddr(tb))
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		*n = node{addr: clients[i], store: filepath.Join(dir, fmt.Sprint("store", i)), config: filepath.Join(dir, fmt.Sprint(i, ".conf")), log: filepath.Join(dir, fmt.Sprint(i, ".log"))}
		text := fmt.Sprintf("server_name: n%d\nlisten: %s\nlog_file: %q\njetstream { store_dir: %q }\ncluster { name: test, listen: %s, routes: [\"nats://%s\"] }\n",
			i, n.addr, n.log, n.store, routes[i], strings.Join(routes, `", "nats://`))
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		c.Start(i)
	}
	tb.Cleanup(func() {
		for i := range c.nodes {
			c.Kill(i)
		}
	})
	c.Ready()
	return c
}

// Start starts a server that does not run.
func (c *Killable) Start(i int) {
	c.tb.Helper()
	n := &c.nodes[i]
	n.cmd = exec.Command(os.Args[0])
	if program := os.Getenv("TESTENV_NATS_SERVER"); program != "" {
		n.cmd = exec.Command(program, "-c", n.config)
	}
	n.cmd.Env = append(os.Environ(), clusterConfig+"="+n.config)
	stop, err := n.cmd.StdinPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		c.tb.Fatalf("start server %d: %v", i, err)
	}
	n.stop = stop
}

// Kill ends a server with SIGKILL and waits for that. Killing it twice is nothing.
func (c *Killable) Kill(i int) {
	n := &c.nodes[i]
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
	_ = n.stop.Close()
	n.cmd = nil
}

// Wipe empties the disk of a server that does not run.
func (c *Killable) Wipe(i int) {
	c.tb.Helper()
	if err := os.RemoveAll(c.nodes[i].store); err != nil {
		c.tb.Fatal(err)
	}
}

// ForgetTimers removes the timers of a stream from the disk of a server that does not run, if it has the stream; see
// NATS.ForgetTimers.
func (c *Killable) ForgetTimers(i int, stream string) {
	c.tb.Helper()
	if _, err := forgetTimers(c.nodes[i].store, stream); err != nil {
		c.tb.Fatal(err)
	}
}

// URL is where all servers listen.
func (c *Killable) URL() string {
	urls := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		urls[i] = "nats://" + n.addr
	}
	return strings.Join(urls, ",")
}

// Connect connects to any server until the test ends.
func (c *Killable) Connect() *nats.Conn {
	c.tb.Helper()
	nc, err := nats.Connect(c.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort())
	if err != nil {
		c.tb.Fatalf("connect to the cluster: %v", err)
	}
	c.tb.Cleanup(nc.Close)
	return nc
}

// Ready waits until JetStream answers and each server is there.
func (c *Killable) Ready() {
	c.tb.Helper()
	js, err := jetstream.New(c.Connect())
	if err != nil {
		c.tb.Fatal(err)
	}
	const stream = "TESTENV_READY"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		_, err = js.CreateOrUpdateStream(c.tb.Context(), jetstream.StreamConfig{Name: stream, Replicas: len(c.nodes), Storage: jetstream.MemoryStorage})
		if err == nil {
			err = js.DeleteStream(c.tb.Context(), stream)
		}
		if err == nil {
			return
		}
	}
	c.tb.Fatalf("the cluster is not ready after a minute: %v", err)
}
