// Package worker is the loop of gofer: it fetches jobs from JetStream, runs them, and settles their outcomes.
//
// The right to settle a job is a job lease, not an ack: the server accepts an ack from anybody. Two rules make a job end in
// exactly one result, whatever dies:
//
//   - A worker stores the result under a guard, or stores the scheduled job, and acks only then.
//   - A worker whose lease is over says nothing about the job any more.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// MaxQueues is how many queues one worker serves.
const MaxQueues = 32

// Queue is a queue to serve and its weight against the others.
type Queue struct {
	Name   string
	Weight int // zero means 1
}

// Config configures a Worker. Client, Queues, Do and Log are required.
type Config struct {
	Client *bus.Client
	Queues []Queue
	// Concurrency is how many jobs run at once; zero means 64.
	Concurrency int
	// Do runs one job. It returns soon after ctx has ended. context.Cause(ctx) is then one of the errors of package jobs.
	Do func(ctx context.Context, job *jobs.Job, progress *jobs.Progress) *jobs.RunOutcome
	// AckWait is how long the server waits for a heartbeat or ack before it redelivers a job; zero means bus.AckWait. A
	// consumer with a shorter ack wait is obeyed.
	AckWait time.Duration
	// DrainTimeout bounds how long Run goes on after its context ended; zero means 30 s.
	DrainTimeout time.Duration
	// Observer has the functions that the worker calls.
	Observer Observer
	// Restore recreates missing streams: somebody may delete one while the worker runs. Nil means that the worker recreates
	// none, and jobs that need the stream wait for it.
	Restore func(context.Context) error
	// WaitForSite reports a job that waits for a site to whoever releases it. It reports false if nobody does; nil is the same.
	// Then such a job waits for a time. It must not block.
	WaitForSite func(site string) bool
	// InspectInterval is the interval at which the worker inspects its consumers and streams; zero means 5 s. It is several times
	// as long while there is no work: see quietSkips.
	InspectInterval time.Duration
	// Inspect compares the streams with their settings; nil compares them with the default settings.
	Inspect func(context.Context) (bus.Streams, error)
	Log     *slog.Logger
	// Name is this worker's name in results and events.
	Name string
}

// Observer has functions that report what a worker does. A nil function is not called. Each may be called from any goroutine
// and must not block.
type Observer struct {
	// Ended is called once for each job whose result this worker stored.
	Ended func(job *jobs.Job, result *jobs.Result)
	// Taken is called for each delivered job. Waited is the time since the job was stored or became due. Again is true for a
	// redelivered job, whose waited is meaningless.
	Taken func(queue string, waited time.Duration, again bool)
	// Published is called for each message that was stored or refused. Kind is "result", "retry" (a scheduled job), "dead" or
	// "event".
	Published func(kind string, ok bool, took time.Duration)
	// Acked is called for each heartbeat, ack and hand-back. Kind is "heartbeat", "ack" or "hand_back"; ok means that the server
	// confirmed it.
	Acked func(kind string, ok bool)
	// DeadLettered is called for each dead letter, with the job's error code.
	DeadLettered func(reason string)
}

func (o Observer) withDefaults() Observer {
	if o.Ended == nil {
		o.Ended = func(*jobs.Job, *jobs.Result) {}
	}
	if o.Taken == nil {
		o.Taken = func(string, time.Duration, bool) {}
	}
	if o.Published == nil {
		o.Published = func(string, bool, time.Duration) {}
	}
	if o.Acked == nil {
		o.Acked = func(string, bool) {}
	}
	if o.DeadLettered == nil {
		o.DeadLettered = func(string) {}
	}
	return o
}

// Worker fetches and runs jobs. New creates one. Its methods may be called from any goroutine.
type Worker struct {
	client  *stream.Client
	cfg     Config
	slots   *slots
	pullers []*puller
	tasks   chan *task // from the pullers to the runners; there is one runner for each slot
	jobs    running
	acks    *stream.Acks  // set by Run
	pulls   *stream.Pulls // set by Run

	draining    atomic.Bool
	drainEnds   atomic.Pointer[time.Time] // nil before a drain begins
	resultsFull atomic.Pointer[error]     // which limit of the results stream refused the latest result; nil if there is room
	deadFull    atomic.Pointer[deadFull]  // nil before a dead letter found no room
	unsettled   unsettled
	restoring   restoring
	streams     streams
	storing     chan struct{}       // has one place: see storeGuarded
	unguarded   *semaphore.Weighted // unguardedBytes: see storeUnguarded
	// waitingFill is nil before the first question.
	waitingFill atomic.Pointer[knownFill]
	askingFill  singleflight.Group // of the questions for waitingFill
	stats       stats

	// pullLimiter limits how fast jobs are pulled while no proxy is usable. Otherwise a million waiting jobs would each be
	// pulled, found unable to run, and scheduled again.
	pullLimiter   *rate.Limiter
	proxyShortage proxyShortage
}

// New creates a Worker. Run starts it.
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
	if cfg.InspectInterval == 0 {
		cfg.InspectInterval = 5 * time.Second
	}
	if cfg.Inspect == nil {
		cfg.Inspect = func(ctx context.Context) (bus.Streams, error) { return cfg.Client.InspectStreams(ctx, bus.Settings{}) }
	}
	cfg.Observer = cfg.Observer.withDefaults()
	w := &Worker{
		client: stream.New(cfg.Client), cfg: cfg, tasks: make(chan *task), slots: newSlots(cfg.Concurrency), jobs: running{tasks: map[jobName]*task{}},
		storing: make(chan struct{}, 1), unguarded: semaphore.NewWeighted(unguardedBytes),
		pullLimiter: rate.NewLimiter(rate.Limit(cfg.Concurrency), cfg.Concurrency),
	}
	for _, q := range cfg.Queues {
		for i, share := range w.slots.add(max(1, q.Weight), 2) {
			w.pullers = append(w.pullers, &puller{worker: w, queue: q.Name, dueJobs: i == 1, slots: share, lastError: pullError{err: errNotPulled}})
		}
	}
	return w, nil
}

// IsDraining reports whether the worker has stopped taking jobs because Run's context ended.
func (w *Worker) IsDraining() bool { return w.draining.Load() }

// StoreError returns why outcomes of jobs cannot be stored, or nil. While the results stream is full, which is
// bus.ErrResultsFull or one that wraps it, the worker takes no jobs.
func (w *Worker) StoreError() error {
	if full := w.resultsFull.Load(); full != nil {
		return *full
	}
	if err := w.unsettled.err(); err != nil {
		return err
	}
	return w.deadFullError()
}

// Backlog returns the backlog of each queue: at most a few seconds old if the worker has work of that queue, else at most 30 s.
func (w *Worker) Backlog() map[string]bus.Backlog {
	out := map[string]bus.Backlog{}
	for _, p := range w.pullers {
		out[p.queue] = out[p.queue].Plus(p.backlog())
	}
	return out
}
