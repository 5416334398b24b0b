package release

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// maxWindow is the largest window: how many released jobs of a site may be on their way at the same time.
	maxWindow = 8192
	// maxPerVisit is how many jobs one visit releases at most, so that a site with many jobs does not hold a runner for seconds.
	maxPerVisit = 256
	// firstWindow is the first window of a site that is not returning from a rest.
	firstWindow = 8
	// chunk is how many jobs are read, checked or released at the same time. The answer for a job is its whole message, so chunk
	// bounds the memory of the answers.
	chunk = 32
	// maxListBytes bounds the payloads of the jobs that are released at the same time. After a list with more bytes, the next
	// list has half as many jobs.
	maxListBytes = 4 << 20
	// testGrace is how long after the end of a rest its test is released, so that the worker that gets it finds the rest over.
	testGrace = 50 * time.Millisecond
	// lostAfter is how long a released job takes a place of the window at most. After that, its worker may have died, and
	// JetStream redelivers the job.
	lostAfter = time.Minute
	// maxRefused is how many jobs that can never be released are remembered for each site. Further ones are tried in each visit.
	maxRefused = 100

	// askAfter is how long after its release a job is first checked. A replica that lags does not show the due job yet, so an
	// earlier check would take the job for ended. A healthy replica lags by milliseconds.
	askAfter = 200 * time.Millisecond

	// takenAfter is how long a released job counts against Site.Room. After that a worker has taken the job, and Site.Room
	// already allows for it. A worker with a free slot takes a job within milliseconds.
	takenAfter = 500 * time.Millisecond

	minPause, maxPause = 25 * time.Millisecond, 500 * time.Millisecond // between two visits to a backlog with jobs on their way
	idlePause          = time.Second                                   // between two visits to an empty backlog
	emptyAfter         = 15 * time.Second                              // how long an empty backlog is visited after the last note
	failurePause       = time.Second                                   // after a visit that failed
	refusedPause       = time.Minute                                   // after a refusal, because somebody has to repair its cause
	cameBackPause      = 100 * time.Millisecond                        // after a released job that waits again; doubled after each further one
	maxCameBackPause   = 5 * time.Second                               // the longest such pause
)

// backlog is the jobs that wait for one site. The lock of the Releaser guards the fields up to visitAgain. Only the runner that
// holds the backlog uses the other fields.
type backlog struct {
	key, site  string
	next       time.Time // time of the next visit
	index      int       // in the heap of the schedule; -1 while a runner holds the backlog
	noted      time.Time // when a worker noticed last that jobs wait for the site
	notBefore  time.Time // no visit begins before this time, because the latest visit failed; zero if it succeeded
	visitAgain bool      // a note or a change came after the latest visit began

	// The window works like congestion control (additive increase, multiplicative decrease, RFC 5681): a released job that ends
	// adds one place, a released job that waits again halves the window.
	window int       // how many released jobs may be on their way
	sent   []sentJob // the released jobs that are on their way
	stuck  []sentJob // released jobs of queues that nobody serves; they take no place of the window
	// after and passed let a read skip jobs that are gone. They are hints only: a read that finds nothing begins again at zero,
	// because the stream may have been created again.
	after  uint64            // every job up to this sequence has been released or refused
	passed map[string]uint64 // the same for the jobs of one queue
	// fromStart is when the jobs were read from the start last: see rereadEvery.
	fromStart time.Time
	// refused has the sequences of jobs that can never be released, at most maxRefused. The server makes them due at the end of
	// their wait.
	refused    map[uint64]bool
	pause      time.Duration // before the next visit, while jobs are on their way
	cameBack   int           // streak of released jobs that wait again
	cameBackAt time.Time     // when the latest of them was found
	failed     bool          // the latest visit failed
}

// newBacklog makes a backlog whose first visit is now.
func newBacklog(key, site string) *backlog {
	return &backlog{key: key, site: site, index: -1, window: firstWindow, next: time.Now()}
}

// soonestVisit returns now, or notBefore if it is later. A note must not end the pause after a failure: a note comes with every
// job that begins to wait, so each such job would cause a request.
func (b *backlog) soonestVisit() time.Time {
	return slices.MaxFunc([]time.Time{time.Now(), b.notBefore}, time.Time.Compare)
}

