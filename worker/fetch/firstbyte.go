package fetch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
)

// errNoFirstByte ends an attempt that waited too long for the first byte of a response, or for one of the steps before it.
var errNoFirstByte = errors.New("no first byte of a response in time")

const (
	// The learnt first-byte timeout is learntFactor times the quantile learntQuantile of the site's times, and at least
	// minLearnt.
	learntQuantile = 0.99
	learntFactor   = 4
	minLearnt      = 2 * time.Second
	// timeoutFactor is the multiple of the bound as which an attempt counts that the bound ended: its first byte may
	// have come then.
	timeoutFactor = 2
	// recheck is how often an attempt without a bound is checked again.
	recheck = time.Second
	// settle is the pause before an attempt is ended: a phase and its beginning are stored in two steps.
	settle = time.Millisecond
)

// firstByteWatch ends an attempt in which one phase takes too long: dialling, CONNECT or SOCKS, TLS, or the wait for the first
// byte of a response. Each redirect starts it again. A nil watch ends nothing. The check runs in the goroutine of a timer, so a
// phase may change while it looks: see judge.
type firstByteWatch struct {
	x     *exchanges
	end   context.CancelCauseFunc
	fixed time.Duration // zero if the bound is learnt
	limit time.Duration // the attempt's timeout, above which there is no bound
	need  rotation.Need // of the attempt that would follow

	mu        sync.Mutex  // guards the fields below; the timer has a goroutine of its own
	timer     *time.Timer // nil before start, and if the attempt's timeout is shorter than any bound
	stopped   bool
	site      string        // of the present exchange
	suspected time.Duration // when the phase began that seemed to take too long, plus one
	exceeded  time.Duration // the bound that ended the attempt; zero if none did
}

// newFirstByteWatch prepares the watch of an attempt; nil if it has no other bound than its timeout.
func (r *run) newFirstByteWatch(x *exchanges, lease *rotation.Lease) *firstByteWatch {
	w := &firstByteWatch{x: x}
	switch choice := r.firstByteTimeout(); {
	case choice > 0:
		w.fixed = choice.Std().Std()
	case choice == jobs.Off || !r.isBoundLearnt(lease):
		return nil
	default:
		w.need = r.need()
		if !lease.IsGateway() { // which has other exits
			w.need.Exclude = append(w.need.Exclude, lease.ID())
		}
	}
	return w
}

// firstByteTimeout is what the job chose, or the worker.
func (r *run) firstByteTimeout() jobs.AutoDuration {
	return r.job.FirstByteTimeout.Or(r.f.cfg.FirstByteTimeout)
}

// start begins to watch an attempt with a timeout. end ends it.
func (w *firstByteWatch) start(timeout time.Duration, end context.CancelCauseFunc) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit, w.end = timeout, end
	// A timeout below every bound needs no timer.
	if first := w.least(); first < timeout {
		w.timer = time.AfterFunc(first, w.check)
	}
}

// isBoundLearnt reports whether another attempt may follow this one at once, so that this one may be ended early: the
// request can be repeated, an attempt is left, the job leaves the choice of a proxy open, and the attempt is no test of
// a site.
func (r *run) isBoundLearnt(lease *rotation.Lease) bool {
	isSafe := r.job.Method == "GET" || r.job.Method == "HEAD"
	return isSafe && !r.isSiteTest && lease.Proxy() != nil && r.job.Proxy.ID == "" && r.begunAttempts() < r.policy.MaxAttempts
}

// ask records that the next exchange is with another site.
func (w *firstByteWatch) ask(site string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// The bound of the new site applies from the next check on.
	w.site = site
}

// stop ends the watch. It returns the bound that ended the attempt, and zero if none did.
func (w *firstByteWatch) stop() (exceeded time.Duration) {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// A check that has begun already waits for mu, sees stopped and does nothing.
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
	return w.exceeded
}

