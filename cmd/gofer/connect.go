package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// connectTimeout bounds how long a verb looks for its server.
const connectTimeout = 5 * time.Second

// session is a verb's connection.
type session struct {
	nc     *nats.Conn
	client *bus.Client
	config config
	names  jobs.Names
}

// connect reads the environment and connects for one verb. The caller closes the session.
func (a *app) connect(ctx context.Context, verb string) (*session, error) {
	c, err := loadConfig()
	if err != nil {
		return nil, err
	}
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, err := bus.Connect(ctx, c.dial("gofer "+verb), c.logger(a.err))
	if errors.Is(err, bus.ErrUnreachable) && c.NATSURL == "" {
		return nil, fmt.Errorf("%w (start a server with gofer worker, or name yours in GOFER_NATS_URL)", err)
	}
	if err != nil {
		return nil, err
	}
	client, err := bus.NewWithDomain(nc, names, c.NATSJSDomain)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &session{nc: nc, client: client, config: c, names: names}, nil
}

func (s *session) close() { s.nc.Close() }
