package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker/stream"
)

// Shares of the limit of the retries stream, at which the server silently drops the oldest scheduled job. The room between them
// is for the running jobs: one that was scheduled before needs it only until its older message is acked.
const (
	nearlyFull        = 0.5  // above it no fresh jobs are taken
	maxScheduledFresh = 0.75 // above it no fresh job is scheduled
	maxScheduledAgain = 0.95 // above it no job is scheduled again
)

const (
	// waitingOverhead bounds what a scheduled job takes beyond its payload and its progress: subject and other headers.
	waitingOverhead = 4 << 10
	// releaseRoom is more than the largest due job takes. The server stores a due job before it removes the scheduled one.
	releaseRoom = 1 << 20
	// Below this free room a job is stored only if nobody has stored another one since the server was asked. Above it, sixty workers
	// together cannot fill it during one request.
	guardedBytes, guardedMsgs = 64 << 20, 100_000
	// unguardedBytes bounds what one worker stores at the same time without that guard. A larger job is stored alone.
	unguardedBytes = 1 << 20
	// fillValid is how long the worker relies on it that the stream has no limit, or little room.
	fillValid = time.Second
	// maxChanges bounds the tries of a worker that is always slower than the others.
	maxChanges = 64
	// longestPause bounds the pause between two tries.
	longestPause = 250 * time.Millisecond
)

// errNoRoomToWait means that the server would drop the oldest scheduled job to store another one.
var errNoRoomToWait = errors.New("there is no room for another waiting job")

// storeInRoom calls store, which stores t as a scheduled job with this progress. It returns errNoRoomToWait instead if the server
// would drop another scheduled job for it. It asks the server for each job only if the stream has a limit.
func (w *Worker) storeInRoom(ctx context.Context, t *task, progress *jobs.Progress, store func(context.Context, *stream.Client) error) error {
	known, err := w.knownFill(ctx)
	if err != nil {
		return err
	}
	if known.MaxBytes == 0 && known.MaxMsgs == 0 {
		return store(ctx, w.client)
	}
	encoded, err := progress.Encode()
	if err != nil {
		return err
	}
	size := int64(len(t.msg.Data()) + len(encoded) + waitingOverhead)
	if known.HasFree(guardedBytes, guardedMsgs) {
		if isFree, err := w.storeUnguarded(ctx, size, t.puller.dueJobs, store); isFree || err != nil {
			return err
		}
	}
	return w.storeGuarded(ctx, size, t.puller.dueJobs, store)
}

// storeUnguarded calls store for a job of so many bytes if the stream has so much free room that no guard is needed. isFree
// reports whether it has.
func (w *Worker) storeUnguarded(ctx context.Context, size int64, again bool, store func(context.Context, *stream.Client) error) (isFree bool, err error) {
	// Without this bound the slots of one worker could fill the room: each of them asks before any of them has stored its job.
	part := min(size, unguardedBytes)
	if err := w.unguarded.Acquire(ctx, part); err != nil {
		return false, err
	}
	defer w.unguarded.Release(part)
	fill, err := w.client.Waiting(ctx)
	switch {
	case err != nil || !fill.HasFree(guardedBytes, guardedMsgs):
		return false, err
	case !hasRoom(fill, size, again):
		return true, errNoRoomToWait
	}
	return true, store(ctx, w.client)
}

// knownFill is how full the stream of waiting jobs was when the server was asked.
type knownFill struct {
	askedAt time.Time
	fill    bus.Fill
}

// knownFill returns how full the stream of waiting jobs is, or was a moment ago. Somebody may have set a limit since the last
// inspection, which is a minute ago in a worker that had no work, and the server would drop what is stored beyond it.
func (w *Worker) knownFill(ctx context.Context) (bus.Fill, error) {
	if known := w.waitingFill.Load(); known != nil && time.Since(known.askedAt) < fillValid {
		return known.fill, nil
	}
	// Thousands of jobs may have to wait at the same moment. They share one question, which none of them may end.
	answer := w.askingFill.DoChan("", func() (any, error) {
		now := knownFill{askedAt: time.Now()}
		fill, err := w.client.Waiting(context.WithoutCancel(ctx))
		// A user who may not ask stores jobs all the same.
		if err != nil && !errors.Is(err, bus.ErrPermission) {
			return fill, err
		}
		now.fill = fill
		w.waitingFill.Store(&now)
		return fill, nil
	})
	select {
	case <-ctx.Done():
		return bus.Fill{}, ctx.Err()
	case a := <-answer:
		return a.Val.(bus.Fill), a.Err
	}
}

// storeGuarded calls store with a client that stores a job of so many bytes only if the server has stored no other one since it
// was asked how full the stream is. Without that, jobs which several workers store at the same moment would not count for each
// other.
func (w *Worker) storeGuarded(ctx context.Context, size int64, again bool, store func(context.Context, *stream.Client) error) error {
	// One job of this worker at a time: they would only refuse one another.
	select {
	case w.storing <- struct{}{}:
		defer func() { <-w.storing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for try := range maxChanges {
		began := time.Now()
		fill, err := w.client.Waiting(ctx)
		if err != nil {
			return err
		}
		if !hasRoom(fill, size, again) {
			break
		}
		if err = store(ctx, w.client.IfUnchanged(fill.LastSeq)); !errors.Is(err, stream.ErrChanged) {
			return err
		}
		// Workers that all try again at once refuse one another: of a hundred workers, one try in forty stores a job. The pause is
		// random, and doubles with each try.
		sleep(ctx, rand.N(max(min(time.Since(began)<<min(try+1, 8), longestPause), 1)))
	}
	return errNoRoomToWait
}

// hasRoom reports whether a job of so many bytes can be scheduled, again if it was scheduled before, in a stream that is filled
// so.
func hasRoom(fill bus.Fill, size int64, again bool) bool {
	part := maxScheduledFresh
	if again {
		part = maxScheduledAgain
	}
	fill.Bytes, fill.Msgs = fill.Bytes+size, fill.Msgs+1
	return !fill.Above(part) && fill.HasFree(releaseRoom, 1)
}
