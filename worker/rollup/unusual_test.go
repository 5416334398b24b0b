package rollup_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/worker/rollup"
)

// bring lets a proxy bring answers, of which so many in 100 are 404.
func bring(a *rollup.Answers, site, proxy string, n, in100 int) {
	for i := range n {
		status := 200
		if i%100 < in100 {
			status = 404
		}
		a.Add(site, proxy, status)
	}
}

func TestAProxyWhoseShareIsFarFromTheOthersIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		shares []int // of 4xx in 100, by proxy
		n      int
		want   []string
	}{
		"one answers 404 where the others answer 200":  {[]int{100, 0, 0, 0, 0, 0}, 100, []string{"p0"}},
		"one answers 200 where the others are refused": {[]int{0, 95, 95, 95, 95, 95}, 100, []string{"p0"}},
		"two of eight": {[]int{100, 100, 0, 0, 0, 0, 0, 0}, 100, []string{"p0", "p1"}},
		"three of nine do not make the others unusual": {[]int{100, 100, 100, 0, 0, 0, 0, 0, 0}, 100, []string{"p0", "p1", "p2"}},
		"half of them: nobody knows what is usual":     {[]int{100, 100, 100, 0, 0, 0}, 100, nil},
		"of two nobody knows which one is odd":         {[]int{100, 0}, 100, nil},
		"a difference of 20 points is none":            {[]int{40, 20, 20, 20, 20, 20}, 100, nil},
		"29 answers are too few":                       {[]int{100, 0, 0, 0, 0, 0}, 29, nil},
		"all alike":                                    {[]int{50, 50, 50, 50, 50, 50}, 100, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := rollup.NewAnswers()
			for i, in100 := range c.shares {
				bring(a, "shop.test", fmt.Sprint("p", i), c.n, in100)
			}
			if got := slices.Sorted(maps.Keys(a.Unusual())); !slices.Equal(got, c.want) {
				t.Errorf("unusual are %v, want %v", got, c.want)
			}
		})
	}
}

func TestAnUnusualShareNamesTheSiteAndBothShares(t *testing.T) {
	a := rollup.NewAnswers()
	for i, in100 := range []int{90, 10, 10, 10, 10} {
		bring(a, "shop.test", fmt.Sprint("p", i), 100, in100)
		bring(a, "other.test", fmt.Sprint("p", i), 100, 0)
	}
	want := rollup.Unusual{Site: "shop.test", Share: 0.9, Others: 0.1, Answers: 100}
	if got := a.Unusual()["p0"]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestChanceMakesNoShareUnusual draws the answers of 200 equal proxies, again and again.
func TestChanceMakesNoShareUnusual(t *testing.T) {
	for seed := range uint64(20) {
		luck := rand.New(rand.NewPCG(seed, 0))
		a := rollup.NewAnswers()
		for range 200 * 60 {
			status := 200
			if luck.IntN(3) == 0 {
				status = 403
			}
			a.Add("shop.test", fmt.Sprint("p", luck.IntN(200)), status)
		}
		if got := a.Unusual(); len(got) > 1 {
			t.Errorf("seed %d: %d of 200 equal proxies are unusual", seed, len(got))
		}
	}
}

func TestAnswersAreForgottenAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := rollup.NewAnswers()
		for i, in100 := range []int{100, 0, 0, 0, 0} {
			bring(a, "shop.test", fmt.Sprint("p", i), 100, in100)
		}
		time.Sleep(29 * time.Minute)
		if len(a.Unusual()) != 1 {
			t.Error("after 29 minutes the share is not unusual any more")
		}
		time.Sleep(32 * time.Minute)
		if got := a.Unusual(); len(got) != 0 {
			t.Errorf("after an hour %v is unusual", got)
		}
	})
}

func TestABusySiteKeepsItsPlaceAmongManyThatAreNot(t *testing.T) {
	a := rollup.NewAnswers()
	for i := range 20_000 {
		a.Add(fmt.Sprint("s", i, ".test"), fmt.Sprint("p", i%7), 200)
		if i%5 == 0 {
			status := 200
			if proxy := i / 5 % 7; proxy == 3 {
				status = 403
			}
			a.Add("busy.test", fmt.Sprint("p", i/5%7), status)
		}
	}
	if got := a.Unusual(); len(got) != 1 || got["p3"].Site != "busy.test" {
		t.Errorf("unusual are %v, want p3 at the busy site", got)
	}
}
