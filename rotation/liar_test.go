package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

// lie is who lies in a world, and how.
type lie uint8

const (
	nobodyLies        lie = iota
	proxyClaims           // a proxy answers for every site, dead ones too
	sitesAccuse           // two sites answer most proxies and fail through the others
	sitesRefuse           // two sites are refused by the others
	publisherNames        // jobs for ever new dead sites
	publisherAims         // the same, at one proxy by its id
	publisherSticks       // the same, at one proxy by a session
	publisherAsksPath     // jobs for a path that hangs at a good site, at one proxy by a session
	publisherAsksPort     // jobs for ports that every proxy refuses
	publisherBans         // jobs that call every answer a ban
	publisherHurries      // jobs that allow no time
	lies              = iota
)

// court is a world with one liar: healthy proxies, of which some may be dead, good sites, and sites that are dead.
type court struct {
	*rotation.Pool
	lie     lie
	n       int  // proxies, p0 is the liar if a proxy is
	dead    int  // of the proxies, the last ones
	sites   int  // good ones
	answers bool // honest proxies answer 502 for a dead site; else they say nothing
	share   float64
	luck    *rand.Rand
	serial  int

	opened map[string]string // proxies, and why
	outage bool
}

// newCourt draws a world.
func newCourt(seed uint64) *court {
	luck := rand.New(rand.NewPCG(seed, 1))
	c := &court{
		lie: lie(seed % lies), n: 2 + luck.IntN(49), sites: 5 + luck.IntN(16), answers: luck.IntN(2) == 0, share: []float64{0.3, 0.6, 0.9}[luck.IntN(3)],
		luck: luck, opened: map[string]string{},
	}
	if c.n > 5 {
		c.dead = luck.IntN(c.n / 5)
	}
	c.Pool = drawPool([]rotation.Strategy{rotation.RoundRobin, rotation.Weighted}[luck.IntN(2)], c.n, nil)
	return c
}

// request is what a publisher asks for.
type request struct {
	need    rotation.Need
	dead    bool // no proxy gets an answer
	refused bool // every proxy refuses it
	ban     bool
	hurried bool
}

func (c *court) good() string { return fmt.Sprintf("site%d.test:80", c.luck.IntN(c.sites)) }

func (c *court) unknown() string {
	c.serial++
	return fmt.Sprintf("bad%d.test:80", c.serial)
}

// next is a job of the liar or of somebody else, some of which are for dead sites.
func (c *court) next() (r request) {
	if c.luck.Float64() >= c.share {
		r.need.Host = c.good()
		if r.dead = c.luck.IntN(10) == 0; r.dead {
			r.need.Host = fmt.Sprintf("dead%d.test:80", c.luck.IntN(40))
		}
		return r
	}
	r.need.Host, r.dead = c.unknown(), true
	switch c.lie {
	case proxyClaims:
		r.need.Host = fmt.Sprintf("dead%d.test:80", c.luck.IntN(40))
	case sitesAccuse, sitesRefuse:
		r.need.Host, r.dead = fmt.Sprintf("evil%d.test:80", c.luck.IntN(2)), false
	case publisherAims:
		r.need.ID = "p1"
	case publisherSticks:
		r.need.Session = "s"
	case publisherAsksPath:
		r.need.Host, r.need.Session = "site1.test:80", "s"
	case publisherAsksPort:
		r.dead, r.refused = false, true
	case publisherBans:
		r.need.Host, r.dead, r.ban = c.good(), false, true
	case publisherHurries:
		r.need.Host, r.hurried = c.good(), true
	case nobodyLies, publisherNames, lies:
	}
	return r
}

// verdict is how an attempt ends.
func (c *court) verdict(r request, id string) rotation.Verdict {
	i := 0
	_, _ = fmt.Sscanf(id, "p%d", &i)
	silent := rotation.Verdict{Kind: rotation.Unclear, Latency: time.Second, JobTimeout: r.hurried, Reason: "timeout"}
	evil := len(r.need.Host) > 4 && r.need.Host[:4] == "evil"
	switch {
	case i >= c.n-c.dead:
		return silent
	case c.lie == proxyClaims && i == 0:
		return rotation.Verdict{Kind: rotation.Relayed, Latency: 10 * time.Millisecond}
	case r.refused, evil && c.lie == sitesRefuse && i < c.n/3+1:
		return rotation.Verdict{Kind: rotation.Refused, CoolDown: time.Millisecond, Reason: "proxy_refused"}
	case r.ban:
		return rotation.Verdict{Kind: rotation.PairFault, CoolDown: time.Millisecond, Reason: "ban"}
	case r.hurried:
		silent.Latency = 10 * time.Millisecond
		return silent
	case r.dead && c.answers:
		return rotation.Verdict{Kind: rotation.Unclear, Answered: true, Latency: 10 * time.Millisecond, Reason: "status_5xx"}
	case r.dead, evil && i < c.n/3+1, c.luck.IntN(100) == 0:
		return silent
	}
	return rotation.Verdict{Kind: rotation.Relayed, Latency: 10 * time.Millisecond}
}

// run does jobs of up to five attempts for three minutes.
func (c *court) run() {
	for began := time.Now(); time.Since(began) < 3*time.Minute; {
		r := c.next()
		for range 5 {
			l, events, err := c.Pick(r.need)
			c.note(events)
			time.Sleep(20 * time.Millisecond) // without a proxy, too: else the time of the world stands still
			if err != nil {
				break
			}
			v := c.verdict(r, l.ID())
			id := l.ID()
			c.note(l.Report(v))
			if v.Kind == rotation.Relayed {
				break
			}
			r.need.Exclude = append(r.need.Exclude, id)
		}
	}
}

func (c *court) note(events []rotation.Event) {
	for _, e := range events {
		switch {
		case e.To != breaker.Open:
		case e.ProxyID == "":
			c.outage = true
		default:
			c.opened[e.ProxyID] = e.Reason
		}
	}
}

// In worlds with one liar among proxies, sites or publishers no healthy breaker opens and no outage begins. Dead proxies are
// found meanwhile, where a pool has enough others.
func TestOneLiarOpensNoHealthyBreaker(t *testing.T) {
	seeds := few(1000, 110)
	if testing.Short() {
		seeds = 110
	}
	dead, found := 0, 0
	var wrong []string
	for seed := range seeds {
		synctest.Test(t, func(*testing.T) {
			c := newCourt(uint64(seed))
			c.run()
			for id, reason := range c.opened {
				i := 0
				_, _ = fmt.Sscanf(id, "p%d", &i)
				if i < c.n-c.dead {
					wrong = append(wrong, fmt.Sprintf("seed %d, lie %d, %d proxies: %s is healthy, and its breaker opened: %s", seed, c.lie, c.n, id, reason))
				}
			}
			if c.outage {
				wrong = append(wrong, fmt.Sprintf("seed %d, lie %d, %d proxies: an outage began", seed, c.lie, c.n))
			}
			if c.share < 0.5 {
				dead += c.dead
				found += len(c.opened)
			}
		})
	}
	for _, what := range wrong {
		t.Error(what)
	}
	if dead == 0 || found*20 < dead*19 {
		t.Errorf("%d of %d dead proxies were found where most jobs are for good sites, want 95 in 100", found, dead)
	}
}
