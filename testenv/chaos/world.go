package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
	// patience is how long a result may take after the last one of a hostile load. The sites of that load rest: see siteWait.
	patience time.Duration
}

// siteWait is how long no job of a hostile site may end: its jobs wait for the end of its rests, the longest of which takes 5
// min.
const siteWait = 5 * time.Minute

func full() pace {
	return pace{load: 40 * time.Second, ackWait: bus.AckWait, freeze: 20 * time.Second, between: 2 * time.Second, kills: 10, patience: siteWait}
}

// short is for the tests: the same faults, fewer, with shorter leases.
func short() pace {
	return pace{load: 8 * time.Second, ackWait: 3 * time.Second, freeze: 5 * time.Second, between: time.Second, kills: 3, patience: siteWait}
}

// fleet is how many workers a scenario runs, and how many jobs each runs at once.
const (
	fleet       = 4
	concurrency = 32
)

// world is everything that a scenario runs: servers, workers each behind a link of its own, proxies, sites.
type world struct {
	setting
	scenario scenario
	settings bus.Settings
	rng      *rand.Rand
	servers  *nodes
	workers  []*process
	links    []*link
	origin   *origin
	secure   *httptest.Server
	evil     *testenv.Hostile
	trap     net.Listener // stands for every host that no request may reach
	proxies  []*testenv.Proxy
	nc       *nats.Conn
	client   *bus.Client
	ledger   *ledger
	fresh    int // goroutines of a worker that has just started
	stop     context.CancelFunc
	*shared
}

// shared is what the parts of a scenario have in common although each has draws of its own.
type shared struct {
	gate     sync.RWMutex    // held by who publishes; whoever holds it alone knows that nobody does
	hands    sync.Mutex      // held while a worker gets a signal or is started; whoever holds it keeps all workers as they are
	canary   atomic.Int64    // requests that reached the trap
	largest  atomic.Int64    // bytes of the largest worker so far
	read     map[uint64]bool // the results in the stream that were written down
	watching sync.WaitGroup
	resuming sync.Once
	second   chan struct{} // is closed when the second half of the jobs may come
	resumed  time.Time     // when that was; read after second is closed
}

func newWorld(ctx context.Context, set setting, s scenario) (*world, error) {
	w := &world{setting: set, scenario: s, rng: newRand(set.seed, 0), ledger: newLedger(), shared: &shared{read: map[uint64]bool{}, second: make(chan struct{})}}
	if err := os.MkdirAll(set.dir, 0o700); err != nil {
		return nil, err
	}
	if err := w.build(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// drawing is the same world with draws of its own.
func (w *world) drawing(stream uint64) *world {
	mine := *w
	mine.rng = newRand(w.seed, stream)
	return &mine
}

func (w *world) build(ctx context.Context) (err error) {
	s := w.scenario
	w.servers, err = startServers(ctx, w.tools, w.dir, s.nodes, s.disk)
	if errors.Is(err, errNoDisk) && s.hostile {
		w.servers, err = startServers(ctx, w.tools, w.dir, s.nodes, false)
	}
	if err != nil {
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
	w.settings = bus.Settings{AckWait: w.pace.ackWait, Replicas: cmp.Or(s.replicas, s.nodes), Queues: []string{jobs.DefaultQueue}}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// Three new servers need longer for a dozen streams than until allows to one try.
	err = until(limited, func(context.Context) error {
		if s.from == before {
			return w.install(limited)
		}
		return w.client.Ensure(limited, w.settings)
	})
	if err != nil {
		return err
	}
	if err := w.startSites(); err != nil {
		return err
	}
	list, err := w.startProxies()
	if err != nil {
		return err
	}
	return w.startWorkers(ctx, list)
}

// startSites starts the sound origin, the hostile one, and the trap.
func (w *world) startSites() (err error) {
	if w.origin, err = startOrigin(); err != nil {
		return err
	}
	if w.secure, err = w.origin.secure(w.certificate()); err != nil {
		return err
	}
	if w.trap, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	w.watching.Go(func() {
		for {
			c, err := w.trap.Accept()
			if err != nil {
				return
			}
			w.canary.Add(1)
			_ = c.Close()
		}
	})
	_, port, _ := net.SplitHostPort(w.trap.Addr().String())
	w.evil = &testenv.Hostile{Denied: deniedURLs(port)}
	return w.evil.Start("127.0.0.1:0")
}

// certificate is the file with the certificate that workers trust.
func (w *world) certificate() string { return filepath.Join(w.dir, "site.pem") }

// resolve is where the proxies find a site. Nothing but the sites is anywhere.
func (w *world) resolve(hostPort string) string {
	switch host, _, _ := net.SplitHostPort(hostPort); host {
	case soundSite:
		return w.origin.listener.Addr().String()
	case mixedSite, evilSite:
		return w.evil.Addr()
	case secureSite:
		return w.secure.Listener.Addr().String()
	case deadSite:
		return "127.0.0.1:1"
	}
	return w.trap.Addr().String()
}

// startProxies starts eight good proxies, one that refuses every connection and one that answers 502.
func (w *world) startProxies() (urls []string, err error) {
	for i := range 10 {
		p := &testenv.Proxy{Raw: w.scenario.hostile, Resolve: w.resolve}
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
		scheme := "http"
		if w.scenario.hostile && i%2 == 1 {
			scheme = "socks5"
		}
		urls = append(urls, p.URL(scheme))
	}
	return urls, nil
}

func (w *world) startWorkers(ctx context.Context, proxies []string) error {
	for i := range fleet {
		k, err := newLink(w.servers.addrs())
		if err != nil {
			return err
		}
		name := fmt.Sprintf("w%d", i)
		p := &process{name: "worker " + name, log: filepath.Join(w.dir, name+".log"), path: w.tools.gofer, args: []string{"worker"}, env: []string{
			"GOFER_NATS_URL=nats://" + k.addr(), "GOFER_PROXIES=" + strings.Join(proxies, ","), "GOFER_HTTP_ADDR=127.0.0.1:0",
			"GOFER_WORKER_NAME=" + name, fmt.Sprint("GOFER_CONCURRENCY=", concurrency), fmt.Sprint("GOFER_REPLICAS=", w.settings.Replicas),
			"SSL_CERT_FILE=" + w.certificate(), "GOFER_RETRY_MAX_ATTEMPTS=8", "GOFER_RETRY_BASE_DELAY=0.1s", "GOFER_ATTEMPT_TIMEOUT=5s", "GOFER_DRAIN_TIMEOUT=10s",
		}}
		if w.scenario.hostile {
			// Each failed test of a hostile site ends the jobs that wait for it. Otherwise they come back few at a time for hours.
			p.env = append(p.env, "GOFER_SITE_MAX_WAIT=1m")
		}
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
	var weighing context.Context
	weighing, w.stop = context.WithCancel(ctx)
	w.watching.Go(func() { w.weigh(weighing) })
	var err error
	w.fresh, err = w.workers[0].idleGoroutines(ctx)
	return err
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
	if w.secure != nil {
		w.secure.CloseClientConnections()
		w.secure.Close()
	}
	if w.origin != nil {
		w.origin.close()
	}
	if w.evil != nil {
		w.evil.Close()
	}
	if w.trap != nil {
		_ = w.trap.Close()
	}
	if w.stop != nil {
		w.stop()
	}
	w.watching.Wait()
}

// newRand draws the same for the same seed and stream.
func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
