package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/testenv/servers"
)

// nodes are one nats-server, or a cluster of three.
type nodes struct {
	nodes   []*process
	configs []servers.Node
	disks   []disk
}

// startServers starts n of them with their stores in dir; with small disks a store can be filled up.
func startServers(ctx context.Context, t tools, dir string, n int, small bool) (*nodes, error) {
	s := &nodes{}
	var err error
	if s.configs, err = servers.Configure(servers.Config{Dir: dir, Count: n, Cluster: "chaos", NoAdvertise: true}); err != nil {
		return nil, err
	}
	for i, config := range s.configs {
		d, err := newDisk(config.Store, small)
		if err != nil {
			return s, err
		}
		s.disks = append(s.disks, d)
		p := &process{name: fmt.Sprintf("nats-server %d", i), log: filepath.Join(dir, fmt.Sprintf("node%d.log", i)), path: t.server, args: config.Args()}
		s.nodes = append(s.nodes, p)
		if err := p.start(); err != nil {
			return s, err
		}
	}
	return s, s.ready(ctx)
}

// url is all addresses.
func (s *nodes) url() string { return servers.URL(s.configs) }

func (s *nodes) addrs() (out []string) {
	for _, c := range s.configs {
		out = append(out, c.Addr)
	}
	return out
}

// connect connects for good, past every restart.
func (s *nodes) connect() (*nats.Conn, error) {
	return nats.Connect(s.url(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0), nats.ReconnectBufSize(-1),
		nats.PingInterval(2*time.Second), nats.RetryOnFailedConnect(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// ready waits until JetStream answers.
func (s *nodes) ready(ctx context.Context) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = js.AccountInfo(ask)
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("JetStream is not ready: %w", errors.Join(err, ctx.Err()))
}

// restart kills a node and starts it again after a pause.
func (s *nodes) restart(ctx context.Context, i int, pause time.Duration) error {
	s.nodes[i].kill()
	sleep(ctx, pause)
	return s.nodes[i].start()
}

// rollServers restarts one server of the cluster after the other with SIGTERM, as an upgrade of nats-server does: each waits
// until the one before has all its replicas again. All three are restarted, however slow the machine is.
func rollServers(ctx context.Context, w *world) (string, error) {
	n := 0
	for ; ctx.Err() == nil || n < len(w.servers.nodes); n++ {
		p := w.servers.nodes[n%len(w.servers.nodes)]
		sleep(ctx, w.pace.between/2)
		p.signal(syscall.SIGTERM)
		if !p.wait(drainLimit) {
			return "", fmt.Errorf("%s did not end after SIGTERM", p.name)
		}
		if err := p.start(); err != nil {
			return "", err
		}
		if err := w.caughtUp(ctx); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("three nodes, R3: %d × a node ended with SIGTERM and started again", n), nil
}

// stop ends all of them.
func (s *nodes) stop() {
	for i, p := range s.nodes {
		p.signal(syscall.SIGCONT)
		p.kill()
		s.disks[i].remove()
	}
}

// disk is where a server keeps its store: a folder, or a small file system in memory that can be filled up.
type disk struct {
	path    string
	mounted bool
}

// smallDisk is the size of a disk that will be filled.
const smallDisk = 256 << 20

func newDisk(path string, small bool) (disk, error) {
	d := disk{path: path}
	if err := os.MkdirAll(path, 0o700); err != nil || !small {
		return d, err
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
		return d, fmt.Errorf("%w: %w", errNoDisk, err)
	}
	d.mounted = true
	return d, nil
}

// errNoDisk: a disk that can be filled needs the right to mount one.
var errNoDisk = errors.New("a small disk cannot be mounted (that needs root)")

// fill leaves no room; free gives it back.
func (d disk) fill() error {
	f, err := os.Create(filepath.Join(d.path, "ballast"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // down to the last byte
		}
	}
	return nil
}

func (d disk) free() error { return os.Remove(filepath.Join(d.path, "ballast")) }

func (d disk) remove() {
	if d.mounted {
		_ = syscall.Unmount(d.path, syscall.MNT_DETACH)
	}
}
