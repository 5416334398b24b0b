package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv/servers"
)

// installation is nats-servers of this run, each a process of its own, with the streams of gofer.
type installation struct {
	dir   string
	procs []*exec.Cmd
	nodes []servers.Node
	nc    *nats.Conn
	bus   *bus.Client
}

// start starts n servers, a cluster if there are more than one.
func (b *bench) start(ctx context.Context, n int) (*installation, error) {
	s := &installation{}
	var err error
	if s.dir, err = os.MkdirTemp(b.dir, "servers-"); err != nil {
		return nil, err
	}
	if s.nodes, err = servers.Configure(servers.Config{Dir: s.dir, Count: n, Cluster: "scale", Pages: true, MaxFile: "20G"}); err != nil {
		return nil, err
	}
	for _, node := range s.nodes {
		p := exec.Command(b.Server, append(node.Args(), "-l", node.Config+".log")...)
		if err := p.Start(); err != nil {
			s.close()
			return nil, err
		}
		s.procs = append(s.procs, p)
	}
	if err := s.install(ctx, n); err != nil {
		s.close() // else the servers would outlive this program
		return nil, err
	}
	return s, nil
}

func (s *installation) install(ctx context.Context, replicas int) (err error) {
	if s.nc, err = nats.Connect(s.url(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return err
	}
	names, err := jobs.NewNames("")
	if err != nil {
		return err
	}
	if s.bus, err = bus.New(s.nc, names); err != nil {
		return err
	}
	// A new cluster needs seconds until it has a leader.
	return poll(ctx, 2*time.Minute, func() error {
		return s.bus.Ensure(ctx, bus.Settings{Replicas: replicas, Queues: []string{jobs.DefaultQueue}})
	})
}

func (s *installation) url() string { return servers.URL(s.nodes) }

func (s *installation) pids() (out []int) {
	for _, p := range s.procs {
		out = append(out, p.Process.Pid)
	}
	return out
}

func (s *installation) close() {
	if s.nc != nil {
		s.nc.Close()
	}
	for _, p := range s.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// counters are those of the servers' own pages.
type counters struct {
	Received      int64 `json:"in_msgs"`
	Sent          int64 `json:"out_msgs"`
	Connections   int   `json:"connections"`
	Subscriptions int   `json:"subscriptions"`
	SlowConsumers int   `json:"slow_consumers"`
}

// counted adds up what clients sent to all servers.
func (s *installation) counted(ctx context.Context) (sum counters, err error) {
	for _, node := range s.nodes {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, node.Page+"/varz", http.NoBody)
		if err != nil {
			return sum, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return sum, err
		}
		var c counters
		err = errors.Join(json.NewDecoder(resp.Body).Decode(&c), resp.Body.Close())
		if err != nil {
			return sum, err
		}
		sum.Received, sum.Sent, sum.SlowConsumers = sum.Received+c.Received, sum.Sent+c.Sent, sum.SlowConsumers+c.SlowConsumers
		sum.Connections, sum.Subscriptions = sum.Connections+c.Connections, sum.Subscriptions+c.Subscriptions
	}
	return sum, nil
}

// results is how many results are stored.
func (s *installation) results(ctx context.Context) (int, error) {
	stream, err := s.bus.JetStream().Stream(ctx, "GOFER_RESULTS")
	if err != nil {
		return 0, err
	}
	return int(stream.CachedInfo().State.Msgs), nil
}

// reach waits until n results are stored.
func (s *installation) reach(ctx context.Context, n int) error {
	return poll(ctx, 3*time.Minute, func() error {
		have, err := s.results(ctx)
		if err == nil && have < n {
			err = fmt.Errorf("%d of %d results", have, n)
		}
		return err
	})
}

// publish publishes n jobs under names that begin with prefix. They are for fifty sites.
func (s *installation) publish(ctx context.Context, prefix string, n int) error {
	js := s.bus.JetStream()
	for i := range n {
		subject := fmt.Sprintf("gofer.jobs.default.%s-%d", prefix, i)
		if _, err := js.PublishAsync(subject, fmt.Appendf(nil, "http://s%d.test/", i%50), jetstream.WithStallWait(time.Minute)); err != nil {
			return fmt.Errorf("publish %s: %w", subject, err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll tries until it works, for a while.
func poll(ctx context.Context, limit time.Duration, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; {
		err := try()
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// long is how long something takes: in a quick run a tenth of what it should.
func (b *bench) long(d time.Duration) time.Duration {
	if b.quick {
		d /= 10
	}
	return d
}

// pause waits.
func (b *bench) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.long(d)):
		return nil
	}
}
