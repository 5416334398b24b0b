package config

import (
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// probeSlack is what a breaker's probe may take beyond the attempt's own timeout before its slot is given to another.
const probeSlack = 5 * time.Second

// Policy is the fleet's retry policy as the environment has it.
func (c *Config) Policy() jobs.Policy {
	return jobs.Policy{
		MaxAttempts: c.Retry.MaxAttempts, BackoffStrategy: c.Retry.BackoffStrategy, BaseDelay: c.Retry.BaseDelay,
		Multiplier: c.Retry.Multiplier, MaxBackoffDelay: c.Retry.MaxBackoffDelay, Jitter: c.Retry.Jitter,
		RetryStatusCodes: c.Retry.StatusCodes, Timeout: c.Retry.Timeout, RetryNonIdempotent: c.Retry.NonIdempotent,
	}
}

// RetryBudget is the budget as a fetcher wants it, to which zero is the default.
func (c *Config) RetryBudget() float64 {
	if c.Retry.Budget == 0 {
		return -1
	}
	return c.Retry.Budget
}

// BreakerConfig is how a proxy's breaker is set.
func (c *Config) BreakerConfig() breaker.Config {
	return breaker.Config{
		FailureThreshold: c.Breaker.FailureThreshold, Window: c.Breaker.Window.Std(), OpenTimeout: c.Breaker.Timeout.Std(),
		MaxOpenTimeout: c.Breaker.MaxTimeout.Std(), ProbeLease: c.AttemptTimeout.Std() + probeSlack,
	}
}

// Settings are the limits of the streams, and the queues that have consumers.
func (c *Config) Settings() bus.Settings {
	names := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		names[i] = q.Name
	}
	return bus.Settings{
		Replicas: c.Streams.Replicas, ResultsMaxAge: c.Streams.ResultsMaxAge.Std(),
		ResultsMaxBytes: c.Streams.ResultsMaxBytes, JobsMaxMsgs: c.Streams.JobsMaxMsgs, JobsMaxBytes: c.Streams.JobsMaxBytes, Queues: names,
	}
}

// Dial is how NATS is reached; without a URL that is the address of the embedded server.
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
