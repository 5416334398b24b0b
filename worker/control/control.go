// Package control is the NATS face of a worker: a micro service, so that `nats micro ls`, `info` and `stats` show the
// fleet, and verbs that any NATS client can ask for. What the verbs do is given to it as functions.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// The verbs. Every worker answers Workers, Breakers, ResetBreakers, Sites and ResetSite, and Proxies unless the request names
// one; only the named one Drain; any one the others, for the answer is the same everywhere.
const (
	Workers       = "workers"
	Breakers      = "breakers"
	ResetBreakers = "breakers.reset"
	Proxies       = "proxies"
	Drain         = "drain"
	Policy        = "policy"
	Rollups       = "rollups"
	Pause         = "pause"
	Resume        = "resume"
	Sites         = "sites"
	ResetSite     = "sites.reset"
)

// The scopes of rollups.
const (
	ScopeCluster = "cluster"
	ScopeWorker  = "worker"
)

// Subject is where a verb of the installation is asked for.
func Subject(n jobs.Names, verb string) string { return n.Prefix() + ".ctl." + verb }

// Config is what a service is made of. All fields but Version and Log are required. The functions are called from
// several goroutines, each verb's one call after the other.
type Config struct {
	Names jobs.Names
	// Worker is this worker's name.
	Worker string
	// Version is the program's; one that is not a semantic version is shown as 0.0.0 in the service's identity, which
	// takes nothing else.
	Version string
	Log     *slog.Logger // nil discards

	// Status is how this worker stands; Worker and Version are filled in here.
	Status func() Status
	// Steps are what ended here in the newest whole steps of a width, oldest first.
	Steps func(width time.Duration, count int) []rollup.Step
	// Breakers are this worker's, in the words of its HTTP API: a value for the field circuit_breakers. Those that are
	// not closed come first, and total counts the ones that were left out, too.
	Breakers func(most int) (list any, total int)
	// Proxies is this worker's pool, without its name: the whole in numbers, and as many proxies as use takes, in the order that
	// the request asks for.
	Proxies func(r ProxiesRequest, use func(Proxy) bool) ProxiesResponse
	// ResetBreaker closes the breaker of one proxy here, or all of them if proxy is empty, and returns how many proxies
	// that were; none means that the proxy is unknown.
	ResetBreaker func(proxy string) int
	// Sites are the sites that this worker remembers, or the one that is named, in the words of its HTTP API: a value for the
	// field sites. Those that rest come first, and total counts the ones that were left out, too.
	Sites func(site string, most int) (list any, total int)
	// ResetSite ends the rest of a site here, and reports whether the site is known.
	ResetSite func(site string) bool
	// Policy is the fleet's retry policy and since when it holds, zero for the one of the environment.
	Policy func() (jobs.Policy, time.Time)
	// Environment is the policy of this worker's environment, which fills in what a document in the bucket lacks.
	Environment jobs.Policy
	// Rollups are the newest hours, oldest first, of the scope asked for, and the scope that they have: a worker that
	// knows only its own hours says so.
	Rollups func(ctx context.Context, scope string, hours int) (points []rollup.Point, has string, err error)
	// Drain begins what SIGTERM does, and returns at once.
	Drain func()
	// Pause and Resume stop and start a queue for the whole fleet.
	Pause, Resume func(ctx context.Context, queue string) error
}

// Service answers until it is stopped.
type Service struct {
	cfg   Config
	micro micro.Service
}

// verbTimeout bounds a verb that asks NATS: whoever asked for it must hear of it while it still listens.
const verbTimeout = firstAnswer - 500*time.Millisecond

// Start adds the service to a connection. Stop it before the connection is closed.
func Start(nc *nats.Conn, cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	var err error
	s.micro, err = micro.AddService(nc, micro.Config{
		Name: cfg.Names.Prefix(), Version: semantic(cfg.Version), Description: "gofer workers: fetch jobs through rotating proxies",
		Metadata: map[string]string{"worker": cfg.Worker},
		// `nats micro stats` then knows how each worker stands without another question.
		StatsHandler: func(e *micro.Endpoint) any {
			if e.Name == Workers {
				return s.status()
			}
			return nil
		},
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			cfg.Log.Warn("control service", "subject", err.Subject, "error", err.Description)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start control service: %w", err)
	}
	if err := s.addVerbs(); err != nil {
		_ = s.Stop()
		return nil, fmt.Errorf("start control service: %w", err)
	}
	return s, nil
}

// Stop takes the service off the connection. Requests that have come already are still answered; those that ask NATS
// end with the connection at the latest.
func (s *Service) Stop() error {
	if err := s.micro.Stop(); err != nil {
		return fmt.Errorf("stop control service: %w", err)
	}
	return nil
}

// semantic is version as micro wants it: without the v, and with nothing that https://semver.org does not allow.
func semantic(version string) string {
	version = strings.TrimPrefix(version, "v")
	allowed := regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
	if !allowed.MatchString(version) {
		return "0.0.0"
	}
	return version
}
