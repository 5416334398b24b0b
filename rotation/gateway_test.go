package rotation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/exits"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// gate is a pool of these lines.
func gate(tb testing.TB, lines ...string) *rotation.Pool {
	tb.Helper()
	list, err := proxylist.ParseList(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		tb.Fatal(err)
	}
	p := rotation.New(rotation.Config{
		Breaker: breaker.Config{Jitter: -1}, Exits: exits.Config{Prefix: "gofer", Rand: rand.New(rand.NewPCG(3, 4))},
	})
	p.Replace(list)
	return p
}

const (
	gateLine   = "http://user-{session}-cc-{region}:pw@192.0.2.1:8000 id=gate region=us"
	noneLine   = "http://user-{session}-cc-{region}:pw@192.0.2.1:8000 id=gate"
	rotateLine = "http://user:pw@192.0.2.1:8001 id=turns gateway=yes"
)

// lease picks, and fails the test without a proxy.
func lease(tb testing.TB, p *rotation.Pool, need rotation.Need) rotation.Lease {
	tb.Helper()
	l, _, err := p.Pick(need)
	if err != nil {
		tb.Fatalf("pick %+v: %v", need, err)
	}
	return l
}

func relay(l *rotation.Lease) {
	l.Report(rotation.Verdict{Kind: rotation.Relayed, Latency: time.Millisecond})
}

func TestEachAttemptWithoutASessionHasAWordOfItsOwn(t *testing.T) {
	p := gate(t, gateLine)
	seen := map[string]bool{}
	for range 1000 {
		l := lease(t, p, rotation.Need{Host: "a.test:80"})
		want := "user-" + l.Exit() + "-cc-us"
		if got := l.URL().User.Username(); len(l.Exit()) != 12 || seen[l.Exit()] || got != want || !l.Alone() {
			t.Fatalf("exit %q, user %q, alone %v; want another word each time, in the user, and an attempt alone", l.Exit(), got, l.Alone())
		}
		seen[l.Exit()] = true
		relay(&l)
	}
}

func TestASessionStaysAtItsExitWhileThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, other := gate(t, gateLine), gate(t, gateLine)
		need := rotation.Need{Host: "a.test:80", Session: "cart-7"}
		first := lease(t, p, need)
		if l := lease(t, other, need); l.Exit() != first.Exit() || l.Alone() || l.IdleFor() != 10*time.Minute {
			t.Errorf("another worker uses %q for %s, alone %v; want %q for 10 min, shared", l.Exit(), l.IdleFor(), l.Alone(), first.Exit())
		}
		relay(&first)
		for i := range 100 {
			l := lease(t, p, rotation.Need{Host: fmt.Sprintf("%d.test:80", i), Session: "cart-7"})
			if l.Exit() != first.Exit() {
				t.Fatalf("attempt %d uses %q, want %q", i, l.Exit(), first.Exit())
			}
			relay(&l)
			time.Sleep(time.Minute)
		}
		for _, v := range []rotation.Verdict{
			{Kind: rotation.Unclear, Reason: "reset"}, {Kind: rotation.ProxyFault, Reason: "proxy_protocol"}, {Kind: rotation.Refused, Reason: "proxy_refused"},
			{Kind: rotation.PairFault, Reason: "ban", Ban: rotation.FleetBan},
		} {
			l := lease(t, p, need)
			l.Report(v)
			next := lease(t, p, need)
			if next.Exit() == l.Exit() {
				t.Errorf("the exit failed with %s, and the next attempt uses it again", v.Reason)
			}
			relay(&next)
		}
		l := lease(t, p, need)
		l.Report(rotation.Verdict{Kind: rotation.TargetFault, Reason: "status_5xx"})
		next := lease(t, p, need)
		if next.Exit() != l.Exit() {
			t.Error("the target failed, and the session moved to another exit")
		}
	})
}

func TestARetryAvoidsTheExitsThatFailedTheJob(t *testing.T) {
	p := gate(t, gateLine)
	need := rotation.Need{Host: "a.test:80", Session: "s"}
	for range 6 {
		l := lease(t, p, need)
		for _, word := range need.ExcludeExits {
			if word == l.Exit() {
				t.Fatalf("the exit %s failed the job, and is used again", word)
			}
		}
		need.ExcludeExits = append(need.ExcludeExits, l.Exit())
		l.Report(rotation.Verdict{Kind: rotation.Unclear, Reason: "reset"})
	}
}

func TestFailuresOfExitsOpenNoGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, line := range []string{gateLine, rotateLine} {
			p := gate(t, line)
			ok := lease(t, p, rotation.Need{Host: "a.test:80"})
			relay(&ok)
			for i := range 400 {
				kind := []rotation.Kind{rotation.ProxyFault, rotation.Unclear, rotation.PairFault, rotation.Refused}[i%4]
				v := rotation.Verdict{Kind: kind, Reason: "x", Latency: time.Millisecond, CoolDown: time.Duration(i%3) * time.Minute}
				if i%8 == 0 {
					v.Trip = time.Hour
				}
				if i%16 == 2 {
					v.Ban = rotation.FleetBan
				}
				l := lease(t, p, rotation.Need{Host: "a.test:80", Ban: rotation.FleetBan})
				if events := l.Report(v); len(events) > 0 {
					t.Fatalf("failure %d: %+v, want no change of the gateway's breaker", i, events)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if s := p.Status()[0]; s.State != breaker.Closed || s.Failures != 0 {
				t.Errorf("after 400 failures of exits: %s with %d failures, want closed and none", s.State, s.Failures)
			}
		}
	})
}

func TestAGatewayThatFailsItselfOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gate(t, gateLine)
		begin := time.Now()
		for i := range 5 {
			l := lease(t, p, rotation.Need{Host: fmt.Sprintf("%d.test:80", i)})
			l.Report(rotation.Verdict{Kind: rotation.ProxyFault, Reason: "connect", Gateway: true})
			time.Sleep(100 * time.Millisecond)
		}
		if s := p.Status()[0]; s.State != breaker.Open || time.Since(begin) > time.Second {
			t.Errorf("%s after the gateway could not be reached five times: %s, want open", time.Since(begin), s.State)
		}
	})
}

func TestTenWordsWithoutATunnelCountAgainstTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []bool{true, false} {
			p := gate(t, gateLine)
			fail := func(i int) {
				l := lease(t, p, rotation.Need{Host: fmt.Sprintf("%d.test:443", i%3)})
				l.Report(rotation.Verdict{Kind: rotation.Unclear, Reason: "proxy_refused", NoTunnel: true, Latency: time.Millisecond})
				time.Sleep(100 * time.Millisecond)
			}
			for i := range 3 {
				l := lease(t, p, rotation.Need{Host: fmt.Sprintf("%d.test:443", i)})
				if known {
					relay(&l)
				}
				l.Release()
			}
			time.Sleep(2 * time.Second)
			for i := range 13 {
				fail(i)
			}
			if s := p.Status()[0]; s.State != breaker.Closed {
				t.Fatalf("sites known %v: %s after 13 words, want closed", known, s.State)
			}
			fail(13) // the tenth word in a row counts, and those after it: five failures open the breaker
			if s := p.Status()[0]; (s.State == breaker.Open) != known {
				t.Errorf("sites known %v: %s after 14 words, want it open only where the sites answered before", known, s.State)
			}
		}
	})
}

func TestAGatewayServesRegionsThatANameMayHold(t *testing.T) {
	for _, c := range []struct{ line, region, user string }{
		{gateLine, "", "user-WORD-cc-us"},
		{gateLine, "DE", "user-WORD-cc-de"},
		{gateLine, "city.new_york", "user-WORD-cc-city.new_york"},
		{gateLine, "us-sessid-1", ""},
		{gateLine, "de:pw@evil.test", ""},
		{gateLine, strings.Repeat("a", 33), ""},
		{gateLine, strings.Repeat("a", 32), "user-WORD-cc-" + strings.Repeat("a", 32)},
		{noneLine, "", ""},
		{noneLine, "fr", "user-WORD-cc-fr"},
		{rotateLine, "", "user"},
		{rotateLine, "fr", "user"},
	} {
		p := gate(t, c.line)
		for _, strict := range []bool{false, true} {
			l, _, err := p.Pick(rotation.Need{Host: "a.test:80", Region: c.region, RegionStrict: strict && c.region != ""})
			user, want := "", c.user
			if err == nil {
				user = strings.Replace(l.URL().User.Username(), l.Exit(), "WORD", min(1, len(l.Exit())))
			}
			if c.line == rotateLine && strict && c.region != "" {
				want = "" // it stands in no region
			}
			if user != want {
				t.Errorf("%s in region %q, strict %v: user %q, %v; want %q", c.line, c.region, strict, user, err, want)
			}
			if none, ok := errors.AsType[*rotation.NoProxyError](err); ok && none.Reason != rotation.Unmatched {
				t.Errorf("%s in region %q: %v, want that no proxy can ever serve it", c.line, c.region, err)
			}
		}
	}
}

func TestAGatewayOfAnyRegionStandsBesideProxiesOfOne(t *testing.T) {
	p := gate(t, gateLine, "http://192.0.2.2:1 id=berlin region=de", "http://192.0.2.3:1 id=paris region=fr")
	for region, want := range map[string]string{"de": "berlin gate", "fr": "gate paris", "us": "gate", "jp": "gate", "": "berlin gate paris", "a-b": ""} {
		got := map[string]bool{}
		for range 30 {
			if l, _, err := p.Pick(rotation.Need{Host: "a.test:80", Region: region, RegionStrict: region != ""}); err == nil {
				got[l.ID()] = true
				l.Release()
			}
		}
		var ids []string
		for _, id := range []string{"berlin", "gate", "paris"} {
			if got[id] {
				ids = append(ids, id)
			}
		}
		if strings.Join(ids, " ") != want {
			t.Errorf("region %q is served by %q, want %q", region, ids, want)
		}
	}
}