// check runs in the timer's goroutine. It ends the attempt if its phase takes longer than the present bound, and
// otherwise sets the timer for the next check.
func (w *firstByteWatch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	wait, bound := w.judge()
	if wait <= 0 {
		w.stopped, w.exceeded = true, bound
		// The cause is kept by do, and comes back as a fact.
		w.end(errNoFirstByte)
		return
	}
	w.timer.Reset(wait)
}

// judge returns how long the attempt may go on until the next check; zero or less means that it has exceeded bound. The
// caller holds mu.
//
// A learnt bound ends an attempt only if another proxy can be used now. Otherwise the job would be worse off than with a
// slow answer.
func (w *firstByteWatch) judge() (wait, bound time.Duration) {
	p, took, began := w.x.timeInPhase()
	switch p {
	// Sending and reading have the stall timeout instead, which measures progress.
	case connecting, tunnelling, securing, waiting:
	case sending, reading, done:
		return w.least(), 0
	}
	bound = w.bound()
	switch left := bound - took; {
	case bound == 0:
		return recheck, 0
	case left > 0:
		return left, 0
	// The phase and its beginning are two atomics, so this pair may be torn. A second check after a moment is certain.
	case w.suspected != began+1:
		w.suspected = began + 1
		return settle, 0
	case w.fixed == 0 && !w.x.run.f.cfg.Pool.CanPick(w.need):
		return recheck, 0
	}
	return 0, bound
}

// least returns the shortest bound that there can be. No check before that time can end the attempt.
func (w *firstByteWatch) least() time.Duration {
	if w.fixed > 0 {
		return w.fixed
	}
	return minLearnt
}

// bound returns the current bound. Zero means none: too little is known of the site, or the bound would not end the
// attempt before its own timeout does.
func (w *firstByteWatch) bound() time.Duration {
	if w.fixed > 0 {
		return w.fixed
	}
	if bound := w.x.run.learntBound(w.site); bound < w.limit {
		return bound
	}
	return 0
}

// learntBound returns how long each phase of an attempt at a site may take, by the times of earlier responses. Zero means
// that too few of them are known.
func (r *run) learntBound(site string) time.Duration {
	usual, known := r.f.cfg.Pool.Times().Quantile(site, learntQuantile, time.Now())
	if !known {
		return 0
	}
	return max(minLearnt, learntFactor*usual)
}

// isLearnt reports whether the bound is learnt. A nil watch, as of a job that chose off, has no bound at all.
func (w *firstByteWatch) isLearnt() bool { return w != nil && w.fixed == 0 }

// siteTime is how long a site took for the first byte of a response, or after which bound an attempt at it was ended.
type siteTime struct {
	site string
	took time.Duration
}

// learn adds the time to the first byte to what is known of the site.
//
// What an end by the learnt bound says is known only with a response of the same run through another proxy. If it began within
// the bound, the site has not become slower, and the end counts little. Without this correction one slow proxy would raise the
// bound for the whole site. So the end counts when that response comes, or at the end of the run: counted before, ends through
// many silent proxies would raise the bound meanwhile.
func (r *run) learn(x *exchanges, f *facts, b *blame) {
	if f.direct {
		return
	}
	switch {
	case f.responded && (b.kind == rotation.Relayed || b.kind == rotation.PairFault || b.kind == rotation.TargetFault):
		r.f.cfg.Pool.Times().AddResponse(x.site, x.firstByte, time.Now())
		r.responded = siteTime{x.site, x.firstByte}
		r.learnEarlyEnds()
	case !f.responded && f.learnt:
		r.endedEarly = append(r.endedEarly, siteTime{x.site, f.exceeded})
	}
}

// learnEarlyEnds counts the ends by the learnt bound that have not been counted. At the end of a run some are left: no response
// came after them, or only that of a hedge, which came before.
func (r *run) learnEarlyEnds() {
	times := r.f.cfg.Pool.Times()
	for _, end := range r.endedEarly {
		times.AddTimeout(end.site, timeoutFactor*end.took, time.Now())
		if end.site == r.responded.site && r.responded.took <= end.took {
			times.DiscountTimeout(end.site, timeoutFactor*end.took, time.Now())
		}
	}
	r.endedEarly = nil
}
