package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/cmd/gofer/playground"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// playgroundCommand runs a worker for a first try of gofer. It needs neither a server nor proxies.
func (a *app) playgroundCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "playground",
		Short: "Run a worker with proxies and a site on loopback, to try gofer",
		Long: `Runs a worker in a world of its own: a dozen forward proxies on loopback, some of them slow, refusing, silent or
banned, and a small site, http://shop.test/, that only these proxies can resolve. If the environment names proxies, the worker
uses those, and nothing else is started. Ctrl-C ends everything.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.play(cmd.Context()) },
	}
}

// play runs a worker until ctx ends. If the environment names no proxies, it starts those of the playground, and shortens the
// attempt timeout, because some of them never answer. With the usual timeout the first try of a user would hang for half a
// minute.
func (a *app) play(ctx context.Context) error {
	c, proxies, err := a.loadWorkerConfig()
	if err != nil {
		return err
	}
	// If the user has named proxies, those of the playground would hide whether the user's proxies work.
	hint := hintOfOwnProxies
	if c.Proxies == "" && c.ProxiesFile == "" && c.ProxiesURL == "" {
		world, err := playground.Start()
		if err != nil {
			return err
		}
		defer world.Close()
		if proxies, err = proxylist.ParseList(strings.NewReader(strings.Join(world.Lines(), "\n"))); err != nil {
			return err
		}
		// A value that the user set is kept.
		if !c.IsSet("GOFER_ATTEMPT_TIMEOUT") {
			c.AttemptTimeout = jobs.Duration(playground.AttemptTimeout)
		}
		hint = fmt.Sprintf(hintOfWorld, world)
	}
	ctx, cancel := context.WithCancel(ctx)
	// Deferred calls run in reverse: cancel first ends the goroutine of the hint, and then Wait waits for it.
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	// The hint waits for the worker in a goroutine, because runWorker returns only at its end.
	return a.runWorker(ctx, c, proxies, func(addr net.Addr) {
		waiting.Go(func() { printWhenReady(ctx, a.err, pageOf(addr), hint) })
	})
}

// hintOfOwnProxies is printed if the environment names proxies. Its arguments are the program and the page.
const hintOfOwnProxies = `
The worker is ready. In another terminal:

  %[1]s submit --wait URL
  %[1]s events
  %[1]s --help

The dashboard is at %[2]s/. Ctrl-C ends it.
`

// hintOfWorld is printed with the proxies of the playground. It is formatted twice: with the world, and then as
// hintOfOwnProxies.
const hintOfWorld = `
The worker is ready, with %s.
In another terminal:

  %%[1]s submit --wait http://shop.test/
  %%[1]s submit --wait http://shop.test/flaky
  echo '{"url":"http://shop.test/","ban":{"statuses":[403]}}' | %%[1]s submit --wait -
  %%[1]s events --all
  curl -s %%[2]s/api/v1/circuit-breakers

The dashboard is at %%[2]s/. Ctrl-C ends all of it.
`

// pageOf returns the URL of the dashboard for a browser on this machine. An unspecified address becomes loopback.
// addr is the address of a TCP listener; another one is a mistake of the program and panics.
func pageOf(addr net.Addr) string {
	at := *addr.(*net.TCPAddr)
	if at.IP.IsUnspecified() {
		at.IP = net.IPv4(127, 0, 0, 1)
	}
	return "http://" + at.String()
}

// printWhenReady prints hint once the worker is ready, unless ctx ends before.
func printWhenReady(ctx context.Context, out *stream, page, hint string) {
	// It asks the page that a user would ask. So the hint cannot come before the page answers.
	for !isReady(ctx, page) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	_ = out.block(fmt.Sprintf(hint, os.Args[0], page)) // a terminal that is gone needs no hint
}

// isReady asks /readyz once. An error means that the worker is not ready yet: the port is open before anything answers there.
func isReady(ctx context.Context, page string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
