package fetch

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/gofer-mq/gofer/jobs"
)

const (
	// maxSites bounds one generation of the sites that are remembered.
	maxSites = 1 << 15
	// turnAhead is how far ahead turns are given; a job that finds none asks again at about that time.
	turnAhead = 10 * time.Minute
	// leastGap is what a job waits at least for one of a site's running attempts to end.
	leastGap = 50 * time.Millisecond
)

// sites keeps this worker's attempts at each site, a registrable domain, to a pace and a number at once. A job that has to
// wait is given its turn ahead of time, so that it waits once, however many wait for the same site.
type sites struct {
	interval time.Duration // between two attempts; zero without a rate
	most     int           // at once; zero without a bound

	mu         sync.Mutex
	young, old map[string]*site // two generations: what is not asked for falls out with the older one
	waited     int64
}

type site struct {
	next time.Time // the first turn that is not given away
	late time.Time // the same, of those who came for their turn in vain: they go ahead of those who had none
	free time.Time // when the rate lets the next attempt start
	busy int
	mean time.Duration // of an attempt; a second to begin with
}

func newSites(rate float64, most int) *sites {
	s := &sites{most: most, young: map[string]*site{}}
	if rate > 0 {
		s.interval = time.Duration(float64(time.Second) / rate)
	}
	return s
}

func (s *sites) bounded() bool { return s.interval > 0 || s.most > 0 }

// siteOf is the registrable domain of a host: a.shop.example.co.uk and b.example.co.uk are one site. An
// address is its own.
func siteOf(host string) string {
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return domain
	}
	return host
}

// enter begins an attempt at a site, or says when that may be asked for again: at turn if that is not zero, and that is kept
// free. held is the turn that the job was given before; it counts however late the job comes for it, or a busy worker's jobs
// would never have theirs. But the pace holds for those who come late, too.
func (s *sites) enter(name string, held, now time.Time) (in *site, turn time.Time, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(name)
	line, start := &x.late, latest(x.free, now)
	if held.IsZero() {
		line, start = &x.next, latest(start, latest(x.next, x.late))
	}
	if s.most > 0 && x.busy >= s.most {
		start = latest(start, now.Add(s.gap(x)))
	}
	if !start.After(now) {
		x.busy++
		x.free = now.Add(s.interval)
		return x, time.Time{}, 0
	}
	s.waited++
	turn = latest(start, *line)
	if turn.Sub(now) <= turnAhead {
		*line = turn.Add(s.gap(x))
		return nil, turn, turn.Sub(now)
	}
	wait = turnAhead/2 + rand.N(turnAhead/2)
	if held.IsZero() {
		return nil, time.Time{}, wait
	}
	return nil, now.Add(wait), wait
}

// gap is how far apart turns are given.
func (s *sites) gap(x *site) time.Duration {
	if s.most == 0 {
		return s.interval
	}
	return max(s.interval, x.mean/time.Duration(s.most), leastGap)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// leave ends an attempt, or one that found no proxy and never began.
func (s *sites) leave(x *site, took time.Duration, began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.busy--
	if !began {
		x.free = time.Time{}
		return
	}
	x.mean += (took - x.mean) / 4
}

func (s *sites) get(name string) *site {
	if x := s.young[name]; x != nil {
		return x
	}
	if len(s.young) >= maxSites {
		s.old, s.young = s.young, make(map[string]*site)
	}
	x := s.old[name]
	if x == nil {
		x = &site{mean: time.Second}
	}
	s.young[name] = x
	return x
}

// Waited is how many times a job had to wait for its turn at a site.
func (f *Fetcher) Waited() int64 {
	f.sites.mu.Lock()
	defer f.sites.mu.Unlock()
	return f.sites.waited
}

// enter waits for the job's turn at its site while that is near, and parks the job otherwise.
func (r *run) enter(ctx context.Context) (leave func(began bool), end jobs.RunOutcome, entered bool) {
	s := r.f.sites
	if !s.bounded() {
		return func(bool) {}, jobs.RunOutcome{}, true
	}
	name := siteOf(r.job.Target().Hostname())
	held := r.progress.Turn
	r.progress.Turn = time.Time{}
	for spent := time.Duration(0); ; {
		now := time.Now()
		in, turn, wait := s.enter(name, held, now)
		if in != nil {
			return func(began bool) { s.leave(in, time.Since(now), began) }, jobs.RunOutcome{}, true
		}
		if cause := r.tooLate(now.Add(wait)); cause != nil {
			return nil, r.cut(cause), false
		}
		// The time for all attempts runs from the first one, and not while the job waits for that.
		ownTime := r.policy.Timeout > 0 && r.progress.Started.IsZero()
		if spent += wait; spent > r.f.cfg.InlineWait || ownTime {
			r.progress.Turn = turn
			return nil, jobs.RunOutcome{Kind: jobs.RunScheduled, At: now.Add(wait), Progress: r.progress}, false
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return nil, r.stopped(ctx), false
		}
		held = turn
	}
}
