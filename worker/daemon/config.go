// Package daemon builds and runs a worker: it joins the loop, the fetcher, the pool of proxies, the fleet's settings, the HTTP
// port and the control service. The program gofer runs one, and any Go program can embed one with Run.
//
// A worker needs a NATS server with JetStream. A program without one can start worker/natsserver in its own process. The worker
// creates the streams, so submit jobs after it has called Config.Started: before that, a client gets client.ErrNotSetUp.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
)

// DefaultURL is where a worker connects if Config names no server.
const DefaultURL = "nats://127.0.0.1:4222"

// probeSlack is what a breaker's probe may take beyond the attempt's own timeout before its slot is given to another.
const probeSlack = 5 * time.Second

// ErrNoProxies is why a worker is not ready that has no proxy, not even one that the fleet's bucket names.
var ErrNoProxies = errors.New("no proxy is configured")

// Config is what a worker is made of. The zero value is a worker of the queue "default" at DefaultURL that has the proxies which
// the fleet's bucket names, and no HTTP port.
type Config struct {
	// NATS says how the server is reached; an empty URL means DefaultURL. Name, Patient and the functions are set by Run.
	NATS bus.Dial
	// Domain is that of JetStream; empty means the server's own.
	Domain string
	// Prefix is the first token of every subject; empty means jobs.DefaultPrefix.
	Prefix string
	// Streams are the limits of streams that are missing: a worker creates them and never changes one. Its Queues are not used.
	Streams bus.Settings

	// Queues are served, 32 at most; none means jobs.DefaultQueue.
	Queues []worker.Queue
	// Concurrency is how many jobs run at once; zero means 64.
	Concurrency int
	// Name is the worker's in results and events: [A-Za-z0-9_-]{1,128}. Empty means the host's name and a random part.
	Name string

	// Proxies are this worker's own, beside those that the fleet's bucket names.
	Proxies []proxylist.Proxy
	// WatchProxies calls use with each new list of them until ctx ends, one call after the other. An error says why a part of the
	// list is an older one or missing; it comes with a nil list if nothing is new. A nil function means that Proxies never
	// change.
	WatchProxies func(ctx context.Context, use func([]proxylist.Proxy, error))
	// AwaitProxies says that Proxies lack a part that WatchProxies fetches. No job is taken before the first call of use. Until a
	// call has no error, a job that no proxy of the pool matches waits instead of ending.
	AwaitProxies bool
	// Strategy chooses among the proxies while the fleet has none of its own; empty means rotation.RoundRobin.
	Strategy rotation.Strategy
	// Breaker is how the breaker of each proxy is set. Its ProbeLease is derived from AttemptTimeout.
	Breaker breaker.Config
	// KeepFindings keeps what this worker's breakers find from the fleet, and the fleet's findings from this worker.
	KeepFindings bool

	// Policy is the retry policy while the fleet has none of its own; nil means jobs.DefaultPolicy.
	Policy *jobs.Policy
	// RetryBudget is how many retries there may be for each first attempt, besides one a second for each slot; zero means 0.5,
	// and a negative one sets no bound.
	RetryBudget float64
	// AttemptTimeout bounds one attempt of a job that names no timeout; zero means 30 s.
	AttemptTimeout time.Duration
	// FirstByteTimeout bounds the wait for the first byte of a response, and each step to a connection, for jobs that do not
	// choose; zero means jobs.Auto.
	FirstByteTimeout jobs.AutoDuration
	// StallTimeout is the time in which at least 1 KiB of an incomplete response has to arrive; zero means 30 s, and less than
	// zero means no bound.
	StallTimeout time.Duration
	// UserAgent is the User-Agent of requests whose job sets none; empty means "gofer".
	UserAgent string
	// MaxBodyBytes bounds every decoded body; zero means 8 MiB.
	MaxBodyBytes int64
	// MaxWait bounds how long a job waits for a usable proxy; zero means 24 h.
	MaxWait time.Duration
	// SiteMaxWait bounds how long a job waits for a site that rests; zero means 3 min.
	SiteMaxWait time.Duration
	// HostRate is how many attempts a second, and HostConcurrency how many at once, one site gets from this worker. Zero sets
	// no bound.
	HostRate        float64
	HostConcurrency int
	// AllowDirect lets jobs ask for no proxy, AllowPrivateTargets for private and loopback addresses.
	AllowDirect, AllowPrivateTargets bool

	// HealthPage is a page that the worker fetches itself, each HealthInterval, to find out whether a proxy works again whose
	// open time is over; empty means that jobs find out. A zero HealthInterval means 30 s.
	HealthPage     string
	HealthInterval time.Duration

	// Listener is the HTTP port, which Run closes; nil means none. AdminToken is demanded for changes, and for reads, too, if
	// the port is not a loopback one; then it is required.
	Listener   net.Listener
	AdminToken string

	// DrainTimeout bounds how long Run goes on after its context has ended; zero means 30 s.
	DrainTimeout time.Duration
	// Started is called once, in a goroutine of its own, when the streams are there and the worker begins to take jobs; nil is
	// allowed.
	Started func()
	// Draining is called once, in a goroutine of its own, when the worker begins to drain or to end, whatever the reason; nil is
	// allowed. Run does not wait for it.
	Draining func()

	// Version and Revision are the program's, ConfigHash is equal for equal configurations; metrics and the fleet show them.
	Version, Revision, ConfigHash string
	// Explain turns an error into a line for the log and for /readyz, where it may say what to do; nil means its text.
	Explain func(error) string
	Log     *slog.Logger // nil discards
}

