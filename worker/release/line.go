package release

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// maxWindow is how many released jobs of a site may be on their way at the same time, whatever it answers.
	maxWindow = 256
	// firstWindow is the first window of a site that is not returning from a rest.
	firstWindow = 8
	// chunk is how many released jobs one request asks for. A job that is still there comes as a whole message, so a chunk bounds
	// the memory of the answers.
	chunk = 32
	// testGrace is how long after the end of a rest its test is released, so that the worker that gets it finds the rest over.
	testGrace = 50 * time.Millisecond
	// lostAfter: after this long an unsettled released job no longer takes a place in the window. Its worker may have died, and
	// JetStream delivers the job again by itself.
	lostAfter = time.Minute
	// maxRefused is how many jobs of a site are remembered that can never be released. Any further one is tried in each look.
	maxRefused = 100

	// askAfter is how long after its release a job is first checked. A lagging replica does not show the due job; then the job
	// looks finished. A resting site would get a second test, and a returning site more jobs than it answered. A healthy replica
	// is milliseconds behind.
	askAfter = 200 * time.Millisecond

	// takenAfter is how long a released job may take until it counts as an attempt at its site. Until then it fills a place that
	// the site does not know of. A worker with a free slot takes it within milliseconds.
	takenAfter = 500 * time.Millisecond

	soonest    = 25 * time.Millisecond // between two looks at a line with jobs on their way
	latest     = 500 * time.Millisecond
	idlePause  = time.Second      // between two looks at a line that is empty
	emptyAfter = 15 * time.Second // how long an empty line is looked at after the last note
	// The pause after a failure is a second if the cause may pass, and a minute for a refusal, which somebody has to repair
	// first.
	failurePause    = time.Second
	refusedPause    = time.Minute
	cameBackPause   = 100 * time.Millisecond // after a job that came back, doubled after each further one up to longestCameBack
	longestCameBack = 5 * time.Second
)

// line is the jobs that wait for one site. One goroutine at a time uses it, the fields up to lookAgain under the lock of its
// Releaser.
type line struct {
	key, site string
	next      time.Time // of the next look
	index     int       // in the queue; -1 while a runner holds the line
	// notBefore wins over lookAgain: otherwise every note about a failing site would cause a request, and a note comes with every
	// job that ends up waiting.
	noted     time.Time // when a worker noted last that jobs wait for it
	notBefore time.Time // no look before, because the latest one failed; zero if it did not
	lookAgain bool      // it has to be looked at again

	// The window works as congestion control does (additive increase, multiplicative decrease, RFC 5681): a job
	// that went well adds a place, one that came back halves them.
	window int       // how many released jobs may be on their way
	sent   []sentJob // those that are
	stuck  []sentJob // released jobs of queues that nobody serves: they hold no place
	// after and passed let a read skip what is done. They are hints only: a read from them that finds nothing begins again at
	// zero, because the stream may have been deleted and created again.
	after  uint64            // every job up to this sequence has been released or refused
	passed map[string]uint64 // by queue: every one of its jobs up to this sequence has been, too
	// refused are the sequences of jobs that can never be released, at most maxRefused. They are passed over, until
	// the server makes them due at their own time.
	refused    map[uint64]bool
	pause      time.Duration
	cameBack   int       // released jobs in a row that came back
	cameBackAt time.Time // when the latest of them was found
	failed     bool      // the latest look did
}

// newLine makes a line that is due at once: the jobs that it stands for may have waited under another leader.
func newLine(key, site string) *line {
	return &line{key: key, site: site, index: -1, window: firstWindow, next: time.Now()}
}

// reset forgets all but the site and the time of its next look.
func (l *line) reset() {
	// A leader that begins cannot know what the former one released, so it forgets its own old state as well.
	// The window begins small: at worst 8 jobs more are on their way.
	l.window, l.sent, l.stuck, l.after, l.passed, l.pause, l.cameBack, l.failed = firstWindow, nil, nil, 0, nil, soonest, 0, false
	l.notBefore, l.refused = time.Time{}, nil
}

// look releases the jobs that may go now.
func (l *line) look(ctx context.Context, stream siteJobs, q *queues, cfg Config) (released int, wait time.Duration, empty bool, err error) {
	// First the released jobs are checked: what their outcome shows decides how many may follow.
	l.recall(q)
	moved, err := l.settle(ctx, stream, q)
	if err != nil {
		return 0, 0, false, err
	}
	site := cfg.Site(l.site)
	// A resting site, or one that returns and whose last released job is settled, starts over with one job as
	// its test. From then on each success adds a place.
	if site.Rests || site.Returns && len(l.sent) == 0 && !moved {
		l.window = 1
	}
	next := newHeads(l, stream, q)
	tried := false // we tried to release a job
	// The loop ends when no job may go now. Each round asks for the head again, since a job may have been
	// cancelled between.
	for ctx.Err() == nil {
		job, found, waits, err := next.first(ctx)
		if err != nil {
			return released, 0, false, err
		}
		// The line is empty only if nothing is on its way either, and no job is waiting that could not be released: the caller
		// may forget the line, and with it the window.
		wait, empty := idlePause, len(l.sent) == 0 && !waits && !tried
		switch {
		case found:
			wait = l.mayGo(site, job, cfg.MaxWait, time.Now())
		// Jobs wait, but all of queues that nobody serves. There is no hurry; readQueues ends the pause once a queue is served.
		case waits:
			wait = unservedPause
		}
		if wait > 0 {
			return released, l.waitFor(wait, moved || released > 0), empty, nil
		}
		tried = true
		if sent, err := l.release(ctx, stream, job, cfg.Log); err != nil {
			return released, 0, false, err
		} else if sent {
			released++
		}
		// The mark moves on in both cases, or the next round would read the same job again.
		if err := next.passed(ctx, job); err != nil {
			return released, 0, false, err
		}
	}
	return released, 0, false, nil
}

