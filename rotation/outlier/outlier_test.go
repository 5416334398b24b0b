package outlier_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/rotation/outlier"
)

// history feeds a judge with attempts of one second each, one after the other.
type history struct {
	outlier.Judge
	now    time.Duration
	number uint64
}

// attempt is the next attempt, through a proxy at a site.
func (h *history) attempt(p outlier.Proxy, s outlier.Site) outlier.Attempt {
	h.number++
	h.now += time.Second
	return outlier.Attempt{
		Proxy: p, Site: s, Began: h.now - time.Second, Ended: h.now, Number: h.number, Closed: 5,
	}
}

// pool adds n proxies, each of which relays one response of the shop.
func (h *history) pool(n int) (proxies []outlier.Proxy) {
	for range n {
		p := h.Add()
		h.Relayed(h.attempt(p, shop))
		proxies = append(proxies, p)
	}
	return proxies
}

const shop outlier.Site = 1

func TestAnIndexThatIsUsedAgainKnowsNothingOfTheProxyBefore(t *testing.T) {
	var h history
	old := h.pool(2)[0]
	h.Remove(old)
	fresh := h.Add()
	if fresh != old {
		t.Fatalf("Add() = %d, want the index %d, which is free", fresh, old)
	}
	if h.Healthy(fresh, h.now) || h.Reliable(fresh, h.now) {
		t.Error("the new proxy is healthy before its first attempt, want not")
	}
}

// silentAtSix is a pool of three proxies, the first of which is silent at six sites that have answered none before.
func silentAtSix(h *history) (proxies []outlier.Proxy) {
	proxies = h.pool(3)
	for site := range outlier.Site(6) {
		h.Unclear(h.attempt(proxies[0], 10+site))
	}
	return proxies
}

// relayTheSix has the two other proxies relay the six sites by turns. It returns the earlier failures that count because of it.
func relayTheSix(h *history, proxies []outlier.Proxy) (late []outlier.LateFailure) {
	for site := range outlier.Site(6) {
		late = append(late, h.Relayed(h.attempt(proxies[1+site%2], 10+site)).Late...)
	}
	return late
}

// A site that answers another proxy minutes later may have been down before.
func TestAnAnswerSpeaksAgainstFailuresOfTheMinuteBeforeItOnly(t *testing.T) {
	for pause, want := range map[time.Duration]bool{10 * time.Second: true, 2 * time.Minute: false} {
		var h history
		proxies := silentAtSix(&h)
		h.now += pause
		counts := len(relayTheSix(&h, proxies)) > 0
		counts = h.Unclear(h.attempt(proxies[0], shop)).Counts || counts
		if counts != want {
			t.Errorf("sites answer others %s after they failed through a proxy; its failures count: %v, want %v", pause, counts, want)
		}
	}
}

func TestFailuresOfARemovedProxyDoNotCountAgainstTheNextOneOfItsIndex(t *testing.T) {
	for _, removed := range []bool{false, true} {
		var h history
		proxies := silentAtSix(&h)
		if removed {
			h.Remove(proxies[0])
			if p := h.Add(); p != proxies[0] {
				t.Fatalf("Add() = %d, want the index %d, which is free", p, proxies[0])
			}
		}
		if late := relayTheSix(&h, proxies); len(late) > 0 == removed {
			t.Errorf("six silences of a proxy, whose index has passed to another one: %v; %v count", removed, late)
		}
	}
}

