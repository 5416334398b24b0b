package exits_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation/exits"
)

func session(name string) exits.Session {
	return exits.Session{Gateway: "gate", Name: name, TTL: 10 * time.Minute}
}

func TestAFreshWordIsTwelveLettersAndDigitsWithoutBias(t *testing.T) {
	w := exits.New(exits.Config{Rand: rand.New(rand.NewPCG(1, 2))})
	seen, counts := map[string]bool{}, map[rune]int{}
	for range 30_000 {
		word := w.Fresh().Word
		if len(word) != 12 || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || seen[word] {
			t.Fatalf("fresh word = %q, want twelve lower-case letters and digits, and another one each time", word)
		}
		seen[word] = true
		for _, c := range word {
			counts[c]++
		}
	}
	for c, n := range counts {
		if n < 9_600 || n > 10_400 { // four standard deviations around 10,000
			t.Errorf("%c came %d times of 360,000, want about 10,000", c, n)
		}
	}
	if w.Sessions() != 0 {
		t.Errorf("%d sessions are remembered of fresh words, want none", w.Sessions())
	}
}

func TestTheSameSeedDrawsTheSameWords(t *testing.T) {
	a, b := exits.New(exits.Config{Rand: rand.New(rand.NewPCG(7, 7))}), exits.New(exits.Config{Rand: rand.New(rand.NewPCG(7, 7))})
	if x, y := a.Fresh(), b.Fresh(); x != y {
		t.Errorf("two sources of one seed draw %v and %v, want the same", x, y)
	}
	if x, y := exits.New(exits.Config{}).Fresh(), exits.New(exits.Config{}).Fresh(); x == y {
		t.Errorf("two sources without a seed both draw %v", x)
	}
}

func TestEveryWorkerDerivesTheSameWordOfASession(t *testing.T) {
	a, b := exits.New(exits.Config{Prefix: "gofer"}), exits.New(exits.Config{Prefix: "gofer"})
	words := map[string]string{}
	for i := range 1000 {
		s := session(fmt.Sprint("cart-", i))
		x, y := a.Sticky(s, 1, nil, 0), b.Sticky(s, 2, nil, time.Hour)
		if x != y || len(x.Word) != 12 || words[x.Word] != "" {
			t.Fatalf("%s: %v and %v, want one word of twelve characters that no other session has", s.Name, x, y)
		}
		words[x.Word] = s.Name
	}
	other := exits.New(exits.Config{Prefix: "other"})
	for _, x := range []exits.Exit{other.Sticky(session("cart-1"), 1, nil, 0), a.Sticky(exits.Session{Gateway: "gate-2", Name: "cart-1"}, 1, nil, 0)} {
		if words[x.Word] != "" {
			t.Errorf("another fleet or gateway derives %s, which %s has here", x.Word, words[x.Word])
		}
	}
	if a.Sessions() != 0 {
		t.Errorf("%d sessions are remembered whose exit never failed, want none", a.Sessions())
	}
}

func TestTheGenerationAdvancesWhenTheExitFails(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	first := w.Sticky(s, 1, nil, 0)
	w.Failed(s, first, 1, 0)
	second := w.Sticky(s, 1, nil, 0)
	w.Failed(s, first, 2, 0) // a late failure of the word before
	if again := w.Sticky(s, 1, nil, 0); second.Generation != first.Generation+1 || again != second || second.Word == first.Word {
		t.Fatalf("after %v failed: %v, and then %v; want the next generation, once", first, second, again)
	}
	w.Relayed(s, second, 0)
	if now := w.Sticky(s, 9, nil, time.Minute); now != second {
		t.Errorf("after %v worked: %v, want it kept", second, now)
	}
	w.Failed(s, second, 2, 0)
	if third := w.Sticky(s, 1, nil, 0); third.Generation != 2 {
		t.Errorf("after %v failed, too: %v, want generation 2", second, third)
	}
}

func TestAWordThatFailsLikeTheOneBeforeItIsDropped(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	older := w.Sticky(s, 1, nil, 0)
	for round := range 3 {
		w.Failed(s, older, 7, 0)
		newer := w.Sticky(s, 1, nil, 0)
		if newer.Generation != uint32(round+1) {
			t.Fatalf("round %d: tried %v, want a word that has not been tried", round, newer)
		}
		w.Failed(s, newer, 7, 0)
		if kept := w.Sticky(s, 1, nil, 0); kept != older {
			t.Fatalf("round %d: %v failed like %v, now %v; want the older one kept", round, newer, older, kept)
		}
	}
	w.Failed(s, older, 7, 0)
	newer := w.Sticky(s, 1, nil, 0)
	w.Failed(s, newer, 8, 0)
	next := w.Sticky(s, 1, nil, 0)
	if next.Generation != newer.Generation+1 {
		t.Errorf("%v failed otherwise than %v, now %v; want the next generation", newer, older, next)
	}
	w.Failed(s, next, 7, 0)
	if kept := w.Sticky(s, 1, nil, 0); kept != older {
		t.Errorf("%v failed like %v after another word failed otherwise, now %v; want the older one kept", next, older, kept)
	}
}

func TestAnExitThatWorksWhileAnotherIsTriedIsKept(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	older := w.Sticky(s, 1, nil, 0)
	w.Failed(s, older, 7, 0)
	w.Relayed(s, older, 0)
	if now := w.Sticky(s, 1, nil, 0); now != older {
		t.Errorf("%v works, but the session has %v", older, now)
	}
}

