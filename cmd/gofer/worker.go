package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/daemon"
	"github.com/gofer-mq/gofer/worker/natsserver"
)

// drainSlack is how much longer than its drain timeout a worker may take to end: what follows the last step is not work.
const drainSlack = 750 * time.Millisecond

// workerCommand runs a worker in the foreground. A supervisor such as systemd or Kubernetes restarts it.
func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run a worker: take jobs, fetch them, publish results",
		Long: `Takes jobs from NATS JetStream, fetches them through the proxies, and publishes one result each.
Without GOFER_NATS_URL it starts an embedded JetStream server on GOFER_EMBEDDED_ADDR, with its data in GOFER_DATA_DIR,
which one worker at a time may use; the others on this machine join that server by GOFER_NATS_URL.
SIGTERM, the end of its terminal, or the first Ctrl-C drains: no new jobs, the running ones end or go back. The second one
ends it at once.
A connection to NATS that breaks is repaired; one that the server ends for good ends the worker, with exit code 69.
'gofer config usage' lists the variables that configure it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.work(cmd.Context()) },
	}
}

// work runs a worker until ctx ends. Only the playground needs the address.
func (a *app) work(ctx context.Context) error {
	c, proxies, err := a.loadWorkerConfig()
	if err != nil {
		return err
	}
	return a.runWorker(ctx, c, proxies, func(net.Addr) {})
}

// runWorker builds a worker and runs it until ctx ends. It calls listening once with the address of the HTTP port. What
// is closed last was opened first: the embedded server outlives the worker, whose last acks it takes.
func (a *app) runWorker(ctx context.Context, c config.Config, proxies []proxylist.Proxy, listening func(net.Addr)) error {
	// A worker may take its drain timeout to end after a signal; any other verb gets half a second.
	a.interrupts.allow(c.DrainTimeout.Std()+drainSlack, exitFailed)
	limitMemory(&c)
	reserve := make([]byte, heapReserve)
	// Without a use after this point, the collector would free it at once.
	defer runtime.KeepAlive(reserve)
	// The log shares standard error with notes, and the lock of the stream keeps lines whole.
	log := newLogger(&c, a.err)
	// The port is opened first: it is the likeliest thing to be taken, and nothing has to be undone then.
	listener, err := listen(ctx, c.HTTPAddr)
	// Both ports are checked, so that one run names both conflicts.
	if err != nil && c.NATSURL == "" {
		err = errors.Join(err, withoutServer(&c, natsserver.CheckAddr(ctx, c.EmbeddedAddr))) // both at once
	}
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	// Called before the worker is ready: the port answers from here on.
	listening(listener.Addr())
	if c.NATSURL == "" {
		server, err := natsserver.Start(ctx, natsserver.Config{Addr: c.EmbeddedAddr, Dir: c.DataDir, MaxConns: daemon.ConnectionLimit(), Log: log})
		if err != nil {
			return withoutServer(&c, err)
		}
		// Deferred before daemon.Run, so the server ends after the worker has settled its last jobs.
		defer server.Close()
		c.NATSURL = server.URL()
		log.Info("embedded NATS server started", "addr", strings.TrimPrefix(c.NATSURL, "nats://"), "data", c.DataDir)
	}
	// From here on the worker is that of package daemon, which can also be embedded in another program.
	d := c.Daemon(proxies)
	// Draining is called when the drain begins, and makes sure that the process ends.
	d.Listener, d.Log, d.Draining, d.Version, d.Revision = listener, log, a.interrupts.endSoon, buildVersion(), buildRevision()
	return daemon.Run(ctx, d)
}

// heapReserve is memory that is never touched, and so takes no room. The garbage collector takes it for a part of the heap: a
// worker whose heap is small collects garbage a third as often, and grows by about as much.
const heapReserve = 16 << 20

// limitMemory sets a soft limit for the garbage collector: 400 MiB for a worker with 64 slots and the default body size,
// more with more slots and larger bodies. Such a worker stays under 512 MiB. Without a limit the heap may grow to twice
// of what is in use. GOMEMLIMIT of the owner replaces the limit. The owner's value counts, also if it is
// larger.
func limitMemory(c *config.Config) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	const base, slots, slotBytes, bodyBytes = 400<<20 + heapReserve, 64, 1 << 20, 8 << 20
	// Each further slot may hold a body, and each further byte of a body is held about four times while it is
	// decoded and encoded. In bytes; a soft limit may be exceeded when more is in use.
	limit := base + max(0, int64(c.Concurrency)-slots)*slotBytes + 4*max(0, c.MaxBodyBytes-bodyBytes)
	debug.SetMemoryLimit(limit)
}

// withoutServer turns the reason why no embedded server runs into a *config.Error that names the variable and the remedy.
// Any other error is returned unchanged. Both variables have defaults, so a first start can meet each of these
// without any of them being set.
func withoutServer(c *config.Config, err error) error {
	bad, ok := errors.AsType[*natsserver.Error](err)
	if !ok {
		return err
	}
	var reason string
	// Each case names the variable that has to change, and the value that would work.
	switch {
	case errors.Is(bad, natsserver.ErrAddrTaken):
		reason = fmt.Sprintf("GOFER_EMBEDDED_ADDR: %s is taken: set GOFER_NATS_URL=nats://%[1]s to join the server there, "+
			"or choose another address and another GOFER_DATA_DIR", c.EmbeddedAddr)
	case errors.Is(bad, natsserver.ErrDirInUse):
		reason = fmt.Sprintf("GOFER_DATA_DIR: %s is in use by another worker: set GOFER_NATS_URL to join that one's server, or choose another folder", c.DataDir)
	case bad.Field == "Addr":
		reason = fmt.Sprintf("GOFER_EMBEDDED_ADDR: cannot listen on %s (%v): choose another address, such as 127.0.0.1:0", c.EmbeddedAddr, bad.Err)
	case bad.Field == "Dir":
		reason = fmt.Sprintf("GOFER_DATA_DIR: the embedded server cannot use %s: %v", c.DataDir, bad.Err)
	default:
		reason = fmt.Sprintf("GOFER_DATA_DIR, GOFER_EMBEDDED_ADDR: the embedded server did not start on %s with its data in %s", c.EmbeddedAddr, c.DataDir)
	}
	return &config.Error{Reasons: []string{reason}}
}

// listen opens the HTTP port. The error is a *config.Error that names the variable. The caller closes the listener.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	// Unwrap leaves out the operation and the address, which stand in the sentence.
	if err != nil {
		return nil, &config.Error{Reasons: []string{fmt.Sprintf("GOFER_HTTP_ADDR: cannot listen on %s (%v): choose another address, such as 127.0.0.1:0", addr, errors.Unwrap(err))}}
	}
	return l, nil
}
