// Package control lets NATS clients ask and steer workers. A worker is a NATS micro service, so that `nats micro ls`, `info` and
// `stats` show the fleet. The service answers verbs. Functions in its Config do what the verbs ask for.
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

// The verbs. Every worker answers Workers, Breakers, ResetBreakers, Sites and ResetSite. Every worker answers Proxies, unless the
// request names one. Only the worker that the request names answers Drain. One worker answers each of the other verbs, because
// their answers are the same everywhere.
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

// The scopes of Rollups.
const (
	ScopeCluster = "cluster"
	ScopeWorker  = "worker"
)

// Subject returns the subject of a verb.
func Subject(n jobs.Names, verb string) string { return n.Prefix() + ".ctl." + verb }

// Config configures a Service. All fields but Version and Log are required. Functions of different verbs may be called at the
// same time, those of one verb one after the other.
type Config struct {
	Names jobs.Names
	// Worker is this worker's name.
	Worker string
	// Version is that of the program. NATS accepts only a semantic version, so another one is shown as 0.0.0 by `nats micro`.
	Version string
	Log     *slog.Logger // nil discards

	// Status returns the state of this worker; the service fills in Worker and Version.
	Status func() Status
	// Steps returns what ended here in the newest whole steps of a width, oldest first.
	Steps func(width time.Duration, count int) []rollup.Step
	// Breakers returns at most limit breakers of this worker, as its HTTP API shows them in the field circuit_breakers. Those
	// that are not closed come first. total counts all breakers.
	Breakers func(limit int) (list any, total int)
	// Proxies returns the numbers of this worker's pool, without the worker's name. It calls use for each proxy, in the order
	// that the request asks for, until use returns false.
	Proxies func(r ProxiesRequest, use func(Proxy) bool) ProxiesResponse
	// ResetBreaker closes the breaker of one proxy here, or all breakers if proxy is empty. It returns the number of these
	// proxies; zero means that the proxy is unknown.
	ResetBreaker func(proxy string) int
	// Sites returns at most limit sites that this worker remembers, or only the named one, as its HTTP API shows them in the
	// field sites. Resting sites come first. total counts all sites.
	Sites func(site string, limit int) (list any, total int)
	// ResetSite ends the rest of a site here, and reports whether the site is known.
	ResetSite func(site string) bool
	// Policy returns the fleet's retry policy and since when it applies; zero for the policy of the environment.
	Policy func() (jobs.Policy, time.Time)
	// Environment is the policy of this worker's environment. It fills in the members that the policy in the bucket lacks.
	Environment jobs.Policy
	// Rollups returns the newest hours, oldest first, and their scope. The scope may be another one than was asked for: a
	// worker may know its own hours only.
	Rollups func(ctx context.Context, scope string, hours int) (points []rollup.Point, actual string, err error)
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

// verbTimeout bounds a verb that asks NATS. The answer has to come before the asking client gives up.
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
		// `nats micro stats` shows the state of each worker.
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

// Stop ends the service. Requests that have arrived are still answered. A request that asks NATS ends with the connection at the
// latest.
func (s *Service) Stop() error {
	if err := s.micro.Stop(); err != nil {
		return fmt.Errorf("stop control service: %w", err)
	}
	return nil
}

// semantic returns the version as micro demands it (https://semver.org), without a leading v; 0.0.0 for any other text.
func semantic(version string) string {
	version = strings.TrimPrefix(version, "v")
	allowed := regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
	if !allowed.MatchString(version) {
		return "0.0.0"
	}
	return version
}