// A streak is of sites that failed through this proxy first: a second failure at a site says that the site is dead. A publisher
// may aim a job at one proxy, and without another proxy nobody knows how unknown sites fare.
func TestOnlyFirstFailuresAtUnknownSitesMakeAStreak(t *testing.T) {
	for name, c := range map[string]struct {
		sites  outlier.Site // at which the proxy fails in turn
		before bool         // another proxy fails at each site before
		chosen bool
		closed int
		want   bool
	}{
		"at ever new sites":                    {sites: 12, closed: 4, want: true},
		"at two sites again and again":         {sites: 2, closed: 4},
		"at sites that failed through another": {sites: 12, closed: 4, before: true},
		"of jobs that narrow down the choice":  {sites: 12, closed: 4, chosen: true},
		"without another closed breaker":       {sites: 12, closed: 1},
	} {
		var h history
		proxies := h.pool(4)
		for site := range outlier.Site(60) {
			h.Relayed(h.attempt(proxies[1+site%3], 100+site)) // unknown sites mostly answer
		}
		if c.before {
			for site := range c.sites {
				h.Unclear(h.attempt(proxies[1], 10+site))
			}
		}
		counts := false
		for i := range outlier.Site(12) {
			a := h.attempt(proxies[0], 10+i%c.sites)
			a.Chosen, a.Closed = c.chosen, c.closed
			counts = h.Unclear(a).Counts || counts
		}
		if counts != c.want {
			t.Errorf("12 failures in a row %s; some count: %v, want %v", name, counts, c.want)
		}
	}
}

func TestARemovedProxyIsNoPartOfAnOutage(t *testing.T) {
	var h history
	proxies := h.pool(5)
	for i, p := range proxies[:4] {
		for range 3 {
			h.ProxyFailed(h.attempt(p, outlier.Site(10+i)))
		}
	}
	h.Remove(proxies[0])
	ruling := h.ProxyFailed(h.attempt(proxies[4], 20))
	if ruling.Outage.Began {
		t.Errorf("an outage began with %d proxies, want none with four that are left", ruling.Outage.Proxies)
	}
	if p := h.Add(); p != proxies[0] {
		t.Fatalf("Add() = %d, want %d", p, proxies[0])
	}
	h.Relayed(h.attempt(proxies[0], shop))
	for i, p := range proxies {
		ruling = h.ProxyFailed(h.attempt(p, outlier.Site(30+i)))
	}
	for range 60 {
		if since, ongoing := h.Outage(h.now); ongoing {
			if since == 0 {
				t.Error("the outage has no beginning")
			}
			return
		}
		ruling = h.ProxyFailed(h.attempt(proxies[0], shop))
	}
	t.Errorf("no outage although all five proxies fail; the last ruling is %+v", ruling)
}

func TestAResponseEndsAnOutage(t *testing.T) {
	var h history
	proxies := h.pool(5)
	for i := range 30 {
		h.ProxyFailed(h.attempt(proxies[i%5], outlier.Site(10+i)))
	}
	if _, ongoing := h.Outage(h.now); !ongoing {
		t.Fatal("no outage although all five proxies fail")
	}
	ruling := h.Relayed(h.attempt(proxies[0], shop))
	if _, ongoing := h.Outage(h.now); ongoing || !ruling.Outage.Ended {
		t.Errorf("after a response the outage is ongoing: %v, and the ruling is %+v; want that it ended", ongoing, ruling)
	}
	if !h.MayStart(h.now) || !h.ProxyFailed(h.attempt(proxies[1], 10)).Counts {
		t.Error("after the outage an attempt may not start, or its failure does not count")
	}
}

func TestOneWitnessConvictsNobody(t *testing.T) {
	var h history
	claims, honest := h.Add(), h.Add()
	h.Add()
	for site := range outlier.Site(20) {
		h.Relayed(h.attempt(claims, site+1))
		a := h.attempt(honest, site+1)
		a.Answered = site%2 == 0
		if ruling := h.Unclear(a); ruling.Counts || len(ruling.Late) > 0 {
			t.Fatalf("failure %d where one other proxy relays counts: %+v", site, ruling)
		}
	}
}

func TestTwoWitnessesHaveToBeOfTheLastMinute(t *testing.T) {
	for _, witnesses := range []int{1, 2} {
		var h history
		proxies := h.pool(4)
		for site := range outlier.Site(8) {
			for _, p := range proxies[:2] {
				h.Relayed(h.attempt(p, 10+site))
			}
		}
		h.now += 2 * time.Minute
		counts := 0
		for site := range outlier.Site(8) {
			for _, p := range proxies[:witnesses] {
				h.Relayed(h.attempt(p, 10+site))
			}
			a := h.attempt(proxies[3], 10+site)
			a.Answered = true
			if ruling := h.Unclear(a); ruling.Counts {
				counts += 1 + len(ruling.Late)
			}
		}
		if (counts > 0) != (witnesses == 2) {
			t.Errorf("%d failures of eight count where %d proxies relayed the site in the last minute, want some only with two", counts, witnesses)
		}
	}
}

