package fetch

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// errLost ends an attempt because another one, which ran beside it, has brought the job's result.
var errLost = errors.New("another attempt was faster")

const (
	// The delay of an automatic hedge is the quantile hedgeQuantile of the site's times, and at least minHedge.
	hedgeQuantile = 0.98
	minHedge      = 50 * time.Millisecond
)

// hedges counts hedges by their outcome. The zero value has none; it may be shared between goroutines.
type hedges struct{ won, lost, failed atomic.Int64 }

// count counts a hedged attempt of a job that got its result: won is true if the hedge brought it.
func (h *hedges) count(won bool) {
	if won {
		h.won.Add(1)
		return
	}
	h.lost.Add(1)
}

// Hedges returns how many hedges brought their job's result, how many were slower than the first attempt, and how many
// failed like it.
func (f *Fetcher) Hedges() (won, lost, failed int64) {
	return f.hedges.won.Load(), f.hedges.lost.Load(), f.hedges.failed.Load()
}

// pair is an attempt and its hedge, an attempt that begins beside it when its first byte takes too long. Each runs in a goroutine
// of its own. They share the read token, and nothing else.
type pair struct {
	run       *run
	isAuto    bool
	delay     time.Duration // without a first byte, after which the hedge begins; if it is learnt, its latest value
	readToken chan struct{}

	first, hedge *flight
	winner       *flight          // the one that decides; nil while there is no hedge
	release      func(began bool) // releases the hedge from the limits of its domain
}

// race makes an attempt, and a hedge beside it if the first byte takes too long. It returns the one that decides what
// becomes of the job. The other one is then in the job's history already, or counts for nothing.
func (r *run) race(ctx context.Context, lease *rotation.Lease) *flight {
	first := r.newFlight(lease)
	if !r.mayHedge() {
		first.x.do(ctx)
		return r.conclude(ctx, first)
	}
	r.otherRetryAfter, r.otherResponded = 0, false
	p := &pair{run: r, first: first, isAuto: r.policy.Hedge == jobs.Auto, delay: r.policy.Hedge.Std().Std(), readToken: make(chan struct{}, 1)}
	defer p.endBoth()
	first.x.readToken = p.readToken
	first.start(ctx)
	p.wait(ctx)
	if p.hedge == nil {
		first.await()
		return r.conclude(ctx, first)
	}
	p.winner = p.decide(ctx)
	return p.winner
}

// mayHedge reports whether another attempt may begin beside the first one: the request can be sent twice, the job leaves the
// choice of a proxy open, an attempt is left, and the first one is no test of a site.
func (r *run) mayHedge() bool {
	isSafe := r.job.Method == "GET" || r.job.Method == "HEAD"
	isOn := r.policy.Hedge > 0 || r.policy.Hedge == jobs.Auto
	isFree := r.job.Proxy.Session == "" && r.job.Proxy.ID == "" && !r.job.Proxy.Direct
	return isOn && isSafe && isFree && !r.isSiteTest && r.begunAttempts() < r.policy.MaxAttempts
}

// endBoth ends what still runs, and waits for it. It is deferred, so neither a panic nor a stop leaves a goroutine, a
// lease or memory behind. Only the winner keeps the memory of its response.
func (p *pair) endBoth() {
	for _, a := range []*flight{p.first, p.hedge} {
		if a != nil {
			a.cancel(errLost)
			<-a.ended
		}
	}
	if p.hedge != nil {
		for _, a := range []*flight{p.first, p.hedge} {
			if a != p.winner {
				a.x.releaseMemory()
			}
		}
		p.hedge.lease.Release()
		p.release(true)
	}
}

// wait begins the hedge when its time has come. It returns without a hedge if the first attempt ends, or if its response
// begins. A hedge that may not begin now is tried again later.
func (p *pair) wait(ctx context.Context) {
	first := p.delay
	if p.isAuto {
		first = minHedge
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-p.first.ended:
			return
		case <-timer.C:
		}
		if p.first.x.begun.Load() {
			return
		}
		left := p.left()
		if left <= 0 && p.beginHedge(ctx) {
			return
		}
		if left <= 0 {
			left = recheck
		}
		timer.Reset(left)
	}
}

