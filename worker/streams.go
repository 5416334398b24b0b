package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// pullError is why a puller cannot fetch.
type pullError struct {
	mu  sync.Mutex // guards err
	err error
}

// errNotPulled is the error of a puller that has not reached its consumer yet.
var errNotPulled = errors.New("not pulled from yet")

// set notes err and reports whether it is new.
func (t *pullError) set(err error) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// errNotPulled is no error that anybody has seen, so what follows it is new.
	news = t.err == nil || errors.Is(t.err, errNotPulled) || t.err.Error() != err.Error()
	t.err = err
	return news
}

// begin ends errNotPulled, and no other error.
func (t *pullError) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(t.err, errNotPulled) {
		t.err = nil
	}
}

// end notes that the latest pull request succeeded.
func (t *pullError) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = nil
}

// get returns why the puller cannot fetch; nil if it can.
func (t *pullError) get() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// streams is what the worker knows of its streams.
type streams struct {
	latest atomic.Pointer[bus.Streams] // nil before the first inspection
}

// StreamsError lists how streams, buckets and readers' consumers differ from what gofer needs.
type StreamsError struct{ Differences []bus.Difference }

// Error names each difference.
func (e *StreamsError) Error() string {
	texts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		texts[i] = d.String()
	}
	return strings.Join(texts, "; ")
}

// err returns a *StreamsError if something is missing, or if the server may lose or refuse messages.
func (s *streams) err() error {
	return s.errorIf(func(d bus.Difference) bool { return d.Repair == bus.ByCreation || d.Use >= bus.Lossy })
}

// unready returns the part of err that a ready worker must not have. A stream on which no job depends, and which only its
// owner can change, is left out: a worker of a new version does without the rollups of an old one until all workers are
// updated, and an update waits for the new ones to be ready.
func (s *streams) unready() error {
	return s.errorIf(func(d bus.Difference) bool {
		return d.Repair == bus.ByCreation || d.Use >= bus.Lossy && (d.Essential || d.Repair != bus.ByOwner)
	})
}

// unusable returns a *StreamsError if jobs cannot end as the contract says. Only streams that jobs depend on count.
func (s *streams) unusable() error {
	return s.errorIf(func(d bus.Difference) bool { return d.Use == bus.Unusable && d.Essential })
}

// unusableFor returns why a message of a kind of Observer.Published must not be stored now.
func (s *streams) unusableFor(kind string) error {
	parts := map[string][]string{"result": {"_RESULTS", "OBJ_"}, "retry": {"_RETRIES"}, "dead": {"_DEAD"}}[kind]
	return s.errorIf(func(d bus.Difference) bool {
		isPart := func(part string) bool { return strings.Contains(d.Name, part) }
		return d.Use == bus.Unusable && slices.ContainsFunc(parts, isPart)
	})
}

