package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

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

// waitingNearlyFull reports whether so many jobs wait that no fresh ones should be taken.
func (s *streams) waitingNearlyFull() bool {
	seen := s.latest.Load()
	return seen != nil && seen.Waiting.Above(nearlyFull)
}

// watchStreams inspects the streams until ctx ends, and recreates missing ones.
func (w *Worker) watchStreams(ctx context.Context) {
	w.watch(ctx, w.isQuiet, quietSkips, w.inspectStreams)
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
	alike := map[string]bool{}
	repeated := 0
	for _, p := range w.pullers {
		err := p.lastError.get()
		if err == nil {
			continue
		}
		// A stream without a leader, or a silent server, fails every puller for one reason. Each text begins with the consumer.
		_, cause, _ := strings.Cut(err.Error(), ": ")
		if alike[cause] && (errors.Is(err, bus.ErrNoLeader) || errors.Is(err, bus.ErrNotAnswered)) {
			repeated++
			continue
		}
		alike[cause] = true
		errs = append(errs, err)
	}
	if repeated > 0 {
		errs = append(errs, fmt.Errorf("the same holds for %d more of its consumers", repeated))
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
