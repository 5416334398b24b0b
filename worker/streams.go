package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// trouble is why a lane's jobs cannot be pulled.
type trouble struct {
	mu  sync.Mutex
	err error
}

// errNotPulled: a worker that starts has reached no consumer yet.
var errNotPulled = errors.New("not pulled from yet")

// set reports whether the trouble is news.
func (t *trouble) set(err error) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	news = t.err == nil || errors.Is(t.err, errNotPulled) || t.err.Error() != err.Error()
	t.err = err
	return news
}

// begin ends the waiting for the first pull, and no trouble.
func (t *trouble) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(t.err, errNotPulled) {
		t.err = nil
	}
}

func (t *trouble) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = nil
}

func (t *trouble) get() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// streams is what the worker knows of the installation's streams.
type streams struct {
	seen atomic.Pointer[bus.Streams] // nil before the first look
}

// StreamsError is what is not as it has to be about streams, buckets and the consumers for readers.
type StreamsError struct{ Differences []bus.Difference }

// Error names each.
func (e *StreamsError) Error() string {
	texts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		texts[i] = d.String()
	}
	return strings.Join(texts, "; ")
}

// err is a *StreamsError if something is missing, or if the server may lose or refuse messages.
func (s *streams) err() error {
	return s.where(func(d bus.Difference) bool { return d.Repair == bus.ByCreation || d.Use >= bus.Lossy })
}

// unusable is a *StreamsError if jobs cannot end as they have to: nobody depends as much on the other streams.
func (s *streams) unusable() error {
	return s.where(func(d bus.Difference) bool { return d.Use == bus.Unusable && d.Essential })
}

// unusableFor is why a message of a kind, as Counted.Published has it, may not be stored now.
func (s *streams) unusableFor(kind string) error {
	parts := map[string][]string{"result": {"_RESULTS", "OBJ_"}, "retry": {"_RETRIES"}, "dead": {"_DEAD"}}[kind]
	return s.where(func(d bus.Difference) bool {
		isPart := func(part string) bool { return strings.Contains(d.Name, part) }
		return d.Use == bus.Unusable && slices.ContainsFunc(parts, isPart)
	})
}

func (s *streams) where(holds func(bus.Difference) bool) error {
	seen := s.seen.Load()
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

// Parts of a limit on the waiting jobs, beyond which a server drops the oldest one without a word. What is between them is
// for the jobs that run: those that waited before need room only until their older message is acked.
const (
	crowded   = 0.5  // no fresh jobs are taken
	freshFull = 0.75 // no fresh job begins to wait
	full      = 0.95 // no job waits again
)

func (s *streams) crowded() bool {
	seen := s.seen.Load()
	return seen != nil && seen.Waiting.Above(crowded)
}

// watchStreams looks at the streams until ctx ends, and creates what is missing.
func (w *Worker) watchStreams(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, w.cfg.Look) {
		w.lookAtStreams(ctx)
	}
}

func (w *Worker) lookAtStreams(ctx context.Context) {
	before, beforeHeld := w.streams.err(), w.streams.crowded()
	seen, err := w.cfg.Inspect(ctx)
	if err != nil {
		return // what was known stays
	}
	w.streams.seen.Store(&seen)
	for _, l := range w.lanes {
		if made, ok := seen.Made[w.cfg.Client.LaneStream(l.due)]; ok {
			l.made.Store(made.UnixNano())
		}
	}
	now := w.streams.err()
	if now != nil && (before == nil || before.Error() != now.Error()) {
		w.cfg.Log.Error("streams are not as gofer needs them", "error", now, "held", w.streams.unusable() != nil)
	}
	if held := w.streams.crowded(); held && !beforeHeld {
		w.cfg.Log.Error("no fresh jobs are taken: there is little room for jobs that wait", "bytes", seen.Waiting.Bytes, "max_bytes", seen.Waiting.MaxBytes)
	}
	for _, d := range seen.Differences {
		if d.Repair == bus.ByCreation {
			w.Restore(ctx)
			return
		}
	}
}

// becameUnusable looks whether somebody has edited the stream that takes messages of a kind.
func (w *Worker) becameUnusable(ctx context.Context, kind string) bool {
	w.lookAtStreams(ctx)
	return w.streams.unusableFor(kind) != nil
}

// Consuming is nil if every lane reached its consumer at its last pull. Otherwise it is what keeps the worker from it, such as a
// *bus.UnusableError.
func (w *Worker) Consuming() error {
	var errs []error
	for _, l := range w.lanes {
		if err := l.trouble.get(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Streams is nil if all streams, buckets and consumers for readers are there and the server keeps what is stored in them;
// otherwise a *StreamsError, or ErrCrowded.
func (w *Worker) Streams() error {
	if err := w.streams.err(); err != nil {
		return err
	}
	if w.streams.crowded() {
		return ErrCrowded
	}
	return nil
}

// ErrCrowded says that no fresh jobs are taken, so that the server drops none of those that wait.
var ErrCrowded = errors.New("there is little room for jobs that wait, so no fresh ones are taken")

// Obeyed lists the settings of consumers that differ from those that gofer creates, and that the worker keeps to.
func (w *Worker) Obeyed() (list []bus.Difference) {
	for _, l := range w.lanes {
		info := l.info.Load()
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

// errWaitingFull: the server would drop the oldest waiting job to store another one.
var errWaitingFull = errors.New("there is no room for another waiting job")

// roomToWait is an error if a waiting job of that size would make the server drop one. Without limits it asks nobody.
func (w *Worker) roomToWait(ctx context.Context, t *task) error {
	seen := w.streams.seen.Load()
	if seen == nil || seen.Waiting.MaxBytes == 0 && seen.Waiting.MaxMsgs == 0 {
		return nil
	}
	fill, err := w.cfg.Client.Waiting(ctx)
	if err != nil {
		return err
	}
	fill.Bytes += int64(len(t.msg.Data())) + waitingOverhead
	fill.Msgs++
	part := freshFull
	if t.lane.due {
		part = full
	}
	if fill.Above(part) {
		return errWaitingFull
	}
	return nil
}

// waitingOverhead is what a waiting job takes beyond its payload: subject, headers and progress.
const waitingOverhead = 64 << 10
