package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
)

// connectTimeout bounds how long a verb looks for its server.
const connectTimeout = 5 * time.Second

// session is a verb's connection.
type session struct {
	nc     *nats.Conn
	client *client.Client
	bus    *bus.Client // for what the streams themselves are about
	config config.Config
	names  jobs.Names
}

// loadConfig reads and checks the environment of this run.
func (a *app) loadConfig() (config.Config, error) {
	env, err := a.environment()
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(env)
}

// loadWorkerConfig also reads the proxies.
func (a *app) loadWorkerConfig() (config.Config, []proxylist.Proxy, error) {
	env, err := a.environment()
	if err != nil {
		return config.Config{}, nil, err
	}
	return config.LoadWorker(env)
}

func (a *app) environment() (config.Environment, error) {
	if a.env != nil {
		return a.env, nil
	}
	return config.OfProcess()
}

// connect reads the environment and connects for one verb. The caller closes the session.
func (a *app) connect(ctx context.Context, verb string) (*session, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, err := bus.Connect(ctx, c.Dial("gofer "+verb), newLogger(&c, a.err))
	if errors.Is(err, bus.ErrUnreachable) && c.NATSURL == "" {
		return nil, fmt.Errorf("%w (start a server with gofer worker, or name yours in GOFER_NATS_URL)", err)
	}
	if err != nil {
		return nil, err
	}
	b, err := bus.NewWithDomain(nc, names, c.NATSJSDomain)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &session{nc: nc, client: client.New(b), bus: b, config: c, names: names}, nil
}

func (s *session) close() { s.nc.Close() }
