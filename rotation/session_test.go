package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// homes is where each of n sessions is.
func homes(t rapid.TB, p *rotation.Pool, n int) []string {
	t.Helper()
	at := make([]string, n)
	for i := range at {
		l := take(t, p, rotation.Need{Session: fmt.Sprint("s", i)})
		at[i] = l.ID()
		l.Release()
	}
	return at
}

// TestEveryWorkerSendsASessionToTheSameProxy: the order of the list does not matter, nor the strategy, nor what the pool went
// through before.
func TestEveryWorkerSendsASessionToTheSameProxy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawList(rapid.IntRange(1, 60).Draw(t, "proxies"), nil)
		one := rotation.New(rotation.Config{Strategy: rapid.SampledFrom(strategies()).Draw(t, "one")})
		other := rotation.New(rotation.Config{Strategy: rapid.SampledFrom(strategies()).Draw(t, "other")})
		one.Replace(list)
		other.Replace(list[:1])
		homes(t, other, 5)
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		other.Replace(list)
		want := homes(t, one, 50)
		for i, got := range homes(t, other, 50) {
			if got != want[i] {
				t.Fatalf("session %d: got %s, want %s as elsewhere", i, got, want[i])
			}
		}
	})
}

// TestSessionsAreSpreadEvenlyAndFewMove: each proxy gets its part of them, and when one leaves those of the others stay.
func TestSessionsAreSpreadEvenlyAndFewMove(t *testing.T) {
	const n, sessions = 50, 5000
	list := drawList(n, nil)
	p := rotation.New(rotation.Config{})
	p.Replace(list)
	before, parts := homes(t, p, sessions), map[string]int{}
	for _, id := range before {
		parts[id]++
	}
	for _, proxy := range list {
		if got := parts[proxy.ID]; got < sessions/n/2 || got > sessions/n*2 {
			t.Errorf("%s has %d of %d sessions, want about %d", proxy.ID, got, sessions, sessions/n)
		}
	}
	p.Replace(list[1:])
	moved := 0
	for i, id := range homes(t, p, sessions) {
		if before[i] != id && before[i] != list[0].ID {
			moved++
		}
	}
	if moved > sessions/10 {
		t.Errorf("%d of %d sessions left a proxy that stays, want a few", moved, sessions)
	}
}

// TestSessionComesBackAfterItsTime: it stays where it had to move to for as long as it is used there often enough, although
// its own proxy recovers, and goes back when it was not used for longer.
func TestSessionComesBackAfterItsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { rapid.SyncTest(t, sessionComesBack) })
}

func sessionComesBack(t *rapid.T) {
	p := drawPool(rapid.SampledFrom(strategies()).Draw(t, "strategy"), rapid.IntRange(2, 60).Draw(t, "proxies"), nil)
	need := rotation.Need{Session: rapid.StringN(1, 8, -1).Draw(t, "session")}
	home := take(t, p, need).ID()
	p.ForceOpen(home, time.Second, "test")
	away := take(t, p, need).ID()
	if away == home {
		t.Fatalf("the session went to %s, which is open", home)
	}
	p.Reset(home)
	for range 3 {
		time.Sleep(rapid.SampledFrom([]time.Duration{0, sessionTTL - 1, sessionTTL}).Draw(t, "pause"))
		if got := take(t, p, need).ID(); got != away {
			t.Fatalf("the session went to %s, want %s while its time is not over", got, away)
		}
	}
	time.Sleep(sessionTTL + 1)
	if got := take(t, p, need).ID(); got != home {
		t.Fatalf("the session went to %s, want %s, its own", got, home)
	}
}

func TestSessionFindsTheLastUsableOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		p := pool(t, rotation.RoundRobin, n, nil)
		for i := range n - 1 {
			spoil(p, fmt.Sprint("p", i))
		}
		for range 3 {
			if got := take(t, p, rotation.Need{Session: "s"}).ID(); got != fmt.Sprint("p", n-1) {
				t.Errorf("got %s, want the only one that is left", got)
			}
		}
	})
}

