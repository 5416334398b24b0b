package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// defaultTarget is there for everybody to fetch (RFC 2606), and https makes a proxy show that it opens tunnels.
const defaultTarget = "https://example.com/"

// checkFlags are the flags of gofer proxies check. gofer proxies import has them, too, but for via.
type checkFlags struct {
	target   string
	timeout  time.Duration
	parallel int
	region   string
	via      []string
}

// proxiesCheckCommand fetches through a pool of its own, so nothing that it finds reaches a worker.
func (a *app) proxiesCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [FILE|-]",
		Short: "Fetch a page through each proxy and say which ones work",
		Long: `Fetches one page once through each proxy, many at a time, and prints a line for each as it is done: whether it
worked, the answer's status, the time it took and, when it failed, whose fault that was and why. An answer of 400
or more is a failure, too. Breakers and statistics of the workers are not touched. A gateway is checked through one fresh exit.

The proxies are those that the environment, its file, its URL and the fleet's bucket name, or the lines of a file or of
standard input ("-"), written as in the proxies file. Exit code 0 says that every proxy works, 3 that some do not.`,
		Example: `  gofer proxies check
  gofer proxies check --target http://example.com/ --timeout 5s bought.txt
  gofer proxies check --json - < bought.txt | jq -r 'select(.ok) | .id'`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error { return a.proxiesCheck(cmd.Context(), f, files) },
	}
	f.add(cmd.Flags())
	cmd.Flags().StringSliceVar(&f.via, "via", nil, "check only the proxies of these ids")
	return cmd
}

// add adds the flags that every check has.
func (f *checkFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.target, "target", "", "page to fetch (default GOFER_HEALTH_CHECK_URL, or else "+defaultTarget+"); private addresses need GOFER_ALLOW_PRIVATE_TARGETS")
	f.timeout = 10 * time.Second
	flags.Var((*durationFlag)(&f.timeout), "timeout", "how long a proxy may take, 0.1s to 10m")
	f.parallel = 64
	flags.Var((*wholeFlag)(&f.parallel), "parallel", "proxies at a time, 1 to 10000")
	flags.StringVar(&f.region, "region", "", "region of the exit of gateways whose line names none")
}

// check refuses values that are out of range, as a usage error. The bounds are those of GOFER_ATTEMPT_TIMEOUT and
// GOFER_CONCURRENCY.
func (f *checkFlags) check() error {
	switch {
	case f.timeout < 100*time.Millisecond || f.timeout > jobs.MaxAttemptTimeout:
		return usage("--timeout: not between 0.1s and 10m")
	case f.parallel < 1 || f.parallel > 10000:
		return usage("--parallel: not between 1 and 10000")
	case f.region != "" && !proxylist.ValidRegion(f.region):
		return usage("--region does not match [A-Za-z0-9_.]{1,32}")
	}
	return nil
}

