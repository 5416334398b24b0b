package rotation_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

const host = "a.test:80"

// ban has a proxy banned by a rule.
func ban(t *testing.T, p *rotation.Pool, id string, rule uint64) {
	t.Helper()
	take(t, p, rotation.Need{ID: id, Host: host}).Report(rotation.Verdict{Kind: rotation.PairFault, Ban: rule, Reason: "ban"})
}

// used are the proxies that picks of a need get.
func used(t *testing.T, p *rotation.Pool, need rotation.Need) map[string]bool {
	t.Helper()
	got := map[string]bool{}
	for range 200 {
		l, _, err := p.Pick(need)
		if err != nil {
			break
		}
		got[l.ID()] = true
		l.Release()
	}
	return got
}

func TestABanCoolsAPairDownForJobsOfTheSameRuleOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 3, nil)
		const mine, other = 7, 8
		for _, id := range []string{"p0", "p1", "p2"} {
			ban(t, p, id, mine)
		}
		for _, c := range []struct {
			need rotation.Need
			want int
		}{
			{rotation.Need{Host: host, Ban: mine}, 0}, {rotation.Need{Host: host, Ban: other}, 3}, {rotation.Need{Host: host, Ban: rotation.FleetBan}, 3},
			{rotation.Need{Host: host}, 3}, {rotation.Need{Host: "b.test:80", Ban: mine}, 3}, {rotation.Need{Host: host, ID: "p0", Ban: mine}, 0},
		} {
			if got := used(t, p, c.need); len(got) != c.want {
				t.Errorf("%+v: got %v, want %d proxies", c.need, got, c.want)
			}
		}
		_, _, err := p.Pick(rotation.Need{Host: host, Ban: mine})
		none, ok := errors.AsType[*rotation.NoProxyError](err)
		if !ok || time.Until(none.RetryAt) != 5*time.Minute {
			t.Errorf("pick by the rule: %v in %v, want that it may be tried in five minutes", err, time.Until(none.RetryAt))
		}
		for _, id := range []string{"p0", "p1", "p2"} {
			p.Reset(id) // of the breaker, as jobs.NoProxyRemedy says
		}
		if got := used(t, p, rotation.Need{Host: host, Ban: mine}); len(got) != 0 {
			t.Errorf("after a reset: got %v, want none", got)
		}
		time.Sleep(5 * time.Minute)
		if got := used(t, p, rotation.Need{Host: host, Ban: mine}); len(got) != 3 {
			t.Errorf("five minutes later: %v, want all", got)
		}
	})
}

// TestARefusalCountsTheProxiesThatCoolDown: of four proxies that match, three cool down for the site and one is busy.
func TestARefusalCountsTheProxiesThatCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 4, func(i int) string {
			if i == 0 {
				return "max_inflight=1"
			}
			return ""
		})
		const mine = 7
		for _, proxy := range p.Status()[1:] {
			ban(t, p, proxy.ID, mine)
		}
		need := rotation.Need{Host: host, Ban: mine}
		busy, _, err := p.Pick(need)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = p.Pick(need)
		none, ok := errors.AsType[*rotation.NoProxyError](err)
		if !ok || none.Proxies != 4 || none.Cooling != 3 {
			t.Errorf("got %+v, want that 3 of 4 proxies cool down", none)
		}
		if want := "of 4 proxies that match, 3 cool down for this site after a ban or a Retry-After, 1 is busy"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		busy.Release()
	})
}

