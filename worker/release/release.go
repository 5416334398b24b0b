// Package release releases jobs that wait for a site.
//
// Such a job is in the stream of waiting jobs under the subject of its site. No worker polls it, so 100,000 waiting jobs cost no
// more than one. One worker of the fleet at a time, the leader, reads the oldest job of a site and makes it a due job: it
// releases the job. The leader releases a single job as the test of a resting site. When the site answers again, the leader
// releases one job after the other. It also releases the jobs that have waited for too long; the worker that gets such a job ends
// it. It leaves out the jobs of a queue that nobody serves. The server makes a waiting job a due job in one step, so a leader
// that dies neither loses nor repeats a job.
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
	// runners is how many sites are visited at the same time. It bounds the concurrent requests, not the rate of one site.
	runners = 8
	// maxSites is how many sites with waiting jobs this worker remembers. It bounds the memory that a crawl of very many dead
	// sites takes. The server releases the jobs of all other sites at the end of their wait.
	maxSites = 100_000
	// forgetAfter is how long a worker that does not lead remembers that jobs wait for a site. It is longer than the longest
	// wait for a site, so no backlog is forgotten whose jobs are still in the stream.
	forgetAfter = time.Hour
)

// Site is what this worker knows about a site. With the zero value, only the window limits the jobs.
type Site struct {
	// Rests means that no job may ask the site before Until. Then one job may, as the test. While a test runs, Until is when
	// another test may replace it.
	Rests bool
	Until time.Time
	// Since is when the rest began.
	Since time.Time
	// Failed is when the latest test failed; zero if none did.
	Failed time.Time
	// Returns means that the site has answered after a rest. At first its jobs are released one at a time.
	Returns bool
	// New means that this worker sends requests to the site and has never had an answer from it. Room is how many more jobs this
	// worker may run for the site now. A job beyond them would wait again at once, and its story would say that it ran.
	New  bool
	Room int
	// Load is how many attempts of this worker are under way at a site that answers and does not return from a rest; zero for any
	// other site. The window is at least twice the load, because newer jobs of the queue need no release and are not limited at
	// all.
	Load int
}

// siteJobs is what a Releaser needs of NATS. *stream.Client implements it; tests use another implementation. NextSiteWait and
// NextSiteWaitOfQueue return the oldest job after a sequence. StillWaiting calls use for each job of seqs that still waits, in
// the order of seqs. ReleaseAtSite returns sequence zero for a job that is gone; several goroutines call it at the same time.
// StillDue and WaitAgain report the state of released jobs.
type siteJobs interface {
	NextSiteWait(ctx context.Context, key string, after uint64) (job bus.WaitingJob, found bool, err error)
	StillWaiting(ctx context.Context, seqs []uint64, use func(bus.WaitingJob)) error
	ReleaseAtSite(ctx context.Context, job bus.WaitingJob) (seq uint64, err error)
	StillDue(ctx context.Context, seqs []uint64) (there map[uint64]bool, err error)
	WaitAgain(ctx context.Context, released map[uint64]bus.Key) (again map[uint64]bool, err error)
	NextSiteWaitOfQueue(ctx context.Context, key, queue string, after uint64) (job bus.WaitingJob, found bool, err error)
	DueConsumers(ctx context.Context) ([]bus.DueConsumer, error)
}

// Config configures a Releaser. Site, MaxWait and Log are required.
type Config struct {
	// Site returns what this worker knows about a site. It is called often, and must not block. name has the form that
	// jobs.Job.Target returns.
	Site func(name string) Site
	// MaxWait is how long a job waits for a resting site that failed a test meanwhile.
	MaxWait time.Duration
	// Released is called with the number of jobs that were released. It must not block; nil is allowed.
	Released func(n int)
	Log      *slog.Logger
}

// Releaser knows for which sites jobs wait and, while its worker leads, releases them. Make one with New. Its methods may be
// called from any goroutine.
type Releaser struct {
	cfg Config
	// One signal is enough for all runners: a runner that wakes asks the schedule and wakes the next runner.
	wake   chan struct{} // has room for one
	queues queues

	mu sync.Mutex // guards the fields below, and the first fields of each backlog
	// A backlog is in backlogs from the first call of NoteWaiting until a visit finds it empty. It is in the schedule, too,
	// unless a runner holds it.
	backlogs map[string]*backlog // by the key of the site
	schedule schedule            // by the time of the next visit
}

// New makes a Releaser.
func New(cfg Config) *Releaser {
	if cfg.Released == nil {
		cfg.Released = func(int) {}
	}
	return &Releaser{cfg: cfg, wake: make(chan struct{}, 1), backlogs: map[string]*backlog{}}
}

// NoteWaiting notes that jobs wait for a site. age is how long ago a worker noticed that. key is the site's jobs.SiteKey.
func (r *Releaser) NoteWaiting(key, site string, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A note is as old as the observation: an old note keeps a backlog for a shorter time.
	at := time.Now().Add(-age)
	b := r.backlogs[key]
	if b == nil {
		if len(r.backlogs) >= maxSites {
			// forget reads all backlogs, so it runs only when the table is full.
			r.forget(time.Now().Add(-forgetAfter))
		}
		if len(r.backlogs) >= maxSites {
			// The jobs are not lost: the server releases each at the end of its own wait.
			return
		}
		b = newBacklog(key, site)
		r.backlogs[key] = b
		r.schedule.push(b)
	}
	// The notes of several workers arrive in any order, so noted only grows.
	if at.After(b.noted) {
		b.noted = at
	}
	r.visitSoon(b)
}