// proxiesCheck prepares a check and runs it. The exit code says whether all proxies work.
func (a *app) proxiesCheck(ctx context.Context, f checkFlags, files []string) error {
	if err := f.check(); err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	// f is a copy, so the caller's flags stay as they were.
	f = f.withTarget(&c)
	// The list is complete before the first fetch, so a broken line costs no time.
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

// withTarget returns the flags with a page to fetch: the one that is given, that of the health checks, or a page that
// always exists.
func (f checkFlags) withTarget(c *config.Config) checkFlags {
	f.target = cmp.Or(f.target, c.Health.URL, defaultTarget)
	return f
}

// proxiesToCheck returns the pool, or what the file lists; with --via only the proxies that it names. A name that is in
// neither is a usage error, and so is an empty list an error.
func (a *app) proxiesToCheck(ctx context.Context, c *config.Config, f checkFlags, files []string) ([]proxylist.Proxy, error) {
	list, err := a.listToCheck(ctx, c, files)
	if err != nil {
		return nil, err
	}
	// Blanks around the ids are allowed, as in the environment.
	f.via = text.Items(strings.Join(f.via, ","))
	for _, id := range f.via {
		// Checked before the list is reduced, so that a misspelt id is not taken for a proxy that works.
		if !slices.ContainsFunc(list, func(p proxylist.Proxy) bool { return p.ID == id }) {
			return nil, usage("--via: there is no proxy %q", id)
		}
	}
	if len(f.via) > 0 {
		list = slices.DeleteFunc(list, func(p proxylist.Proxy) bool { return !slices.Contains(f.via, p.ID) })
	}
	// Exit code 0 for no proxies would read as all of them work.
	if len(list) == 0 {
		return nil, errors.New("there are no proxies to check: name a file, or set GOFER_PROXIES_FILE")
	}
	return list, nil
}

// listToCheck returns the proxies of the file, or without a file those of the pool.
func (a *app) listToCheck(ctx context.Context, c *config.Config, files []string) ([]proxylist.Proxy, error) {
	if len(files) > 0 {
		return a.listedProxies(ctx, files[0])
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

// listedProxies returns what a file lists; "-" stands for standard input. Every error is a mistake of the user's and
// names the line.
func (a *app) listedProxies(ctx context.Context, file string) ([]proxylist.Proxy, error) {
	if file == "-" {
		list, err := config.ParseProxies("standard input", a.in)
		return list, asUsage(inputError(ctx, err))
	}
	// Read whole: the list has to be in memory anyway.
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("proxies check: %w", err)
	}
	list, err := config.ParseProxies(file, bytes.NewReader(data))
	return list, asUsage(err)
}

// check is one run of gofer proxies check. Fields above mu do not change while it runs.
type check struct {
	app     *app
	list    []proxylist.Proxy
	fetcher *fetch.Fetcher
	job     jobs.Job // for any proxy
	region  string   // of gateways whose line names none
	bar     *progressbar.ProgressBar
	widths  [2]int        // of ids and addresses
	ended   func(checked) // called for each proxy, one after the other; nil calls nobody

	mu     sync.Mutex // held while a line is written
	times  []time.Duration
	failed int
}

// newCheck makes a check of a list, with a fetcher and a pool of its own. The caller closes its fetcher. A target that
// may not be fetched is refused here. One fetcher serves all proxies, so a target is looked up and refused in one
// place.
func (a *app) newCheck(ctx context.Context, c *config.Config, f checkFlags, list []proxylist.Proxy) (*check, error) {
	job, err := jobs.PageJob(f.target)
	if err != nil {
		return nil, usage("--target: %w", err)
	}
	// A pool of its own: breakers that open here are nobody else's.
	pool := rotation.New(rotation.Config{})
	k := &check{app: a, list: list, job: job, region: f.region, bar: a.progress(len(list) > 1, len(list))}
	// Retry budget, rate limits and the rest of the environment do not apply to one attempt for each proxy.
	k.fetcher = fetch.New(fetch.Config{
		Pool: pool, Policy: onceOnly, AttemptTimeout: f.timeout, UserAgent: c.UserAgent, MaxBodyBytes: c.MaxBodyBytes, AllowPrivateTargets: c.AllowPrivateTargets,
	})
	// While the pool is empty nothing is fetched, but a target that may not be fetched is refused: once, not for each proxy.
	if o := k.fetcher.Do(ctx, job, jobs.Progress{}); o.Result.Error == jobs.ErrTargetDenied {
		k.fetcher.Close()
		return nil, usage("--target: %s, unless GOFER_ALLOW_PRIVATE_TARGETS is set", o.Result.Detail)
	}
	pool.Replace(list)
	for _, p := range list {
		k.widths[0], k.widths[1] = max(k.widths[0], len(p.ID)), max(k.widths[1], len(p.Addr()))
	}
	return k, nil
}

// onceOnly is a policy of one attempt for which every status from 400 on is a failure, since a page is fetched that
// answers 200. It is a function, because fetch.Config takes one that returns the current policy.
func onceOnly() jobs.Policy {
	p := jobs.DefaultPolicy()
	p.MaxAttempts, p.RetryStatusCodes, p.BanStatusCodes = 1, nil, nil
	for status := 400; status < 600; status++ {
		p.RetryStatusCodes = append(p.RetryStatusCodes, status)
	}
	return p
}

// checked is what became of one proxy. The address never holds user information.
type checked struct {
	ID       string        `json:"id"`
	Addr     string        `json:"addr"`
	Exit     string        `json:"exit,omitempty"`
	OK       bool          `json:"ok"`
	Status   int           `json:"status"`
	Duration jobs.Duration `json:"duration"`
	Fault    jobs.Fault    `json:"fault"`
	Error    string        `json:"error"`
}

// run checks every proxy, at most parallel at a time, until ctx ends. A line that cannot be printed ends it. It waits for
// the checks that have begun.
func (k *check) run(ctx context.Context, parallel int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan proxylist.Proxy)
	var workers sync.WaitGroup
	// No more goroutines than proxies.
	for range min(parallel, len(k.list)) {
		// It ends when todo is closed.
		workers.Go(func() {
			for p := range todo {
				if r, known := k.through(ctx, p); known {
					// The first error is the cause of ctx, and ends the loop below.
					if err := k.report(r); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	for i := 0; i < len(k.list) && ctx.Err() == nil; i++ {
		select {
		case todo <- k.list[i]:
		case <-ctx.Done():
		}
	}
	close(todo)
	workers.Wait()
	_ = k.bar.Exit()
	return k.verdict(context.Cause(ctx))
}

// through fetches the page through one proxy. known is false if ctx ended before the proxy was judged; then nothing is
// said about it. The job names the proxy, and the pool has no breaker that is open.
func (k *check) through(ctx context.Context, p proxylist.Proxy) (r checked, known bool) {
	job := k.job
	// The proxy is the only one that the job may use, so the pool has no choice.
	job.Proxy.ID = p.ID
	// The line of a gateway wins over --region.
	if p.HasRegions() && p.Region == "" {
		job.Proxy.Region = k.region
	}
	o := k.fetcher.Do(ctx, job, jobs.Progress{})
	// Only the facts are needed. Release gives the body's memory back.
	o.Release()
	// A check that was stopped says nothing about the proxy.
	if o.Kind != jobs.RunFinished {
		return r, false
	}
	r = checked{
		ID: p.ID, Addr: p.Addr(), OK: o.Result.Outcome == jobs.Succeeded,
		Duration: jobs.Duration(o.Result.Duration), Error: o.Result.Detail,
	}
	if p.HasRegions() && p.Region == "" && k.region == "" {
		r.Error = "the gateway serves only jobs that name a region: name one with --region"
	}
	if n := len(o.Result.Attempts); n > 0 {
		// The policy allows one attempt. There is none if no proxy could be picked.
		last := o.Result.Attempts[n-1]
		r.Exit = last.Exit
		r.Status, r.Duration, r.Fault, r.Error = last.Status, last.Duration, last.Fault, last.Error
	}
	return r, true
}
