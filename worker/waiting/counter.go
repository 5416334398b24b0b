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
	// MaxJobs is how many waiting jobs are remembered. At 24 bytes each they take 25 MiB. Unread of a snapshot says how
	// many jobs there are beyond it.
	MaxJobs = 1_100_000
	// maxSites and maxQueues are how many sites and queues have a number of their own in the table.
	maxSites = 10_000
	// It must stay below 256: an entry has one byte for the queue.
	maxQueues = 200
	// released is how long after its time a job may still be in the stream because the server is busy.
	released = time.Second
	// checked is how many jobs whose time has passed are asked for in one count; those beyond it count as released.
	checked = 4096
	// chunk is how many jobs are asked for at the same time.
	chunk = 256
)

// Config configures a Counter. The zero value works.
type Config struct {
	// Worker is this worker's name, for people.
	Worker string
	// Budget is about how long one count may read waiting jobs; zero means 2 s. A count may take longer by one
	// request.
	Budget time.Duration
	// MaxJobs is how many jobs are remembered; zero means the package's bound.
	MaxJobs int
	// QuestionCost is the reckoned cost of a question to the server about where jobs are gone, for each job that waits; zero means
	// the package's.
	QuestionCost time.Duration
	// ReadJobs is how many queued jobs one count reads to find queues that nobody serves; zero means the package's bound.
	ReadJobs int
}

// Counter counts the waiting jobs of a fleet. Make one with NewCounter, and use it from one goroutine. It holds the
// table between counts, so only new jobs are read each time.
type Counter struct {
	cfg Config
	bus *bus.Client

	// createdAt is when the stream of the table was created. A stream that was deleted and created again starts its
	// sequences over.
	createdAt string
	table     table
	// last is the sequence up to which every job was read. It does not prove that the jobs are in the table, which may
	// have been full.
	last   uint64
	queues names
	sites  names
	// about has one entry for each site, not for each job: a reason is a sentence of a hundred bytes.
	about    map[uint32]about // of sites that jobs wait for without a proxy
	unserved unserved
	counts   int // since the start
	// asked is the state of the stream of jobs at the last call of IsUnchanged. jobs is its state before the latest
	// count; nil if that count found jobs, because then numbers change by themselves.
	asked, jobs *jetstream.StreamInfo
	// found are jobs without an entry that compare has read. It is nil outside of compare.
	found []entry
	// questions is how many walks through all waiting jobs the latest search has cost the server, and searchAfter when the next
	// search may begin.
	questions   int
	searchAfter time.Time
	// swept is the sequence from which the next sweep goes on.
	swept uint64
}

// about is what the latest job that waits for a proxy at a site says about the wait.
type about struct {
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
	return &Counter{cfg: cfg, bus: c, unserved: unserved{queues: map[string]bool{}, ended: time.Now()}}
}

// reset forgets everything, because the sequences now belong to other jobs. The limits of the names begin again with
// the table: indices of the old one must not be used with the new one.
func (c *Counter) reset() {
	c.table, c.last, c.about = table{}, 0, map[uint32]about{}
	c.queues, c.sites = newNames(maxQueues), newNames(maxSites)
}