// Changed notes that the state of a site has changed, and schedules a visit to its backlog now.
func (r *Releaser) Changed(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.backlogs[key]; b != nil {
		r.visitSoon(b)
	}
}

// Sites returns the number of sites for which jobs wait, as far as this worker knows.
func (r *Releaser) Sites() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.backlogs)
}

// visitSoon schedules a visit to the backlog now, or at notBefore. If a runner holds the backlog, the next visit follows the
// present one at once. The caller holds the lock.
func (r *Releaser) visitSoon(b *backlog) {
	b.visitAgain = true // for giveBack, so that a note during a visit is not lost
	r.schedule.move(b, b.soonestVisit())
	r.signal()
}

// visitAllSoon schedules a visit to every backlog now.
func (r *Releaser) visitAllSoon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.backlogs {
		r.visitSoon(b)
	}
}

// signal wakes a runner. If the channel is full, a signal is pending already, and the runner that receives it also sees this
// change, because the caller holds the lock.
func (r *Releaser) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// forget drops the backlogs whose last note is older than before. A backlog that a runner holds stays: with two backlogs of one
// site, too many jobs would be released. The caller holds the lock.
func (r *Releaser) forget(before time.Time) {
	for key, b := range r.backlogs {
		if b.noted.Before(before) && b.index >= 0 {
			r.schedule.remove(b)
			delete(r.backlogs, key)
		}
	}
}

// Run releases jobs until ctx ends. One worker of the fleet at a time may run it: two of them would release two tests.
func (r *Releaser) Run(ctx context.Context, jobs siteJobs) {
	r.begin()
	// Every queue counts as served until the queues are read. Without this call, a job could be released into a paused queue.
	_ = r.readQueues(ctx, jobs) // watchQueues logs a failure
	var running sync.WaitGroup
	running.Go(func() { r.watchQueues(ctx, jobs) })
	// Each runner holds one backlog at a time, so two never work on the same site.
	for range runners {
		running.Go(func() {
			for ctx.Err() == nil {
				if b := r.take(ctx); b != nil {
					r.giveBack(b, r.visit(ctx, jobs, b))
				}
			}
		})
	}
	running.Wait()
}

// begin forgets which jobs this worker released when it was the leader before, because another leader may have released jobs
// since.
func (r *Releaser) begin() {
	r.queues.reset()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(time.Now().Add(-forgetAfter))
	for _, b := range r.backlogs {
		b.reset()
		r.schedule.move(b, time.Now())
	}
	r.signal()
}

// take waits for a backlog whose time has come, and takes it out of the schedule. It returns nil when ctx ends.
func (r *Releaser) take(ctx context.Context) *backlog {
	for ctx.Err() == nil {
		r.mu.Lock()
		b, wait := r.schedule.pop(time.Now())
		if b != nil {
			b.visitAgain = false // before the visit, because a note that comes during the visit sets it again
			r.signal()           // another runner may find another backlog
		}
		r.mu.Unlock()
		if b != nil {
			return b
		}
		// If another backlog becomes due before the timer ends, a signal says so.
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-time.After(wait):
		}
	}
	return nil
}

// giveBack puts a backlog back into the schedule. It forgets an empty backlog if no worker has noted waiting jobs for emptyAfter.
// Until then an empty backlog keeps its window, because released jobs may wait again.
func (r *Releaser) giveBack(b *backlog, result visitResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if result.empty && time.Since(b.noted) > emptyAfter {
		delete(r.backlogs, b.key)
		return
	}
	now := time.Now()
	b.next, b.notBefore = now.Add(result.wait), time.Time{}
	if result.failed {
		b.notBefore = b.next
	}
	// A note came during the visit.
	if b.visitAgain {
		b.next = b.soonestVisit()
	}
	r.schedule.push(b)
	r.signal()
}

// visitResult is what a visit found: the time until the next visit, whether no job waits or is on its way, and whether the visit
// failed.
type visitResult struct {
	wait          time.Duration
	empty, failed bool
}

// visit releases jobs of one backlog, and logs a failure. It asks the server without holding the lock.
func (r *Releaser) visit(ctx context.Context, jobs siteJobs, b *backlog) visitResult {
	released, wait, empty, err := b.visit(ctx, jobs, &r.queues, r.cfg)
	if released > 0 {
		r.cfg.Released(released)
	}
	if err == nil {
		b.failed = false
		return visitResult{wait: wait, empty: empty}
	}
	// A series of failures is logged once. The end of ctx is no failure.
	if !b.failed && ctx.Err() == nil {
		r.cfg.Log.Warn("jobs that wait for a site cannot be released, trying again", "site", b.site, "error", err)
	}
	b.failed = true
	if errors.Is(err, bus.ErrPermission) {
		return visitResult{wait: refusedPause, failed: true} // each refusal is an error in the logs of the server
	}
	return visitResult{wait: failurePause, failed: true}
}
