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

// proxiesCommand is the group of verbs about proxies. They change the fleet's bucket, and never a file or the
// environment. A proxy of an environment or a file is changed where it is named.
func (a *app) proxiesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "proxies", Short: "List, check, add and remove proxies", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.proxiesLsCommand(),
		a.proxiesCheckCommand(),
		&cobra.Command{
			Use: "add LINE…", Short: "Add a proxy to the fleet's bucket, or replace it",
			Example: `  gofer proxies add http://192.0.2.9:3128 id=paris-1 region=eu max_inflight=20`,
			Long: `Adds a proxy to the fleet's bucket; every running worker has it within a second. A proxy is written as in a proxies file:
URL [id=…] [tags=a,b] [region=…] [weight=…] [max_inflight=…] [rate=…] [gateway=yes] [session_ttl=…]. One with the same id is
replaced. {session} in user or password makes it a gateway: the word of the exit stands there, and the region in place of {region}.
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
Every running worker follows within a second; what is known of the proxies stays. "reset" returns to GOFER_STRATEGY of each worker.`,
			Args: args(cobra.MaximumNArgs(1)), RunE: a.verb("proxies strategy", a.proxiesStrategy),
		},
	)
	return cmd
}

// listedProxy is a proxy of the pool and where it is named; the address never holds user information.
type listedProxy struct {
	ID          string   `json:"id"`
	Addr        string   `json:"addr"`
	Kind        string   `json:"kind"` // proxy or gateway
	Tags        []string `json:"tags"`
	Region      string   `json:"region"`
	Weight      int      `json:"weight"`
	MaxInflight int      `json:"max_inflight"`
	Rate        float64  `json:"rate"`
	Source      string   `json:"source"`
}

// sourced is a proxy of the pool and where it is named. source is "bucket", "URL" or "environment or file".
type sourced struct {
	proxylist.Proxy
	source string
}

// listed returns the facts of a proxy without its credentials. A weight that is not set counts as 1.
func listed(p sourced) listedProxy {
	return listedProxy{ID: p.ID, Addr: p.Addr(), Kind: p.Kind(), Tags: p.Tags, Region: p.Region, Weight: max(1, p.Weight), MaxInflight: p.MaxInflight, Rate: p.Rate, Source: p.source}
}

// wholePool is configuredPool with a connection of its own. A server that cannot be reached is not an error yet:
// configuredPool decides.
func (a *app) wholePool(ctx context.Context, c *config.Config, verb string) ([]sourced, error) {
	s, err := a.connect(ctx, verb)
	if err == nil {
		defer s.close()
	}
	return a.configuredPool(ctx, c, s, err)
}

// configuredPool returns the pool of a worker that has this environment. Of two proxies with the same id the bucket's counts, as
// in a worker. Without a session, for which connectErr is the reason, it returns what the environment, the file and the URL name,
// if that is anything, and notes that; a list that cannot be fetched is noted, too.
func (a *app) configuredPool(ctx context.Context, c *config.Config, s *session, connectErr error) ([]sourced, error) {
	own, err := c.ReadProxies()
	if err != nil {
		return nil, err
	}
	fetched, fetchErr := c.FetchProxies(ctx)
	if fetchErr != nil && ctx.Err() == nil {
		a.note("the list that is fetched is left out: %v", fetchErr)
	}
	// From here on, err is why the bucket cannot be read.
	shared, err := map[string]proxylist.Proxy(nil), connectErr
	if err == nil {
		shared, err = a.sharedProxies(ctx, s)
	}
	// Without any proxy of its own, the error is the answer. After an interruption, the rest of the pool is no
	// answer.
	if err != nil && (len(own)+len(fetched) == 0 || ctx.Err() != nil) {
		return nil, err
	}
	if err != nil {
		a.note("the fleet's bucket is left out: %v", err)
	}
	// JoinProxies keeps no source, so it is found again by id.
	mine := make(map[string]bool, len(own))
	for _, p := range own {
		mine[p.ID] = true
	}
	var pool []sourced
	for _, p := range config.JoinProxies(own, fetched) {
		source := "URL"
		if mine[p.ID] {
			source = "environment or file"
		}
		if _, better := shared[p.ID]; !better {
			pool = append(pool, sourced{p, source})
		}
	}
	// Sorted, because a bucket has no order that a person knows.
	for _, id := range slices.Sorted(maps.Keys(shared)) {
		pool = append(pool, sourced{shared[id], "bucket"})
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
	// A watch reads all entries over one consumer; a Get for each key would be a round trip each.
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
			// Later changes do not matter: the list is of this moment.
			if entry == nil { // all were seen
				return nil
			}
			p, err := fleet.ParseEntry(entry.Key(), string(entry.Value()))
			use(entry.Key(), p, err)
		}
	}
}