// reset forgets everything but the site and its notes. A new leader does not know which jobs the former leader released. The
// window begins small, so at most firstWindow more jobs are on their way than the site can take.
func (b *backlog) reset() {
	b.window, b.sent, b.stuck, b.after, b.passed, b.pause, b.cameBack, b.failed = firstWindow, nil, nil, 0, nil, minPause, 0, false
	b.notBefore, b.refused = time.Time{}, nil
}

// visit releases the jobs that may go now. empty means that no job waits and none is on its way.
func (b *backlog) visit(ctx context.Context, stream siteJobs, q *queues, cfg Config) (released int, wait time.Duration, empty bool, err error) {
	// The state of the released jobs decides how many jobs may follow.
	b.restorePlaces(q)
	changed, err := b.checkReleased(ctx, stream, q)
	if err != nil {
		return 0, 0, false, err
	}
	site := cfg.Site(b.site)
	// A resting site begins with one job as its test, and so does a returning site without jobs on their way. Each success then
	// adds a place.
	if site.Rests || site.Returns && len(b.sent) == 0 && !changed {
		b.window = 1
	} else if b.cameBack == 0 {
		b.window = max(b.window, min(2*site.Load, maxWindow))
	}
	next := newHeads(b, stream, q)
	tried := false // to release a job
	// Each round reads the first jobs again, because somebody may have cancelled them meanwhile.
	for ctx.Err() == nil && released < maxPerVisit {
		list, waits, err := next.nextJobs(ctx, min(maxPerVisit-released, b.window-len(b.sent)))
		if err != nil {
			return released, 0, false, err
		}
		// The caller may forget an empty backlog, and with it the window.
		free, wait, empty := 0, idlePause, len(b.sent) == 0 && !waits && !tried
		switch {
		case len(list) > 0:
			free, wait = b.countFree(site, list, cfg.MaxWait)
		// All waiting jobs are of queues that nobody serves. readQueues ends the pause when a queue is served again.
		case waits:
			wait = unservedPause
		}
		if free > 0 {
			tried = true
			sent, err := b.release(ctx, stream, next, list[:free], cfg.Log)
			released += sent
			if err != nil {
				return released, 0, false, err
			}
		}
		if wait > 0 {
			return released, b.nextPause(wait, changed || released > 0), empty, nil
		}
	}
	return released, 0, false, nil
}

// release releases the jobs of a list concurrently, because the server answers each request alone. sent is how many are on their
// way. It is no error if a job is not: somebody cancelled it, the server released it at its time, a due job of the same name
// exists, or it can never be released. So no such job holds up others. After an error, the jobs from the first failed one on are
// read again.
func (b *backlog) release(ctx context.Context, stream siteJobs, next *heads, list []bus.WaitingJob, log *slog.Logger) (sent int, err error) {
	seqs, errs := make([]uint64, len(list)), make([]error, len(list))
	var releasing sync.WaitGroup
	for i, job := range list {
		releasing.Go(func() { seqs[i], errs[i] = stream.ReleaseAtSite(ctx, job) })
	}
	releasing.Wait()
	now, done := time.Now(), 0
	for i, job := range list {
		switch {
		case bus.IsUnstorable(errs[i]):
			b.refuse(job, log, errs[i])
		case errs[i] != nil && err == nil:
			err = errs[i]
		case seqs[i] > 0:
			b.sent = append(b.sent, sentJob{seq: seqs[i], at: now, job: job.Key, ask: now.Add(askAfter)})
			sent++
		}
		if err == nil {
			done++
		}
	}
	// A job that is done is marked even if it is not on its way. Otherwise the next round would read it again.
	if done > 0 {
		err = errors.Join(err, next.markGone(ctx, list[done-1]))
	}
	return sent, err
}

// refuse notes a job that can never be released. It logs only the first such job of a site, because the others mostly have the
// same cause.
func (b *backlog) refuse(job bus.WaitingJob, log *slog.Logger, err error) {
	if len(b.refused) == 0 {
		log.Warn("a job that waits for a site cannot be released, the server will release it at the time until; further ones of the site are not logged",
			"site", b.site, "queue", job.Queue, "job", job.ID, "until", job.Until, "error", err)
	}
	if len(b.refused) < maxRefused {
		if b.refused == nil {
			b.refused = map[uint64]bool{}
		}
		b.refused[job.Seq] = true
	}
}