func TestARefusalSaysHowManyProxiesHaveOpenBreakers(t *testing.T) {
	for _, c := range []struct {
		none rotation.NoProxyError
		want string
	}{
		{rotation.NoProxyError{Proxies: 1, Open: 1}, "the only proxy that matches has an open breaker"},
		{rotation.NoProxyError{Proxies: 1, Cooling: 1}, "the only proxy that matches cools down for this site after a ban or a Retry-After"},
		{rotation.NoProxyError{Proxies: 1}, "the only proxy that matches is busy"},
		{rotation.NoProxyError{Proxies: 3, Open: 3}, "all 3 proxies that match have open breakers"},
		{rotation.NoProxyError{Proxies: 6, Open: 1, Cooling: 2}, "of 6 proxies that match, 2 cool down for this site after a ban or a Retry-After, 1 has an open breaker, 3 are busy"},
	} {
		c.none.Reason = rotation.Unavailable
		if got := c.none.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	p := pool(t, rotation.RoundRobin, 2, nil)
	for _, proxy := range p.Status() {
		take(t, p, rotation.Need{ID: proxy.ID, Host: host}).Report(rotation.Verdict{Kind: rotation.ProxyFault, Trip: time.Minute})
	}
	_, _, err := p.Pick(rotation.Need{Host: host})
	if want := "all 2 proxies that match have open breakers"; err == nil || err.Error() != want {
		t.Errorf("a pool whose breakers are open: got %v, want %s", err, want)
	}
}

func TestAPairThatTheFleetsListCoolsDownIsUsedLast(t *testing.T) {
	for _, n := range []int{3, 60} { // with many, the pool keeps a set of the others
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, rotation.RoundRobin, n, nil)
			need := rotation.Need{Host: host, Ban: rotation.FleetBan}
			for _, proxy := range p.Status()[1:] {
				ban(t, p, proxy.ID, rotation.FleetBan)
			}
			if got := used(t, p, need); len(got) != 1 || !got["p0"] {
				t.Errorf("of %d all but p0 are banned: got %v", n, got)
			}
			again := need
			again.Exclude = []string{"p0"}
			if got := used(t, p, again); len(got) != 1 || !got["p0"] {
				t.Errorf("p0 failed the job, and the others are banned: got %v, want p0", got)
			}
			again.NoLastResort = true
			if got := used(t, p, again); len(got) != 0 {
				t.Errorf("a pick of a fresh proxy: got %v, want none", got)
			}
			ban(t, p, "p0", rotation.FleetBan)
			if got := used(t, p, need); len(got) != n {
				t.Errorf("all of %d are banned: %d are used, want all", n, len(got))
			}
			if got := used(t, p, rotation.Need{Host: host, ID: "p1", Ban: rotation.FleetBan}); !got["p1"] {
				t.Error("a job that names a banned proxy gets none")
			}
		})
	}
}

func TestAnAnswerEndsTheCooldownOfTheFleetsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, rotation.RoundRobin, 3, nil)
		const mine = 7
		ban(t, p, "p0", rotation.FleetBan)
		ban(t, p, "p0", mine)
		take(t, p, rotation.Need{ID: "p0", Host: host}).Report(rotation.Verdict{Kind: rotation.Relayed}) // such as a 404
		if got := used(t, p, rotation.Need{Host: host, Ban: rotation.FleetBan}); got["p0"] {
			t.Errorf("an answer of another kind ends the cooldown: %v", got)
		}
		take(t, p, rotation.Need{ID: "p0", Host: host}).Report(rotation.Verdict{Kind: rotation.Relayed, NotBanned: true})
		if got := used(t, p, rotation.Need{Host: host, Ban: rotation.FleetBan}); !got["p0"] {
			t.Errorf("a page through p0 does not end its cooldown: %v", got)
		}
		if got := used(t, p, rotation.Need{Host: host, Ban: mine}); got["p0"] {
			t.Errorf("it ends that of a job's own rule: %v", got)
		}
		ban(t, p, "p0", rotation.FleetBan) // the timer of the first one must not end it
		time.Sleep(5*time.Minute - 1)
		if got := used(t, p, rotation.Need{Host: host, Ban: rotation.FleetBan}); got["p0"] {
			t.Errorf("the second cooldown ended early: %v", got)
		}
	})
}

func TestAPairThatEveryJobUsesLastKeepsNobodyWaiting(t *testing.T) {
	const mine = 7
	for _, n := range []int{3, 60} { // with many, the pool keeps a set of the others
		for _, rule := range []uint64{0, mine, rotation.FleetBan} {
			synctest.Test(t, func(t *testing.T) {
				p := pool(t, rotation.RoundRobin, n, nil)
				need := rotation.Need{Host: host, Ban: rule}
				fresh := need
				fresh.NoLastResort = true
				for _, proxy := range p.Status()[1:] {
					ban(t, p, proxy.ID, rotation.UsedLast)
				}
				if got := used(t, p, need); len(got) != 1 || !got["p0"] {
					t.Errorf("rule %d, all of %d but p0 are used last: got %v", rule, n, got)
				}
				ban(t, p, "p0", rotation.UsedLast)
				if got := used(t, p, need); len(got) != n {
					t.Errorf("rule %d, all of %d are used last: %d are used, want all", rule, n, len(got))
				}
				if got := used(t, p, fresh); len(got) != 0 {
					t.Errorf("rule %d, a pick of a fresh proxy: got %v, want none", rule, got)
				}
				ban(t, p, "p1", mine)
				if got := used(t, p, need); got["p1"] != (rule != mine) {
					t.Errorf("rule %d, p1 is banned by rule %d: used is %v", rule, mine, got["p1"])
				}
				take(t, p, rotation.Need{ID: "p2", Host: host}).Report(rotation.Verdict{Kind: rotation.Relayed, NotBanned: true})
				if got := used(t, p, need); len(got) != 1 || !got["p2"] {
					t.Errorf("rule %d, a page came through p2: got %v, want p2 only", rule, got)
				}
			})
		}
	}
}
