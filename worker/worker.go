// Package worker takes jobs from their streams, has them run, and settles what comes of it: the loop of gofer.
//
// A job's right to be settled is a lease, not an ack: the server takes an ack from anybody. What makes a job end in
// one result, whatever dies, is the order of the steps (store the result under a guard, then ack; or store the
// waiting job, then ack) and a worker that falls silent when its lease ran out.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
)

// MaxQueues is how many queues one worker serves.
const MaxQueues = 32

// Queue is a queue to serve and its weight against the others.
type Queue struct {
	Name   string
	Weight int // zero means 1
}

// Config is what a Worker is made of. Client, Queues, Do and Log are required.
type Config struct {
	Client *bus.Client
	Queues []Queue
	// Concurrency is how many jobs run at once; zero means 64.
	Concurrency int
	// Do runs one job. It ends soon after ctx does, and asks for the cause: one of the errors of package jobs.
	Do func(ctx context.Context, job jobs.Job, progress jobs.Progress) jobs.RunOutcome
	// AckWait is how long the server leaves a job to a silent worker, as the consumers were made with; zero means
	// bus.AckWait.
	AckWait time.Duration
	// DrainTimeout bounds how long Run goes on after its context ended; zero means 30 s.
	DrainTimeout time.Duration
	// Ended is called once for each job that this worker ended, after its result was stored; nil means nobody counts.
	Ended func(job jobs.Job, result jobs.Result)
	// Counted is told of what the worker does.
	Counted Counted
	// Restore makes the streams that are missing anew: somebody may have deleted one while the worker runs. Nil leaves that to
	// others, and jobs that need the stream wait for it.
	Restore func(context.Context) error
	// Look is how often the worker looks at its consumers and streams; zero means 5 s.
	Look time.Duration
	// Inspect looks at the streams; nil means with the default settings.
	Inspect func(context.Context) (bus.Streams, error)
	Log     *slog.Logger
	// Name is this worker's name in results and events.
	Name string
}

// Counted are functions that count; one that is nil does not. They may be called from any goroutine and must not block.
type Counted struct {
	// Taken is told of each job that was taken: how long it had waited since it was stored or its time came, and again of
	// one that somebody had taken before, whose wait says nothing.
	Taken func(queue string, waited time.Duration, again bool)
	// Published is told of each message stored or refused, "result", "retry" (a waiting job), "dead" or "event", and how
	// long that took.
	Published func(kind string, ok bool, took time.Duration)
	// Acked is told of each answer about a job that the server confirmed, or did not: "heartbeat", "ack" or "hand_back".
	Acked func(kind string, ok bool)
	// Buried is told of each dead letter, by the job's error code.
	Buried func(reason string)
}

func (c Counted) filled() Counted {
	if c.Taken == nil {
		c.Taken = func(string, time.Duration, bool) {}
	}
	if c.Published == nil {
		c.Published = func(string, bool, time.Duration) {}
	}
	if c.Acked == nil {
		c.Acked = func(string, bool) {}
	}
	if c.Buried == nil {
		c.Buried = func(string) {}
	}
	return c
}

// Worker runs jobs. Make one with New; its methods may be called from any goroutine.
type Worker struct {
	cfg   Config
	slots *slots
	lanes []*lane
	tasks chan *task // from the lanes to the runners; there is a runner for each slot
	jobs  running

	draining  atomic.Bool
	over      atomic.Pointer[time.Time] // when the drain ends; nil before it has begun
	full      atomic.Bool               // the result stream refused a result for want of room
	unsettled unsettled
	restoring restoring
	streams   streams
	stats     stats

	// idle limits how fast jobs are taken while no proxy is usable: a million waiting jobs are not churned.
	idle    *rate.Limiter
	drought drought
}

// New makes a worker; Run starts it.
func New(cfg Config) (*Worker, error) {
	if len(cfg.Queues) == 0 || len(cfg.Queues) > MaxQueues {
		return nil, errors.New("a worker serves 1 to 32 queues")
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 64
	}
	if cfg.AckWait == 0 {
		cfg.AckWait = bus.AckWait
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 30 * time.Second
	}
	if cfg.Look == 0 {
		cfg.Look = 5 * time.Second
	}
	if cfg.Inspect == nil {
		cfg.Inspect = func(ctx context.Context) (bus.Streams, error) { return cfg.Client.InspectStreams(ctx, bus.Settings{}) }
	}
	cfg.Counted = cfg.Counted.filled()
	w := &Worker{
		cfg: cfg, tasks: make(chan *task), slots: newSlots(cfg.Concurrency), jobs: running{tasks: map[name]*task{}},
		idle: rate.NewLimiter(rate.Limit(cfg.Concurrency), cfg.Concurrency),
	}
	for _, q := range cfg.Queues {
		for i, share := range w.slots.add(max(1, q.Weight), 2) {
			w.lanes = append(w.lanes, &lane{w: w, queue: q.Name, due: i == 1, share: share, trouble: trouble{err: errNotPulled}})
		}
	}
	return w, nil
}

// Draining reports whether the worker has stopped taking jobs for good.
func (w *Worker) Draining() bool { return w.draining.Load() }

// Storable reports whether what becomes of jobs can be stored, and if not, why. While there is no room for results the worker
// takes no jobs.
func (w *Worker) Storable() (why string, ok bool) {
	if w.full.Load() {
		return bus.ErrResultsFull.Error(), false
	}
	return w.unsettled.why()
}

// Slots are the slots in use and all of them.
func (w *Worker) Slots() (busy, total int) { return w.slots.busy(), w.cfg.Concurrency }

// Backlog is that of each queue, a few seconds old.
func (w *Worker) Backlog() map[string]bus.Backlog {
	out := map[string]bus.Backlog{}
	for _, l := range w.lanes {
		out[l.queue] = out[l.queue].Plus(l.backlog())
	}
	return out
}