// countFree returns how many jobs of the list, from the first one on, may be released now, and how long the next job has to wait;
// zero if all may be released.
func (b *backlog) countFree(site Site, list []bus.WaitingJob, maxWait time.Duration) (n int, wait time.Duration) {
	now := time.Now()
	for n < len(list) && wait == 0 {
		if wait = b.releaseDelay(site, list[n], n, maxWait, now); wait == 0 {
			n++
		}
	}
	return n, wait
}

// releaseDelay returns how long a job has to wait until it may be released; zero means now. before is how many jobs are released
// with it and before it. A job that has waited for too long may be released before the next test, because the worker that gets it
// ends it.
func (b *backlog) releaseDelay(site Site, job bus.WaitingJob, before int, maxWait time.Duration, now time.Time) time.Duration {
	switch {
	// Without room at a new site the job would wait again at once.
	case !site.Rests && site.New && b.sentSince(now.Add(-takenAfter))+before >= site.Room:
		return maxPause
	// The window alone limits the jobs of any other site that does not rest.
	case !site.Rests && len(b.sent)+before < b.window:
		return b.cameBackWait(now)
	case !site.Rests:
		return maxPause
	}
	// When the rest is over, one job may be released as the test. A job on its way is that test.
	test := max(site.Until.Add(testGrace).Sub(now), b.cameBackWait(now), 0)
	if test == 0 && len(b.sent) > 0 {
		test = maxPause
	}
	// The longest wait of a job may end before the test. Such a job sends no request to the site, so the window does not limit
	// it.
	end, ends := endOf(site, job, maxWait)
	if !ends {
		return test
	}
	left := max(end.Sub(now), b.cameBackWait(now), 0)
	if left == 0 && len(b.sent) >= maxWindow {
		left = maxPause
	}
	return min(test, left)
}

// sentSince counts the released jobs on their way that were released after a time.
func (b *backlog) sentSince(after time.Time) (n int) {
	for _, s := range b.sent {
		if s.at.After(after) {
			n++
		}
	}
	return n
}

// cameBackWait returns the rest of the pause after released jobs that wait again. They do so while other workers know that the
// site rests, and this worker does not. The first released job that does not wait again ends the pause.
func (b *backlog) cameBackWait(now time.Time) time.Duration {
	if b.cameBack == 0 {
		return 0
	}
	// A shift by 10 already exceeds maxCameBackPause, and a shift by 64 would give zero.
	return max(0, b.cameBackAt.Add(min(cameBackPause<<min(b.cameBack-1, 10), maxCameBackPause)).Sub(now))
}

// endOf returns the time at which a job's wait for a site ends. ok is false if no test of the site has failed since the wait
// began: then the wait has no end, because nothing shows that a longer wait is useless.
func endOf(site Site, job bus.WaitingJob, maxWait time.Duration) (at time.Time, ok bool) {
	progress, err := jobs.ParseProgress(job.Message().Header.Get(jobs.HeaderProgress))
	// The wait counts from the beginning of the current rest at the earliest. Otherwise a job that has waited through several
	// short rests would end at once in the next one.
	since := progress.SiteSince
	if site.Since.After(since) {
		since = site.Since
	}
	if err != nil || progress.SiteSince.IsZero() || !site.Failed.After(since) {
		return time.Time{}, false
	}
	return since.Add(maxWait), true
}

// nextPause returns the pause before the next visit, at most wait. While jobs are on their way, the pause is minPause after a
// change, and doubles up to maxPause without one. So jobs of a fast site follow quickly, and a slow site costs few requests. The
// pause does not end before the first released job may be checked.
func (b *backlog) nextPause(wait time.Duration, changed bool) time.Duration {
	if len(b.sent) == 0 {
		b.pause = minPause
		return wait
	}
	if changed {
		b.pause = minPause
	} else {
		b.pause = min(2*max(b.pause, minPause), maxPause)
	}
	first := slices.MinFunc(b.sent, func(a, b sentJob) int { return a.ask.Compare(b.ask) })
	return min(wait, max(b.pause, time.Until(first.ask)))
}
