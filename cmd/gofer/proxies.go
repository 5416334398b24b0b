package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// proxiesCommand is the group of verbs about proxies. They change the fleet's bucket, and never a file or the environment.
func (a *app) proxiesCommand() *cobra.Command {
	return verbGroup("proxies", "List, check, add and remove proxies",
		a.proxiesLsCommand(),
		a.proxiesCheckCommand(),
		&cobra.Command{
			Use: "add LINE…", Short: "Add a proxy to the fleet's bucket, or replace it",
			Example: `  gofer proxies add http://127.0.0.1:3128 id=paris-1 region=eu max_inflight=20`,
			Long: `Adds a proxy to the fleet's bucket; every running worker has it within a second. A proxy is written as in a proxies file:
URL [id=…] [tags=a,b] [region=…] [weight=…] [max_inflight=…] [rate=…] [gateway=yes] [session_ttl=…]. One with the same id is
replaced. {session} in user or password makes it a gateway: gofer replaces {session} by the word of the exit, and {region} by the region.
An open breaker stays open, also after another password: gofer breakers reset ID closes it.
With "-" the lines come from standard input, which keeps passwords out of the list of processes.`,
			Args: args(cobra.MinimumNArgs(1)), RunE: a.verb("proxies add", a.proxiesAdd),
		},
		a.proxiesImportCommand(),
		&cobra.Command{
			Use: "rm ID…", Short: "Remove proxies from the fleet's bucket", Args: args(cobra.MinimumNArgs(1)),
			RunE: a.verb("proxies rm", a.proxiesRm),
		},
		&cobra.Command{
			Use: "strategy [NAME|reset]", Short: "Show or change how the fleet chooses proxies",
			Long: `Shows how the fleet chooses among its proxies, or changes it: round_robin, random, weighted, least_used or performance.
Every running worker follows within a second, and keeps what it knows of the proxies. "reset" returns to GOFER_STRATEGY of each worker.`,
			Args: args(cobra.MaximumNArgs(1)), RunE: a.verb("proxies strategy", a.proxiesStrategy),
		},
	)
}

// listedProxy is a configured proxy as it is printed. The address never holds user information.
type listedProxy struct {
	ID     string   `json:"id"`
	Addr   string   `json:"addr"`
	Kind   string   `json:"kind"` // proxy or gateway
	Tags   []string `json:"tags"`
	Region string   `json:"region"`
	// Weight is the share of attempts under the strategy weighted, at least 1.
	Weight int `json:"weight"`
	// MaxInflight bounds the attempts at the same time of each worker, Rate those that begin in a second; zero means no bound.
	MaxInflight int     `json:"max_inflight"`
	Rate        float64 `json:"rate"`
	// Source is that of sourcedProxy.
	Source string `json:"source"`
}

// sourcedProxy is a configured proxy and where it is named: "bucket", "URL" or "environment or file". It may hold credentials, so
// only proxyFacts of it is printed.
type sourcedProxy struct {
	proxylist.Proxy
	source string
}

// proxyFacts returns the facts of a proxy without its credentials. A weight that is not set counts as 1.
func proxyFacts(p sourcedProxy) listedProxy {
	return listedProxy{ID: p.ID, Addr: p.Addr(), Kind: p.Kind(), Tags: p.Tags, Region: p.Region, Weight: max(1, p.Weight), MaxInflight: p.MaxInflight, Rate: p.Rate, Source: p.source}
}

// configuredPool returns the pool of a worker that has this environment. Of two proxies with the same id, that of the bucket
// counts, as in a worker.
//
// It leaves out a list that cannot be fetched, and notes that. If the environment, the file or the URL name a proxy, it does the
// same with a bucket that cannot be read. connectErr is why there is no session; then s is nil.
func (a *app) configuredPool(ctx context.Context, c *config.Config, s *session, connectErr error) ([]sourcedProxy, error) {
	own, err := c.ReadProxies()
	if err != nil {
		return nil, err
	}
	fetched, fetchErr := c.FetchProxies(ctx)
	if fetchErr != nil && ctx.Err() == nil {
		a.note("the list that is fetched is left out: %v", fetchErr)
	}
	// Without a connection the bucket is treated as one that cannot be read: both leave only what is named here.
	var shared map[string]proxylist.Proxy
	bucketErr := connectErr
	if bucketErr == nil {
		shared, bucketErr = a.sharedProxies(ctx, s)
	}
	// An empty pool would be wrong here: there may be proxies, and they are only unknown.
	if bucketErr != nil && (len(own)+len(fetched) == 0 || ctx.Err() != nil) {
		return nil, bucketErr
	}
	if bucketErr != nil {
		a.note("the fleet's bucket is left out: %v", bucketErr)
	}
	isOwn := make(map[string]bool, len(own)) // by id: JoinProxies keeps no source
	for _, p := range own {
		isOwn[p.ID] = true
	}
	var pool []sourcedProxy
	for _, p := range config.JoinProxies(own, fetched) {
		source := "URL"
		if isOwn[p.ID] {
			source = "environment or file"
		}
		if _, replaced := shared[p.ID]; !replaced {
			pool = append(pool, sourcedProxy{p, source})
		}
	}
	// The proxies of the bucket come last and are sorted by id. Those of a file keep the order that its owner knows.
	for _, id := range slices.Sorted(maps.Keys(shared)) {
		pool = append(pool, sourcedProxy{shared[id], "bucket"})
	}
	return pool, nil
}

// bucketTimeout bounds how long the fleet's bucket is read: 100,000 proxies take a few seconds.
const bucketTimeout = 30 * time.Second

// sharedProxies reads the fleet's bucket, by id, in one pass. An entry that is not valid is noted and left out: anybody with the
// right to write may write anything.
func (a *app) sharedProxies(ctx context.Context, s *session) (map[string]proxylist.Proxy, error) {
	out := map[string]proxylist.Proxy{}
	err := eachSharedProxy(ctx, s, func(key string, p proxylist.Proxy, err error) {
		if err != nil {
			a.note("proxy %s in the bucket is not valid: %v", key, err)
			return
		}
		out[key] = p
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachSharedProxy calls use for each proxy of the bucket, or with the reason why its line is not valid.
func eachSharedProxy(ctx context.Context, s *session, use func(key string, p proxylist.Proxy, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bucketTimeout, errors.New("the fleet's bucket is not read in time"))
	defer cancel()
	kv, err := s.bucket(ctx, "proxies")
	if err != nil {
		return err
	}
	// A watch reads all entries over one consumer. A Get of each key would be a round trip each: minutes for 100,000 proxies.
	watch, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case entry, open := <-watch.Updates():
			if !open {
				return errors.New("the fleet's bucket cannot be read to its end")
			}
			if entry == nil { // all entries have come; later changes do not matter
				return nil
			}
			// It is read as a worker reads it, so what is listed here is what workers use.
			p, err := fleet.ParseEntry(entry.Key(), string(entry.Value()))
			use(entry.Key(), p, err)
		}
	}
}
