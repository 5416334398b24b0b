package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// servers are nats-servers of this run, each a process of its own.
type servers struct {
	dir   string
	procs []*exec.Cmd
	urls  []string
	pages []string // of their numbers
	nc    *nats.Conn
	bus   *bus.Client
}

// start starts n servers, a cluster if there are more than one, with the streams of gofer.
func (b *bench) start(ctx context.Context, n int) (*servers, error) {
	s := &servers{}
	var err error
	if s.dir, err = os.MkdirTemp(b.dir, "servers-"); err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(3 * n)
	if err != nil {
		return nil, err
	}
	routes := `"nats://` + strings.Join(addrs[2*n:], `", "nats://`) + `"`
	for i := range n {
		conf := fmt.Sprintf("server_name: n%d\nlisten: %s\nhttp: %s\njetstream { store_dir: %q, max_file: 20G }\n", i, addrs[i], addrs[n+i], filepath.Join(s.dir, fmt.Sprint(i)))
		if n > 1 {
			conf += fmt.Sprintf("cluster { name: scale, listen: %s, routes: [%s] }\n", addrs[2*n+i], routes)
		}
		path := filepath.Join(s.dir, fmt.Sprint(i, ".conf"))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			return s, err
		}
		p := exec.Command(b.server, "-c", path, "-l", path+".log")
		if err := p.Start(); err != nil {
			return s, err
		}
		s.procs, s.urls, s.pages = append(s.procs, p), append(s.urls, "nats://"+addrs[i]), append(s.pages, "http://"+addrs[n+i])
	}
	return s, s.install(ctx, n)
}

// freeAddrs are loopback addresses that nothing listens on now.
func freeAddrs(n int) (out []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().String())
	}
	return out, nil
}

func (s *servers) install(ctx context.Context, replicas int) (err error) {
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

func (s *servers) url() string { return strings.Join(s.urls, ",") }

func (s *servers) pids() (out []int) {
	for _, p := range s.procs {
		out = append(out, p.Process.Pid)
	}
	return out
}

func (s *servers) close() {
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
func (s *servers) counted(ctx context.Context) (sum counters, err error) {
	for _, page := range s.pages {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, page+"/varz", http.NoBody)
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
func (s *servers) results(ctx context.Context) (int, error) {
	stream, err := s.bus.JetStream().Stream(ctx, "GOFER_RESULTS")
	if err != nil {
		return 0, err
	}
	return int(stream.CachedInfo().State.Msgs), nil
}

// reach waits until n results are stored.
func (s *servers) reach(ctx context.Context, n int) error {
	return poll(ctx, 3*time.Minute, func() error {
		have, err := s.results(ctx)
		if err == nil && have < n {
			err = fmt.Errorf("%d of %d results", have, n)
		}
		return err
	})
}

// publish publishes n jobs under names that begin with prefix. They are for fifty sites.
func (s *servers) publish(ctx context.Context, prefix string, n int) error {
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

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