// release releases a job. sent is false if the job was gone already: cancelled, or released by its own time. Then nothing is
// on its way. It is false, too, as long as a due job of the same name is there, and if the job can never be released: others
// must not wait behind it.
func (l *line) release(ctx context.Context, stream siteJobs, job bus.WaitingJob, log *slog.Logger) (sent bool, err error) {
	seq, err := stream.ReleaseAtSite(ctx, job)
	if bus.IsUnstorable(err) {
		l.refuse(job, log, err)
		return false, nil
	}
	if err != nil || seq == 0 {
		return false, err
	}
	now := time.Now()
	l.sent = append(l.sent, sentJob{seq: seq, at: now, job: job.Key, ask: now.Add(askAfter)})
	return true, nil
}

// refuse notes a job that can never be released. Only the first one is logged, for the cause of others is mostly the same.
func (l *line) refuse(job bus.WaitingJob, log *slog.Logger, err error) {
	if len(l.refused) == 0 {
		log.Warn("a job that waits for a site cannot be released, the server will release it at the time until; further ones of the site are not logged",
			"site", l.site, "queue", job.Queue, "job", job.ID, "until", job.Until, "error", err)
	}
	if len(l.refused) < maxRefused {
		if l.refused == nil {
			l.refused = map[uint64]bool{}
		}
		l.refused[job.Seq] = true
	}
}

// mayGo says how long a job has to wait; zero means that it may go. One that has waited for too long may go before the next test:
// the worker that gets it ends it.
func (l *line) mayGo(site Site, job bus.WaitingJob, maxWait time.Duration, now time.Time) time.Duration {
	switch {
	// A job for a new site is released only if the site has room; otherwise it would come straight back.
	case !site.Rests && site.New && l.sentSince(now.Add(-takenAfter)) >= site.Room:
		return latest
	// Any other site that does not rest limits jobs only by the window.
	case !site.Rests && len(l.sent) < l.window:
		return l.cameBackWait(now)
	case !site.Rests:
		return latest
	}
	// While a site rests, one job may go as its test once the rest is over by the server's clock plus a grace.
	// A job on its way is that test, so the next one waits.
	test := max(site.Until.Add(testGrace).Sub(now), l.cameBackWait(now), 0)
	if test == 0 && len(l.sent) > 0 {
		test = latest
	}
	// The maximum wait of a job may end before the test. Such a job goes without asking the site. So such jobs are bounded by
	// maxWindow and not by the window, which measures how many jobs the site can take.
	end, ends := endOf(site, job, maxWait)
	if !ends {
		return test
	}
	left := max(end.Sub(now), l.cameBackWait(now), 0)
	if left == 0 && len(l.sent) >= maxWindow {
		left = latest
	}
	return min(test, left)
}

// sentSince counts the released jobs on their way that were released after a time.
func (l *line) sentSince(after time.Time) (n int) {
	for _, s := range l.sent {
		if s.at.After(after) {
			n++
		}
	}
	return n
}

// cameBackWait is the pause after jobs that came back: this worker may believe that a site answers although other workers think
// it rests.
func (l *line) cameBackWait(now time.Time) time.Duration {
	// A released job that does not come back sets cameBack to zero, so a site that answers never waits here.
	if l.cameBack == 0 {
		return 0
	}
	// The shift is bounded: more than 10 doublings exceed longestCameBack anyhow, and a shift by 64 or more would
	// give zero.
	return max(0, l.cameBackAt.Add(min(cameBackPause<<min(l.cameBack-1, 10), longestCameBack)).Sub(now))
}

// endOf is when a job has waited long enough for a site that failed a test meanwhile. ok is false if it failed none.
func endOf(site Site, job bus.WaitingJob, maxWait time.Duration) (at time.Time, ok bool) {
	progress, err := jobs.ParseProgress(job.Message().Header.Get(jobs.HeaderProgress))
	// SiteSince is when the job began to wait. A rest that began later counts from its own beginning, or a job
	// that waited through several short rests would end at once in the next one.
	since := progress.SiteSince
	if site.Since.After(since) {
		since = site.Since // a wait before the rest ends no job
	}
	// A job without progress, or one whose site has failed no test since, is not ended: nothing shows that waiting longer is
	// useless.
	if err != nil || progress.SiteSince.IsZero() || !site.Failed.After(since) {
		return time.Time{}, false
	}
	return since.Add(maxWait), true
}

// waitFor is the pause before the next look, at most wait. While jobs are on their way it is short, and grows as long as nothing
// moves. It lasts until the first job may be checked.
func (l *line) waitFor(wait time.Duration, moved bool) time.Duration {
	// Nothing is on its way, so nothing can move before the given wait is over.
	if len(l.sent) == 0 {
		l.pause = soonest
		return wait
	}
	// Movement makes the next look come soon, so that a site that answers fast is refilled fast. Stillness doubles the pause up
	// to latest, so that a slow site costs few requests.
	if moved {
		l.pause = soonest
	} else {
		l.pause = min(2*max(l.pause, soonest), latest)
	}
	first := slices.MinFunc(l.sent, func(a, b sentJob) int { return a.ask.Compare(b.ask) })
	return min(wait, max(l.pause, time.Until(first.ask)))
}
