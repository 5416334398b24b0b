package rotation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// crowd is how many goroutines use a pool at once.
const crowd = 10_000

// TestCrowdLosesNothing lets a crowd pick, settle, replace, reset, open, avoid and read the same pool at once, and change its
// strategy. No more attempts than allowed are ever under way through one proxy, none are afterwards, and each proxy can still
// be picked.
func TestCrowdLosesNothing(t *testing.T) { synctest.Test(t, crowdLosesNothing) }

func crowdLosesNothing(t *testing.T) {
	const n, most = 50, 7
	cap7 := func(_ int, p *proxylist.Proxy) { p.MaxInflight = most }
	p := drawPool(rotation.RoundRobin, n, cap7)
	list := drawList(n, cap7)
	var under [n]atomic.Int64
	var wg sync.WaitGroup
	for range crowd {
		wg.Go(func() {
			luck := rand.New(rand.NewPCG(rand.Uint64(), 0))
			for range 5 {
				disturb(p, luck, list)
				attemptInCrowd(t, p, luck, &under, most)
			}
		})
	}
	wg.Wait()
	p.Replace(list)
	time.Sleep(time.Hour)
	for _, proxy := range list {
		if s, _ := p.StatusOf(proxy.ID); s.Inflight != 0 {
			t.Errorf("%s has %d attempts under way after all have ended", proxy.ID, s.Inflight)
		}
		l, _, err := p.Pick(rotation.Need{ID: proxy.ID})
		if err != nil {
			t.Errorf("afterwards %s cannot be picked: %v", proxy.ID, err)
		}
		l.Release()
	}
}

// disturb now and then does something to the pool. The first half of the proxies stays in every list, so that what is under
// way through them can be counted.
func disturb(p *rotation.Pool, luck *rand.Rand, list []proxylist.Proxy) {
	id := list[luck.IntN(len(list))].ID
	switch luck.IntN(200) {
	case 0:
		p.Replace(list[:len(list)/2+luck.IntN(len(list)/2+1)])
	case 1, 2:
		p.Reset(id)
	case 3:
		p.ForceOpen(id, time.Minute, "test")
	case 4:
		p.Avoid(id, time.Now().Add(time.Minute), "w2")
	case 5:
		p.Status()
		for range p.States() {
			_ = p.Len() // no lock is held
		}
	case 6:
		p.SetStrategy(strategies()[luck.IntN(5)])
	}
}

// attemptInCrowd is one attempt; some take their goroutine with them or never say how they ended.
func attemptInCrowd(t *testing.T, p *rotation.Pool, luck *rand.Rand, under *[50]atomic.Int64, most int64) {
	t.Helper()
	need := rotation.Need{Host: fmt.Sprintf("%d.test:80", luck.IntN(5))}
	if luck.IntN(4) == 0 {
		need.Session = fmt.Sprint("s", luck.IntN(20))
	}
	l, _, err := p.Pick(need)
	if err != nil {
		if _, ok := errors.AsType[*rotation.NoProxyError](err); !ok {
			t.Errorf("pick: %v", err)
		}
		return
	}
	defer l.Release()
	if i := number(t, &l); i < len(under)/2 {
		if now := under[i].Add(1); now > most {
			t.Errorf("%s has %d attempts under way, want %d at most", l.ID(), now, most)
		}
		runtime.Gosched()
		under[i].Add(-1)
	}
	switch kind := luck.IntN(20); {
	case kind == 0:
		runtime.Goexit()
	case kind <= int(rotation.PairFault):
		l.Report(rotation.Verdict{Kind: rotation.Kind(kind), Latency: time.Millisecond})
	case kind < 18:
		l.Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
	}
}