// errorIf returns a *StreamsError with the differences for which holds is true; nil if there is none, or before the first
// inspection.
func (s *streams) errorIf(holds func(bus.Difference) bool) error {
	seen := s.latest.Load()
	if seen == nil {
		return nil
	}
	var found []bus.Difference
	for _, d := range seen.Differences {
		if holds(d) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return &StreamsError{found}
}

// Shares of the limit of the retries stream, at which the server silently drops the oldest scheduled job. The room between them
// is for the running jobs: one that was scheduled before needs it only until its older message is acked.
const (
	nearlyFull        = 0.5  // above it no fresh jobs are taken
	maxScheduledFresh = 0.75 // above it no fresh job is scheduled
	maxScheduledAgain = 0.95 // above it no job is scheduled again
)

// waitingNearlyFull reports whether so many jobs wait that no fresh ones should be taken.
func (s *streams) waitingNearlyFull() bool {
	seen := s.latest.Load()
	return seen != nil && seen.Waiting.Above(nearlyFull)
}

// watchStreams inspects the streams until ctx ends, and recreates missing ones.
func (w *Worker) watchStreams(ctx context.Context) { w.watch(ctx, quietSkips, w.inspectStreams) }

// A worker that has had no work for quietAfter leaves out quietSkips of its inspections between two that it makes: a large fleet
// that has nothing to do should cost its server little. One that takes no jobs because something is wrong leaves out none:
// it has to see soon that somebody has repaired it. A quiet worker leaves out listSkips inspections between two lists of
// its consumers, each of which takes two requests for all queues.
const (
	quietAfter = time.Minute
	quietSkips = 11
	listSkips  = 5
)

// watch inspects something at once and then regularly until ctx ends. A quiet worker leaves out skips inspections between
// two.
func (w *Worker) watch(ctx context.Context, skips int, inspect func(context.Context)) {
	for skipped := skips; ctx.Err() == nil; sleep(ctx, w.cfg.InspectInterval) {
		if skipped < skips && w.isQuiet() {
			skipped++
			continue
		}
		skipped = 0
		inspect(ctx)
	}
}

// listConsumers inspects all consumers together while the worker is quiet, until ctx ends. A user who may not list them,
// and consumers that a cluster leaves out, are asked for one by one.
func (w *Worker) listConsumers(ctx context.Context) {
	mayList := true
	sleep(ctx, w.cfg.InspectInterval*(listSkips+1))
	for ; ctx.Err() == nil; sleep(ctx, w.cfg.InspectInterval*(listSkips+1)) {
		if !w.isQuiet() {
			continue // each puller inspects its own
		}
		listed := map[bool]map[string]bus.JobConsumerInfo{}
		for _, due := range []bool{false, true} {
			if mayList {
				var err error
				listed[due], err = w.client.JobConsumers(ctx, due)
				mayList = !errors.Is(err, bus.ErrPermission)
			}
		}
		for _, p := range w.pullers {
			if info, found := listed[p.dueJobs][p.queue]; found {
				p.noteInfo(info)
			} else {
				_ = p.inspect(ctx) // if the server does not answer, the last known state stays
			}
		}
	}
}

// isQuiet reports whether the worker has had no work for a while, and could take some.
func (w *Worker) isQuiet() bool {
	return w.slots.quietFor() > quietAfter && !w.resultsFull.Load() && w.StreamsError() == nil && w.PullError() == nil
}

// inspectStreams looks at the streams once, logs what has become wrong, and recreates what is missing.
func (w *Worker) inspectStreams(ctx context.Context) {
	// Both are read before the new state is stored, so that only changes are logged.
	before, beforeHeld := w.streams.err(), w.streams.waitingNearlyFull()
	seen, err := w.cfg.Inspect(ctx)
	if err != nil {
		return // the last known state stays
	}
	w.streams.latest.Store(&seen)
	for _, p := range w.pullers {
		if created, ok := seen.CreatedAt[w.client.JobStream(p.dueJobs)]; ok {
			p.streamCreated.Store(created.UnixNano())
		}
	}
	now := w.streams.err()
	if now != nil && (before == nil || before.Error() != now.Error()) {
		w.cfg.Log.Error("streams are not as gofer needs them", "error", now, "held", w.streams.unusable() != nil)
	}
	if held := w.streams.waitingNearlyFull(); held && !beforeHeld {
		w.cfg.Log.Error("no fresh jobs are taken: the retries stream is nearly full", "bytes", seen.Waiting.Bytes, "max_bytes", seen.Waiting.MaxBytes)
	}
	for _, d := range seen.Differences {
		if d.Repair == bus.ByCreation {
			w.Restore(ctx)
			return
		}
	}
}

// becameUnusable inspects whether somebody has edited the stream of a kind of messages.
func (w *Worker) becameUnusable(ctx context.Context, kind string) bool {
	w.inspectStreams(ctx)
	return w.streams.unusableFor(kind) != nil
}

// PullError returns nil if every puller reached its consumer at its last pull request. Otherwise it returns why not, such as a
// *bus.UnusableError.
func (w *Worker) PullError() error {
	var errs []error
	for _, p := range w.pullers {
		if err := p.lastError.get(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// StreamsError returns nil if all streams, buckets and readers' consumers exist and the server keeps what is stored in them.
// Otherwise it returns a *StreamsError, or ErrRetriesNearlyFull.
func (w *Worker) StreamsError() error {
	if err := w.streams.unready(); err != nil {
		return err
	}
	if w.streams.waitingNearlyFull() {
		return ErrRetriesNearlyFull
	}
	return nil
}

// ErrRetriesNearlyFull means that the retries stream is nearly full. No fresh jobs are taken, so that the server drops no
// scheduled one.
var ErrRetriesNearlyFull = errors.New("the retries stream is nearly full, so no fresh jobs are taken")

// ObeyedSettings lists the consumers' settings that differ from those that gofer creates, and that the worker obeys.
func (w *Worker) ObeyedSettings() (list []bus.Difference) {
	for _, p := range w.pullers {
		info := p.info.Load()
		if info == nil {
			continue
		}
		for _, d := range info.Differences {
			if d.Use == bus.Obeyed {
				list = append(list, d)
			}
		}
	}
	return list
}

// errNoRoomToWait means that the server would drop the oldest scheduled job to store another one.
var errNoRoomToWait = errors.New("there is no room for another waiting job")

// checkRoomToWait returns an error if scheduling t would make the server drop another scheduled job. It asks the server only if
// the stream has a limit.
func (w *Worker) checkRoomToWait(ctx context.Context, t *task) error {
	seen := w.streams.latest.Load()
	if seen == nil || seen.Waiting.MaxBytes == 0 && seen.Waiting.MaxMsgs == 0 {
		return nil
	}
	fill, err := w.client.Waiting(ctx)
	if err != nil {
		return err
	}
	// What the job itself will take counts as well.
	fill.Bytes += int64(len(t.msg.Data())) + waitingOverhead
	fill.Msgs++
	part := maxScheduledFresh
	if t.puller.dueJobs {
		part = maxScheduledAgain
	}
	if fill.Above(part) {
		return errNoRoomToWait
	}
	return nil
}

// waitingOverhead bounds what a scheduled job takes beyond its payload: subject, headers and progress.
const waitingOverhead = 64 << 10