// TestSessionComesBackToAProxyThatWasOnlyBusy: what is full or ahead of its rate works, so picks that go past it take the session
// with them neither from its own proxy nor from where it moved to.
func TestSessionComesBackToAProxyThatWasOnlyBusy(t *testing.T) {
	busy := map[string]func(*proxylist.Proxy){
		"full":              func(p *proxylist.Proxy) { p.MaxInflight = 1 },
		"ahead of its rate": func(p *proxylist.Proxy) { p.Rate = 1 },
	}
	for name, limit := range busy {
		for _, moved := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, moved %v", name, moved), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := drawPool(rotation.RoundRobin, 20, func(_ int, p *proxylist.Proxy) { limit(p) })
					need := rotation.Need{Session: "s"}
					visit := func(at time.Duration) string {
						l := take(t, p, need)
						time.AfterFunc(at, l.Release)
						return l.ID()
					}
					place := visit(time.Second)
					time.Sleep(2 * time.Second)
					if moved {
						p.ForceOpen(place, time.Minute, "test")
						own := place
						place = visit(time.Second)
						time.Sleep(2 * time.Second)
						p.Reset(own)
					}
					for range 3 {
						first, second := visit(time.Second), visit(time.Second)
						if first != place || second == place {
							t.Errorf("got %s and, while it is busy, %s; want %s and another one", first, second, place)
						}
						time.Sleep(2 * time.Second)
					}
				})
			})
		}
	}
}

func TestSessionLeavesABusyProxyThatDoesNotWork(t *testing.T) {
	p := drawPool(rotation.RoundRobin, 20, func(_ int, p *proxylist.Proxy) { p.MaxInflight = 1 })
	need := rotation.Need{Session: "s"}
	held := take(t, p, need)
	p.ForceOpen(held.ID(), time.Minute, "test")
	l := take(t, p, need)
	l.Release()
	held.Release()
	p.Reset(held.ID())
	if got := take(t, p, need).ID(); got != l.ID() {
		t.Errorf("got %s, want %s, where the session moved to", got, l.ID())
	}
}

// A list is put in place in small steps, and picks go on meanwhile.
func TestASessionGetsNoProxyThatTheChangingListTookTheTagFrom(t *testing.T) {
	const n = 10_000
	tags := func(odd string) []proxylist.Proxy {
		return proxies(t, n, func(i int) string { return []string{"tags=a", odd}[i%2] })
	}
	lists := [][]proxylist.Proxy{tags("tags=b"), tags("tags=a")}
	p := rotation.New(rotation.Config{})
	p.Replace(lists[1])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 10 {
			p.Replace(lists[i%2])
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		l := take(t, p, rotation.Need{Session: fmt.Sprint("s", i%1000), Tags: []string{"a"}})
		if got := l.Proxy().Tags; !slices.Equal(got, []string{"a"}) {
			t.Fatalf("got a proxy with the tags %v, want a", got)
		}
		l.Release()
	}
}

func TestASessionThatMovedLeavesAProxyThatTheNextListTookTheTagFrom(t *testing.T) {
	tags := []string{"a", "a", "a"}
	list := func() []proxylist.Proxy { return proxies(t, 3, func(i int) string { return "tags=" + tags[i] }) }
	p := rotation.New(rotation.Config{})
	p.Replace(list())
	pick := func() int {
		l := take(t, p, rotation.Need{Session: "s", Tags: []string{"a"}})
		defer l.Release()
		return number(t, l)
	}
	spoil(p, fmt.Sprint("p", pick()))
	moved := pick()
	if again := pick(); again != moved {
		t.Fatalf("moved to p%d and then to p%d", moved, again)
	}
	tags[moved] = "b"
	p.Replace(list())
	if got := pick(); got == moved {
		t.Errorf("got p%d, which has the tag no longer", got)
	}
}
