// Package experiments_test measures what the retries, the breakers and the choice of proxies are worth: ten aims, each beside
// a baseline from the same run. TestExperiments prints the table.
package experiments_test

import (
	"bufio"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// habit is how a proxy fails when it does.
type habit int

const (
	hangsUp habit = iota // on the request
	excuses              // itself with 502
	silent               // for as long as one listens
	habits               // how many there are
)

// proxy is one of known quality.
type proxy struct {
	id      string
	failing float64 // the share of requests that fail
	habit   habit
	latency time.Duration // when it works, give or take a half
}

// hopeless is the quality above which an attempt counts as wasted.
const hopeless = 0.7

// world is a network in memory: a fetcher's Dial leads to its proxies, and they answer for the sites. What becomes of a job's
// n-th request through a proxy depends on the seed, the job, n and the proxy only, so two ways to choose meet the same luck.
type world struct {
	seed    uint64
	proxies map[string]*proxy // by address

	mu    sync.Mutex
	tries map[string]int // requests by job
	wg    sync.WaitGroup

	hold    int           // requests that wait for each other before the first is answered; zero means none
	gate    chan struct{} // closed when they are all there
	arrived atomic.Int64
}

// newWorld has a hundred proxies: the bad ones fail 71 to 100 of 100 requests, the rest up to 10. One answer of a site in fifty
// is 503.
func newWorld(seed uint64, bad float64) *world {
	w := &world{seed: seed, proxies: map[string]*proxy{}, tries: map[string]int{}, gate: make(chan struct{})}
	for i := range 100 {
		r := w.luck("proxy", i)
		p := &proxy{id: fmt.Sprintf("p%02d", i), failing: 0.1 * r.Float64(), habit: habit(r.IntN(int(habits)))}
		if r.Float64() < bad {
			p.failing = 0.71 + 0.29*r.Float64()
		}
		p.latency = 50*time.Millisecond + time.Duration(r.Int64N(int64(450*time.Millisecond)))
		w.proxies[p.id+".test:80"] = p
	}
	return w
}

// luck is what the seed says about something.
func (w *world) luck(about ...any) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, about...)
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// list is the proxies in the order of their names.
func (w *world) list() (list []proxylist.Proxy) {
	for i := range len(w.proxies) {
		host := fmt.Sprintf("p%02d.test:80", i)
		list = append(list, proxylist.Proxy{ID: w.proxies[host].id, URL: &url.URL{Scheme: "http", Host: host}})
	}
	return list
}

// hopeless reports whether a proxy is one that one had better leave alone.
func (w *world) hopeless(id string) bool { return w.proxies[id+".test:80"].failing > hopeless }

// dial connects to a proxy.
func (w *world) dial(_ context.Context, _, addr string) (net.Conn, error) {
	p := w.proxies[addr]
	client, server := net.Pipe()
	w.wg.Go(func() {
		defer func() { _ = server.Close() }()
		in, more := bufio.NewReader(server), true
		for more {
			more = w.serve(p, server, in)
		}
	})
	return client, nil
}

// serve answers one request and reports whether another may follow.
func (w *world) serve(p *proxy, c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	w.wait()
	r := w.luck(p.id, req.URL.Path, w.try(req.URL.Path))
	if r.Float64() < p.failing {
		return p.fail(c)
	}
	time.Sleep(time.Duration((0.5 + r.Float64()) * float64(p.latency)))
	if r.Float64() < 0.02 {
		return answer(c, "503 Service Unavailable")
	}
	return answer(c, "200 OK")
}

// wait returns when the requests that wait for each other are all there.
func (w *world) wait() {
	if w.arrived.Add(1) == int64(w.hold) {
		close(w.gate)
	}
	if w.hold > 0 {
		<-w.gate
	}
}

// try counts the requests of a job from 1.
func (w *world) try(job string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[job]++
	return w.tries[job]
}

func (p *proxy) fail(c net.Conn) bool {
	switch p.habit {
	case excuses:
		return answer(c, "502 Bad Gateway")
	case silent:
		_, _ = io.Copy(io.Discard, c)
	case hangsUp, habits:
	}
	return false
}

func answer(c net.Conn, status string) bool {
	_, err := io.Copy(c, strings.NewReader("HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n"))
	return err == nil
}
