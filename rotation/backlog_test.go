package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// backlog is a worker with 64 slots and more jobs than it can do at once, each for a site of its own. Dead sites and dead
// proxies say nothing, so that in the end they hold all slots, and are given up together.
type backlog struct {
	pool  *rotation.Pool
	dead  float64  // of the sites
	mute  []string // proxies
	quiet span     // when there is no network
	again bool     // one job in four is for one of five sites that answer

	mu      sync.Mutex
	luck    *rand.Rand
	left    int // jobs
	refused int // picks
	wasted  int // attempts through mute proxies
}

// span is a part of the time, from the beginning on.
type span struct{ from, to time.Duration }

const patience = 2 * time.Second // with an attempt

func (b *backlog) run(jobs int) (done chan struct{}) {
	b.left, b.luck, done = jobs, rand.New(rand.NewPCG(1, 2)), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		var slots sync.WaitGroup
		for range 64 {
			slots.Go(func() {
				for {
					host, dead, more := b.take()
					if !more {
						return
					}
					b.fetch(host, dead, began)
				}
			})
		}
		slots.Wait()
	}()
	return done
}

func (b *backlog) take() (host string, dead, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left--
	if b.again && b.luck.IntN(4) == 0 {
		return fmt.Sprintf("again%d.test:443", b.luck.IntN(5)), false, b.left >= 0
	}
	return fmt.Sprintf("site%d.test:443", b.left), b.luck.Float64() < b.dead, b.left >= 0
}

// fetch is a job of up to three attempts.
func (b *backlog) fetch(host string, dead bool, began time.Time) {
	var failed []string
	for len(failed) < 3 {
		l, _, err := b.pool.Pick(rotation.Need{Host: host, Exclude: failed})
		if err != nil {
			b.count(&b.refused)
			time.Sleep(time.Second)
			continue
		}
		now, mute := time.Since(began), slices.Contains(b.mute, l.ID())
		if mute {
			b.count(&b.wasted)
		}
		v := rotation.Verdict{Kind: rotation.Relayed, Proven: true, Latency: 10 * time.Millisecond}
		if dead || mute || b.quiet.from <= now && now < b.quiet.to {
			v = rotation.Verdict{Kind: rotation.Unclear, Latency: patience, Reason: "timeout"}
		}
		time.Sleep(v.Latency)
		if l.Report(v); v.Kind == rotation.Relayed {
			return
		}
		failed = append(failed, l.ID())
		time.Sleep(500 * time.Millisecond)
	}
}

func (b *backlog) count(n *int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*n++
}

// watch looks at the pool ten times a second until the end: the shares of the time that proxies were not closed, and when it was
// first said to fail.
func (b *backlog) watch(done <-chan struct{}) (open map[string]float64, failed time.Duration) {
	open = map[string]float64{}
	began, looks := time.Now(), 0.0
	for tick := time.Tick(100 * time.Millisecond); ; looks++ {
		select {
		case <-done:
			for id := range open {
				open[id] /= looks
			}
			return open, failed
		case <-tick:
		}
		for id, state := range b.pool.States() {
			if state != breaker.Closed {
				open[id]++
			}
		}
		if _, failing := b.pool.Outage(); failing && failed == 0 {
			failed = time.Since(began)
		}
	}
}

func TestSilentSitesThatAreGivenUpTogetherAreNoFailureOfProxies(t *testing.T) {
	for _, size := range []struct{ n, mute int }{{12, 2}, {12, 11}, {3, 2}, {2, 1}, {1, 0}} { // proxies
		for _, share := range []float64{0.05, 0.15, 0.3} { // of the sites
			t.Run(fmt.Sprintf("%d proxies, %d dead, and %v of the sites", size.n, size.mute, share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := backlog{pool: pool(t, rotation.RoundRobin, size.n, nil), dead: share}
					for i := range size.mute {
						b.mute = append(b.mute, fmt.Sprint("p", i))
					}
					b.crawl(t)
				})
			})
		}
	}
}

func (b *backlog) crawl(t *testing.T) {
	t.Helper()
	open, failed := b.watch(b.run(60_000)) // so many that the time until a proxy is found to be dead is less than a twentieth
	if failed > 0 || b.refused > 0 {
		t.Errorf("the pool was said to fail after %v, and %d picks got nothing; want neither", failed, b.refused)
	}
	for id := range b.pool.States() {
		if mute := slices.Contains(b.mute, id); !mute && open[id] > 0 || mute && open[id] < 0.9 {
			t.Errorf("%s, says nothing: %v, was not closed %.1f %% of the time", id, mute, 100*open[id])
		}
	}
	// All slots may find out at once that a proxy is dead, and each of its openings costs three attempts at most. The first one
	// costs five that others contradict, and those that nobody did. The runs differ: up to 52 a proxy were seen.
	if most := 64 + 65*len(b.mute); b.wasted > most {
		t.Errorf("%d attempts went through silent proxies, want %d at most", b.wasted, most)
	}
}

// Sites that nobody knows say nothing of the pool, for publishers choose them. One job in four is for a site that answered.
func TestANetworkThatFallsSilentInACrawlOfDeadSitesIsFoundToFail(t *testing.T) {
	for _, share := range sample(0.3, 0, 0.05) { // of the sites
		synctest.Test(t, func(t *testing.T) {
			quiet := span{30 * time.Second, 2 * time.Minute}
			b := backlog{pool: pool(t, rotation.RoundRobin, 12, nil), dead: share, quiet: quiet, again: true}
			open, failed := b.watch(b.run(int(64 * 120 / (0.01 + share*7.5))))
			if late := failed - quiet.from; late <= 0 || late > 5*patience {
				t.Errorf("%v of the sites are dead: said to fail %v after it did, want %v at most", share, late, 5*patience)
			}
			if len(open) > 0 {
				t.Errorf("%v of the sites are dead: proxies were blamed: %v", share, open)
			}
		})
	}
}

// Tests of a proxy that works again meet dead sites, and each opening takes twice as long as the one before.
func TestAProxyThatWorksAgainIsSoonBackInACrawlOfDeadSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds = 100
		var sum time.Duration
		for round := range rounds {
			p, luck := pool(t, rotation.RoundRobin, 10, nil), rand.New(rand.NewPCG(3, uint64(round)))
			began := time.Time{}
			for i := 0; ; i++ {
				if i == 200 {
					began = time.Now()
					p.ForceOpen("p0", time.Second, "test")
				} else if s, _ := p.StatusOf("p0"); i > 200 && s.State == breaker.Closed {
					sum += time.Since(began)
					break
				}
				time.Sleep(100 * time.Millisecond)
				end(take(t, p, rotation.Need{Host: fmt.Sprintf("site%d.test:443", i)}), luck.Float64() >= 0.3)
			}
		}
		if mean := sum / rounds; mean > 10*time.Second {
			t.Errorf("a proxy that works again after a second is back after %v in the mean, want 10 s at most", mean)
		}
	})
}
