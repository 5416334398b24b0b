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
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/daemon"
	"github.com/gofer-mq/gofer/worker/natsserver"
)

// drainSlack is how much longer than its drain timeout a worker may take to end.
const drainSlack = 750 * time.Millisecond

// workerCommand runs a worker in the foreground. A supervisor such as systemd or Kubernetes restarts it.
func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run a worker: take jobs, fetch them, publish results",
		Long: `Takes jobs from NATS JetStream, fetches them through the proxies, and publishes one result each.
Without GOFER_NATS_URL it starts an embedded JetStream server on GOFER_EMBEDDED_ADDR, with its data in GOFER_DATA_DIR,
which one worker at a time may use; the others on this machine join that server by GOFER_NATS_URL.
SIGTERM, the end of its terminal, or the first Ctrl-C drains: the worker takes no new jobs, and the running ones end or go back.
A second signal ends it at once.
A broken connection to NATS is repaired. If the server ends the connection for good, the worker ends with exit code 69.
'gofer config usage' lists the variables that configure it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.work(cmd.Context()) },
	}
}

// work runs a worker until ctx ends.
func (a *app) work(ctx context.Context) error {
	c, proxies, err := a.loadWorkerConfig()
	if err != nil {
		return err
	}
	return a.runWorker(ctx, c, proxies, func(net.Addr) {})
}

// runWorker builds a worker and runs it until ctx ends. It calls listening once with the address of the HTTP port, before
// the worker is ready. The embedded server outlives the worker, whose last acks it takes.
func (a *app) runWorker(ctx context.Context, c config.Config, proxies []proxylist.Proxy, listening func(net.Addr)) error {
	// Before anything that may take long: a signal during the start must already find the worker's limit.
	a.interrupts.setLimit(c.DrainTimeout.Std()+drainSlack, exitFailed)
	// The runtime is set before anything allocates: the embedded server and the pool of proxies are the first large things.
	limitMemory(&c)
	reserve := make([]byte, heapReserve)
	// Without KeepAlive the collector would free the reserve at once, because nothing uses it.
	defer runtime.KeepAlive(reserve)
	// The log goes to standard error. A worker prints nothing on standard output, so nothing is lost if that is closed.
	log := newLogger(&c, a.err)
	// The port is opened first: of all steps this one fails most often, and nothing has to be undone then. If it fails, the port of
	// the embedded server is checked as well, so that one run names both conflicts.
	listener, err := listen(ctx, c.HTTPAddr)
	if err != nil && c.NATSURL == "" {
		err = errors.Join(err, embeddedServerError(&c, natsserver.CheckAddr(ctx, c.EmbeddedAddr)))
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
			return embeddedServerError(&c, err)
		}
		// Deferred before daemon.Run, so the server ends after the worker has settled its last jobs.
		defer server.Close()
		c.NATSURL = server.URL()
		log.Info("embedded NATS server started", "addr", strings.TrimPrefix(c.NATSURL, "nats://"), "data", c.DataDir)
	}
	// From here on the worker is that of package daemon, which can also be embedded in another program.
	d := c.Daemon(proxies)
	// A drain may begin without a signal: by gofer drain, or because the server has ended the connection for good. endSoon bounds
	// its time as after a signal.
	d.Listener, d.Log, d.Draining, d.Version, d.Revision = listener, log, a.interrupts.endSoon, buildVersion(), buildRevision()
	return daemon.Run(ctx, d)
}

// heapReserve is the size of memory that is never touched, and so takes no room. The garbage collector counts it as heap: a
// worker with a small heap collects garbage a third as often, and its heap grows by about heapReserve.
const heapReserve = 16 << 20

// limitMemory sets a soft limit for the garbage collector, unless the owner sets GOMEMLIMIT: 400 MiB for a worker with 64
// slots and the default body size, which then stays under 512 MiB, and more with more slots and larger bodies. Without a
// limit the heap may grow to twice of what is in use.
func limitMemory(c *config.Config) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	// The figures are measured: 64 answers at once, in codings up to five deep, take a worker to at most 436 MiB.
	const base, slots, slotBytes, bodyBytes = 400<<20 + heapReserve, 64, 1 << 20, 8 << 20
	// A larger body counts four times: its bytes are held about so often while the body is decoded and encoded.
	limit := base + max(0, int64(c.Concurrency)-slots)*slotBytes + 4*max(0, c.MaxBodyBytes-bodyBytes)
	debug.SetMemoryLimit(limit)
}

// embeddedServerError turns a *natsserver.Error into a *config.Error that names the variable and the remedy. It returns any
// other error unchanged.
func embeddedServerError(c *config.Config, err error) error {
	bad, ok := errors.AsType[*natsserver.Error](err)
	if !ok {
		return err
	}
	var reason string
	// natsserver is a library and knows no variables. Each case names the variable that has to change, and what would work.
	switch {
	case errors.Is(bad, natsserver.ErrAddrTaken):
		reason = fmt.Sprintf("GOFER_EMBEDDED_ADDR: %s is taken%s: set GOFER_NATS_URL=nats://%[1]s to join the server there, "+
			"or choose another address and another GOFER_DATA_DIR", c.EmbeddedAddr, portHolder(c.EmbeddedAddr, syscall.EADDRINUSE))
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
	// Unwrap leaves out the operation and the address, which the sentence names already.
	if err != nil {
		return nil, &config.Error{Reasons: []string{fmt.Sprintf("GOFER_HTTP_ADDR: cannot listen on %s (%v%s): choose another address, such as 127.0.0.1:0", addr, errors.Unwrap(err), portHolder(addr, err))}}
	}
	return l, nil
}
