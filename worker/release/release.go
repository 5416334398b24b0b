// Package release releases jobs that wait for a site.
//
// Such a job lies in the stream of waiting jobs under the subject of its site, and no worker polls it, so 100,000 waiting jobs
// cost no more than one. One worker of the fleet at a time, the leader, reads the oldest job of a site and makes it a due one: a
// single job as the test of a site that rests, jobs one after the other when it answers again, and those that have waited for too
// long, so that the worker that gets them ends them. A job of a queue from which nobody takes jobs is passed over. The server
// makes a waiting job a due one in one step, so a death loses and repeats none.
package release

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

const (
	// runners is how many sites are looked at at the same time. It bounds the questions to the server that are
	// open at the same time, not the speed of one site.
	runners = 8
	// maxSites is how many sites with waiting jobs this worker remembers. The server releases the jobs of others at their time.
	// It bounds the memory of a crawl over very many dead sites.
	maxSites = 100_000
	// forgetAfter is how long a worker that does not lead remembers that jobs wait for a site. It is longer than the longest
	// wait for a site, so no line is forgotten whose jobs still lie in the stream.
	forgetAfter = time.Hour
)

// Site is what is known of a site. The zero value is a site of which nothing is known: its jobs go as the
// window allows.
type Site struct {
	// Rests tells that no job may ask the site before Until, and then one as its test. While a test runs, Until is when another
	// test may replace it.
	Rests bool
	Until time.Time
	// Since is when its rest began.
	Since time.Time
	// Failed is when the latest test failed; zero if none did.
	Failed time.Time
	// Returns tells that the site has answered after a rest, and that its jobs come back one at a time first.
	Returns bool
	// New tells that the leader asks the site, which has never answered it. Room is how many more jobs the leader may send to it
	// now: a job beyond them would come back, and its history would say that it ran.
	New  bool
	Room int
}

// siteJobs is what a Releaser asks of NATS; *stream.Client has it. It is an interface, so that tests count and
// delay the questions without a server. NextSiteWait and NextSiteWaitOfQueue return the oldest job behind a
// sequence; ReleaseAtSite returns sequence zero for a job that is gone; StillDue and WaitsAgain tell what
// became of released ones.
type siteJobs interface {
	NextSiteWait(ctx context.Context, key string, after uint64) (job bus.WaitingJob, found bool, err error)
	ReleaseAtSite(ctx context.Context, job bus.WaitingJob) (seq uint64, err error)
	StillDue(ctx context.Context, seqs []uint64) (there map[uint64]bool, err error)
	WaitsAgain(ctx context.Context, job bus.Key, due uint64) (bool, error)
	NextSiteWaitOfQueue(ctx context.Context, key, queue string, after uint64) (job bus.WaitingJob, found bool, err error)
	DueConsumers(ctx context.Context) ([]bus.DueConsumer, error)
}

// Config is what a Releaser is made of. Site, MaxWait and Log are required.
type Config struct {
	// Site tells what this worker knows of a site. It is called often, and must not block. The name is the
	// site's authority, as jobs.Job.Target gives it.
	Site func(name string) Site
	// MaxWait is how long a job waits for a resting site that failed a test meanwhile.
	MaxWait time.Duration
	// Released is called with the number of jobs that were released; nil is allowed. It must not block. It
	// counts for a metric only.
	Released func(n int)
	Log      *slog.Logger
}

// Releaser knows for which sites jobs wait and, while its worker leads, releases them. Make one with New. Its methods may be
// called from any goroutine.
type Releaser struct {
	cfg Config
	// One signal is enough for all: a runner that wakes looks at the queue itself and wakes the next one.
	wake   chan struct{} // has room for one
	queues queues

	mu sync.Mutex
	// A line is in lines from its first note until it is found empty. Its runner holds it outside the queue
	// meanwhile.
	lines    map[string]*line // by the key of the site
	schedule lineSchedule     // those lines that no runner holds, by the time of their next look
}

// New makes a Releaser.
func New(cfg Config) *Releaser {
	if cfg.Released == nil {
		// An empty function instead of nil, so that no caller has to ask.
		cfg.Released = func(int) {}
	}
	return &Releaser{cfg: cfg, wake: make(chan struct{}, 1), lines: map[string]*line{}}
}

// NoteWaiting notes that jobs wait for a site. age is how long ago a worker noted this. key is the site's jobs.SiteKey.
func (r *Releaser) NoteWaiting(key, site string, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A note about a job that began to wait long ago must not keep a line alive as a new one would.
	at := time.Now().Add(-age)
	l := r.lines[key]
	if l == nil {
		if len(r.lines) >= maxSites {
			// Forgetting costs a walk over all lines, so it happens only when the table is full.
			r.forget(time.Now().Add(-forgetAfter))
		}
		if len(r.lines) >= maxSites {
			// The jobs are not lost: the server releases each at the end of its own wait.
			return
		}
		l = newLine(key, site)
		r.lines[key] = l
		r.schedule.push(l)
	}
	// noted only grows: notes of several workers arrive in any order.
	if at.After(l.noted) {
		l.noted = at
	}
	r.lookSoon(l)
}

