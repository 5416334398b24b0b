package rotation

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/breaker"
)

// outage watches for the failure of the whole pool: proxies that worked until now fail one after the other, and none of them
// delivers. Then it is the worker's own network, or whatever all of the proxies stand behind, and no single proxy is to blame.
type outage struct {
	rate   float64 // the share of attempts that deliver, a moving mean; those of an outage do not count
	rated  float64 // how many attempts the mean is of, up to ratedMost
	faults int     // since a proxy delivered last
	streak int     // those of them that say more than the one before
	by     [witnesses]*entry
	n      int           // the proxies of the streak that had lately delivered: by[:n]
	last   time.Duration // when any proxy delivered last; zero: never
	on     bool
	since  time.Duration
	fault  time.Duration // the latest
	over   time.Duration // when the latest outage ended
	test   time.Duration // when the next attempt may find out whether it is over
}

const (
	witnesses = 16
	ratedMost = 64
	// working is how long a delivery shows that a proxy works.
	working = 10 * time.Minute
	// chance is how improbable a streak has to be, at the rate at which attempts delivered before, to be no accident.
	chance = 1e-5
	// doubt is the same for tests of one proxy that fail; MostTests are enough however probable they are.
	doubt = 0.05
	// From so many proxies on a failure is not taken to be each job's own, and from so many it is the pool's.
	doubtFrom, outageFrom = 3, 5
	// quiet is how long after the latest fault the pool is said to fail: without jobs nobody finds out that it no longer does.
	quiet = time.Minute
	// testEvery is how often an attempt is let through while the pool fails.
	testEvery = time.Second
)

// MostTests is how many tests of a proxy may fail, at sites that nobody knows, before its breaker opens again.
const MostTests = 3

// delivered notes that a proxy reached its target, and reports whether that ended an outage.
func (o *outage) delivered(e *entry, now time.Duration) (ended bool) {
	e.delivered, o.last = secondsOf(now), max(now, 1)
	if ended = o.on; ended {
		o.over = now
	} else {
		for range min(o.faults, ratedMost) {
			o.weigh(0)
		}
	}
	o.weigh(1)
	o.faults, o.streak, o.on = 0, 0, false
	if o.n > 0 {
		o.by, o.n = [witnesses]*entry{}, 0
	}
	return ended
}

// weigh takes the end of an attempt into the mean.
func (o *outage) weigh(good float64) {
	o.rated = min(o.rated+1, ratedMost)
	o.rate += (good - o.rate) / o.rated
}

// failed notes a fault of a proxy, and reports whether an outage began with it. That a target fails through a second proxy is no
// news of the pool. sound is how many proxies there are whose breaker is closed.
func (o *outage) failed(e *entry, news bool, sound int, now time.Duration) (began bool) {
	o.faults++
	o.fault = now
	if news {
		o.streak++
		o.witness(e, now)
	}
	if o.on || !o.doubtful() || o.n < max(outageFrom, min(witnesses, sound*3/4)) {
		return false
	}
	o.on, o.since, o.test = true, now, now
	return true
}

// witness remembers a proxy that worked before it failed.
func (o *outage) witness(e *entry, now time.Duration) {
	if o.n == witnesses || !e.delivered.within(working, now) || slices.Contains(o.by[:o.n], e) {
		return
	}
	o.by[o.n] = e
	o.n++
}

// doubtful reports whether the faults since the last delivery are more than bad luck of those who met them.
func (o *outage) doubtful() bool {
	return o.n >= doubtFrom && o.luck(o.streak) < chance
}

// unlikely reports whether so many failures in a row are less probable than that. Where nothing has delivered yet nothing is
// known of luck.
func (o *outage) unlikely(streak int, than float64) bool {
	return o.rated == 0 || o.luck(streak) < than
}

// luck is how probable so many failures in a row are at the rate at which attempts deliver.
func (o *outage) luck(streak int) float64 {
	return math.Pow(1-min(max(o.rate, 0.01), 0.99), float64(streak))
}

// Failing reports whether the pool fails as a whole, and since when. Meanwhile an attempt a second finds out whether that
// is over, other picks get a NoProxyError with the reason Failing, and no failure counts against a proxy. A minute after the
// latest failure, when nothing is asked for any more, nobody knows, and it is not said.
func (p *Pool) Failing() (since time.Time, failing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.outage.on || p.group.Now()-p.outage.fault > quiet {
		return time.Time{}, false
	}
	return p.group.Time(p.outage.since), true
}

// Doubtful reports whether proxies that worked fail one after the other, so that the latest failures should not be held
// against the jobs that met them. While the pool fails as a whole it is always so.
func (p *Pool) Doubtful() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outage.on || p.outage.doubtful()
}

// Answered reports whether a host, "host:port", is known to have answered through some proxy. A failure at one that never
// did may be the host's own, however the pool fares.
func (p *Pool) Answered(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, known := p.targets.byHost.get(hash(host, ""))
	return known && x.answered > 0
}

// Delivering reports whether any proxy reached its target within the last ten minutes. If none did, what fails may be
// anything between here and there.
func (p *Pool) Delivering() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outage.last != 0 && p.group.Now()-p.outage.last <= working
}

// testing reports whether a pick may go on: always, but in an outage only once a second.
func (o *outage) testing(now time.Duration) bool { return !o.on || now >= o.test }

// tested notes that a pick that went on got a proxy; one that found none leaves the test to others.
func (o *outage) tested(now time.Duration) {
	if o.on {
		o.test = now + testEvery
	}
}

// worked books that a proxy reached its target; the event is the end of an outage.
func (p *Pool) worked(e *entry, now time.Duration) []Event {
	since := p.outage.since
	if !p.outage.delivered(e, now) {
		return nil
	}
	return []Event{p.whole(breaker.Open, breaker.Closed, now, "a proxy delivered again after "+(now-since).Round(time.Millisecond).String())}
}

// faulty books a proxy's fault; the event is the beginning of an outage. While there is one, nobody is to blame.
func (p *Pool) faulty(e *entry, news bool, now time.Duration) (began []Event, blame bool) {
	if p.outage.failed(e, news, len(p.list)-p.troubled, now) {
		began = []Event{p.whole(breaker.Closed, breaker.Open, now,
			fmt.Sprintf("%d attempts in a row failed, and %d proxies that had worked", p.outage.faults, p.outage.n))}
	}
	return began, !p.outage.on
}

// whole is an event of the pool as a whole.
func (p *Pool) whole(from, to breaker.State, now time.Duration, reason string) Event {
	return Event{Event: breaker.Event{From: from, To: to, At: p.group.Time(now), Reason: reason, Failures: p.outage.faults}}
}
