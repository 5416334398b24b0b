package config

import (
	"context"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// Policy is the retry policy of this environment. The fleet's, if it has one, wins in a running worker.
func (c *Config) Policy() jobs.Policy {
	return jobs.Policy{
		// It copies; the lists are shared and must not be changed.
		MaxAttempts: c.Retry.MaxAttempts, BackoffStrategy: c.Retry.BackoffStrategy, BaseDelay: c.Retry.BaseDelay,
		Multiplier: c.Retry.Multiplier, MaxBackoffDelay: c.Retry.MaxBackoffDelay, Jitter: c.Retry.Jitter,
		RetryStatusCodes: c.Retry.StatusCodes, Timeout: c.Retry.Timeout, RetryNonIdempotent: c.Retry.NonIdempotent, Hedge: c.Retry.Hedge, BanStatusCodes: c.Retry.BanStatusCodes,
	}
}

// Daemon is the worker that the environment asks for, with the proxies that ReadProxies returned; those of
// GOFER_PROXIES_URL follow when the worker runs. The caller adds what is the
// process's: listener, log and version. It starts nothing, and the result is valid as long as c is, since it shares
// the lists of c.
func (c *Config) Daemon(proxies []proxylist.Proxy) daemon.Config {
	policy := c.Policy()
	return daemon.Config{
		NATS: c.Dial(""), Domain: c.NATSJSDomain, Prefix: c.Prefix, Streams: c.Settings(),
		Queues: c.Queues, Concurrency: c.Concurrency, Name: c.WorkerName,
		Proxies: proxies, AwaitProxies: c.ProxiesURL != "",
		// The watch gets the proxies that are in use, so that its first call is about a change.
		WatchProxies: func(ctx context.Context, use func([]proxylist.Proxy, error)) { c.WatchProxies(ctx, proxies, use) },
		Strategy:     rotation.Strategy(c.Strategy), Breaker: c.breakerConfig(),
		// Names that differ: KeepFindings is the opposite of GOFER_BREAKER_SHARE, so that the zero value of
		// daemon.Config shares findings.
		KeepFindings: !c.Breaker.Share, Policy: &policy, RetryBudget: c.retryBudget(), AttemptTimeout: c.AttemptTimeout.Std(),
		FirstByteTimeout: c.FirstByteTimeout, StallTimeout: time.Duration(c.StallTimeout), UserAgent: c.UserAgent, MaxBodyBytes: c.MaxBodyBytes, MaxWait: c.MaxWait.Std(), SiteMaxWait: c.SiteMaxWait.Std(), HostRate: c.HostRate, HostConcurrency: c.HostConcurrency,
		AllowDirect: c.AllowDirect, AllowPrivateTargets: c.AllowPrivateTargets,
		HealthPage: c.Health.URL, HealthInterval: c.Health.Interval.Std(), AdminToken: c.AdminToken,
		DrainTimeout: c.DrainTimeout.Std(), ConfigHash: c.Hash(), Explain: Explain,
	}
}

// retryBudget is the budget as daemon.Config takes it. There zero is the default and a negative number is no bound; in the
// environment zero is no bound.
func (c *Config) retryBudget() float64 {
	if c.Retry.Budget == 0 {
		return -1
	}
	return c.Retry.Budget
}

// breakerConfig leaves the lease of a probe to the daemon, which derives it from the attempt timeout.
func (c *Config) breakerConfig() breaker.Config {
	return breaker.Config{
		FailureThreshold: c.Breaker.FailureThreshold, Window: c.Breaker.Window.Std(), OpenTimeout: c.Breaker.Timeout.Std(),
		MaxOpenTimeout: c.Breaker.MaxTimeout.Std(),
	}
}

// Settings are the limits of the streams, and the queues that have consumers. A worker applies them when it creates
// a stream, gofer setup also to streams that exist.
func (c *Config) Settings() bus.Settings {
	// Their weights are the loop's, and the streams need the names only.
	names := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		names[i] = q.Name
	}
	return bus.Settings{
		Replicas: c.Streams.Replicas, ResultsMaxAge: c.Streams.ResultsMaxAge.Std(),
		ResultsMaxBytes: c.Streams.ResultsMaxBytes, JobsMaxMsgs: c.Streams.JobsMaxMsgs, JobsMaxBytes: c.Streams.JobsMaxBytes, Queues: names,
	}
}

// Dial is how NATS is reached, under the name that the server shows. Without a URL that is the address of the embedded server: a
// worker of this machine has most likely started one.
func (c *Config) Dial(name string) bus.Dial {
	url := c.NATSURL
	if url == "" {
		url = "nats://" + c.EmbeddedAddr
	}
	return bus.Dial{
		URL: url, Creds: c.NATSCreds, Nkey: c.NATSNkey, User: c.NATSUser, Password: c.NATSPassword, Token: c.NATSToken,
		CA: c.NATSCA, Cert: c.NATSCert, Key: c.NATSKey, InboxPrefix: c.NATSInboxPrefix, TLSFirst: c.NATSTLSFirst, Name: name,
	}
}
