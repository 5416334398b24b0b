package main

import (
	"cmp"
	"context"
	"errors"
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

// defaultTarget is a page that everybody may fetch (RFC 2606). With https it also tests whether a proxy opens tunnels.
const defaultTarget = "https://example.com/"

// checkFlags are the flags of gofer proxies check, and of gofer proxies import, which has no via.
type checkFlags struct {
	// target is the URL of the page; empty leaves the choice to withTarget.
	target string
	// timeout bounds the one attempt through a proxy, from the connection to the end of the body.
	timeout time.Duration
	// parallel is how many proxies are checked at the same time.
	parallel int
	// region is that of the exit of gateways whose line names none; empty means that such a gateway is asked without a region.
	region string
	// via are the ids of the proxies to check; empty means all.
	via []string
}

// proxiesCheckCommand fetches through a pool of its own, so nothing that it finds reaches a worker.
func (a *app) proxiesCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [FILE|-]",
		Short: "Fetch a page through each proxy and say which ones work",
		Long: `Fetches one page once through each proxy, many at a time, and prints a line for each as it is done: whether it
worked, the answer's status, the time it took and, when it failed, whose fault that was and why. An answer of 400
or more is a failure, too. Breakers and statistics of the workers stay as they are. A gateway is checked through one fresh exit.

The proxies are those that the environment, its file, its URL and the fleet's bucket name, or the lines of a file or of
standard input ("-"), written as in the proxies file. Exit code 0 means that every proxy works, 3 that some do not. Without any
proxy it fails and says how to name some. The proxies of 'gofer playground' are in none of these places.`,
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
	flags.StringVar(&f.target, "target", "", "`URL` of the page to fetch (default GOFER_HEALTH_CHECK_URL, or else "+defaultTarget+"); private addresses need GOFER_ALLOW_PRIVATE_TARGETS")
	f.timeout = 10 * time.Second
	flags.Var((*durationFlag)(&f.timeout), "timeout", "how long a proxy may take, 0.1s to 10m")
	f.parallel = 64
	flags.Var((*wholeFlag)(&f.parallel), "parallel", "proxies at a time, 1 to 10000")
	flags.StringVar(&f.region, "region", "", "`REGION` of the exit of gateways whose line names none")
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
	f = f.withTarget(&c)
	// The list is read whole before the first fetch: a broken line near its end costs no fetches, and the table knows its widths.
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

// proxiesToCheck returns the pool, or what the file lists; with --via only the proxies that it names. An unknown name in
// --via is a usage error. An empty list is an error, because exit code 0 would say that all proxies work.
func (a *app) proxiesToCheck(ctx context.Context, c *config.Config, f checkFlags, files []string) ([]proxylist.Proxy, error) {
	list, err := a.listToCheck(ctx, c, files)
	if err != nil {
		return nil, err
	}
	// Blanks around the ids are allowed, as in the environment.
	f.via = text.Items(strings.Join(f.via, ","))
	for _, id := range f.via {
		// A misspelt id is refused: left out in silence, it would look like a proxy that works.
		if !slices.ContainsFunc(list, func(p proxylist.Proxy) bool { return p.ID == id }) {
			return nil, usage("--via: there is no proxy %q", id)
		}
	}
	if len(f.via) > 0 {
		list = slices.DeleteFunc(list, func(p proxylist.Proxy) bool { return !slices.Contains(f.via, p.ID) })
	}
	if len(list) == 0 {
		return nil, errors.New("there are no proxies to check: name a file, set GOFER_PROXIES or GOFER_PROXIES_FILE, or see gofer proxies add --help")
	}
	return list, nil
}

// listToCheck returns the proxies of the file, or without a file those of the pool.
func (a *app) listToCheck(ctx context.Context, c *config.Config, files []string) ([]proxylist.Proxy, error) {
	if len(files) > 0 {
		return a.listedProxies(ctx, files[0])
	}
	// Without a connection the proxies of the environment, the file and the URL are still checked: see configuredPool.
	s, connectErr := a.connect(ctx, "proxies check")
	if connectErr == nil {
		defer s.close()
	}
	pool, err := a.configuredPool(ctx, c, s, connectErr)
	if err != nil {
		return nil, err
	}
	list := make([]proxylist.Proxy, len(pool))
	for i, p := range pool {
		list[i] = p.Proxy
	}
	return list, nil
}

// listedProxies returns what a file lists; "-" stands for standard input. Its errors are usage errors, and name the line.
func (a *app) listedProxies(ctx context.Context, file string) ([]proxylist.Proxy, error) {
	name, in, done, err := a.openList(ctx, "proxies check", file)
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := config.ParseProxies(name, in)
	return list, asUsage(inputError(ctx, err))
}

// check is one run of gofer proxies check. The goroutines of run share it. The fields above mu do not change while they run.
type check struct {
	app     *app
	list    []proxylist.Proxy
	fetcher *fetch.Fetcher
	job     jobs.Job // for any proxy
	region  string   // of gateways whose line names none
	bar     *progressbar.ProgressBar
	widths  [2]int            // of ids and addresses
	ended   func(checkResult) // called for each proxy, one after the other; nil calls nobody

	mu     sync.Mutex // held while a line is written
	times  []time.Duration
	failed int
}

// newCheck makes a check of a list, with a fetcher and a pool of its own. It refuses a target that may not be fetched. The
// caller closes the fetcher.
func (a *app) newCheck(ctx context.Context, c *config.Config, f checkFlags, list []proxylist.Proxy) (*check, error) {
	job, err := jobs.PageJob(f.target)
	if err != nil {
		return nil, usage("--target: %w", err)
	}
	// The pool is the check's own: a breaker that opens here keeps no proxy from a worker.
	pool := rotation.New(rotation.Config{})
	k := &check{app: a, list: list, job: job, region: f.region, bar: a.newBar(raw{a.err}, len(list) > 1, len(list))}
	// Retry budget, rate limits and the rest of the environment do not apply to one attempt for each proxy.
	k.fetcher = fetch.New(fetch.Config{
		Pool: pool, Policy: onceOnly, AttemptTimeout: f.timeout, UserAgent: c.UserAgent, MaxBodyBytes: c.MaxBodyBytes, AllowPrivateTargets: c.AllowPrivateTargets,
	})
	// While the pool is empty nothing can be fetched, but a target that may not be fetched is refused. So the user gets one error,
	// and not one for each proxy.
	if o := k.fetcher.Do(ctx, &job, &jobs.Progress{}); o.Result.Error == jobs.ErrTargetDenied {
		k.fetcher.Close()
		return nil, usage("--target: %s, unless GOFER_ALLOW_PRIVATE_TARGETS is set", o.Result.Detail)
	}
	pool.Replace(list)
	for _, p := range list {
		k.widths[0], k.widths[1] = max(k.widths[0], len(p.ID)), max(k.widths[1], len(p.Addr()))
	}
	return k, nil
}

// onceOnly returns a policy of one attempt, for which every status from 400 on is a failure.
func onceOnly() jobs.Policy {
	p := jobs.DefaultPolicy()
	p.MaxAttempts, p.RetryStatusCodes, p.BanStatusCodes = 1, nil, nil
	// To the fetcher a 403 is a response like any other. Here it says that the page cannot be had through this proxy.
	for status := 400; status < 600; status++ {
		p.RetryStatusCodes = append(p.RetryStatusCodes, status)
	}
	return p
}

// checkResult is what became of one proxy. The address never holds user information.
type checkResult struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
	// Exit is the word of the exit; empty for a proxy that is no gateway.
	Exit string `json:"exit,omitempty"`
	OK   bool   `json:"ok"`
	// Status is that of the page; zero if no response came.
	Status int `json:"status"`
	// Duration is that of the attempt, also of a failed one.
	Duration jobs.Duration `json:"duration"`
	// Fault says who caused a failure. Error says why in words, which may be those of a proxy or a site.
	Fault jobs.Fault `json:"fault"`
	Error string     `json:"error"`
}