// Count counts the jobs of all queues. Jobs that are gone, or that have come since the count began, may be
// counted or not. It changes the table even when it fails, and the next count goes on from there.
//
// Errors: bus.ErrNotSetUp, bus.ErrPermission; any other one may pass.
func (c *Counter) Count(ctx context.Context) (Snapshot, error) {
	state, err := c.bus.WaitingState(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	// The epoch holds the creation time first. A last sequence below the one read means a restored backup: the
	// sequences are given to other jobs.
	if createdAt, _, _ := strings.Cut(state.Epoch, " "); createdAt != c.createdAt || state.LastSeq < c.last {
		c.createdAt = createdAt
		c.reset()
	}
	c.counts++
	c.jobs = nil
	before := c.asked
	end := time.Now().Add(c.cfg.Budget)
	// The order matters: read adds the new jobs, checkPassed removes those whose time has come, which are most
	// changes, and compare looks for what is left. Each step makes the next one cheaper.
	if err := c.read(ctx, state.LastSeq, end); err != nil {
		return Snapshot{}, err
	}
	if err := c.checkPassed(ctx, state.Now); err != nil {
		return Snapshot{}, err
	}
	unread, err := c.compare(ctx, state, end)
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

// isIdle reports whether no queue has a job.
func isIdle(queues map[string]*Queue) bool {
	for _, q := range queues {
		if q.Queued+q.Running+q.Waiting() > 0 {
			return false
		}
	}
	return true
}

// IsUnchanged reports whether another count would find what the latest one has found: no job at all. It is one question to
// the server. A pause of a queue is no change; Refresh shows it.
func (c *Counter) IsUnchanged(ctx context.Context) bool {
	info, err := c.bus.StreamInfo(ctx, c.bus.Names().Stream("JOBS"))
	if c.asked = info; err != nil || c.jobs == nil {
		return false
	}
	// A job that waits was published before, and a new queue has a new consumer.
	return info.Created.Equal(c.jobs.Created) && info.State.LastSeq == c.jobs.State.LastSeq && info.State.Msgs == 0 && info.State.Consumers == c.jobs.State.Consumers
}

// read reads the jobs up to a sequence that are not known yet, until a time, or until the table is full.
func (c *Counter) read(ctx context.Context, upTo uint64, end time.Time) error {
	for more := true; more && c.last < upTo && c.table.n < c.cfg.MaxJobs; {
		// Not beyond upTo: a sequence behind it may get its job after it was asked for and before a later one is.
		limit := int(min(bus.WaitingPageSize, uint64(c.cfg.MaxJobs-c.table.n), upTo-c.last))
		last, next, err := c.bus.ReadWaiting(ctx, c.last, limit, func(job bus.WaitingJob) { c.table.add(c.entryOf(job)) })
		// Also after an error: the jobs up to there are in the table, and must not come twice.
		c.last, more = max(c.last, last), next
		if err != nil {
			return err
		}
		// One page is read in any case, so that the count progresses even with a tiny budget.
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

// entryOf is what is remembered of a job. The reason why no proxy can be used is stored once for each site.
func (c *Counter) entryOf(job bus.WaitingJob) entry {
	msg := job.Message()
	state, since, progress := jobs.StateOfWait(msg.Header.Get(jobs.HeaderProgress))
	// Progress of an earlier version has no time. The message's own is the best that is left.
	if since.IsZero() {
		since, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server always sets it
	}
	e := entry{seq: job.Seq, until: seconds(job.Until), since: seconds(since), queue: uint8(c.queues.index(job.Queue)), state: stateIndex(state)}
	switch state {
	case jobs.StateSiteDown:
		e.site = c.sites.index(msg.Header.Get(bus.HeaderSite))
	// The header of the site is set for waits at a site only; here the body has to be decoded for the URL. A
	// job that cannot be decoded counts without a site.
	case jobs.StateNoProxy:
		if decoded, err := jobs.Decode(job.Queue, job.ID, msg.Data); err == nil {
			e.site = c.sites.index(decoded.Target().Site())
		}
		c.about[e.site] = about{until: e.until, detail: progress.Why}
	}
	return e
}

// checkPassed asks for the jobs whose time has passed, and forgets those that are gone. Almost all are, for the
// server releases them. The mark and the sweep are separate, because the answers come in any order and a
// failure must leave the table as it was.
func (c *Counter) checkPassed(ctx context.Context, now time.Time) error {
	limit := seconds(now.Add(-released))
	var seqs []uint64
	for i := range c.table.n {
		e := c.table.at(i)
		if e.until >= limit {
			continue
		}
		// Marked even beyond checked: those count as released, and compare finds the few that were not.
		e.state |= passed
		if len(seqs) < checked {
			seqs = append(seqs, e.seq)
		}
	}
	for part := range slices.Chunk(seqs, chunk) {
		err := c.bus.StillWaiting(ctx, part, func(job bus.WaitingJob) {
			if e := c.table.find(job.Seq); e != nil {
				e.state &^= passed
			}
		})
		// A partial answer must not remove jobs of which nobody was asked.
		if err != nil {
			c.unpass()
			return err
		}
	}
	for i := range c.table.n {
		if e := c.table.at(i); e.state&passed != 0 {
			e.state = gone
		}
	}
	c.table.compact(nil)
	return nil
}

// passed marks a state while its job is asked for. It is the highest bit of the byte. The states are fewer than
// ten, so it is free.
const passed = 1 << 7

// unpass takes back what checkPassed marked: the server has not answered.
func (c *Counter) unpass() {
	for i := range c.table.n {
		c.table.at(i).state &^= passed
	}
}

// seconds are those since 1970. 32 bits last until 2106 and halve the size of an entry's times.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

// stateIndex numbers the states; zero is gone. A state that is not in the list gives zero, which is gone.
func stateIndex(state string) uint8 { return uint8(1 + slices.Index(jobs.States(), state)) }

// names gives each name a number. Zero stands for names beyond limit. Numbers are never reused before reset, so an
// entry stays valid.
type names struct {
	list  []string
	known map[string]uint32
	limit int
}

func newNames(limit int) names {
	return names{list: []string{""}, known: map[string]uint32{}, limit: limit}
}

// The empty name has number zero as well.
func (n *names) index(name string) uint32 {
	i, found := n.known[name]
	if !found && len(n.list) < n.limit && name != "" {
		i = uint32(len(n.list))
		n.list = append(n.list, name)
		n.known[name] = i
	}
	return i
}
