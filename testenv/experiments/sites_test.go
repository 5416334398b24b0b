package experiments_test

import (
	"bufio"
	"container/heap"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/rotation/sites"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// web is a network in memory: twenty proxies that work, and sites that answer, log-normal with a median of half a second, or do
// not.
type web struct {
	seed   uint64
	began  time.Time
	silent func(host string, at time.Duration) bool
	quick  func(host string) bool // it answers at once; nil means none

	mu    sync.Mutex
	asked map[string][]time.Duration // when, by host
	wg    sync.WaitGroup
}

func newWeb(seed uint64, silent func(host string, at time.Duration) bool) *web {
	return &web{seed: seed, began: time.Now(), silent: silent, asked: map[string][]time.Duration{}}
}

// answer is how long a site takes for a request: σ is 0.5.
func (w *web) takes(u string) time.Duration {
	h := fnvOf(u)
	r := rand.New(rand.NewPCG(w.seed, h))
	return time.Duration(0.5 * math.Exp(0.5*r.NormFloat64()) * float64(time.Second))
}

func fnvOf(text string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}

// station is one worker: slots, a fetcher, and the jobs that wait in the stream.
type station struct {
	web   *web
	slots int
	cut   func(at time.Duration) bool // its uplink is broken; nil: never
	table *sites.Table                // nil: no site rests
	f     *fetch.Fetcher
	next  func(i int) string // the URL of the i-th job of the backlog
	// proxies is the socket of all proxies; empty: they are in memory.
	proxies string

	mu      sync.Mutex
	waiting waits
	started int
	ended   []end
	events  []sites.Event
	told    func([]sites.Event) // its findings
}

// end is a job that ended.
type end struct {
	host string
	at   time.Duration
	ok   bool
	code string
}

// newStation makes a worker with default settings but for the jitter, which would come from a source without a seed.
func newStation(w *web, slots int, rests bool, timeout time.Duration) *station {
	s := &station{web: w, slots: slots}
	if rests {
		s.table = sites.New(sites.Config{Slots: slots})
	}
	pool := rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
	var list []proxylist.Proxy
	for i := range 20 {
		list = append(list, proxylist.Proxy{ID: fmt.Sprintf("p%02d", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%02d.test:80", i)}})
	}
	pool.Replace(list)
	policy := jobs.DefaultPolicy()
	policy.Jitter = false
	s.f = fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: s.dial, AttemptTimeout: timeout, Worker: "w", Concurrency: slots,
		RetryFloor: float64(slots), Sites: s.table,
		Observer: fetch.Observer{SitesChanged: func(events []sites.Event) {
			s.mu.Lock()
			s.events = append(s.events, events...)
			s.mu.Unlock()
			if s.told != nil {
				s.told(events)
			}
		}},
	})
	return s
}

func (s *station) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	if s.proxies != "" {
		return new(net.Dialer).DialContext(ctx, network, s.proxies)
	}
	client, server := net.Pipe()
	s.web.wg.Go(func() {
		defer func() { _ = server.Close() }()
		in := bufio.NewReader(server)
		for more := true; more; {
			more = s.serve(server, in)
		}
	})
	return client, nil
}

func (s *station) serve(c net.Conn, in *bufio.Reader) bool {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	w, host, at := s.web, req.URL.Host, time.Since(s.web.began)
	w.mu.Lock()
	if strings.HasPrefix(host, "silent") {
		w.asked[host] = append(w.asked[host], at)
	}
	w.mu.Unlock()
	if !w.silent(host, at) && (w.quick == nil || !w.quick(host)) {
		time.Sleep(w.takes(req.URL.String()))
	}
	if w.silent(host, at) || s.cut != nil && s.cut(time.Since(w.began)) {
		_, _ = io.Copy(io.Discard, in)
		return false
	}
	return answer(c, "200 OK")
}

// wait is a job that waits for its time, waits the queue of them.
type wait struct {
	at       time.Time
	url      string
	progress jobs.Progress
}

type waits []wait

func (q waits) Len() int           { return len(q) }
func (q waits) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q waits) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *waits) Push(x any)        { *q = append(*q, x.(wait)) }
func (q *waits) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// take is the next job: one that is due, else one of the backlog; false if there is neither.
func (s *station) take() (wait, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 && !s.waiting[0].at.After(time.Now()) {
		return heap.Pop(&s.waiting).(wait), true
	}
	if s.next == nil {
		return wait{}, false
	}
	s.started++
	return wait{url: s.next(s.started)}, true
}

// add publishes a job.
func (s *station) add(u string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heap.Push(&s.waiting, wait{at: time.Now(), url: u})
}

// run works until ctx ends. A slot that finds no job looks again soon.
func (s *station) run(ctx context.Context, t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range s.slots {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for ctx.Err() == nil {
				if j, ok := s.take(); ok {
					s.do(ctx, t, j)
				} else {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	s.f.Close()
}

func (s *station) do(ctx context.Context, t *testing.T, j wait) {
	t.Helper()
	job, err := jobs.Decode("default", "j", []byte(j.url))
	if err != nil {
		t.Error(err)
		return
	}
	o := s.f.Do(ctx, job, j.progress)
	if o.NoProxy {
		time.Sleep(100 * time.Millisecond) // the worker pulls no faster while there is no proxy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o.Kind {
	case jobs.RunFinished:
		target := job.Target()
		s.ended = append(s.ended, end{target.Hostname(), time.Since(s.web.began), o.Result.Outcome == jobs.Succeeded, o.Result.Error})
	case jobs.RunScheduled:
		heap.Push(&s.waiting, wait{o.At, j.url, o.Progress})
	case jobs.RunStopped, jobs.RunLeaseLost:
	}
}

// inFleet runs workers for so long, in virtual time, and tells the findings of each to the others after a fifth of a second.
func inFleet(t *testing.T, long time.Duration, build func() []*station) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := build()
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for i, s := range fleet {
			s.told = func(events []sites.Event) {
				wg.Go(func() {
					time.Sleep(200*time.Millisecond + time.Duration(i)*time.Microsecond)
					for j, other := range fleet {
						if j != i {
							other.hear(events)
						}
					}
				})
			}
		}
		var running sync.WaitGroup
		for _, s := range fleet {
			running.Go(func() { s.run(ctx, t) })
		}
		time.Sleep(long)
		cancel(jobs.ErrStopping)
		running.Wait()
		wg.Wait()
		fleet[0].web.wg.Wait()
	})
}

func (s *station) hear(events []sites.Event) {
	for _, e := range events {
		foreign := s.table.Apply(e.Finding)
		s.mu.Lock()
		s.events = append(s.events, foreign...)
		s.mu.Unlock()
	}
}
