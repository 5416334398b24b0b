package network

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
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

// Config is how a worker works. The zero value is one of gofer's default settings, whose jobs never wait for a site.
type Config struct {
	Slots int
	// Rests lets sites rest that do not answer.
	Rests bool
	// Timeout is of an attempt; zero means the default.
	Timeout time.Duration
	// Hedge is the policy's; zero means the default.
	Hedge jobs.AutoDuration
	// Next is the URL of the i-th job of a backlog that never ends; nil means that there is none.
	Next func(i int) string
	// Cut tells when its uplink is broken; nil means never.
	Cut func(at time.Duration) bool
	// Do runs the jobs, and Close ends what it has begun; nil means gofer's fetcher.
	Do    func(ctx context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome
	Close func()
}

// Station is one worker: slots, a fetcher, and the jobs that wait in the stream.
type Station struct {
	web   *Web
	cfg   Config
	table *sites.Table // nil: no site rests

	mu      sync.Mutex
	waiting waits
	started int
	ended   []End
	events  []sites.Event
	opened  int                 // breakers of proxies
	told    func([]sites.Event) // its findings
}

// End is a job that ended: when, and how long after its beginning.
type End struct {
	Host     string
	At, Took time.Duration
	OK       bool
	Status   int
}

// NewStation makes a worker with default settings but for the jitter, which would come from a source without a seed.
func NewStation(w *Web, cfg Config) *Station {
	s := &Station{web: w, cfg: cfg}
	if cfg.Do != nil {
		return s
	}
	if cfg.Rests {
		s.table = sites.New(sites.Config{Slots: cfg.Slots})
	}
	pool := rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
	pool.Replace(w.List())
	policy := jobs.DefaultPolicy()
	policy.Jitter, policy.Hedge = false, cfg.Hedge.Or(policy.Hedge)
	f := fetch.New(fetch.Config{
		Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: s.Dial, AttemptTimeout: cfg.Timeout, Worker: "w", Concurrency: cfg.Slots,
		RetryFloor: float64(cfg.Slots), Sites: s.table, Observer: fetch.Observer{SitesChanged: s.changed, BreakersChanged: s.breakersChanged},
	})
	s.cfg.Do, s.cfg.Close = f.Do, f.Close
	return s
}

// List is the proxies of the network.
func (w *Web) List() (list []proxylist.Proxy) {
	for i := range w.Proxies {
		name := fmt.Sprintf("p%02d", i)
		p := proxylist.Proxy{ID: name, URL: &url.URL{Scheme: "http", Host: name + ".test:80"}}
		if w.Gateways {
			p.URL.User = url.UserPassword("user-{session}", "password")
		}
		list = append(list, p)
	}
	return list
}

// Dial connects to a proxy by the worker's uplink.
func (s *Station) Dial(ctx context.Context, network, proxy string) (net.Conn, error) {
	return s.web.dial(ctx, network, proxy, s.cfg.Cut)
}

func (s *Station) changed(events []sites.Event) {
	s.mu.Lock()
	s.events = append(s.events, events...)
	s.mu.Unlock()
	if s.told != nil {
		s.told(events)
	}
}

func (s *Station) breakersChanged(events []rotation.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if e.To == breaker.Open {
			s.opened++
		}
	}
}

// Opened is how often the breaker of a proxy opened. Call it when the worker runs no more.
func (s *Station) Opened() int { return s.opened }

// wait is a job that waits for its time, waits the queue of them.
type wait struct {
	at, began time.Time
	url       string
	progress  jobs.Progress
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
func (s *Station) take() (wait, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 && !s.waiting[0].at.After(time.Now()) {
		return heap.Pop(&s.waiting).(wait), true
	}
	if s.cfg.Next == nil {
		return wait{}, false
	}
	s.started++
	return wait{url: s.cfg.Next(s.started), began: time.Now()}, true
}

// Add publishes a job.
func (s *Station) Add(u string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heap.Push(&s.waiting, wait{at: time.Now(), began: time.Now(), url: u})
}

// Run works until ctx ends. A slot that finds no job looks again soon.
func (s *Station) Run(ctx context.Context, tb testing.TB) {
	tb.Helper()
	var wg sync.WaitGroup
	for i := range s.cfg.Slots {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for ctx.Err() == nil {
				if j, ok := s.take(); ok {
					s.do(ctx, tb, j)
				} else {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	s.cfg.Close()
}

func (s *Station) do(ctx context.Context, tb testing.TB, j wait) {
	tb.Helper()
	job, err := jobs.Decode("default", "j", []byte(j.url))
	if err != nil {
		tb.Error(err)
		return
	}
	o := s.cfg.Do(ctx, &job, &j.progress)
	if o.NoProxy {
		time.Sleep(100 * time.Millisecond) // the worker pulls no faster while there is no proxy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o.Kind {
	case jobs.RunFinished:
		target := job.Target()
		s.ended = append(s.ended, End{target.Hostname(), time.Since(s.web.began), time.Since(j.began), o.Result.Outcome == jobs.Succeeded, o.Result.Status})
	case jobs.RunScheduled:
		heap.Push(&s.waiting, wait{o.At, j.began, j.url, o.Progress})
	case jobs.RunStopped, jobs.RunLeaseLost:
	}
}

// Ended is the jobs that ended, Events the changes of sites. Call them when the worker runs no more.
func (s *Station) Ended() []End { return s.ended }

// Events is the changes of sites, those by findings of others included.
func (s *Station) Events() []sites.Event { return s.events }

// Succeeded counts the jobs of other sites than the silent ones that succeeded after a time.
func (s *Station) Succeeded(after time.Duration) (n float64) {
	for _, e := range s.ended {
		if e.OK && e.At >= after && !strings.HasPrefix(e.Host, "silent") {
			n++
		}
	}
	return n
}

// PartlySilent are jobs of which 30 % are for ten silent sites, and the others for twenty sites.
func PartlySilent(i int) string {
	if i%10 < 3 {
		return fmt.Sprintf("http://silent%d.test/%d", i/10%10, i)
	}
	return fmt.Sprintf("http://site%d.test/%d", i%20, i)
}

// Crawl are jobs for a site each, one in ten of which is silent, at random: if each tenth one were, round robin would give all of
// them to the same proxies.
func Crawl(i int) string {
	if rand.New(rand.NewPCG(3, uint64(i))).IntN(10) == 0 {
		return fmt.Sprintf("http://silent%d.test/", i)
	}
	return fmt.Sprintf("http://site%d.test/", i)
}

// Play runs workers of one network for so long, in virtual time, and tells the findings of each to the others after a fifth of a
// second.
func Play(t *testing.T, long time.Duration, build func() []*Station) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := build()
		ctx, cancel := context.WithCancelCause(t.Context())
		var telling, running sync.WaitGroup
		for i, s := range fleet {
			s.told = func(events []sites.Event) {
				telling.Go(func() {
					time.Sleep(200*time.Millisecond + time.Duration(i)*time.Microsecond)
					for j, other := range fleet {
						if j != i {
							other.hear(events)
						}
					}
				})
			}
		}
		for _, s := range fleet {
			running.Go(func() { s.Run(ctx, t) })
		}
		time.Sleep(long)
		cancel(jobs.ErrStopping)
		running.Wait()
		telling.Wait()
		fleet[0].web.wg.Wait()
	})
}

func (s *Station) hear(events []sites.Event) {
	if s.table == nil {
		return
	}
	for _, e := range events {
		foreign := s.table.Apply(e.Finding)
		s.mu.Lock()
		s.events = append(s.events, foreign...)
		s.mu.Unlock()
	}
}
