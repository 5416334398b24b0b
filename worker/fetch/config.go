package fetch

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/sites"
)

// Config configures a Fetcher. Pool and Policy are required.
type Config struct {
	// Pool is where the proxies come from.
	Pool *rotation.Pool
	// Policy is the fleet's retry policy; it is asked for at each job.
	Policy func() jobs.Policy
	// Observer receives what the Fetcher does.
	Observer Observer
	// Sites keeps attempts away from sites that do not answer; nil lets every attempt begin.
	Sites *sites.Table
	// Denied reports whether the fleet's owner has stopped fetches from a host; nil stops none.
	Denied func(host string) bool
	// AttemptTimeout bounds one attempt of a job that names no timeout; zero means 30 s.
	AttemptTimeout time.Duration
	// FirstByteTimeout bounds the wait for the first byte of a response, and each step to a connection, for jobs that do not
	// choose; zero means jobs.Auto.
	FirstByteTimeout jobs.AutoDuration
	// StallTimeout is the time in which at least 1 KiB of an incomplete response has to arrive; zero means 30 s, and less than
	// zero means no bound.
	StallTimeout time.Duration
	// UserAgent is the User-Agent of requests whose job sets none, and of CONNECT; empty means "gofer".
	UserAgent string
	// MaxBodyBytes bounds every decoded body; zero means 8 MiB.
	MaxBodyBytes int64
	// MaxMemory is what decoders, and bodies beyond 512 KiB, may take together, until their results are stored; zero means
	// 256 MiB. The oldest run that needs more always gets it.
	MaxMemory int64
	// PoolIncomplete reports that a list of proxies was never read, so that a job which no proxy matches has to wait; nil means
	// that all were.
	PoolIncomplete func() bool
	// MaxWait bounds how long a job waits for a usable proxy; zero means 24 h.
	MaxWait time.Duration
	// SiteMaxWait bounds how long a job waits for a site that rests; zero means 3 min.
	SiteMaxWait time.Duration
	// InlineWait is the longest wait that is spent here; after a longer one the run ends as scheduled. Zero means 2 s.
	InlineWait time.Duration
	// RetryBudget is how many retries each first attempt allows, besides RetryFloor a second; further retries are
	// delayed, a minute at most. A retry through another proxy after a proxy's failure counts a third. Zero means 0.5
	// and 64; a negative budget sets no bound.
	RetryBudget, RetryFloor float64
	// HostRate is how many attempts a second, and HostConcurrency how many at once, one site gets from this worker: all hosts
	// of one registrable domain. Redirects are not counted. Zero sets no bound.
	HostRate        float64
	HostConcurrency int
	// AllowDirect lets jobs ask for no proxy, AllowPrivateTargets for private and loopback addresses.
	AllowDirect, AllowPrivateTargets bool
	// Trusted says that the jobs are not a publisher's but the owner's own: a failure of one that names a proxy is evidence.
	Trusted bool
	// Worker is this worker's name in results and events.
	Worker string
	// Concurrency is how many jobs are run at once; zero means that it is not known.
	Concurrency int
	// MaxIdle bounds the connections that wait for a next attempt, IdlePerKey those of one proxy and target; zero means 512
	// and 16, or Concurrency where that is more. IdleTimeout is how long one waits; zero means 60 s.
	MaxIdle, IdlePerKey int
	IdleTimeout         time.Duration
	// Dial opens the connections to proxies; nil dials the network. A direct fetch does not use it. On a connection
	// that is no syscall.Conn, unasked bytes are not noticed while it is idle.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// RootCAs are the authorities that certificates are checked against; nil means the system's.
	RootCAs *x509.CertPool
	Log     *slog.Logger // nil discards
}

// Observer receives what a Fetcher does. A nil function is not called. Each may be called from any goroutine and must
// not block.
type Observer struct {
	// RetryPlanned is called for each retry, before its delay begins.
	RetryPlanned func(jobs.RetryEvent)
	// BreakersChanged is called for the breakers that an attempt or a pick changed.
	BreakersChanged func([]rotation.Event)
	// SitesChanged is called for the sites whose state changed, SiteAwaited for each job that has to wait for its site, with the
	// state of the site.
	SitesChanged func([]sites.Event)
	SiteAwaited  func(sites.State)
	// AttemptEnded is called for each attempt, also for one that is not counted against its job, with the bytes that it received
	// and, if it failed, a short reason from a closed list. The observer must not change the attempt.
	AttemptEnded func(a *jobs.Attempt, bytes int64, reason string)
	// Answered is called for each attempt through a proxy that a site answered, with the site and the status.
	Answered func(site, proxy string, status int)
	// Picked is called for each pick of a proxy, with the time that it took and the *rotation.NoProxyError that it ended with.
	Picked func(took time.Duration, err error)
}

// withDefaults replaces nil functions, so that no caller has to check.
func (o Observer) withDefaults() Observer {
	if o.RetryPlanned == nil {
		o.RetryPlanned = func(jobs.RetryEvent) {}
	}
	if o.BreakersChanged == nil {
		o.BreakersChanged = func([]rotation.Event) {}
	}
	if o.SitesChanged == nil {
		o.SitesChanged = func([]sites.Event) {}
	}
	if o.SiteAwaited == nil {
		o.SiteAwaited = func(sites.State) {}
	}
	if o.AttemptEnded == nil {
		o.AttemptEnded = func(*jobs.Attempt, int64, string) {}
	}
	if o.Answered == nil {
		o.Answered = func(string, string, int) {}
	}
	if o.Picked == nil {
		o.Picked = func(time.Duration, error) {}
	}
	return o
}

// withDefaults fills the fields whose zero value has another meaning than zero.
func (c Config) withDefaults() Config {
	setDefault(&c.AttemptTimeout, 30*time.Second)
	setDefault(&c.FirstByteTimeout, jobs.Auto)
	setDefault(&c.StallTimeout, 30*time.Second)
	setDefault(&c.UserAgent, "gofer")
	setDefault(&c.MaxBodyBytes, 8<<20)
	setDefault(&c.MaxMemory, 256<<20)
	setDefault(&c.MaxWait, 24*time.Hour)
	setDefault(&c.SiteMaxWait, 3*time.Minute)
	setDefault(&c.InlineWait, 2*time.Second)
	setDefault(&c.RetryBudget, 0.5)
	setDefault(&c.RetryFloor, 64)
	setDefault(&c.MaxIdle, max(512, c.Concurrency))
	setDefault(&c.IdlePerKey, max(16, c.Concurrency))
	setDefault(&c.IdleTimeout, time.Minute)
	c.Observer = c.Observer.withDefaults()
	if c.PoolIncomplete == nil {
		c.PoolIncomplete = func() bool { return false }
	}
	if c.Denied == nil {
		c.Denied = func(string) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// setDefault sets a field that has the zero value of its type.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
