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
	// maxDomains bounds one generation of the domains that are remembered.
	maxDomains = 1 << 15
	// maxReservation is how far ahead a start may be reserved. A job whose start would be later asks again at about that time.
	maxReservation = 10 * time.Minute
	// minGap is the shortest time that a job waits for one of a domain's running attempts to end.
	minGap = 50 * time.Millisecond
)

// domains limits the rate and the concurrency of this worker's attempts at each domain. A job that has to wait gets a reservation
// of a later start, so that it waits once, however many jobs wait for the same domain. It may be shared between goroutines.
type domains struct {
	interval    time.Duration // between two attempts; zero without a rate
	maxInflight int           // at once; zero without a bound

	mu         sync.Mutex         // guards the fields below and every domain
	young, old map[string]*domain // two generations: a domain that is not asked for falls out with the older one
	waited     int64              // jobs that had to wait, so far
}

// domain is what limits the attempts at one domain.
type domain struct {
	next            time.Time // the first start that is not reserved
	nextForReserved time.Time // the same for jobs whose reservation could not be kept: they start before jobs without one
	nextByRate      time.Time // when the rate lets the next attempt start
	inflight        int
	meanDuration    time.Duration // moving mean of attempts; a second to begin with
}

// newDomains makes the limits of each domain: rate in attempts a second, and maxInflight in attempts at once. Zero
// means no limit.
func newDomains(rate float64, maxInflight int) *domains {
	s := &domains{maxInflight: maxInflight, young: map[string]*domain{}}
	if rate > 0 {
		s.interval = time.Duration(float64(time.Second) / rate)
	}
	return s
}

// isLimited reports whether any limit is set. Without one, no domain is remembered.
func (s *domains) isLimited() bool { return s.interval > 0 || s.maxInflight > 0 }

// domainOf is the registrable domain of a host: a.shop.example.co.uk and b.example.co.uk have one domain. An
// address is its own.
func domainOf(host string) string {
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return domain
	}
	return host
}

// acquire begins an attempt at a domain and returns the domain, for release.
//
// If the attempt has to wait, acquire returns nil, the start that is reserved for it, and the time until then. A zero
// start means that none is reserved, because it would be too far ahead. reserved is the job's earlier reservation; zero
// means that it has none. A reservation stays valid however late the job comes, or the jobs of a busy worker would
// never start. The rate limits late jobs, too.
func (s *domains) acquire(name string, reserved, now time.Time) (in *domain, at time.Time, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(name)
	next, start := &x.nextForReserved, laterOf(x.nextByRate, now)
	if reserved.IsZero() {
		next, start = &x.next, laterOf(start, laterOf(x.next, x.nextForReserved))
	}
	if s.maxInflight > 0 && x.inflight >= s.maxInflight {
		start = laterOf(start, now.Add(s.reservationGap(x)))
	}
	if !start.After(now) {
		x.inflight++
		x.nextByRate = now.Add(s.interval)
		return x, time.Time{}, 0
	}
	s.waited++
	at = laterOf(start, *next)
	if at.Sub(now) <= maxReservation {
		*next = at.Add(s.reservationGap(x))
		return nil, at, at.Sub(now)
	}
	// The start would be too far ahead. The job asks again at a random time, so that jobs do not all come back at once.
	wait = maxReservation/2 + rand.N(maxReservation/2)
	if reserved.IsZero() {
		return nil, time.Time{}, wait
	}
	return nil, now.Add(wait), wait
}

// tryAcquire begins an attempt at a domain if the attempt need not wait. Otherwise it returns nil and reserves nothing. A
// hedge uses it: it must not delay jobs that hold a reservation.
func (s *domains) tryAcquire(name string, now time.Time) *domain {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(name)
	start := laterOf(x.nextByRate, laterOf(x.next, x.nextForReserved))
	if start.After(now) || s.maxInflight > 0 && x.inflight >= s.maxInflight {
		return nil
	}
	x.inflight++
	x.nextByRate = now.Add(s.interval)
	return x
}

// reservationGap is the time between two reservations.
func (s *domains) reservationGap(x *domain) time.Duration {
	if s.maxInflight == 0 {
		return s.interval
	}
	return max(s.interval, x.meanDuration/time.Duration(s.maxInflight), minGap)
}

// laterOf returns the later of two times.
func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// release ends an attempt. took is its duration, of which the domain keeps a moving mean. An attempt that found no proxy
// never began; it gives the domain's rate back.
func (s *domains) release(x *domain, took time.Duration, began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.inflight--
	if !began {
		x.nextByRate = time.Time{}
		return
	}
	x.meanDuration += (took - x.meanDuration) / 4
}

// get finds or creates a domain and keeps it young. The caller holds mu.
func (s *domains) get(name string) *domain {
	if x := s.young[name]; x != nil {
		return x
	}
	if len(s.young) >= maxDomains {
		s.old, s.young = s.young, make(map[string]*domain)
	}
	x := s.old[name]
	if x == nil {
		x = &domain{meanDuration: time.Second}
	}
	s.young[name] = x
	return x
}

// DomainWaits is how many times a job had to wait because of its domain's limits.
func (f *Fetcher) DomainWaits() int64 {
	f.domains.mu.Lock()
	defer f.domains.mu.Unlock()
	return f.domains.waited
}

// acquireDomain waits until the limits of the job's domain allow an attempt. If that is not soon, it returns how the job waits
// or ends instead.
func (r *run) acquireDomain(ctx context.Context) (release func(began bool), end *jobs.RunOutcome) {
	s := r.f.domains
	if !s.isLimited() {
		return func(bool) {}, nil
	}
	name := domainOf(r.job.Target().Hostname())
	reserved := r.progress.Reservation
	r.progress.Reservation = time.Time{}
	for spent := time.Duration(0); ; {
		now := time.Now()
		in, at, wait := s.acquire(name, reserved, now)
		if in != nil {
			return func(began bool) { s.release(in, time.Since(now), began) }, nil
		}
		if cause := r.checkDeadline(now.Add(wait)); cause != nil {
			return nil, r.outOfTime(cause)
		}
		// retry.timeout runs from the first attempt, or from the first wait for a proxy or a resting site, but not while the job
		// waits for its turn.
		ownTime := r.policy.Timeout > 0 && r.progress.Started.IsZero()
		if spent += wait; spent > r.f.cfg.InlineWait || ownTime {
			r.progress.Reservation = at
			return nil, r.scheduled(now.Add(wait))
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return nil, r.stopped(ctx)
		}
		reserved = at
	}
}
