package experiments_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// hush is a world of a hundred proxies, two of which answer nothing, and of fifty sites. The other answers take a log-normal time
// with a median of 300 ms and σ 0.5.
type hush struct {
	seed       uint64
	hedge      jobs.AutoDuration
	firstByte  jobs.AutoDuration
	mu         sync.Mutex
	luck       *rand.Rand
	serving    sync.WaitGroup
	took       []time.Duration // by jobs that succeeded, shortest first
	jobs       int
	attempts   int
	found      map[string]bool // silent proxies whose breaker opened
	wronged    int             // breakers of other proxies that opened
	succeeded  int
	hedgesMade int64
}

const silentProxies = 2

// isSilent reports whether a proxy answers nothing. Which ones these are depends on the seed.
func (w *hush) isSilent(proxy string) bool {
	return proxy == fmt.Sprint("p", w.seed*17%100) || proxy == fmt.Sprint("p", (w.seed*17+41)%100)
}

// run does so many jobs, twenty a second, with the settings that a worker has by default.
func (w *hush) run(t *testing.T, count int) *hush {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.luck, w.found = rand.New(rand.NewPCG(w.seed, 7)), map[string]bool{}
		pool := rotation.New(rotation.Config{Breaker: breaker.Config{Jitter: -1}})
		list := make([]proxylist.Proxy, 100)
		for i := range list {
			list[i] = proxylist.Proxy{ID: fmt.Sprint("p", i), URL: &url.URL{Scheme: "http", Host: fmt.Sprintf("p%d.test:80", i)}}
		}
		pool.Replace(list)
		policy := jobs.DefaultPolicy()
		policy.Hedge, policy.Jitter = w.hedge, false // jitter would be drawn from a source without a seed
		f := fetch.New(fetch.Config{
			Pool: pool, Policy: func() jobs.Policy { return policy }, Dial: w.dial, FirstByteTimeout: w.firstByte, Worker: "w", Observer: fetch.Observer{BreakersChanged: w.opened},
		})
		var running sync.WaitGroup
		for i := range count {
			w.mu.Lock()
			pause := time.Duration(w.luck.Int64N(int64(100 * time.Millisecond)))
			site := w.luck.IntN(50)
			w.mu.Unlock()
			time.Sleep(pause)
			running.Go(func() { w.done(finish(t, f, decode(t, fmt.Sprintf("http://site%d.test/%d", site, i)))) })
		}
		running.Wait()
		won, lost, failed := f.Hedges()
		w.hedgesMade = won + lost + failed
		f.Close()
		w.serving.Wait()
	})
	slices.Sort(w.took)
	return w
}

func (w *hush) done(r jobs.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs++
	w.attempts += r.AttemptCount
	w.took = append(w.took, r.Duration)
	if r.Outcome == jobs.Succeeded {
		w.succeeded++
	}
}

func (w *hush) opened(events []rotation.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range events {
		switch {
		case e.To != breaker.Open:
		case w.isSilent(e.ProxyID):
			w.found[e.ProxyID] = true
		default:
			w.wronged++
		}
	}
}

func (w *hush) dial(_ context.Context, _, addr string) (net.Conn, error) {
	proxy, _, _ := strings.Cut(addr, ".")
	client, server := net.Pipe()
	w.serving.Go(func() {
		defer func() { _ = server.Close() }()
		for in := bufio.NewReader(server); ; {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			if w.isSilent(proxy) {
				_, _ = io.Copy(io.Discard, in)
				return
			}
			w.mu.Lock()
			pause := time.Duration(0.3 * math.Exp(0.5*w.luck.NormFloat64()) * float64(time.Second))
			w.mu.Unlock()
			time.Sleep(pause)
			if !answer(server, "200 OK") {
				return
			}
		}
	})
	return client, nil
}

// merge adds another seed's figures.
func (w *hush) merge(o *hush) {
	w.took = append(w.took, o.took...)
	slices.Sort(w.took)
	w.jobs += o.jobs
	w.attempts += o.attempts
	w.succeeded += o.succeeded
	w.wronged += o.wronged
	for id := range o.found {
		w.found[fmt.Sprint(o.seed, id)] = true
	}
}

// silence is about two silent proxies in a hundred: without learnt timeouts and hedges, with the timeouts, and with both.
func silence(t *testing.T, s size) []row {
	t.Helper()
	arms := make([]*hush, 3)
	for i := range arms {
		arms[i] = &hush{found: map[string]bool{}}
		for _, seed := range s.seeds {
			w := &hush{seed: seed, hedge: jobs.Off, firstByte: jobs.Auto}
			switch i {
			case 0:
				w.firstByte = jobs.Off
			case 2:
				w.hedge = jobs.Auto
			}
			arms[i].merge(w.run(t, s.jobs))
		}
	}
	plain, learnt, hedged := arms[0], arms[1], arms[2]
	all := silentProxies * len(s.seeds)
	more := float64(hedged.attempts)/float64(plain.attempts) - 1
	at := func(w *hush, q float64) string { return quantile(w.took, q).Round(10 * time.Millisecond).String() }
	figures := func(w *hush) string {
		return fmt.Sprintf("%s, %s; %d of %d found, %d others open", at(w, 0.99), at(w, 0.999), len(w.found), all, w.wronged)
	}
	where := "2 of 100 proxies silent"
	return []row{
		{
			name: "18 p99 and p99.9 of all jobs with learnt timeouts", where: where, aim: "p99 ≤ 8 s, all found", baseline: figures(plain), gofer: figures(learnt), gain: "–", seeds: s.String(),
			met: quantile(learnt.took, 0.99) <= 8*time.Second && len(learnt.found) == all && learnt.succeeded == learnt.jobs, exact: true,
		},
		{
			name: "19 the same with hedges", where: where, aim: "≤ 3.5 s, ≤ 5 s, ≤ 5 % more attempts, all found", baseline: figures(plain), gofer: figures(hedged) + fmt.Sprintf(", %+.1f %% attempts", 100*more), gain: "–", seeds: s.String(),
			met:   quantile(hedged.took, 0.99) <= 3500*time.Millisecond && quantile(hedged.took, 0.999) <= 5*time.Second && more <= 0.05 && len(hedged.found) == all && hedged.succeeded == hedged.jobs,
			exact: true,
		},
	}
}
