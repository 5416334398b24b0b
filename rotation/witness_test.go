package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/gofer-mq/gofer/rotation"
)

// holds runs worlds of n proxies with a lie, and wants every breaker closed and no outage, whether honest proxies answer 502 for
// dead sites or say nothing.
func holds(t *testing.T, what lie, n int) {
	t.Helper()
	for _, answers := range []bool{true, false} {
		for _, share := range []float64{0.3, 0.9} {
			t.Run(fmt.Sprintf("%d proxies, answers %v, %v of the jobs", n, answers, share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &court{
						Pool: drawPool(rotation.RoundRobin, n, nil), lie: what, n: n, sites: 5, answers: answers, share: share,
						luck: rand.New(rand.NewPCG(uint64(n), 2)), opened: map[string]string{},
					}
					c.run()
					if len(c.opened) > 0 || c.outage {
						t.Errorf("breakers of healthy proxies opened: %v, outage: %v; want neither", c.opened, c.outage)
					}
				})
			})
		}
	}
}

func TestAProxyThatClaimsToReachDeadSitesOpensNoOther(t *testing.T) {
	for _, n := range sample(10, 2, 30) {
		holds(t, proxyClaims, n)
	}
}

func TestTwoSitesThatAccuseOpenNoProxy(t *testing.T) {
	for _, n := range sample(10, 2, 30) {
		holds(t, sitesAccuse, n)
		holds(t, sitesRefuse, n)
	}
}

func TestAPoolOfOneProxyIsBlamedForNothingThatMayBeTheSites(t *testing.T) {
	for _, what := range []lie{nobodyLies, sitesAccuse, sitesRefuse, publisherNames, publisherAsksPort, publisherHurries} {
		holds(t, what, 1)
	}
}

func TestAPublisherWhoCallsEveryAnswerABanOpensNoProxy(t *testing.T) { holds(t, publisherBans, 10) }

func TestAPublisherWhoNamesAProxyCannotOpenIt(t *testing.T) {
	holds(t, publisherAims, 10)
	holds(t, publisherSticks, 10)
	holds(t, publisherAsksPath, 10)
}

func TestJobsForDeadSitesMakeNoOutage(t *testing.T) {
	holds(t, publisherNames, 20)
	holds(t, publisherAsksPort, 20)
}
