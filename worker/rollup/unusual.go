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
	// answersHalf is the time that each of the two halves of a count covers: a sum covers 30 to 60 minutes.
	answersHalf = 30 * time.Minute
	// unusualAge is for how long a judgement serves.
	unusualAge = 5 * time.Second

	// A share is unusual that rests on at least unusualAnswers, differs from that of all others together and from the
	// median of the others by more than unusualGap, and does so by more than unusualScore standard errors of the difference
	// of two proportions. Chance makes such a score once in 16,000 tests.
	unusualAnswers = 30
	unusualGap     = 0.2
	unusualScore   = 4
	// minOthers is how many other proxies must have such a number of answers: of two that differ nobody knows which one is odd.
	minOthers = 3
)

// Answers counts the answers of the busiest sites by proxy, to find proxies whose share of 4xx at a site is far from that of the
// others there: they may be banned by the site, or answer in its place. It changes nothing that proxies are used for. Make
// one with NewAnswers; it may be shared by any number of goroutines.
type Answers struct {
	mu      sync.Mutex // guards the fields below
	half    int64
	sites   map[string]*siteAnswers
	unusual map[string]Unusual
	judged  time.Time
}

// siteAnswers are the answers of a site.
type siteAnswers struct {
	// weight orders sites: its answers, and those of the site whose place it took. So a busy site keeps its place among many that
	// have few answers.
	weight  uint64
	proxies map[string]*[2]answers // by proxy, in the running half and the one before
}

// answers are how many came, and how many of them were 4xx.
type answers struct{ all, denied uint32 }

// Unusual is a share of 4xx answers that is far from the one of the other proxies at the same site.
type Unusual struct {
	Site string `json:"site"`
	// Share is the proxy's share of 4xx there, Others that of all other proxies together; between 0 and 1.
	Share  float64 `json:"share_4xx"`
	Others float64 `json:"others_4xx"`
	// Answers is how many the proxy brought.
	Answers int `json:"answers"`
}

// String says it in words, without the proxy.
func (u Unusual) String() string {
	return fmt.Sprintf("4xx in %.0f %% of %d answers of %s, through the others in %.0f %%", 100*u.Share, u.Answers, u.Site, 100*u.Others)
}

// NewAnswers makes Answers without any.
func NewAnswers() *Answers { return &Answers{sites: map[string]*siteAnswers{}} }

// Add counts an answer. Without a site, a proxy or a status it is none.
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
		// Further proxies of this site are not counted.
		if len(s.proxies) >= maxAnswerProxies {
			return // a place becomes free when a half ends
		}
		n = new([2]answers)
		s.proxies[proxy] = n
	}
	n[0].all++
	if status/100 == 4 {
		n[0].denied++
	}
}

// advance moves on to the running half. The caller holds the lock.
func (a *Answers) advance(now time.Time) {
	half := now.Unix() / int64(answersHalf/time.Second)
	if half == a.half {
		return
	}
	// After a longer pause both halves are too old.
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

// site finds or creates a site. A new one takes the place of the least busy one. The caller holds the lock.
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
		// Otherwise the next new site would take this one's place at once.
		s.weight = a.sites[least].weight
		delete(a.sites, least)
	}
	a.sites[name] = s
	return s
}

// Unusual returns the proxies whose share is unusual at a site, each with the site where it is most so. The caller must not
// change it.
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

// judge finds the unusual shares at a site. If they are more than a third, there is no usual one.
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
	// The proxy itself and minOthers others are needed.
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

// share is the share of 4xx, between 0 and 1. There must be an answer.
func (n answers) share() float64 { return float64(n.denied) / float64(n.all) }

// score is by how many standard errors two shares differ, if both were of the same proportion.
func (n answers) score(o answers) float64 {
	pooled := float64(n.denied+o.denied) / float64(n.all+o.all)
	deviation := math.Sqrt(pooled * (1 - pooled) * (1/float64(n.all) + 1/float64(o.all)))
	if deviation == 0 {
		return 0
	}
	return math.Abs(n.share()-o.share()) / deviation
}