// run checks every proxy, at most parallel at a time, until ctx ends. A line that cannot be printed ends it. It waits for
// the checks that have begun.
func (k *check) run(ctx context.Context, parallel int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan proxylist.Proxy)
	var workers sync.WaitGroup
	// The goroutines share one channel and not the list by index, so that a slow proxy holds up only one of them.
	for range min(parallel, len(k.list)) {
		// It ends when todo is closed.
		workers.Go(func() {
			for p := range todo {
				if r, known := k.checkOne(ctx, p); known {
					// The output is gone, so nobody would see what the remaining fetches find.
					if err := k.report(r); err != nil {
						stop(err)
					}
				}
			}
		})
	}
	// The test of ctx comes first: with both cases of select ready, Go would choose one at random.
	for i := 0; i < len(k.list) && ctx.Err() == nil; i++ {
		select {
		case todo <- k.list[i]:
		case <-ctx.Done():
		}
	}
	close(todo)
	workers.Wait()
	_ = k.bar.Exit()
	return k.exitError(context.Cause(ctx))
}

// checkOne fetches the page through one proxy. known is false if ctx ended before the fetch did.
func (k *check) checkOne(ctx context.Context, p proxylist.Proxy) (r checkResult, known bool) {
	job := k.job
	// The proxy is the only one that the job may use, so the pool has no choice.
	job.Proxy.ID = p.ID
	// --region is for gateways whose line names no region. A job that names a region reaches only gateways of that region, so it is
	// set for no other proxy.
	if p.HasRegions() && p.Region == "" {
		job.Proxy.Region = k.region
	}
	o := k.fetcher.Do(ctx, &job, &jobs.Progress{})
	// Only the facts are needed, so the memory of the body is given back at once.
	o.Release()
	// A fetch that was stopped says nothing about the proxy, which then counts as not checked.
	if o.Kind != jobs.RunFinished {
		return r, false
	}
	r = checkResult{
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