// A proxy that goes silent is found by the sites that answer others, long before its record looks bad.
func TestFiveSitesThatAnswerOthersConvictASilentProxy(t *testing.T) {
	var h history
	proxies := h.pool(3)
	for site := range outlier.Site(12) {
		for _, p := range proxies {
			h.Relayed(h.attempt(p, 10+site))
		}
	}
	for failure := range outlier.Site(5) {
		h.Relayed(h.attempt(proxies[int(failure)%2], 10+failure))
		ruling := h.Unclear(h.attempt(proxies[2], 10+failure))
		if want := failure == 4; ruling.Counts != want || want && len(ruling.Late) != 0 {
			t.Errorf("silence %d: %+v, want that it counts: %v", failure+1, ruling, want)
		}
	}
}

// A proxy that claims to relay dead sites makes no case against another one by repeating it.
func TestClaimsOfOneProxyMakeNoRecord(t *testing.T) {
	var h history
	proxies := h.pool(4)
	claims, honest := proxies[0], proxies[1]
	for site := range outlier.Site(6) {
		for _, p := range proxies {
			h.Relayed(h.attempt(p, 10+site))
		}
	}
	for site := range outlier.Site(12) {
		h.Relayed(h.attempt(claims, 100+site))
		h.Unclear(h.attempt(honest, 100+site))
	}
	for _, p := range proxies[2:] {
		h.Relayed(h.attempt(p, 10))
	}
	if ruling := h.Unclear(h.attempt(honest, 10)); ruling.Counts {
		t.Error("the first failure at a good site counts, want not")
	}
}

// In any history, a failure that counts is one of the proxy that failed, and none counts during an outage.
func TestNoFailureCountsDuringAnOutage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h history
		proxies := h.pool(rapid.IntRange(1, 12).Draw(t, "proxies"))
		for range rapid.IntRange(1, 200).Draw(t, "attempts") {
			a := h.attempt(rapid.SampledFrom(proxies).Draw(t, "proxy"), outlier.Site(rapid.IntRange(1, 30).Draw(t, "site")))
			_, before := h.Outage(h.now)
			var ruling outlier.Ruling
			switch rapid.IntRange(0, 9).Draw(t, "end") {
			case 0:
				ruling = h.Relayed(a)
			case 1, 2, 3:
				ruling = h.Unclear(a)
			default:
				ruling = h.ProxyFailed(a)
			}
			_, after := h.Outage(h.now)
			if before && after && (ruling.Counts || len(ruling.Late) > 0) {
				t.Fatalf("attempt %d counts during an outage: %+v", a.Number, ruling)
			}
			if ruling.Outage.Began && before || ruling.Outage.Ended && !before {
				t.Fatalf("attempt %d: %+v, but the outage was ongoing before: %v", a.Number, ruling.Outage, before)
			}
		}
	})
}

func ExampleJudge() {
	var judge outlier.Judge
	proxies := []outlier.Proxy{judge.Add(), judge.Add(), judge.Add()}
	number, now := uint64(0), time.Duration(0)
	attempt := func(p outlier.Proxy, s outlier.Site) outlier.Attempt {
		number, now = number+1, now+time.Second
		return outlier.Attempt{Proxy: p, Site: s, Began: now - time.Second, Ended: now, Number: number, Closed: 3}
	}
	for site := range outlier.Site(6) {
		judge.Relayed(attempt(proxies[0], site+1))
		judge.Relayed(attempt(proxies[1], site+1))
		fmt.Println(judge.Unclear(attempt(proxies[2], site+1)).Counts)
	}
	// Output:
	// false
	// false
	// false
	// false
	// true
	// true
}
