package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// servers are one nats-server, or a cluster of three.
type servers struct {
	nodes []*process
	addrs []string
	disks []disk
}

// startServers starts n of them with their stores in dir; with small disks a store can be filled up.
func startServers(ctx context.Context, t tools, dir string, n int, small bool) (*servers, error) {
	s := &servers{}
	clients, err := freeAddrs(n)
	if err != nil {
		return nil, err
	}
	routes, err := freeAddrs(n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		d, err := newDisk(filepath.Join(dir, fmt.Sprintf("node%d", i)), small)
		if err != nil {
			return s, err
		}
		s.disks = append(s.disks, d)
		p := &process{name: fmt.Sprintf("nats-server %d", i), log: filepath.Join(dir, fmt.Sprintf("node%d.log", i)), path: t.server}
		conf := filepath.Join(dir, fmt.Sprintf("node%d.conf", i))
		if err := os.WriteFile(conf, []byte(nodeConfig(i, clients[i], d.path, routes)), 0o600); err != nil {
			return s, err
		}
		p.args = []string{"-c", conf}
		s.nodes, s.addrs = append(s.nodes, p), append(s.addrs, clients[i])
		if err := p.start(); err != nil {
			return s, err
		}
	}
	return s, s.ready(ctx)
}

// nodeConfig keeps the addresses of the others from clients: a client that is cut from its server must not find a way round.
func nodeConfig(i int, addr, store string, routes []string) string {
	conf := fmt.Sprintf("server_name: node%d\nlisten: %s\njetstream { store_dir: %q }\n", i, addr, store)
	if len(routes) > 1 {
		conf += fmt.Sprintf("cluster { name: chaos, listen: %s, no_advertise: true, routes: [\"nats://%s\"] }\n", routes[i], strings.Join(routes, `", "nats://`))
	}
	return conf
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

// url is all addresses.
func (s *servers) url() string { return "nats://" + strings.Join(s.addrs, ",nats://") }

// connect connects for good, past every restart.
func (s *servers) connect() (*nats.Conn, error) {
	return nats.Connect(s.url(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0), nats.ReconnectBufSize(-1),
		nats.PingInterval(2*time.Second), nats.RetryOnFailedConnect(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// ready waits until JetStream answers.
func (s *servers) ready(ctx context.Context) error {
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
func (s *servers) restart(ctx context.Context, i int, pause time.Duration) error {
	s.nodes[i].kill()
	sleep(ctx, pause)
	return s.nodes[i].start()
}

// stop ends all of them.
func (s *servers) stop() {
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