// Changed tells that what is known of a site has changed, so that its jobs are looked at at once.
func (r *Releaser) Changed(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lines[key]; l != nil {
		r.lookSoon(l)
	}
}

// Sites is the number of sites for which jobs wait, as far as this worker knows.
func (r *Releaser) Sites() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lines)
}

// lookSoon schedules a look at the line now. If a runner holds it, the next look follows at once. A pause after a failure is
// kept. The caller holds the lock.
func (r *Releaser) lookSoon(l *line) {
	// The flag is for a line that a runner holds: giveBack makes it due at once, so a note during a look is not lost.
	l.lookAgain = true
	r.schedule.move(l, later(time.Now(), l.notBefore))
	r.signal()
}

// lookSoonAtAll schedules a look at every line now. The walk is over at most maxSites lines, and happens only when a queue
// becomes served again.
func (r *Releaser) lookSoonAtAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		r.lookSoon(l)
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// signal wakes a runner. The channel has room for one. If it is full, a wake-up is pending already, and its runner sees this
// change too, because the caller holds the lock.
func (r *Releaser) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget drops the lines that were noted last before a time. The caller holds the lock.
func (r *Releaser) forget(before time.Time) {
	// A line that a runner holds stays: its runner puts it back into the queue, and two lines of one site would release too many
	// jobs.
	for key, l := range r.lines {
		if l.noted.Before(before) && l.index >= 0 {
			r.schedule.remove(l)
			delete(r.lines, key)
		}
	}
}

// Run releases jobs until ctx ends. One worker of the fleet at a time may run it: two of them would release two tests.
func (r *Releaser) Run(ctx context.Context, jobs siteJobs) {
	r.begin()
	// Without the queues, every one counts as served, and the first jobs could be released into a paused one.
	_ = r.readQueues(ctx, jobs) // before the first job goes; a failure is logged by the next try
	var running sync.WaitGroup
	running.Go(func() { r.watchQueues(ctx, jobs) })
	// Each runner holds one line at a time, so two never work on the same site.
	for range runners {
		running.Go(func() {
			for ctx.Err() == nil {
				if l := r.take(ctx); l != nil {
					r.giveBack(l, r.look(ctx, jobs, l))
				}
			}
		})
	}
	running.Wait()
}

// begin forgets what an earlier leadership of this worker had released. Between two leaderships another worker
// released jobs, so sent, window and marks are out of date.
func (r *Releaser) begin() {
	r.queues.reset()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(time.Now().Add(-forgetAfter))
	for _, l := range r.lines {
		l.reset()
		r.schedule.move(l, time.Now())
	}
	r.signal()
}

// take waits for a line whose time has come, and holds it. It returns nil when ctx ends. The lock is never held
// while it waits or asks the server.
func (r *Releaser) take(ctx context.Context) *line {
	for ctx.Err() == nil {
		r.mu.Lock()
		l, wait := r.schedule.pop(time.Now())
		// lookAgain is cleared before the look, not after it: a note that comes during the look sets it again.
		if l != nil {
			// Only one runner is woken by a signal. Handing it on here lets as many runners wake as there are
			// due lines.
			l.lookAgain = false
			r.signal() // another runner may find another one
		}
		r.mu.Unlock()
		if l != nil {
			return l
		}
		// A line that becomes due earlier than the timer arrives with a signal.
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// giveBack ends the hold of a line, which is looked at again after a while. An empty one is forgotten if no worker has noted
// waiting jobs for emptyAfter.
func (r *Releaser) giveBack(l *line, saw view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Before that, an empty line stays, with its window: released jobs may come back to it.
	if saw.empty && time.Since(l.noted) > emptyAfter {
		delete(r.lines, l.key)
		return
	}
	now := time.Now()
	l.next, l.notBefore = now.Add(saw.wait), time.Time{}
	if saw.failed {
		l.notBefore = l.next
	}
	// Noted during the look: again at once, unless the look failed and its pause holds.
	if l.lookAgain {
		l.next = later(now, l.notBefore)
	}
	r.schedule.push(l)
	r.signal()
}

// view is what a look at a line saw: when to look again, whether it failed, and whether no job waits or is on the way.
type view struct {
	wait          time.Duration
	empty, failed bool
}

// look looks at one site. It calls the server without the lock; only the runner that holds the line touches its
// fields.
func (r *Releaser) look(ctx context.Context, jobs siteJobs, l *line) view {
	released, wait, empty, err := l.look(ctx, jobs, &r.queues, r.cfg)
	if released > 0 {
		r.cfg.Released(released)
	}
	if err == nil {
		l.failed = false
		return view{wait: wait, empty: empty}
	}
	// One warning for each series of failures of a line. The end of ctx is no failure.
	if !l.failed && ctx.Err() == nil {
		r.cfg.Log.Warn("jobs that wait for a site cannot be released, trying again", "site", l.site, "error", err)
	}
	l.failed = true
	if errors.Is(err, bus.ErrPermission) {
		return view{wait: refusedPause, failed: true} // each refusal is an error in the logs of the server
	}
	return view{wait: failurePause, failed: true}
}