func TestAGatewayWithoutWordsServesNoSession(t *testing.T) {
	p := gate(t, rotateLine, "http://192.0.2.2:1 id=plain")
	for range 20 {
		if l := lease(t, p, rotation.Need{Host: "a.test:80", Session: "s"}); l.ID() != "plain" {
			t.Fatalf("a session goes through %s, want the proxy with one exit", l.ID())
		}
	}
	p = gate(t, rotateLine)
	_, _, err := p.Pick(rotation.Need{Host: "a.test:80", Session: "s"})
	if none, ok := errors.AsType[*rotation.NoProxyError](err); !ok || none.Reason != rotation.Unmatched {
		t.Errorf("a session where every exit changes: %v, want no proxy", err)
	}
	if l := lease(t, p, rotation.Need{Host: "a.test:80"}); l.Exit() != "" || !l.Alone() {
		t.Errorf("exit %q, alone %v; want no word, and an attempt alone", l.Exit(), l.Alone())
	}
}

func TestRetryAfterCoolsDownTheExitAndNotTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gate(t, gateLine)
		need := rotation.Need{Host: "a.test:80", Session: "s"}
		l := lease(t, p, need)
		l.Report(rotation.Verdict{Kind: rotation.Relayed, CoolDown: time.Minute, Latency: time.Millisecond})
		aside := lease(t, p, need)
		elsewhere := lease(t, p, rotation.Need{Host: "b.test:80", Session: "s"})
		if aside.Exit() == l.Exit() || elsewhere.Exit() != l.Exit() {
			t.Errorf("%s cools down for a.test: a.test is asked through %s, b.test through %s", l.Exit(), aside.Exit(), elsewhere.Exit())
		}
		relay(&aside)
		time.Sleep(time.Minute)
		if after := lease(t, p, need); after.Exit() != l.Exit() {
			t.Errorf("after the minute: %s, want %s", after.Exit(), l.Exit())
		}
	})
}

func TestALineThatBecomesAGatewayServesAtOnce(t *testing.T) {
	p := gate(t, "http://192.0.2.1:8000 id=gate")
	if l := lease(t, p, rotation.Need{}); l.IsGateway() || p.IsGateway("gate") {
		t.Error("a proxy without a placeholder is a gateway")
	}
	list, err := proxylist.ParseList(strings.NewReader(noneLine))
	if err != nil {
		t.Fatal(err)
	}
	p.Replace(list)
	if l := lease(t, p, rotation.Need{Region: "jp"}); !l.IsGateway() || l.Region() != "jp" || !p.IsGateway("gate") {
		t.Errorf("the new line: gateway %v in region %q, want one in jp", l.IsGateway(), l.Region())
	}
	if _, _, err := p.Pick(rotation.Need{}); err == nil {
		t.Error("a gateway that needs a region serves a job without one")
	}
}

func TestPoolsShareTheExitsOfSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pools := make([]*rotation.Pool, 2)
		for i := range pools {
			pools[i] = rotation.New(rotation.Config{Exits: exits.Config{Prefix: "gofer", Share: true}})
			line, err := proxylist.ParseLine(gateLine)
			if err != nil {
				t.Fatal(err)
			}
			pools[i].Replace([]proxylist.Proxy{line})
		}
		need := rotation.Need{Host: "a.test:80", Session: "s"}
		share := func() (current uint32) {
			for i, p := range pools {
				for _, key := range p.ChangedSessions(10) {
					if state, ok := p.SessionState(key); ok && pools[1-i].AdoptSession(state) {
						current = state.Current()
					}
				}
			}
			return current
		}
		attempt := func(i int, v rotation.Verdict) string {
			l := lease(t, pools[i], need)
			defer l.Report(v)
			return l.Exit()
		}
		first := attempt(0, rotation.Verdict{Kind: rotation.Unclear, Reason: "status_5xx", Answered: true, Doubtful: true})
		if current := share(); current != 0 || attempt(1, rotation.Verdict{}) != first {
			t.Errorf("generation %d is shared after a 502, which the next exit may bring, too", current)
		}
		attempt(0, rotation.Verdict{Kind: rotation.Relayed})
		if current := share(); current != 1 || attempt(1, rotation.Verdict{}) == first {
			t.Errorf("generation %d is shared after the next exit worked, want 1", current)
		}
		attempt(1, rotation.Verdict{Kind: rotation.PairFault, Reason: "ban", Ban: rotation.FleetBan})
		if current := share(); current != 2 || attempt(0, rotation.Verdict{}) != attempt(1, rotation.Verdict{}) {
			t.Errorf("generation %d is shared after a ban, want 2", current)
		}
		attempt(0, rotation.Verdict{Kind: rotation.ProxyFault, Reason: "connect", Gateway: true})
		if keys := pools[0].ChangedSessions(10); len(keys) > 0 {
			t.Error("an exit is left because the gateway cannot be reached")
		}
	})
}
