package rotation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// trial is a pool in which two attempts in three fail, at sites that nobody knows: a row of failures says little there.
type trial struct {
	*testing.T
	*rotation.Pool
	sites int
}

func newTrial(t *testing.T, threshold int) *trial {
	t.Helper()
	tr := &trial{t, rotation.New(rotation.Config{Breaker: breaker.Config{FailureThreshold: threshold}}), 0}
	tr.Replace(proxies(t, 10, nil))
	for i := range 120 {
		tr.at(fmt.Sprint("p", 1+i%9), tr.site(), i%3 == 0 || i > 110)
		time.Sleep(time.Second)
	}
	return tr
}

// site is one that nobody has heard of.
func (tr *trial) site() string {
	tr.sites++
	return fmt.Sprintf("site%d.test:443", tr.sites)
}

func (tr *trial) at(proxy, site string, answer bool) []rotation.Event {
	tr.Helper()
	return end(takeFrom(tr.T, tr.Pool, proxy, site), answer)
}

// fails has p0 fail at so many sites.
func (tr *trial) fails(n int) (sites []string) {
	for range n {
		sites = append(sites, tr.site())
		tr.at("p0", sites[len(sites)-1], false)
	}
	return sites
}

// opens has a proxy deliver from the sites, and reports whether that opens p0.
func (tr *trial) opens(through string, sites []string) (opened bool) {
	tr.Helper()
	for _, site := range sites {
		for _, e := range tr.at(through, site, true) {
			opened = opened || e.ProxyID == "p0" && e.To == breaker.Open
		}
	}
	return opened
}

// Where most sites are dead a row of failures says little of a proxy. That another one delivers what it could not says more.
func TestWhatAnotherProxyDeliversSpeaksAgainstTheOneThatCouldNot(t *testing.T) {
	for name, c := range map[string]struct {
		want  bool
		trial func(tr *trial) bool
	}{
		"a moment later": {true, func(tr *trial) bool {
			sites := tr.fails(12)
			time.Sleep(10 * time.Second)
			return tr.opens("p1", sites)
		}},
		"too late": {false, func(tr *trial) bool {
			sites := tr.fails(12)
			time.Sleep(2 * time.Minute)
			return tr.opens("p1", sites)
		}},
		"of one that works for the most part": {false, func(tr *trial) bool {
			var sites []string
			for range 12 {
				sites = append(sites, tr.fails(1)...)
				time.Sleep(time.Second)
				tr.at("p0", tr.site(), true)
				time.Sleep(time.Second)
			}
			return tr.opens("p1", sites)
		}},
		"of one that was open since": {false, func(tr *trial) bool {
			sites := tr.fails(12)
			tr.ForceOpen("p0", time.Second, "test")
			time.Sleep(2 * time.Second)
			tr.at("p0", tr.site(), true)
			return tr.opens("p1", sites)
		}},
		"itself": {false, func(tr *trial) bool { return tr.opens("p0", tr.fails(12)) }},
		"after an outage": {false, func(tr *trial) bool {
			sites := tr.fails(12)
			for i := range 40 {
				if _, failing := tr.Outage(); failing {
					break
				}
				takeFrom(tr.T, tr.Pool, fmt.Sprint("p", 1+i%9), tr.site()).Report(rotation.Verdict{Kind: rotation.ProxyFault})
			}
			if _, failing := tr.Outage(); !failing {
				tr.Fatal("nothing delivers, and the pool is not said to fail")
			}
			time.Sleep(2 * time.Second)
			end(take(tr.T, tr.Pool, rotation.Need{ID: "p1"}), true)
			return tr.opens("p2", sites)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Two count, so that no other rule hides the one in question.
				if got := c.trial(newTrial(t, 2)); got != c.want {
					t.Errorf("it opened: %v", got)
				}
			})
		})
	}
}

// That jobs fail at dead sites through one proxy after the other makes the row of failures longer, and says nothing new.
func TestAttemptsOfTheSameJobsAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(t, 5)
		for i := range 16 {
			site := tr.site()
			tr.at(fmt.Sprint("p", 1+i%9), site, false)
			tr.at(fmt.Sprint("p", 1+(i+1)%9), site, false)
		}
		if _, failing := tr.Outage(); failing {
			t.Error("the pool is said to fail for 16 dead sites in a row, where two attempts in three fail")
		}
	})
}

// A proxy that failed where the target is to blame is as good for another job as before.
func TestATargetToBlameLeavesNoMarkOnItsProxies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trial{t, pool(t, rotation.RoundRobin, 10, nil), 0}
		for i := range 3 {
			tr.at(fmt.Sprint("p", 1+i), "dead.test:443", false)
		}
		tr.at("p0", "good.test:443", true)
		tr.at("p0", "dead.test:443", false)
		for range 20 {
			l := take(t, tr.Pool, rotation.Need{Exclude: []string{"p9"}})
			if l.Release(); l.ID() != "p0" {
				t.Fatalf("a job that failed was given %s, want p0, which alone has delivered", l.ID())
			}
		}
	})
}
