package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
)

// defaultTarget is there for everybody to fetch (RFC 2606), and https makes a proxy show that it opens tunnels.
const defaultTarget = "https://example.com/"

// checkFlags are the flags of gofer proxies check.
type checkFlags struct {
	target   string
	timeout  time.Duration
	parallel int
	via      []string
}

func (a *app) proxiesCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [FILE|-]",
		Short: "Fetch a page through each proxy and say which ones work",
		Long: `Fetches one page once through each proxy, many at a time, and prints a line for each as it is done: whether it
worked, the answer's status, the time it took and, when it failed, whose fault that was and why. An answer of 400
or more is a failure, too. Breakers and statistics of the workers are not touched.

The proxies are those of the pool, as "gofer proxies ls" shows them, or the lines of a file or of standard input
("-"), written as in the proxies file. Exit code 0 says that every proxy works, 3 that some do not.`,
		Example: `  gofer proxies check
  gofer proxies check --target http://example.com/ --timeout 5s bought.txt
  gofer proxies check --json - < bought.txt | jq -r 'select(.ok) | .id'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error { return a.proxiesCheck(cmd.Context(), f, files) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.target, "target", "", "page to fetch (default GOFER_HEALTH_CHECK_URL, or else "+defaultTarget+"); private addresses need GOFER_ALLOW_PRIVATE_TARGETS")
	f.timeout = 10 * time.Second
	flags.Var((*durationFlag)(&f.timeout), "timeout", "how long a proxy may take, 0.1s to 10m")
	f.parallel = 64
	flags.Var((*wholeFlag)(&f.parallel), "parallel", "proxies at a time, 1 to 10000")
	flags.StringSliceVar(&f.via, "via", nil, "check only the proxies of these ids")
	return cmd
}

func (f *checkFlags) check() error {
	switch {
	case f.timeout < 100*time.Millisecond || f.timeout > jobs.MaxAttemptTimeout:
		return usage("--timeout: not between 0.1s and 10m")
	case f.parallel < 1 || f.parallel > 10000:
		return usage("--parallel: not between 1 and 10000")
	}
	return nil
}

func (a *app) proxiesCheck(ctx context.Context, f checkFlags, files []string) error {
	if err := f.check(); err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	f.target = cmp.Or(f.target, c.Health.URL, defaultTarget)
	list, err := a.proxiesToCheck(ctx, &c, f, files)
	if err != nil {
		return err
	}
	k, err := a.newCheck(ctx, &c, f, list)
	if err != nil {
		return err
	}
	defer k.fetcher.Close()
	return k.run(ctx, f.parallel)
}

// proxiesToCheck is the pool, or what the file lists, or of either those that --via names.
func (a *app) proxiesToCheck(ctx context.Context, c *config.Config, f checkFlags, files []string) ([]proxylist.Proxy, error) {
	list, err := a.listToCheck(ctx, c, files)
	if err != nil {
		return nil, err
	}
	f.via = text.Items(strings.Join(f.via, ","))
	for _, id := range f.via {
		if !slices.ContainsFunc(list, func(p proxylist.Proxy) bool { return p.ID == id }) {
			return nil, usage("--via: there is no proxy %q", id)
		}
	}
	if len(f.via) > 0 {
		list = slices.DeleteFunc(list, func(p proxylist.Proxy) bool { return !slices.Contains(f.via, p.ID) })
	}
	if len(list) == 0 {
		return nil, errors.New("there are no proxies to check: name a file, or set GOFER_PROXIES_FILE")
	}
	return list, nil
}

func (a *app) listToCheck(ctx context.Context, c *config.Config, files []string) ([]proxylist.Proxy, error) {
	if len(files) > 0 {
		return a.listedProxies(files[0])
	}
	pool, err := a.wholePool(ctx, c, "proxies check")
	if err != nil {
		return nil, err
	}
	list := make([]proxylist.Proxy, len(pool))
	for i, p := range pool {
		list[i] = p.Proxy
	}
	return list, nil
}

// listedProxies is what a file, or with "-" the standard input, lists.
func (a *app) listedProxies(file string) ([]proxylist.Proxy, error) {
	if file == "-" {
		list, err := config.ParseProxies("standard input", a.in)
		return list, asUsage(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("proxies check: %w", err)
	}
	list, err := config.ParseProxies(file, bytes.NewReader(data))
	return list, asUsage(err)
}