// left returns how long the first attempt has until the hedge begins. A learnt delay applies to each phase by itself,
// because it comes from times to the first byte on a connection.
func (p *pair) left() time.Duration {
	x := p.first.x
	if !p.isAuto {
		return p.delay - time.Since(x.started)
	}
	usual, known := p.run.f.cfg.Pool.Times().Quantile(p.run.job.Target().Site(), hedgeQuantile, time.Now())
	if !known {
		return recheck
	}
	p.delay = max(minHedge, usual)
	_, took, _ := x.timeInPhase()
	return p.delay - took
}

// beginHedge begins the hedge and reports whether it did. The pool must have another proxy, the retry budget a token, and the
// domain's limits room. The cheap questions come first, and what was taken is given back if a later one fails.
func (p *pair) beginHedge(ctx context.Context) bool {
	r := p.run
	need := r.need()
	need.NoLastResort, need.Beside = true, true
	if !p.first.lease.IsGateway() { // a gateway has other exits
		need.Exclude = append(need.Exclude, p.first.lease.ID())
	}
	if !r.f.cfg.Pool.CanPick(need) || !r.f.budget.hedge(p.isAuto) {
		return false
	}
	release, ok := r.tryDomain()
	if !ok {
		r.f.budget.refundHedge(p.isAuto)
		return false
	}
	lease, err := r.pickBy(need)
	if err != nil {
		release(false)
		r.f.budget.refundHedge(p.isAuto)
		return false
	}
	p.release, p.hedge = release, r.newFlight(lease)
	p.hedge.x.readToken = p.readToken
	p.hedge.start(ctx)
	return true
}

// decide waits until one of the two attempts has brought the job's result, or until both have ended. It returns the
// attempt that the run goes on with.
func (p *pair) decide(ctx context.Context) *flight {
	r := p.run
	a, other := p.first, p.hedge
	select {
	case <-a.ended:
	case <-other.ended:
		a, other = other, a
	}
	a.await()
	if r.conclude(ctx, a); a.isStopped() {
		return a
	}
	if a.isDecisive() {
		p.end(ctx, other, a)
		r.f.hedges.count(p.hedge == a)
		return a
	}
	p.recordUndecided(a, other)
	other.await()
	if r.conclude(ctx, other); other.isDecisive() {
		r.f.hedges.count(p.hedge == other)
	} else {
		r.f.hedges.failed.Add(1)
	}
	return other
}

// isDecisive reports whether an attempt ends the job whatever another one brings.
func (a *flight) isDecisive() bool {
	return a.blame.end != "" || a.blame.isResult && !a.blame.isFleetBan
}

// end ends an attempt that lost, and adds it to the job's history. It usually cancels the attempt. But a proxy whose
// attempts always lose before their first byte may be dead, and no cancelled attempt would show it. So from time to
// time such an attempt goes on until its bound.
func (p *pair) end(ctx context.Context, a, winner *flight) {
	r := p.run
	bound, isLearnt := r.learntBound(r.job.Target().Site()), r.firstByteTimeout() == jobs.Auto
	if a.lease.MustEnd() && !a.x.begun.Load() && (bound > 0 || !isLearnt) {
		p.passReadToken(winner)
		a.awaitBound(min(cmp.Or(bound, maxLoserWait), max(maxLoserWait, learntFactor*winner.x.firstByte)))
	} else {
		a.cancel(errLost)
	}
	a.await()
	if errors.Is(a.x.cause, errNoFirstByte) && a.x.exceeded == 0 {
		a.x.exceeded = a.overBound
	}
	if !errors.Is(a.x.cause, errLost) {
		if r.conclude(ctx, a); !a.isStopped() {
			r.recordAttempt(a, true)
			return
		}
		r.underWay--
		winner.number = min(winner.number, r.begunAttempts())
		return
	}
	r.progress.Bytes += a.x.received
	begun := a.x.begun.Load()
	a.lease.Lose(begun)
	if !begun && a == p.first {
		p.learnDelay()
	}
	a.blame = blame{reason: "cancelled", text: errLost.Error()}
	r.recordAttempt(a, true)
}

