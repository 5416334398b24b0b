package rollup

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// maxAnswerSites is how many sites Answers counts, maxAnswerProxies how many proxies of each: about 3 MiB.
	maxAnswerSites, maxAnswerProxies = 64, 512
	// answersHalf is the length of each of the two periods of a count. Their sum covers 30 to 60 minutes.
	answersHalf = 30 * time.Minute
	// unusualAge is for how long the result of Unusual is reused.
	unusualAge = 5 * time.Second

	// A share is unusual if it is of at least unusualAnswers answers, if it differs by more than unusualGap from the share of all
	// other proxies together and from the median of the proxies, and if the first difference is more than unusualScore standard
	// errors of a difference of two proportions. Chance makes such a score once in 16,000 tests.
	unusualAnswers = 30
	unusualGap     = 0.2
	unusualScore   = 4
	// minOthers is how many other proxies must have unusualAnswers. With two proxies that differ, nobody knows which one is
	// unusual.
	minOthers = 3
)

// Answers counts the answers of the busiest sites by proxy, to find proxies whose share of 4xx at a site differs much from that
// of the other proxies: the site may have banned them, or they may answer in place of the site. The choice of proxies does not
// depend on it. Make one with NewAnswers; any number of goroutines may use it.
type Answers struct {
	mu      sync.Mutex // guards the fields below
	half    int64
	sites   map[string]*siteAnswers
	unusual map[string]Unusual
	judged  time.Time
}

// siteAnswers has the answers of one site.
type siteAnswers struct {
	// weight orders the sites: it counts the answers of the site, plus the weight of the site that it replaced. So a busy site is
	// not replaced by many sites that have few answers.
	weight  uint64
	proxies map[string]*[2]answers // by proxy, in the running period and the one before
}

// answers counts answers, and those of them that were 4xx.
type answers struct{ all, denied uint32 }

// Unusual is a share of 4xx answers that differs much from the share of the other proxies at the same site.
type Unusual struct {
	Site string `json:"site"`
	// Share is the proxy's share of 4xx there, Others that of all other proxies together; between 0 and 1.
	Share  float64 `json:"share_4xx"`
	Others float64 `json:"others_4xx"`
	// Answers is how many the proxy brought.
	Answers int `json:"answers"`
}

// String describes the share in a phrase, without the proxy.
func (u Unusual) String() string {
	return fmt.Sprintf("4xx in %.0f %% of %d answers of %s, through the others in %.0f %%", 100*u.Share, u.Answers, u.Site, 100*u.Others)
}

// NewAnswers makes Answers without any.
func NewAnswers() *Answers { return &Answers{sites: map[string]*siteAnswers{}} }

// Add counts an answer. It ignores an attempt without a site, a proxy or a status.
func (a *Answers) Add(site, proxy string, status int) {
	if site == "" || proxy == "" || status == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(time.Now())
	s := a.site(site)
	s.weight++
	n := s.proxies[proxy]
	if n == nil {
		// Further proxies of this site are not counted, until advance has dropped others.
		if len(s.proxies) >= maxAnswerProxies {
			return
		}
		n = new([2]answers)
		s.proxies[proxy] = n
	}
	n[0].all++
	if status/100 == 4 {
		n[0].denied++
	}
}

// advance begins a new period if the running one is over. The caller holds the lock.
func (a *Answers) advance(now time.Time) {
	half := now.Unix() / int64(answersHalf/time.Second)
	if half == a.half {
		return
	}
	// If nothing was counted for a whole period, both periods are too old.
	isNext := half == a.half+1
	a.half = half
	for _, s := range a.sites {
		s.weight /= 2
		for proxy, n := range s.proxies {
			n[1], n[0] = n[0], answers{}
			if !isNext || n[1].all == 0 {
				delete(s.proxies, proxy)
			}
		}
	}
	maps.DeleteFunc(a.sites, func(_ string, s *siteAnswers) bool { return len(s.proxies) == 0 })
}

// site returns a site, and creates it if it is missing. If there are too many sites, the new site replaces the one with the
// lowest weight. The caller holds the lock.
func (a *Answers) site(name string) *siteAnswers {
	s := a.sites[name]
	if s != nil {
		return s
	}
	s = &siteAnswers{proxies: map[string]*[2]answers{}}
	if len(a.sites) >= maxAnswerSites {
		least := ""
		for other, o := range a.sites {
			if least == "" || cmp.Or(cmp.Compare(o.weight, a.sites[least].weight), cmp.Compare(other, least)) < 0 {
				least = other
			}
		}
		// Otherwise the next new site would replace this one at once.
		s.weight = a.sites[least].weight
		delete(a.sites, least)
	}
	a.sites[name] = s
	return s
}

// Unusual returns the proxies whose share is unusual at a site, each with the site of the highest score. The caller must not
// change the map.
func (a *Answers) Unusual() map[string]Unusual {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.unusual != nil && now.Sub(a.judged) < unusualAge {
		return a.unusual
	}
	a.advance(now)
	a.unusual, a.judged = map[string]Unusual{}, now
	scores := map[string]float64{}
	for _, name := range slices.Sorted(maps.Keys(a.sites)) {
		for proxy, found := range a.sites[name].judge() {
			if found.score > scores[proxy] {
				found.Site = name
				a.unusual[proxy], scores[proxy] = found.Unusual, found.score
			}
		}
	}
	return a.unusual
}

// judgement is an unusual share and its score.
type judgement struct {
	Unusual

	score float64
}

// judge finds the unusual shares at a site, by proxy. If more than a third of the shares are unusual, it is not known what is
// usual, and judge returns none.
func (s *siteAnswers) judge() map[string]judgement {
	var all answers
	sums, shares := map[string]answers{}, []float64{}
	for proxy, n := range s.proxies {
		sum := answers{n[0].all + n[1].all, n[0].denied + n[1].denied}
		all.all, all.denied = all.all+sum.all, all.denied+sum.denied
		if sum.all >= unusualAnswers {
			sums[proxy] = sum
			shares = append(shares, sum.share())
		}
	}
	// A judgement needs the proxy itself and minOthers others.
	if len(sums) <= minOthers {
		return nil
	}
	slices.Sort(shares)
	median, out := shares[len(shares)/2], map[string]judgement{}
	for proxy, n := range sums {
		others := answers{all.all - n.all, all.denied - n.denied}
		found := judgement{Unusual{Share: n.share(), Others: others.share(), Answers: int(n.all)}, n.score(others)}
		if found.score > unusualScore && math.Abs(found.Share-found.Others) > unusualGap && math.Abs(found.Share-median) > unusualGap {
			out[proxy] = found
		}
	}
	if 3*len(out) > len(sums) {
		return nil
	}
	return out
}

// share returns the share of 4xx, between 0 and 1. n.all is not zero.
func (n answers) share() float64 { return float64(n.denied) / float64(n.all) }

// score returns by how many standard errors two shares differ (pooled two-proportion z-test).
func (n answers) score(o answers) float64 {
	pooled := float64(n.denied+o.denied) / float64(n.all+o.all)
	deviation := math.Sqrt(pooled * (1 - pooled) * (1/float64(n.all) + 1/float64(o.all)))
	if deviation == 0 {
		return 0
	}
	return math.Abs(n.share()-o.share()) / deviation
}
