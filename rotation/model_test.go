package rotation_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// judge is how the breakers of the properties judge: every time is exact, and no two are alike.
func judge() breaker.Config {
	return breaker.Config{FailureThreshold: 3, Window: 20 * time.Second, OpenTimeout: 7 * time.Second, MaxOpenTimeout: 21 * time.Second, ProbeLease: 11 * time.Second, Jitter: -1}
}

// sessionTTL is how long a session that moved stays where it is.
const sessionTTL = 3 * time.Minute

// edges are pauses at which something begins or ends, and their neighbours.
func edges() []time.Duration {
	list := []time.Duration{1, time.Second, 30 * time.Second}
	for _, d := range []time.Duration{
		7 * time.Second, 11 * time.Second, 14 * time.Second, 20 * time.Second, 21 * time.Second, // the breaker's
		50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Minute, sessionTTL, 5 * time.Minute,
	} {
		list = append(list, d-1, d, d+1)
	}
	return list
}

// TestPoolOffersWhatAPlainListWould drives a pool and a plain list of proxies side by side. Whatever happens to them, a pick
// gets a proxy if and only if one of the list can be used: one whose breaker does not rest, below its number in flight and its
// rate, and not resting for the host. It is one that meets the most of the job's wishes, and avoided only if all such are.
// Else it is told why not, and exactly when the first one comes back. Looks change nothing, a removed proxy's late results
// neither, one that comes again is new, and there are never more than were listed.
func TestPoolOffersWhatAPlainListWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, func(t *rapid.T) { newDuo(t, 6).run(t) }) })
}

// TestCrowdedPoolOffersWhatAPlainListWould is the same for so many proxies that not all are looked at one by one.
func TestCrowdedPoolOffersWhatAPlainListWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, func(t *rapid.T) { newDuo(t, 90).run(t) }) })
}

// duo is a pool and a plain one, with the leases that both gave.
type duo struct {
	*rotation.Pool
	plain    *plain
	strategy rotation.Strategy
	most     int // proxies
	lists    int // given so far
	leases   []*rotation.Lease
	tickets  []*ticket
	sessions map[string]stay
}

// stay is where a session was last.
type stay struct {
	m    *member
	at   time.Duration
	list int
}

// wakeups is how many proxies a pick looks at because their time has come: with more of them it need not find the best.
const maxWakeups = 32

func newDuo(t *rapid.T, most int) *duo {
	d := &duo{strategy: rapid.SampledFrom(strategies()).Draw(t, "strategy"), most: most, sessions: map[string]stay{}}
	d.Pool = rotation.New(rotation.Config{Strategy: d.strategy, Breaker: judge(), SessionTTL: sessionTTL})
	d.plain = newPlain(judge())
	time.Sleep(time.Nanosecond)
	d.replace(t)
	return d
}

func (d *duo) run(t *rapid.T) {
	t.Repeat(map[string]func(*rapid.T){
		"pause": func(t *rapid.T) { time.Sleep(rapid.SampledFrom(edges()).Draw(t, "pause")) },
		"picks": func(t *rapid.T) {
			need := d.need(t)
			for range rapid.SampledFrom([]int{1, 1, 3, d.most}).Draw(t, "picks") {
				d.pick(t, need)
			}
		},
		"ends": func(t *rapid.T) {
			if len(d.leases) == 0 {
				return
			}
			v, i := verdict(t), rapid.IntRange(0, len(d.leases)-1).Draw(t, "lease")
			for range rapid.SampledFrom([]int{1, 1, 3, d.most}).Draw(t, "ends") {
				if i < len(d.leases) {
					d.end(t, i, v)
				}
			}
		},
		"bout":    func(t *rapid.T) { d.bout(t) },
		"command": func(t *rapid.T) { d.command(t) },
		"replace": func(t *rapid.T) { d.replace(t) },
		"strategy": func(t *rapid.T) {
			before := d.strategy
			d.strategy = rapid.SampledFrom(strategies()).Draw(t, "strategy")
			if got := d.SetStrategy(d.strategy); got != before {
				t.Fatalf("strategy before: got %s, want %s", got, before)
			}
		},
		"": d.look,
	})
	d.leaveTime(t)
}

// need draws what a job may ask for.
func (d *duo) need(t *rapid.T) rotation.Need {
	few := rapid.IntRange(0, d.most-1)
	n := rotation.Need{
		Host:    rapid.SampledFrom([]string{"a.test:80", "b.test:443", "c.test:80"}).Draw(t, "host"),
		Session: rapid.SampledFrom([]string{"", "", "s1", "s2"}).Draw(t, "session"),
		Region:  rapid.SampledFrom([]string{"", "", "eu", "us"}).Draw(t, "region"),
		Tags:    rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y"}), 0, 2, rapid.ID[string]).Draw(t, "tags"),
	}
	if n.Session != "" {
		n.Region = map[string]string{"s2": "eu"}[n.Session] // another region might be another proxy, and move the session
	}
	n.RegionStrict = rapid.Bool().Draw(t, "strict")
	for _, i := range rapid.SliceOfN(few, 0, 3).Draw(t, "exclude") {
		n.Exclude = append(n.Exclude, fmt.Sprint("p", i))
	}
	if rapid.IntRange(0, 9).Draw(t, "named") == 0 {
		n.ID = fmt.Sprint("p", few.Draw(t, "id"))
	}
	return n
}

func verdict(t *rapid.T) rotation.Verdict {
	kinds := []rotation.Kind{rotation.Neutral, rotation.Relayed, rotation.ProxyFault, rotation.TargetFault, rotation.PairFault}
	v := rotation.Verdict{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Reason: "test"}
	v.Latency = rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second}).Draw(t, "latency")
	if rapid.IntRange(0, 3).Draw(t, "cools") == 0 {
		v.CoolDown = rapid.SampledFrom(edges()).Draw(t, "cool-down")
	}
	if rapid.IntRange(0, 9).Draw(t, "trips") == 0 {
		v.Trip = rapid.SampledFrom(edges()).Draw(t, "trip")
	}
	return v
}
