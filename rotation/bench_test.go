package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

const many = 100_000

func strategies() []rotation.Strategy {
	return []rotation.Strategy{rotation.RoundRobin, rotation.Random, rotation.Weighted, rotation.LeastUsed, rotation.Performance}
}

// limited is a line's words with everything that a pick has to look at.
func limited(i int) string { return fmt.Sprintf("weight=%d max_inflight=4 rate=100000", 1+i%7) }

// weather opens the breakers of the first permille of every thousand, a few of them with a time that ends meanwhile, and
// lets a few proxies rest for the host.
func weather(b *testing.B, p *rotation.Pool, permille int) {
	b.Helper()
	for i := range many {
		id := fmt.Sprint("p", i)
		switch {
		case i%1000 < permille && i%300 == 0:
			p.ForceOpen(id, 100*time.Millisecond+time.Duration(i)*time.Microsecond, "test")
		case i%1000 < permille:
			p.ForceOpen(id, time.Hour, "test")
		}
	}
	for range 50 {
		if l, _, err := p.Pick(rotation.Need{Host: "a.test:443"}); err == nil {
			l.Report(rotation.Verdict{Kind: rotation.PairFault, CoolDown: time.Hour})
		}
	}
}

// use picks and reports. It is no helper of the testing package: to say so would cost more than a pick.
func use(b *testing.B, p *rotation.Pool, need rotation.Need) { //nolint:thelper // see above
	l, _, err := p.Pick(need)
	if err != nil {
		b.Fatal(err)
	}
	l.Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
}

// BenchmarkSelect is a whole pick among 100,000 proxies and the verdict on it, with open breakers, those whose time is over,
// caps, rates, and proxies that rest for the host; pick-ns is the pick alone, on one goroutine. Beside it stands what a filter
// over all of them costs.
func BenchmarkSelect(b *testing.B) {
	list := proxies(b, many, limited)
	for _, s := range strategies() {
		for _, open := range []int{0, 500, 900, 990, 999} {
			b.Run(fmt.Sprintf("%s/open=%v", s, float64(open)/10), func(b *testing.B) {
				p := rotation.New(rotation.Config{Strategy: s})
				p.Replace(list)
				weather(b, p, open)
				need := rotation.Need{Host: "a.test:443"}
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						use(b, p, need)
					}
				})
				b.StopTimer()
				b.ReportMetric(pickAlone(b, p, func(int) rotation.Need { return need }), "pick-ns")
			})
		}
	}
	for _, open := range []int{0, 999} {
		b.Run(fmt.Sprintf("filter_everything/open=%v", float64(open)/10), func(b *testing.B) {
			group := breaker.NewGroup(breaker.Config{})
			all := make([]*breaker.Breaker, many)
			for i := range all {
				all[i] = group.New()
				if i%1000 < open {
					all[i].Trip(time.Hour, "test")
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				var usable []*breaker.Breaker
				for _, x := range all {
					if x.Ready() {
						usable = append(usable, x)
					}
				}
				permit, _, _ := usable[rand.IntN(len(usable))].Allow()
				permit.Success()
			}
		})
	}
}

// pickAlone is what a pick costs whose verdict is not timed, in nanoseconds: the mean of 32 picks in the median of the rounds,
// which other programs of the machine do not interrupt.
func pickAlone(b *testing.B, p *rotation.Pool, need func(i int) rotation.Need) float64 {
	b.Helper()
	const rounds = 4000
	var leases [32]rotation.Lease
	took := make([]time.Duration, rounds)
	for round := range rounds {
		start := time.Now()
		for i := range leases {
			var err error
			if leases[i], _, err = p.Pick(need(round*len(leases) + i)); err != nil {
				b.Fatal(err)
			}
		}
		took[round] = time.Since(start)
		for i := range leases {
			leases[i].Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
		}
	}
	slices.Sort(took)
	return float64(took[rounds/2].Nanoseconds()) / float64(len(leases))
}

