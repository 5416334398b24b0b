package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// TestBoundsHoldWhileSetsAreMadeAndDropped uses more filters at once than the pool keeps sets for, while the list changes all the
// time. The pick of a session gives up the lock while its table is made, and the set may be dropped meanwhile.
func TestBoundsHoldWhileSetsAreMadeAndDropped(t *testing.T) {
	for _, strategy := range []rotation.Strategy{rotation.RoundRobin, rotation.Random, rotation.Weighted} {
		t.Run(string(strategy), func(t *testing.T) { testBounds(t, strategy) })
	}
}

func testBounds(t *testing.T, strategy rotation.Strategy) {
	t.Helper()
	const filters, proxies, maxInflight, picks = 400, 24, 2, 25
	list := make([]proxylist.Proxy, proxies)
	running := map[string]*atomic.Int32{}
	for i := range list {
		id := fmt.Sprint("p", i)
		running[id] = new(atomic.Int32)
		list[i] = proxylist.Proxy{ID: id, URL: &url.URL{Scheme: "http", Host: id + ".test:80"}, MaxInflight: maxInflight}
		for tag := range filters {
			list[i].Tags = append(list[i].Tags, fmt.Sprint("t", tag))
		}
	}
	guest := list[proxies-1].ID // comes and goes, each time as a new proxy without leases
	pool := rotation.New(rotation.Config{Strategy: strategy})
	pool.Replace(list)
	var exceeded, done atomic.Int32
	var work sync.WaitGroup
	for seed := range uint64(filters) {
		work.Go(func() {
			defer done.Add(1)
			random := rand.New(rand.NewPCG(1, seed))
			for picked := 0; picked < picks; {
				lease, _, err := pool.Pick(rotation.Need{
					Host: "a.test:80", Tags: []string{fmt.Sprint("t", random.IntN(filters))}, Session: fmt.Sprint("s", random.IntN(50)),
				})
				if err != nil {
					continue
				}
				picked++
				if running[lease.ID()].Add(1) > maxInflight && lease.ID() != guest {
					exceeded.Add(1)
				}
				for range 20 {
					runtime.Gosched() // long enough for the pool to be full most of the time
				}
				running[lease.ID()].Add(-1)
				lease.Release()
			}
		})
	}
	for i := 0; done.Load() < filters; i++ {
		pool.Replace(list[:proxies-i%2])
	}
	work.Wait()
	if n := exceeded.Load(); n > 0 {
		t.Errorf("%d of %d attempts went beyond max_inflight", n, filters*picks)
	}
}