// learnDelay records that the first attempt took longer than the delay after which the hedge began. A learnt delay is
// recorded as the attempt's time. If the whole time until the hedge won counted, the delay would grow from hedge to
// hedge at sites where more attempts are slow than the quantile expects.
func (p *pair) learnDelay() {
	waited := p.delay
	if !p.isAuto {
		waited = time.Since(p.first.started)
	}
	p.run.f.cfg.Pool.Times().AddTimeout(p.first.x.site, waited, time.Now())
}

// maxLoserWait is how long the result of a job waits for the end of an attempt that lost: longer only if the winner's own
// response took more than a fourth of it. Without a learnt bound it is the bound. A learnt bound that is longer, as at a site
// of which few times are known, would keep the result although the site has just answered the winner.
const maxLoserWait = 4 * time.Second

// awaitBound waits for an attempt until its phase has taken as long as the bound, and then ends it. If no response has
// begun, the attempt ends as a timeout. Otherwise it ends as one that lost, because its proxy has shown that it works.
func (a *flight) awaitBound(bound time.Duration) {
	_, took, _ := a.x.timeInPhase()
	select {
	case <-a.ended:
	case <-time.After(bound - took):
		if a.x.begun.Load() {
			a.cancel(errLost)
			return
		}
		a.overBound = bound
		a.cancel(errNoFirstByte)
	}
}

// passReadToken lets the other attempt read its response, once attempt a has ended.
func (p *pair) passReadToken(a *flight) {
	if a.x.holdsReadToken {
		<-p.readToken
	}
}

// recordUndecided puts an attempt that did not bring the result into the job's history, while the other attempt goes on.
// An attempt that counts for nobody is left out, and the other one takes its number.
func (p *pair) recordUndecided(a, other *flight) {
	r := p.run
	p.passReadToken(a)
	if a.blame.local {
		r.f.warnOfLocal(a.blame.text)
		r.unreachable = append(r.unreachable, a.lease.ID())
	}
	if a.blame.local || r.mayBeOutage(&a.blame, a.facts.host) {
		r.underWay--
		other.number = min(other.number, r.begunAttempts())
		return
	}
	r.otherRetryAfter, r.otherResponded = a.facts.retryAfter, a.facts.responded
	r.recordAttempt(a, false)
	if a.blame.isFleetBan && a.blame.isResult {
		r.keep(a.x.response())
	}
}

// acquireReadToken waits until the other attempt of a pair is not reading a response that may be the result. So only one
// body is read, and the attempt that loses is cancelled before its body. A response that leads to a retry needs no token.
// The stall watch pauses during the wait.
func (x *exchanges) acquireReadToken(ctx context.Context, l connLease) error {
	if status := x.resp.StatusCode; x.readToken == nil || x.run.policy.IsRetryable(status) || x.run.isBan(status) {
		return nil
	}
	select {
	case x.readToken <- struct{}{}:
	default:
		x.stall.stop()
		select {
		case x.readToken <- struct{}{}:
			x.stall.start(l.meter)
		case <-ctx.Done():
			x.missedReadToken = true
			return context.Cause(ctx)
		}
	}
	x.holdsReadToken = true
	return nil
}

// tryDomain begins another attempt at the job's domain if the limits of the domain allow it now. ok is false if they do
// not. The caller calls release when the attempt has ended.
func (r *run) tryDomain() (release func(began bool), ok bool) {
	s := r.f.domains
	if !s.isLimited() {
		return func(bool) {}, true
	}
	now := time.Now()
	in := s.tryAcquire(domainOf(r.job.Target().Hostname()), now)
	return func(began bool) { s.release(in, time.Since(now), began) }, in != nil
}