// BenchmarkPick is each kind of pick among 100,000 proxies, half of which are in a region and have a tag, for a thousand sites.
// The aim is 500 ns for a job's first attempt:
//
//	go test -run '^$' -bench Pick -benchtime 1x ./rotation
//
// cold_read is what a random read of as much memory costs on the machine meanwhile, with a lock and a random number.
func BenchmarkPick(b *testing.B) {
	list := proxies(b, many, func(i int) string { return limited(i) + []string{"", " region=eu tags=home"}[i%2] })
	hosts := make([]string, 1000)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("site%d.test:443", i)
	}
	b.Run("cold_read", coldRead)
	for _, kind := range []struct {
		name string
		need rotation.Need
	}{
		{"first", rotation.Need{}},
		{"retry", rotation.Need{Exclude: []string{"p7", "p4711"}}},
		{"hedge", rotation.Need{Exclude: []string{"p7"}, Beside: true, NoLastResort: true}},
		{"site_test", rotation.Need{Relayed: true}},
		{"region", rotation.Need{Region: "eu"}},
		{"tag", rotation.Need{Tags: []string{"home"}, Region: "eu", RegionStrict: true}},
		{"session", rotation.Need{Session: "cart-7"}},
	} {
		for _, s := range strategies() {
			b.Run(kind.name+"/"+string(s), func(b *testing.B) {
				p := rotation.New(rotation.Config{Strategy: s})
				p.Replace(list)
				weather(b, p, 100)
				need := func(i int) rotation.Need {
					need := kind.need
					need.Host = hosts[i%len(hosts)]
					return need
				}
				for i := range 2 * many { // most proxies have relayed a response
					use(b, p, rotation.Need{Host: hosts[i%len(hosts)]})
				}
				use(b, p, need(0)) // the first session makes a table
				b.ReportMetric(pickAlone(b, p, need), "pick-ns")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// memory is the parts of a proxy that a pick touches, and those that a verdict does.
type memory struct {
	pick    [8]uint64
	verdict *[48]uint64
}

// coldRead measures a read by a pointer from a list of 100,000, as pickAlone measures picks.
func coldRead(b *testing.B) {
	list := make([]*memory, many)
	for i := range list {
		list[i] = &memory{verdict: new([48]uint64)}
		for k := range list[i].verdict {
			list[i].verdict[k] = 1 // the pages are there
		}
	}
	var mu sync.Mutex
	var read [32]*memory
	took := make([]time.Duration, 4000)
	for round := range took {
		start := time.Now()
		for i := range read {
			mu.Lock()
			read[i] = list[rand.IntN(many)]
			read[i].pick[4]++
			mu.Unlock()
		}
		took[round] = time.Since(start)
		for _, m := range read {
			for i := 0; i < len(m.verdict); i += 8 {
				m.verdict[i]++
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/float64(len(read)), "read-ns")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkVerdict is the booking of a result, with the pick taken away.
func BenchmarkVerdict(b *testing.B) {
	for name, v := range map[string]rotation.Verdict{
		"delivered":    {Kind: rotation.Relayed, Latency: time.Millisecond},
		"target_fault": {Kind: rotation.TargetFault},
		"proxy_fault":  {Kind: rotation.ProxyFault, Reason: "test"},
	} {
		b.Run(name, func(b *testing.B) {
			p := rotation.New(rotation.Config{Breaker: breaker.Config{Window: time.Microsecond}})
			p.Replace(proxies(b, many, nil))
			leases := make([]rotation.Lease, 1024)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += len(leases) {
				b.StopTimer()
				for j := range leases {
					leases[j], _, _ = p.Pick(rotation.Need{Host: "a.test:443"})
				}
				b.StartTimer()
				for j := range leases {
					leases[j].Report(v)
				}
			}
		})
	}
}

// BenchmarkSticky is a pick for one of 10,000 sessions and the verdict on it; pick-ns is the pick alone.
func BenchmarkSticky(b *testing.B) {
	sessions := make([]string, 10_000)
	for i := range sessions {
		sessions[i] = fmt.Sprint("session-", i)
	}
	for _, open := range []int{0, 500, 990} {
		b.Run(fmt.Sprintf("open=%v", float64(open)/10), func(b *testing.B) {
			p := rotation.New(rotation.Config{})
			p.Replace(proxies(b, many, nil))
			weather(b, p, open)
			need := func(i int) rotation.Need {
				return rotation.Need{Session: sessions[i%len(sessions)], Host: "a.test:443"}
			}
			i := 0
			use(b, p, need(0))
			b.ReportAllocs()
			for b.Loop() {
				use(b, p, need(i))
				i++
			}
			b.ReportMetric(pickAlone(b, p, need), "pick-ns")
		})
	}
}

// BenchmarkReload replaces 100,000 proxies of which one in a hundred is new, while others pick; the slowest pick meanwhile
// is slowest-ms.
func BenchmarkReload(b *testing.B) {
	even, odd := proxies(b, many, nil), proxies(b, many+many/100, nil)[many/100:]
	p := rotation.New(rotation.Config{})
	p.Replace(even)
	for b.Loop() {
		p.Replace(odd)
		even, odd = odd, even
	}
	b.StopTimer()
	b.ReportMetric(float64(slowest(b, p, func() { p.Replace(odd) }))/1e6, "slowest-ms")
}

// slowest is how long the slowest pick took while act ran.
func slowest(b *testing.B, p *rotation.Pool, act func()) (most time.Duration) {
	b.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			start := time.Now()
			use(b, p, rotation.Need{Host: "a.test:443"})
			most = max(most, time.Since(start))
			runtime.Gosched()
		}
	})
	act()
	close(done)
	wg.Wait()
	return most
}

// BenchmarkMemory is the bytes of a known proxy.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		list := proxies(b, many, limited)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := rotation.New(rotation.Config{})
		p.Replace(list)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/proxy")
		runtime.KeepAlive(p)
		runtime.KeepAlive(list)
	}
}
