package waiting

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// Bounds of a Counter.
const (
	// MaxJobs bounds the waiting jobs that are remembered. At 24 bytes each they take 25 MiB.
	MaxJobs = 1_100_000
	// maxSites and maxQueues bound the sites and queues that have an index in the table. An entry has one byte for the
	// queue.
	maxSites  = 10_000
	maxQueues = 200
	// releaseGrace is how long after its time a busy server may release a job.
	releaseGrace = time.Second
	// maxChecked bounds the jobs whose time has passed that one count asks for; the others count as released.
	maxChecked = 4096
	// chunk is how many jobs are asked for at the same time.
	chunk = 256
)

// Config configures a Counter. The zero value works.
type Config struct {
	// Worker is this worker's name, for people.
	Worker string
	// Budget is for how long one count may read waiting jobs, and one request more; zero means 2 s.
	Budget time.Duration
	// MaxJobs is how many jobs are remembered; zero means the package's bound.
	MaxJobs int
	// QuestionCost is for how long the server is assumed to search for jobs that are gone, for each request and waiting
	// job; zero means 300 ns.
	QuestionCost time.Duration
	// ReadJobs is how many queued jobs one count reads to find queues that nobody serves; zero means the package's bound.
	ReadJobs int
}

// Counter counts the jobs of a fleet that have not ended. It remembers waiting jobs between counts, so that a count reads
// only new ones. Make one with NewCounter, and use it from one goroutine.
type Counter struct {
	cfg Config
	bus *bus.Client

	// createdAt is when the stream was created, as in bus.WaitingState. Another stream has other sequences.
	createdAt string
	table     table
	// last is the sequence up to which all jobs were read.
	last   uint64
	queues names
	sites  names
	// lastWaits has one entry for each site, not for each job: a reason is a sentence of a hundred bytes.
	lastWaits map[uint32]lastWait // of sites that jobs wait for without a proxy
	unserved  unserved
	counts    int // how often Count was called
	// asked is the state of the stream of jobs at the latest call of Unchanged. jobs is its state before the latest
	// count; nil if that count found jobs.
	asked, jobs *jetstream.StreamInfo
	// found are the entries of jobs that read has overlooked. Only compare uses it.
	found []entry
	// questions counts the calls of countFrom in the latest search. searchAfter is when the next search may begin.
	questions   int
	searchAfter time.Time
	// sweptTo is the sequence from which the next sweep continues.
	sweptTo uint64
}

// lastWait is from the latest job that waits for a proxy at a site.
type lastWait struct {
	until  uint32
	detail string
}

// NewCounter makes a Counter that has not read anything.
func NewCounter(c *bus.Client, cfg Config) *Counter {
	if cfg.Budget == 0 {
		cfg.Budget = 2 * time.Second
	}
	if cfg.MaxJobs == 0 {
		cfg.MaxJobs = MaxJobs
	}
	if cfg.QuestionCost == 0 {
		cfg.QuestionCost = questionCost
	}
	if cfg.ReadJobs == 0 {
		cfg.ReadJobs = readJobs
	}
	return &Counter{cfg: cfg, bus: c, unserved: unserved{queues: map[string]bool{}, endedAt: time.Now()}}
}

// reset forgets all jobs and the indices of names, because the sequences now belong to other jobs.
func (c *Counter) reset() {
	c.table, c.last, c.lastWaits = table{}, 0, map[uint32]lastWait{}
	c.queues, c.sites = newNames(maxQueues), newNames(maxSites)
}