// withDefaults replaces zero values by what their comments say.
func (c Config) withDefaults() Config {
	c.NATS.URL = cmp.Or(c.NATS.URL, DefaultURL)
	if len(c.Queues) == 0 {
		c.Queues = []worker.Queue{{Name: jobs.DefaultQueue}}
	}
	c.Concurrency = cmp.Or(c.Concurrency, 64)
	c.Name = cmp.Or(c.Name, uniqueName())
	c.Strategy = cmp.Or(c.Strategy, rotation.RoundRobin)
	if c.Policy == nil {
		policy := jobs.DefaultPolicy()
		c.Policy = &policy
	}
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, 30*time.Second)
	c.Breaker.ProbeLease = c.AttemptTimeout + probeSlack
	c.Breaker.MaxOpenTimeout = max(cmp.Or(c.Breaker.MaxOpenTimeout, 10*time.Minute), c.Breaker.OpenTimeout)
	c.Streams.Queues = make([]string, len(c.Queues))
	for i, q := range c.Queues {
		c.Streams.Queues[i] = q.Name
	}
	c.HealthInterval = cmp.Or(c.HealthInterval, 30*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 30*time.Second)
	c.Version, c.Revision = cmp.Or(c.Version, "v0.0.0-devel"), cmp.Or(c.Revision, "unknown")
	if c.WatchProxies == nil {
		c.WatchProxies = func(context.Context, func([]proxylist.Proxy, error)) {}
	}
	for _, f := range []*func(){&c.Started, &c.Draining} {
		if *f == nil {
			*f = func() {}
		}
	}
	if c.Explain == nil {
		c.Explain = error.Error
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// check names every field of a Config with its defaults that no worker can have.
func (c Config) check() error {
	var errs []error
	bad := func(err error, field string) {
		if err != nil {
			errs = append(errs, fmt.Errorf("daemon.Config.%s: %w", field, err))
		}
	}
	bad(c.NATS.Check(), "NATS")
	_, err := jobs.NewNames(c.Prefix)
	bad(err, "Prefix")
	_, err = rotation.ParseStrategy(string(c.Strategy))
	bad(err, "Strategy")
	bad(checkQueues(c.Queues), "Queues")
	if !jobs.ValidID(c.Name) {
		bad(errors.New("does not match [A-Za-z0-9_-]{1,128}"), "Name")
	}
	for _, reason := range c.Policy.Reasons() {
		bad(errors.New(reason), "Policy")
	}
	if c.HealthPage != "" {
		_, err = jobs.PageJob(c.HealthPage)
		bad(err, "HealthPage")
	}
	if c.Listener != nil {
		bad(admin.CheckBind(c.Listener.Addr().String(), c.AdminToken), "Listener")
	}
	for _, of := range []struct {
		field    string
		negative bool
	}{
		{"Concurrency", c.Concurrency < 0}, {"AttemptTimeout", c.AttemptTimeout < 0}, {"MaxBodyBytes", c.MaxBodyBytes < 0}, {"MaxWait", c.MaxWait < 0},
		{"SiteMaxWait", c.SiteMaxWait < 0}, {"HostRate", c.HostRate < 0}, {"HostConcurrency", c.HostConcurrency < 0},
		{"HealthInterval", c.HealthInterval < 0}, {"DrainTimeout", c.DrainTimeout < 0},
	} {
		if of.negative {
			bad(errors.New("below zero"), of.field)
		}
	}
	return errors.Join(errs...)
}

// checkQueues refuses queues that the loop cannot serve.
func checkQueues(list []worker.Queue) error {
	seen := map[string]bool{}
	for _, q := range list {
		switch {
		case !jobs.ValidQueue(q.Name):
			return fmt.Errorf("%q is not the name of a queue, [a-z0-9_-]{1,32}", q.Name)
		case seen[q.Name]:
			return fmt.Errorf("%s stands twice", q.Name)
		}
		seen[q.Name] = true
	}
	if len(list) > worker.MaxQueues {
		return fmt.Errorf("more than %d", worker.MaxQueues)
	}
	return nil
}
