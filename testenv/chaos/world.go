package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// setting is what one run of a scenario is given.
type setting struct {
	tools tools
	dir   string
	jobs  int
	seed  uint64
	pace  pace
	// progress is where to say how far the jobs are.
	progress io.Writer
}

// pace is how long things take: as in life, or shortened for the tests.
type pace struct {
	load    time.Duration // how long the jobs are published over
	ackWait time.Duration // of the consumers
	freeze  time.Duration // how long a worker is stopped, or cut from its server; longer than the ack wait
	between time.Duration // from one kill to the next
	kills   int           // of a server
}

func full() pace {
	return pace{load: 40 * time.Second, ackWait: bus.AckWait, freeze: 20 * time.Second, between: 2 * time.Second, kills: 10}
}

// short is for the tests: the same faults, fewer, with shorter leases.
func short() pace {
	return pace{load: 8 * time.Second, ackWait: 3 * time.Second, freeze: 5 * time.Second, between: time.Second, kills: 3}
}

// fleet is how many workers a scenario runs, and how many jobs each runs at once.
const (
	fleet       = 4
	concurrency = 32
)

// world is everything that a scenario runs: servers, workers each behind a link of its own, proxies, an origin.
type world struct {
	setting
	rng     *rand.Rand
	servers *servers
	workers []*process
	links   []*link
	origin  *origin
	proxies []*testenv.Proxy
	nc      *nats.Conn
	client  *bus.Client
}

func newWorld(ctx context.Context, s setting, nodes int, smallDisk bool) (*world, error) {
	w := &world{setting: s, rng: newRand(s.seed, 0)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if err := w.build(ctx, nodes, smallDisk); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build(ctx context.Context, nodes int, smallDisk bool) (err error) {
	if w.servers, err = startServers(ctx, w.tools, w.dir, nodes, smallDisk); err != nil {
		return err
	}
	if w.origin, err = startOrigin(); err != nil {
		return err
	}
	if w.nc, err = w.servers.connect(); err != nil {
		return err
	}
	names, err := jobs.NewNames("")
	if err != nil {
		return err
	}
	if w.client, err = bus.New(w.nc, names); err != nil {
		return err
	}
	// Here, so that the consumers have the pace's ack wait; workers leave alone what is there.
	settings := bus.Settings{AckWait: w.pace.ackWait, Replicas: nodes, Queues: []string{"default"}}
	for end := time.Now().Add(30 * time.Second); ; sleep(ctx, 200*time.Millisecond) {
		if err = w.client.Ensure(ctx, settings); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return err
	}
	list, err := w.startProxies()
	if err != nil {
		return err
	}
	return w.startWorkers(ctx, list, nodes)
}

// startProxies starts eight good proxies, one that refuses every connection and one that answers 502.
func (w *world) startProxies() (urls []string, err error) {
	for i := range 10 {
		p := &testenv.Proxy{}
		if err := p.Start("127.0.0.1:0"); err != nil {
			return nil, err
		}
		switch i {
		case 8:
			p.Set(testenv.Refusing)
		case 9:
			p.Set(testenv.BadGateway)
		}
		w.proxies = append(w.proxies, p)
		urls = append(urls, p.URL("http"))
	}
	return urls, nil
}

func (w *world) startWorkers(ctx context.Context, proxies []string, replicas int) error {
	for i := range fleet {
		k, err := newLink(w.servers.addrs)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("w%d", i)
		p := &process{name: "worker " + name, log: filepath.Join(w.dir, name+".log"), path: w.tools.gofer, args: []string{"worker"}, env: []string{
			"GOFER_NATS_URL=nats://" + k.addr(), "GOFER_PROXIES=" + strings.Join(proxies, ","), "GOFER_HTTP_ADDR=127.0.0.1:0",
			"GOFER_ALLOW_PRIVATE_TARGETS=true", "GOFER_WORKER_NAME=" + name, fmt.Sprint("GOFER_CONCURRENCY=", concurrency), fmt.Sprint("GOFER_REPLICAS=", replicas),
			"GOFER_RETRY_MAX_ATTEMPTS=8", "GOFER_RETRY_BASE_DELAY=0.1s", "GOFER_ATTEMPT_TIMEOUT=5s", "GOFER_DRAIN_TIMEOUT=10s",
		}}
		w.links, w.workers = append(w.links, k), append(w.workers, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	for _, p := range w.workers {
		if _, err := p.said(ctx, "worker started"); err != nil {
			return err
		}
	}
	return nil
}

// victim is a worker drawn by the seed.
func (w *world) victim() *process { return w.workers[w.rng.IntN(len(w.workers))] }

// heal ends every fault that a scenario left behind.
func (w *world) heal() {
	for i, p := range w.workers {
		p.signal(syscall.SIGCONT)
		w.links[i].join()
	}
}

// close ends everything that the world started.
func (w *world) close() {
	w.heal()
	for _, p := range w.workers {
		p.kill()
	}
	for _, k := range w.links {
		k.close()
	}
	if w.nc != nil {
		w.nc.Close()
	}
	if w.servers != nil {
		w.servers.stop()
	}
	for _, p := range w.proxies {
		p.Close()
	}
	if w.origin != nil {
		w.origin.close()
	}
}

// origin is a site that takes 20 to 60 ms for an answer and counts the requests of each path.
type origin struct {
	server   *http.Server
	listener net.Listener
	done     sync.WaitGroup
	mu       sync.Mutex
	counts   map[string]int
}

func startOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{listener: l, counts: map[string]int{}}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	o.done.Go(func() { _ = o.server.Serve(l) })
	return o, nil
}

func (o *origin) close() {
	_ = o.server.Close()
	o.done.Wait()
}

func (o *origin) url(id string) string { return "http://" + o.listener.Addr().String() + "/" + id }

// ServeHTTP answers with the path, or as the kind of the job asks for.
func (o *origin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.counts[r.URL.Path]++
	first := o.counts[r.URL.Path] == 1
	o.mu.Unlock()
	time.Sleep(20*time.Millisecond + rand.N(40*time.Millisecond))
	switch path := r.URL.Path; {
	case isKind(path, kindFails), isKind(path, kindFlaky) && first:
		rw.WriteHeader(http.StatusServiceUnavailable)
	case isKind(path, kindLarge):
		_, _ = rw.Write(make([]byte, jobs.MaxInlineBody+1))
	default:
		_, _ = io.WriteString(rw, path)
	}
}

// asked is how many paths were asked for.
func (o *origin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.counts)
}

// refetched is how many paths were asked for more often than their jobs tried.
func (o *origin) refetched() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for path, c := range o.counts {
		planned := 1
		if isKind(path, kindFlaky) || isKind(path, kindFails) {
			planned = 2
		}
		if c > planned {
			n++
		}
	}
	return n
}

// newRand draws the same for the same seed and stream.
func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