// Count counts the jobs of all queues. Jobs that come or end during the count may be counted or not. If it fails, the next count
// continues where it stopped.
//
// Errors: bus.ErrNotSetUp, bus.ErrPermission; any other one may pass.
func (c *Counter) Count(ctx context.Context) (Snapshot, error) {
	state, err := c.bus.WaitingState(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	// The epoch begins with the time of creation. A last sequence below c.last shows that the stream was restored from
	// a backup.
	if createdAt, _, _ := strings.Cut(state.Epoch, " "); createdAt != c.createdAt || state.LastSeq < c.last {
		c.createdAt = createdAt
		c.reset()
	}
	c.counts++
	c.jobs = nil
	before := c.asked
	unread, err := c.update(ctx, state)
	if err != nil {
		return Snapshot{}, err
	}
	s := Snapshot{At: state.Now.UTC(), Worker: c.cfg.Worker, Unread: unread}
	queues, err := c.countConsumers(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	if c.addWaiting(queues, state.Now); isIdle(queues) && unread == 0 {
		c.jobs = before
	}
	// Sorted by name, so that a snapshot is the same for the same jobs.
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		s.Queues = append(s.Queues, *queues[name])
	}
	return s, nil
}

// update makes the table agree with the stream, and returns how many jobs were not read.
func (c *Counter) update(ctx context.Context, state bus.WaitingState) (unread uint64, err error) {
	if state.Messages == 0 { // an idle fleet costs no further request
		c.table, c.last = table{}, state.LastSeq
		return 0, nil
	}
	end := time.Now().Add(c.cfg.Budget)
	// Each step makes the next one cheaper: most jobs that are gone are those whose time has come.
	if err := c.read(ctx, state.LastSeq, end); err != nil {
		return 0, err
	}
	if err := c.checkPassed(ctx, state.Now); err != nil {
		return 0, err
	}
	return c.compare(ctx, state, end)
}

// isIdle reports whether no queue has a job.
func isIdle(queues map[string]*Queue) bool {
	for _, q := range queues {
		if q.Queued+q.Running+q.Waiting() > 0 {
			return false
		}
	}
	return true
}

// Unchanged reports, with one request, whether there is still no job if the latest count found none. at is the time of the
// answer by the server's clock. A pause of a queue is no change.
func (c *Counter) Unchanged(ctx context.Context) (at time.Time, unchanged bool) {
	info, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if c.asked = info; err != nil || c.jobs == nil {
		return time.Time{}, false
	}
	// Each job that waits was published first, and a new queue has a new consumer.
	return info.TimeStamp.UTC(), info.Created.Equal(c.jobs.Created) && info.State.LastSeq == c.jobs.State.LastSeq && info.State.Msgs == 0 && info.State.Consumers == c.jobs.State.Consumers
}

// read reads the jobs up to a sequence that are not known yet, until a time, or until the table is full.
func (c *Counter) read(ctx context.Context, upTo uint64, end time.Time) error {
	for more := true; more && c.last < upTo && c.table.n < c.cfg.MaxJobs; {
		// Not beyond upTo: a job may get such a sequence after it was asked for, and before a later one is.
		limit := int(min(bus.WaitingPageSize, uint64(c.cfg.MaxJobs-c.table.n), upTo-c.last))
		last, next, err := c.bus.ReadWaiting(ctx, c.last, limit, func(job bus.WaitingJob) { c.table.add(c.entryOf(job)) })
		// Also after an error: the jobs up to last are in the table already.
		c.last, more = max(c.last, last), next
		if err != nil {
			return err
		}
		// The first page is read even with a tiny budget.
		if more && time.Now().After(end) {
			return nil
		}
		// No more jobs: the sequences up to the end are those of messages that are no waiting jobs, or gone.
		if !more {
			c.last = max(c.last, upTo)
		}
	}
	return nil
}

// entryOf makes the entry of a job, and remembers for its site why no proxy could be used.
func (c *Counter) entryOf(job bus.WaitingJob) entry {
	msg := job.Message()
	state, since, progress := jobs.StateOfWait(msg.Header.Get(jobs.HeaderProgress))
	// Progress of an earlier version has no time.
	if since.IsZero() {
		since, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets it
	}
	e := entry{seq: job.Seq, until: unixSeconds(job.Until), since: unixSeconds(since), queue: uint8(c.queues.index(job.Queue)), state: stateIndex(state)}
	if state != jobs.StateSiteDown && state != jobs.StateNoProxy {
		return e
	}
	site := msg.Header.Get(bus.HeaderSite)
	// Only jobs that the fleet releases have the header of the site. A worker that cannot reach the fleet stores others, too.
	if site == "" {
		if decoded, err := jobs.Decode(job.Queue, job.ID, msg.Data); err == nil {
			site = decoded.Target().Site()
		}
	}
	e.site = c.sites.index(site)
	if state == jobs.StateNoProxy {
		c.lastWaits[e.site] = lastWait{until: e.until, detail: progress.Why}
	}
	return e
}

// checkPassed asks for the jobs whose time has passed, and removes the entries of those that are gone, which are almost
// all. A failure leaves the table as it was.
func (c *Counter) checkPassed(ctx context.Context, now time.Time) error {
	limit := unixSeconds(now.Add(-releaseGrace))
	var seqs []uint64
	for i := range c.table.n {
		e := c.table.at(i)
		if e.until >= limit {
			continue
		}
		// Beyond maxChecked, too: these count as released, and compare finds the few that are not.
		e.state |= passedMark
		if len(seqs) < maxChecked {
			seqs = append(seqs, e.seq)
		}
	}
	for part := range slices.Chunk(seqs, chunk) {
		err := c.bus.StillWaiting(ctx, part, func(job bus.WaitingJob) {
			if e := c.table.find(job.Seq); e != nil {
				e.state &^= passedMark
			}
		})
		// A partial answer must not remove jobs of which nobody was asked.
		if err != nil {
			c.unmarkPassed()
			return err
		}
	}
	for i := range c.table.n {
		if e := c.table.at(i); e.state&passedMark != 0 {
			e.state = gone
		}
	}
	c.table.compact(nil)
	return nil
}

// passedMark marks the state of an entry while its job is asked for. No state has this bit.
const passedMark = 1 << 7

// unmarkPassed removes the marks of checkPassed.
func (c *Counter) unmarkPassed() {
	for i := range c.table.n {
		c.table.at(i).state &^= passedMark
	}
}

// unixSeconds returns the seconds since 1970, which 32 bits can hold until 2106.
func unixSeconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

// stateIndex numbers the states from 1. An unknown state is zero, which is gone.
func stateIndex(state string) uint8 { return uint8(1 + slices.Index(jobs.States(), state)) }

// names gives each name an index; zero for the empty name, and for names beyond limit.
type names struct {
	list  []string
	known map[string]uint32
	limit int
}

func newNames(limit int) names {
	return names{list: []string{""}, known: map[string]uint32{}, limit: limit}
}

// index returns the index of a name, which may be new.
func (n *names) index(name string) uint32 {
	i, found := n.known[name]
	if !found && len(n.list) < n.limit && name != "" {
		i = uint32(len(n.list))
		n.list = append(n.list, name)
		n.known[name] = i
	}
	return i
}