func TestARetryGoesOnToAWordThatHasNotFailedTheJob(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	var avoid []string
	for attempt := range 6 {
		x := w.Sticky(s, 1, avoid, 0)
		if len(avoid) > 0 && strings.Contains(strings.Join(avoid, " "), x.Word) {
			t.Fatalf("attempt %d: %v, which failed the job", attempt+1, x)
		}
		w.Failed(s, x, 7, 0)
		avoid = append(avoid, x.Word)
	}
	last := w.Sticky(s, 1, avoid, 0)
	w.Relayed(s, last, 0)
	if now := w.Sticky(s, 1, nil, 0); now != last {
		t.Errorf("%v worked at last, but the session has %v", last, now)
	}
}

func TestAWordCoolsDownForOneHostOnly(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	x := w.Sticky(s, 1, nil, 0)
	w.Cool(s, x, 1, time.Minute, 0)
	aside := w.Sticky(s, 1, nil, 0)
	if aside.Word == x.Word || !aside.Aside {
		t.Errorf("%v cools down for the host, got %v, want another word", x, aside)
	}
	w.Relayed(s, aside, 0)
	w.Failed(s, aside, 3, 0)
	if other := w.Sticky(s, 2, nil, 0); other != x {
		t.Errorf("at another host: %v, want %v", other, x)
	}
	if after := w.Sticky(s, 1, nil, time.Minute); after != x {
		t.Errorf("after the cooldown: %v, want %v", after, x)
	}
}

func TestAnIdleSessionIsForgotten(t *testing.T) {
	w, s := exits.New(exits.Config{}), session("s")
	first := w.Sticky(s, 1, nil, 0)
	w.Failed(s, first, 1, 0)
	for now := time.Duration(0); now < time.Hour; now += s.TTL {
		if x := w.Sticky(s, 1, nil, now); x.Generation != 1 {
			t.Fatalf("after %s in use: %v, want generation 1", now, x)
		}
	}
	if x := w.Sticky(s, 1, nil, 2*time.Hour); x != first || w.Sessions() != 0 {
		t.Errorf("after an idle hour: %v and %d sessions, want %v and none", x, w.Sessions(), first)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	w := exits.New(exits.Config{})
	for i := range 2 * exits.MaxSessions {
		w.Failed(session(fmt.Sprint(i)), exits.Exit{}, 1, 0)
		if i%1000 == 0 {
			w.Failed(session("busy"), exits.Exit{}, 1, 0)
		}
	}
	if n := w.Sessions(); n > exits.MaxSessions {
		t.Errorf("%d sessions are remembered, want at most %d", n, exits.MaxSessions)
	}
	if x := w.Sticky(session("busy"), 1, nil, 0); x.Generation == 0 {
		t.Error("the session in use was forgotten")
	}
}

func TestCredentialsAreWrongWhereTheRegionCannotBe(t *testing.T) {
	var r exits.Regions
	for _, region := range []string{"xx", "xx", "yy"} {
		if r.Refused(region, false) {
			t.Errorf("%s was refused, and the credentials are wrong; want two regions to be refused", region)
		}
	}
	if !r.Refused("zz", false) {
		t.Error("three regions were refused, and none worked; want the credentials to be wrong")
	}
	if r.Refused("zz", true) {
		t.Error("three regions were refused at a gateway that works; want the credentials to be right")
	}
	r.Worked("us")
	if r.Refused("xx", false) || r.Refused("yy", false) {
		t.Error("two regions were refused after one worked, want the credentials to be right")
	}
	if !r.Refused("us", true) || !r.Refused("", true) {
		t.Error("the region that worked, or that of the owner, was refused; want the credentials to be wrong")
	}
}

func TestAPublisherCannotMakeAGatewayForgetWhatWorks(t *testing.T) {
	var r exits.Regions
	r.Worked("us")
	for i := range 10_000 {
		if name := fmt.Sprint("x", i); r.Refused(name, true) || r.Failed(name, "word", 1) {
			t.Fatalf("region %s counts against the gateway", name)
		}
	}
	if !r.Refused("us", true) {
		t.Error("that us worked was forgotten")
	}
	if got := r.LastWorked(); got != "us" {
		t.Errorf("the region that worked last = %q, want us", got)
	}
}

func TestTenWordsInARowAtThreeSitesSpeakAgainstAGateway(t *testing.T) {
	word := func(i int) string { return fmt.Sprint("word", i) }
	for name, c := range map[string]struct {
		words, sites int
		fails        func(r *exits.Regions, i int) bool
		want         bool
	}{
		"ten words at three sites":   {10, 3, func(r *exits.Regions, i int) bool { return r.Failed("us", word(i), uint64(1+i%3)) }, true},
		"nine words":                 {9, 3, func(r *exits.Regions, i int) bool { return r.Failed("us", word(i), uint64(1+i%3)) }, false},
		"two sites":                  {20, 2, func(r *exits.Regions, i int) bool { return r.Failed("us", word(i), uint64(1+i%2)) }, false},
		"sites that never answered":  {20, 0, func(r *exits.Regions, i int) bool { return r.Failed("us", word(i), 0) }, false},
		"nine words again and again": {30, 3, func(r *exits.Regions, i int) bool { return r.Failed("us", word(i%9), uint64(1+i%3)) }, false},
		"no words":                   {10, 3, func(r *exits.Regions, i int) bool { return r.Failed("us", "", uint64(1+i%3)) }, true},
		"two regions":                {18, 3, func(r *exits.Regions, i int) bool { return r.Failed(fmt.Sprint("r", i%2), word(i), uint64(1+i%3)) }, false},
		"one that works between": {18, 3, func(r *exits.Regions, i int) bool {
			if i == 9 {
				r.Worked("us")
			}
			return r.Failed("us", word(i), uint64(1+i%3))
		}, false},
	} {
		var r exits.Regions
		counts := false
		for i := range c.words {
			counts = c.fails(&r, i)
		}
		if counts != c.want {
			t.Errorf("%s: counts %v, want %v", name, counts, c.want)
		}
	}
}
